"""Images to predict, from datasets, image files, folders of them and videos.

They are read in order, one after another. Videos are decoded by PyAV: it gives frames as arrays in
this process and raises where a file is broken, while imageio-ffmpeg reads a pipe from a second
process, which ends early without a reason.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hgtrain.data.builtin_datasets import BUILTIN
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.formats import deepposekit, hgtrain_format
from hgtrain.data.media.bit_depth import BitDepth
from hgtrain.data.media.frame_source import FrameSource, Image, Place
from hgtrain.data.media.image_files import (
    IMAGE_SUFFIXES,
    image_size,
    largest_value,
    page_count,
    read_image,
)
from hgtrain.data.media.video import VideoFrames
from hgtrain.data.sandbox.open import open_dataset
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import is_hdf5

READ_AT_ONCE = 32


def open_frames(path: str, channels: int) -> FrameSource:
    """Return the images behind a path, recognised by content.

    Args:
        path: Of a dataset, an image, a folder of images or a video.
        channels: 1 or 3, with which images and videos are read; a dataset has the channels it has.

    Raises:
        DatasetError: It is none of these or cannot be opened.
    """
    if path.startswith(BUILTIN):
        return DatasetFrames(path)
    try:
        if Path(path).is_dir():
            return ImageFrames(path, images_in(Path(path)), channels)
        with Path(path).open("rb"):
            pass
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read: {error.strerror}") from error
    if is_hdf5(path):
        return DatasetFrames(path)
    if Path(path).suffix.lower() in IMAGE_SUFFIXES:
        return ImageFrames(path, [Path(path)], channels)
    video = VideoFrames(path, channels)
    # Of a GIF whose frames have no delays FFmpeg reads the first alone.
    return video if video.is_timed else ImageFrames(path, [Path(path)], channels)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, numbers in names in their order: img2 before img10.

    Raises:
        DatasetError: There are none.
    """
    # macOS puts what a foreign disk cannot keep of an image into a file of its name behind "._".
    files = [path for path in folder.iterdir() if not path.name.startswith("._")]
    images = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DatasetError(f"{folder}: has no image files, expected {', '.join(IMAGE_SUFFIXES)}")
    return sorted(
        images,
        key=lambda path: [(int(n or 0), text) for n, text in re.findall(r"(\d*)(\D*)", path.name)],
    )


class DatasetFrames:
    """The images of a dataset."""

    kind = "dataset"
    rate: float | None = None

    def __init__(self, path: str) -> None:
        self.dataset: PoseDataset = open_dataset(path)
        self.path = path
        self.files: tuple[str, ...] = (self.dataset.path,)
        self.count = len(self.dataset)
        self.channels = self.dataset.image_shape[2]
        self.shape: tuple[int, int, int, int] | None = (self.count, *self.dataset.image_shape)

    def __iter__(self) -> Iterator[Image]:
        for start in range(0, self.count, READ_AT_ONCE):
            rows = range(start, min(start + READ_AT_ONCE, self.count))
            try:
                yield from self.dataset.read_images(rows)
            except DatasetError:
                yield from map(self._one, rows)

    def _one(self, row: int) -> Image:
        try:
            return self.dataset.read_images([row])[0]
        except DatasetError as error:
            return error

    @property
    def are_at_images(self) -> bool:
        """Return whether the frames are the rows of /images in the file, as they are."""
        return self.dataset.format in (hgtrain_format.FORMAT, deepposekit.FORMAT)

    def place(self, index: int) -> Place:
        """Return the file and the row."""
        return Place(self.files[0], index)

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()


class ImageFrames:
    """Image files, which may differ in size; of TIFF and GIF files all pages."""

    kind = "images"
    rate: float | None = None

    def __init__(self, path: str, images: list[Path], channels: int) -> None:
        self.path = path
        self._places = [
            Place(str(file), page) for file in images for page in range(page_count(file))
        ]
        self.files = tuple(place.file for place in self._places)
        self.count = len(self._places)
        self.channels = channels
        size = image_size(self.files[0])
        self.shape = None if size is None else (self.count, size[1], size[0], channels)
        self._depth = BitDepth(path, self.count, self._largest_values)

    def __iter__(self) -> Iterator[Image]:
        for place in self._places:
            try:
                yield read_image(place.file, self.channels, self._depth, place.number)
            except DatasetError as error:
                yield error

    def _largest_values(self) -> Iterator[int]:
        return (largest_value(place.file, place.number) for place in self._places)

    def place(self, index: int) -> Place:
        """Return the image file and the page, 0 but for TIFF and GIF files of several."""
        return self._places[index]

    def close(self) -> None:
        """Do nothing: no file stays open."""


class Batch(NamedTuple):
    """Frames that follow one another.

    Attributes:
        images: `(n, H, W, C)` uint8, black where a frame cannot be read.
        damaged: The place in `images` of each such frame, to the error that names it.
    """

    images: np.ndarray
    damaged: dict[int, DatasetError]


def batches(images: Iterable[Image], size: int) -> Iterator[Batch]:
    """Give the images in order, `size` at a time.

    An image of another shape begins a new batch. What was read before an error is given before the
    error is raised.

    Raises:
        DatasetError: The source ends too early, or none of its frames can be read.
    """
    waiting: list[Image] = []
    shape: tuple[int, ...] | None = None
    try:
        for image in images:
            if not isinstance(image, DatasetError):
                if shape not in (None, image.shape):
                    yield from _stacked(waiting, shape, size)
                    waiting = []
                shape = image.shape
            waiting.append(image)
            while shape is not None and len(waiting) >= size:
                yield from _stacked(waiting[:size], shape, size)
                waiting = waiting[size:]
    except DatasetError:
        yield from _stacked(waiting, shape, size)
        raise
    if shape is None and waiting:
        first = next(image for image in waiting if isinstance(image, DatasetError))
        raise (
            first
            if len(waiting) == 1
            else DatasetError(f"none of {len(waiting)} frames can be read, the first: {first}")
        )
    yield from _stacked(waiting, shape, size)


def _stacked(images: list[Image], shape: tuple[int, ...] | None, size: int) -> Iterator[Batch]:
    for start in range(0, len(images) if shape else 0, size):
        part = images[start : start + size]
        damaged = {i: image for i, image in enumerate(part) if isinstance(image, DatasetError)}
        filled = [
            np.zeros(shape or (), np.uint8) if isinstance(image, DatasetError) else image
            for image in part
        ]
        yield Batch(np.stack(filled), damaged)
