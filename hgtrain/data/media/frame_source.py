"""What every source of frames offers, be it a video, images or a dataset."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import numpy as np


class Place(NamedTuple):
    """Where a frame lies: a file, and the frame's number in it."""

    file: str
    number: int


class FrameSource(Protocol):
    """Images in order.

    Iterating gives `(H, W, C)` uint8 and raises DatasetError where the source breaks.

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

    def __iter__(self) -> Iterator[np.ndarray]:
        """Read the images from the first on."""
        ...

    def place(self, index: int) -> Place:
        """Return where the frame of this index lies."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...
