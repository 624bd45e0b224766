"""Images to predict, from datasets, image files, folders of them and videos; read in order, one after another.

Videos are decoded by PyAV: it gives frames as arrays in this process and raises where a file is broken, while
imageio-ffmpeg reads a pipe from a second process, which ends early without a reason.
"""

import re
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from hgtrain.data import deepposekit, native
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.hdf5 import is_hdf5
from hgtrain.data.source import BUILTIN
from hgtrain.errors import DatasetError
from hgtrain.trial import open_dataset

if TYPE_CHECKING:
    import av

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
UNREADABLE_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""
READ_AT_ONCE = 32
MODES = {1: ("L", "gray"), 3: ("RGB", "rgb24")}
"""Channels to Pillow's and FFmpeg's name of the layout."""


class Place(NamedTuple):
    """Where a frame lies: a file, and the frame's number in it."""

    file: str
    number: int


class FrameSource(Protocol):
    """Images in order. Iterating gives `(H, W, C)` uint8 and raises DatasetError where the source breaks.

    path: as the user gave it. kind: dataset, images or video. files: one, or one for each image. count: of frames, an
    estimate for videos, 0 where unknown. shape: `(count, H, W, C)` of the first image, None where that cannot be read.
    channels: of the images. rate: frames per second, None where there is none.
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


def open_frames(path: str, channels: int) -> FrameSource:
    """Return the images behind a path, recognised by content; images and videos are read with `channels`, 1 or 3.

    A dataset has the channels it has. Raises DatasetError for what is none of these or cannot be opened.
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
    return VideoFrames(path, channels)


def images_in(folder: Path) -> list[Path]:
    """Return the image files of a folder, numbers in names in their order: img2 before img10; DatasetError for none."""
    images = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise DatasetError(f"{folder}: has no image files, expected {', '.join(IMAGE_SUFFIXES)}")
    return sorted(images, key=lambda path: [(int(n or 0), text) for n, text in re.findall(r"(\d*)(\D*)", path.name)])


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

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, self.count, READ_AT_ONCE):
            yield from self.dataset.read_images(range(start, min(start + READ_AT_ONCE, self.count)))

    @property
    def are_at_images(self) -> bool:
        """Return whether the frames are the rows of /images in the file, as they are."""
        return self.dataset.format in (native.FORMAT, deepposekit.FORMAT)

    def place(self, index: int) -> Place:
        """Return the file and the row."""
        return Place(self.files[0], index)

    def close(self) -> None:
        """Close the file."""
        self.dataset.close()


class ImageFrames:
    """Image files, which may differ in size; of TIFF files all pages."""

    kind = "images"
    rate: float | None = None

    def __init__(self, path: str, images: list[Path], channels: int) -> None:
        self.path = path
        self._places = [Place(str(file), page) for file in images for page in range(page_count(file))]
        self.files = tuple(place.file for place in self._places)
        self.count = len(self._places)
        self.channels = channels
        size = image_size(self.files[0])
        self.shape = None if size is None else (self.count, size[1], size[0], channels)

    def __iter__(self) -> Iterator[np.ndarray]:
        for place in self._places:
            yield read_image(place.file, self.channels, place.number)

    def place(self, index: int) -> Place:
        """Return the image file and the page, 0 but for TIFF files of several."""
        return self._places[index]

    def close(self) -> None:
        """Do nothing: no file stays open."""


def image_size(file: str) -> tuple[int, int] | None:
    """Return width and height of an image file from its header, None when it has none that can be read."""
    try:
        with Image.open(file) as image:
            return image.size
    except UNREADABLE_IMAGE:
        return None


def page_count(file: Path) -> int:
    """Return the number of pages of a TIFF file, 1 for every other and where it cannot be read."""
    if file.suffix.lower() not in (".tif", ".tiff"):
        return 1
    try:
        with Image.open(file) as image:
            return int(getattr(image, "n_frames", 1))
    except UNREADABLE_IMAGE:
        return 1


def read_image(file: str, channels: int, page: int = 0) -> np.ndarray:
    """Return a page of an image file as `(H, W, channels)` uint8; DatasetError when it cannot be read.

    Of 16 bits the upper 8 are taken.
    """
    try:
        with Image.open(file) as image:
            if page:
                image.seek(page)
            pixels = _eight_bits(file, image, channels)
    except UnidentifiedImageError as error:
        size = Path(file).stat().st_size
        raise DatasetError(f"{file}: is no image that can be read ({size} bytes)") from error
    except UNREADABLE_IMAGE as error:
        raise DatasetError(f"{file}: cannot be read as an image: {error}") from error
    return pixels.reshape(*pixels.shape[:2], channels)


def _eight_bits(file: str, image: Image.Image, channels: int) -> np.ndarray:
    # Pillow cuts off what is above 255 instead: nearly everything.
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return np.repeat(grey[..., None], channels, axis=-1)
    if image.mode in ("I", "F"):
        raise DatasetError(f"{file}: has pixels of 32 bits, expected 8 or 16: save it with 8 bits")
    return np.asarray(image.convert(MODES[channels][0]))


class VideoFrames:
    """The frames of a video's first video stream, in the order they are shown in."""

    kind = "video"

    def __init__(self, path: str, channels: int) -> None:
        self.path = path
        self.files: tuple[str, ...] = (path,)
        self.channels = channels
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            self.rate = float(stream.average_rate or 0) or None
            seconds = (container.duration or 0) / 1e6
            self.count = stream.frames or round(seconds * (self.rate or 0))
            self.shape: tuple[int, int, int, int] | None = (self.count, stream.height, stream.width, channels)

    def _open(self) -> "av.container.InputContainer":
        import av

        try:
            container = av.open(self.path)
        except (av.FFmpegError, OSError) as error:
            raise DatasetError(
                f"{self.path}: is no video that can be read ({reason(error)}), expected a video, an image, a folder of "
                "images or an HDF5 dataset"
            ) from error
        if not container.streams.video:
            container.close()
            raise DatasetError(f"{self.path}: has no video stream")
        return container

    def __iter__(self) -> Generator[np.ndarray, None, None]:
        import av

        packets = frames = 0
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            try:
                for packet in container.demux(stream):
                    packets += packet.size > 0
                    for frame in packet.decode():
                        pixels = frame.to_ndarray(format=MODES[self.channels][1])
                        yield pixels.reshape(*pixels.shape[:2], self.channels)
                        frames += 1
            except av.FFmpegError as error:
                raise DatasetError(f"{self.path}: breaks after frame {frames - 1}: {reason(error)}") from error
            # Packets and not frames: an edit list may tell the decoder to leave frames out.
            if packets < stream.frames:
                raise DatasetError(
                    f"{self.path}: ends after {frames} frames, its header promises {stream.frames}: the file is cut off"
                )

    def place(self, index: int) -> Place:
        """Return the video and the frame's number."""
        return Place(self.path, index)

    def close(self) -> None:
        """Do nothing: the video is open only while it is read."""


def reason(error: Exception) -> str:
    """Return why FFmpeg gave up, without its numbers."""
    return str(getattr(error, "strerror", None) or error)


def batches(images: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Give the images `(n, H, W, C)` in order, n at most `size`; an image of another shape begins a new batch.

    What was read before an error is given before the error is raised.
    """
    batch: list[np.ndarray] = []
    try:
        for image in images:
            if len(batch) == size or (batch and image.shape != batch[0].shape):
                yield np.stack(batch)
                batch = []
            batch.append(image)
    except DatasetError:
        if batch:
            yield np.stack(batch)
        raise
    if batch:
        yield np.stack(batch)
