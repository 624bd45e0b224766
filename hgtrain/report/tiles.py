"""Frames of a report: cropped to the animal and small enough for a page.

Truth and predictions are drawn on them as vector shapes.
"""

import base64
from io import BytesIO
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

MAX_SIDE_PX = 320
MARGIN = 0.2
SMALLEST_CROP_PX = 48
JPEG_QUALITY = 80


class Tile(NamedTuple):
    """An image as a data URI and where it lies.

    Coordinates are those of the frame.

    Attributes:
        uri: The image.
        box: Left, top, width, height in px of the frame, edges included.
        truth: Drawable points, by keypoint; None where missing.
        predicted: The same.
        caption: For the template.
    """

    uri: str
    box: tuple[float, float, float, float]
    truth: list[tuple[float, float] | None]
    predicted: list[tuple[float, float] | None]
    caption: dict[str, Any]


def compared_tile(
    image: np.ndarray, truth: np.ndarray, predicted: np.ndarray, caption: dict[str, Any]
) -> Tile:
    """Return an image with points, cropped to them.

    Args:
        image: `(H, W, C)` uint8.
        truth: `(K, 2)` px.
        predicted: `(K, 2)` px.
        caption: For the template.
    """
    left, top, right, bottom = crop_box(
        np.concatenate([truth, predicted]), image.shape[0], image.shape[1]
    )
    box = (left - 0.5, top - 0.5, float(right - left), float(bottom - top))
    return Tile(
        jpeg_uri(image[top:bottom, left:right]), box, _points(truth), _points(predicted), caption
    )


def whole_tile(image: np.ndarray, points: np.ndarray) -> Tile:
    """Return a whole image `(H, W, C)` uint8 with points `(K, 2)` px."""
    return Tile(
        jpeg_uri(image),
        (-0.5, -0.5, float(image.shape[1]), float(image.shape[0])),
        _points(points),
        [],
        {},
    )


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


def jpeg_uri(image: np.ndarray) -> str:
    """Return an image `(H, W, C)` uint8 as a data URI, at most MAX_SIDE_PX on a side."""
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    scale = MAX_SIDE_PX / max(picture.size)
    if scale < 1:
        size = [max(1, round(side * scale)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def _points(points: np.ndarray) -> list[tuple[float, float] | None]:
    return [
        (round(float(x), 2), round(float(y), 2)) if np.isfinite(x) and np.isfinite(y) else None
        for x, y in points
    ]
