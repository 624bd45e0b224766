"""Keypoints drawn over images, for people to look at."""

import numpy as np
from PIL import Image, ImageDraw

TRUTH_COLOUR, PREDICTED_COLOUR = (80, 220, 100), (255, 80, 80)


def overlay(
    image: np.ndarray, truth: np.ndarray | None, predicted: np.ndarray, zoom: int = 2
) -> np.ndarray:
    """Return the image with truth as green rings and predictions as red crosses.

    Args:
        image: `(H, W, C)` uint8, C 1 or 3.
        truth: `(..., 2)` px; NaN is not drawn.
        predicted: `(..., 2)` px; NaN is not drawn.
        zoom: Factor by which the picture is larger than the image.

    Returns:
        `(zoom * H, zoom * W, 3)` uint8.
    """
    grey_as_colour = np.broadcast_to(image, (*image.shape[:2], 3))
    picture = Image.fromarray(np.ascontiguousarray(grey_as_colour))
    picture = picture.resize(
        (picture.width * zoom, picture.height * zoom), Image.Resampling.BILINEAR
    )
    pen = ImageDraw.Draw(picture)
    for x, y in [] if truth is None else _drawable(truth, zoom):
        pen.ellipse((x - 4, y - 4, x + 4, y + 4), outline=TRUTH_COLOUR)
    for x, y in _drawable(predicted, zoom):
        pen.line((x - 3, y, x + 3, y), fill=PREDICTED_COLOUR)
        pen.line((x, y - 3, x, y + 3), fill=PREDICTED_COLOUR)
    return np.asarray(picture)


def _drawable(points: np.ndarray, zoom: int) -> list[tuple[float, float]]:
    finite = points[np.isfinite(points).all(-1)]
    return [(float(x), float(y)) for x, y in (finite + 0.5) * zoom - 0.5]
