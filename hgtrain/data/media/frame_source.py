"""What every source of frames offers, be it a video, images or a dataset."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np

from hgtrain.errors import DatasetError

Image = np.ndarray | DatasetError
"""`(H, W, C)` uint8, or for a frame that cannot be read the error that names file and frame."""


class Place(NamedTuple):
    """Where a frame lies: a file, and the frame's number in it."""

    file: str
    number: int


class FrameSource(Protocol):
    """Images in order.

    Iterating gives an `Image` for each frame, damaged or not, and raises DatasetError where the
    source ends too early.

    Attributes:
        path: As the user gave it.
        kind: `dataset`, `images` or `video`.
        files: One, or one for each image.
        count: Number of frames, an estimate for videos, 0 where unknown.
        shape: `(count, H, W, C)` of the first image, None where that cannot be read.
        channels: Of the images.
        rate: Frames per second, None where there is none.
    """

    path: str
    kind: str
    files: tuple[str, ...]
    count: int
    shape: tuple[int, int, int, int] | None
    channels: int
    rate: float | None

    def __iter__(self) -> Iterator[Image]:
        """Read the images from the first on."""
        ...

    def place(self, index: int) -> Place:
        """Return where the frame of this index lies."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...
