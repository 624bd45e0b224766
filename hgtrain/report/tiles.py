"""Frames of a report: cropped to the animal and small enough for a page.

Truth and predictions are drawn on them as vector shapes.
"""

import base64
from collections.abc import Sequence
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

MAX_SIDE_PX = 320
MARGIN = 0.2
MARK_MARGIN = 0.02
SMALLEST_CROP_PX = 48
JPEG_QUALITY = 80


PAIRED, MISSED, EXTRA = "", "missed", "extra"
"""What an animal is: labelled and found, labelled alone, or found alone."""

Points = list[tuple[float, float] | None]


class Animal(NamedTuple):
    """An animal of a frame.

    Attributes:
        truth: `(K, 2)` px, NaN where missing; a list for the page, None where missing.
        predicted: The same, also of no keypoint.
        mark: PAIRED, MISSED or EXTRA.
        box: Left, top, width, height around a marked one, px.
    """

    truth: Any
    predicted: Any
    mark: str = PAIRED
    box: tuple[float, float, float, float] | None = None


class Tile(NamedTuple):
    """An image as a data URI and where it lies.

    Coordinates are those of the frame.

    Attributes:
        uri: The image.
        box: Left, top, width, height in px of the frame, edges included.
        animals: Drawable.
        caption: For the template.
    """

    uri: str
    box: tuple[float, float, float, float]
    animals: list[Animal]
    caption: dict[str, Any]


def compared_tile(image: np.ndarray, animals: Sequence[Animal], caption: dict[str, Any]) -> Tile:
    """Return an image with animals, cropped to them.

    Args:
        image: `(H, W, C)` uint8.
        animals: Any number.
        caption: For the template.
    """
    points = [array for animal in animals for array in (animal.truth, animal.predicted)]
    left, top, right, bottom = crop_box(
        np.concatenate(points) if points else np.empty((0, 2)), image.shape[0], image.shape[1]
    )
    box = (left - 0.5, top - 0.5, float(right - left), float(bottom - top))
    drawable = [_drawable(animal, max(box[2:])) for animal in animals]
    return Tile(jpeg_uri(image[top:bottom, left:right], len(animals)), box, drawable, caption)


def whole_tile(image: np.ndarray, points: np.ndarray) -> Tile:
    """Return a whole image `(H, W, C)` uint8 with animals `(I, K, 2)` px."""
    return Tile(
        jpeg_uri(image, len(points)),
        (-0.5, -0.5, float(image.shape[1]), float(image.shape[0])),
        [Animal(_points(animal), []) for animal in points],
        {},
    )


def _drawable(animal: Animal, side: float) -> Animal:
    """Return an animal for the page, in a tile of `side` px."""
    marked, box = np.concatenate([animal.truth, animal.predicted]), None
    if animal.mark != PAIRED:
        margin = MARK_MARGIN * side
        low, high = np.nanmin(marked, 0) - margin, np.nanmax(marked, 0) + margin
        left, top, width, height = (round(float(v), 2) for v in (*low, *(high - low)))
        box = left, top, width, height
    return Animal(_points(animal.truth), _points(animal.predicted), animal.mark, box)


def crop_box(points: np.ndarray, height: int, width: int) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of a square around points, cut to the image.

    The square has a margin. It is the whole image where no point is finite.

    Args:
        points: `(n, 2)` px.
        height: Of the image, px.
        width: The same.
    """
    finite = points[np.isfinite(points).all(-1)]
    if not len(finite):
        return 0, 0, width, height
    low, high = finite.min(0), finite.max(0)
    side = max(float((high - low).max()) * (1 + 2 * MARGIN), SMALLEST_CROP_PX)
    centre = (low + high) / 2
    sides = []
    for middle, length in ((centre[0], width), (centre[1], height)):
        extent = min(int(np.ceil(side)), length)
        start = int(np.clip(round(float(middle) + 0.5 - extent / 2), 0, length - extent))
        sides.append((start, start + extent))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def jpeg_uri(image: np.ndarray, animals: int = 1) -> str:
    """Return an image `(H, W, C)` uint8 as a data URI, at most MAX_SIDE_PX on a side.

    It may be half as large again where it shows several animals.
    """
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    scale = (MAX_SIDE_PX if animals <= 1 else MAX_SIDE_PX * 3 // 2) / max(picture.size)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _points(points: np.ndarray) -> Points:
    return [
        (round(float(x), 2), round(float(y), 2)) if np.isfinite(x) and np.isfinite(y) else None
        for x, y in points
    ]
