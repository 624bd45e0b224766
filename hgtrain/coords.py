"""Pixel coordinates: where a point lies after an image was resized, padded or turned into cells.

Cells are those of a grid. Pixel centres are at integers, so a pixel covers `[i - 0.5, i + 0.5]` and
an image of width W spans `[-0.5, W - 0.5]`. Every function is arithmetic only and takes NumPy
arrays, tensors and numbers alike; NaN stays NaN.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

# Less content than this, in pixels, does not deserve a row of its own.
NEGLIGIBLE_PX = 0.01


def resized_points(points: Any, scale: float) -> Any:
    """Return where points lie after the image was resized by `scale`.

    The formula is `(p + 0.5) * scale - 0.5`, in pixels.
    """
    return (points + 0.5) * scale - 0.5


def original_points(points: Any, scale: float) -> Any:
    """Return the inverse of `resized_points`, in pixels of the image before it was resized."""
    return (points + 0.5) / scale - 0.5


def resized_length(length: int, scale: float) -> int:
    """Return the pixels needed for a side of `length` pixels resized by `scale`; at least 1."""
    # In single precision, as a graph for images of any size computes it: the two must not differ by
    # a row.
    return max(1, math.ceil(np.float32(length) * np.float32(scale) - np.float32(NEGLIGIBLE_PX)))


def padded_length(length: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is not below `length`."""
    return -(-length // multiple) * multiple


class Crop(NamedTuple):
    """The square around each animal that a network sees instead of the whole image.

    Attributes:
        size_px: Its side, in px of the network's input.
        jitter: Standard deviation of the crop's place in training, a fraction of the side: where
            the crop is cut later, its centre is as wrong as what found it.
        centroids: Gives the middle `(..., 2)` px of animals with points `(..., K, 2)`, as tensors.
    """

    size_px: int
    jitter: float
    centroids: Callable[[Any], Any]

    def corners(self, centroids: Any) -> Any:
        """Return the top left pixel `(..., 2)` of crops around these places, not rounded.

        Pixel i of the crop is pixel `corner + i` of the image.
        """
        return centroids - (self.size_px - 1) / 2


def cells_to_pixels(cells: Any, stride: int) -> Any:
    """Return the pixel position of confidence-map cells.

    Cell i sits at pixel `i * stride`, as in the reference.
    """
    return cells * stride


def crop_corners(centroids: Any, size: int) -> Any:
    """Return the pixels at the top left of crops of `size` by `size` px around centroids.

    They are whole, `floor(centroid - (size - 1) / 2 + 0.5)`: a crop is a copy of pixels, and a
    point of the image lies at the point minus the corner in the crop, exactly.
    """
    # Division without rest is the floor that arrays and tensors both have.
    return (centroids - (size - 1) / 2 + 0.5) // 1


class Turn(NamedTuple):
    """How an image is turned by quarters and mirrored.

    Rows and columns change places first, then columns go from right to left, or rows from the
    bottom to the top.

    Attributes:
        transposes: Whether rows and columns change places.
        mirrors_x: Whether columns go from right to left.
        mirrors_y: Whether rows go from the bottom to the top.
    """

    transposes: bool = False
    mirrors_x: bool = False
    mirrors_y: bool = False

    @property
    def is_mirrored(self) -> bool:
        """Return whether left and right are exchanged: it is no rotation."""
        return (self.transposes + self.mirrors_x + self.mirrors_y) % 2 == 1

    def component(self, axis: int) -> tuple[int, int]:
        """Return which component of a vector in the turned image is one of it in the image.

        Args:
            axis: 0 for x, 1 for y.

        Returns:
            The axis in the turned image, and the factor, 1 or -1.
        """
        source = axis ^ self.transposes
        return source, -1 if (self.mirrors_x, self.mirrors_y)[source] else 1
