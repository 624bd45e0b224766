"""Images of SLEAP packages.

They are PNG or JPEG files or raw images in the datasets of several videos, decoded when read.
"""

from io import BytesIO
from typing import TYPE_CHECKING, NamedTuple

import h5py
import numpy as np

from hgtrain.data.formats.base import check_image_shape
from hgtrain.data.formats.stored_images import FilePlace, file_place, open_again
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import get_dataset, hdf5_path, read_array

if TYPE_CHECKING:
    from PIL import Image

CHANNELS = {"L": 1, "RGB": 3}

HEADER_CHECK_BYTES = 2**28
"""In larger files only the first image of each video is looked at when opening."""


class Crop(NamedTuple):
    """What a video shows of its stored images.

    It shows the columns left to right and the rows top to bottom, which may lie outside the image.
    """

    left: int
    top: int
    right: int
    bottom: int
    fill: int


class Video(NamedTuple):
    """Images of one video.

    Attributes:
        images: The dataset that holds them.
        rows: The row of each frame number.
        is_encoded: Whether each row is a PNG or JPEG file.
        is_bgr: Whether channels are stored in the order blue, green, red.
        crop: What the video shows of the images, None for all.
    """

    images: h5py.Dataset
    rows: dict[int, int]
    is_encoded: bool
    is_bgr: bool
    crop: Crop | None = None


Row = tuple[Video, int]


class PackageImages:
    """Images of the frames of a package, decoded when read.

    `at` `(N, 2)` int64 holds each frame's video and row.
    """

    frames_a_chunk = 1

    def __init__(self, videos: list[Video], at: np.ndarray, shape: tuple[int, int, int]) -> None:
        self._videos = videos
        self._at = at
        self.shape = shape

    def __reduce__(self) -> tuple:
        # The names tell all else but what a frame's number is, which the rows stand for.
        videos = [
            (video.images.name, video.is_encoded, video.is_bgr, video.crop)
            for video in self._videos
        ]
        return _package_again, (
            file_place(self._videos[0].images.file),
            videos,
            self._at,
            self.shape,
        )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8, colours as red, green, blue."""
        images = np.empty((len(rows), *self.shape), np.uint8)
        for index, row in enumerate(rows.tolist()):
            video, at = self._row(row)
            images[index] = _cropped(
                self._decode(row) if video.is_encoded else read_array(video.images, at), video.crop
            )
        return images

    def location(self, row: int) -> str:
        """Return file, HDF5 path and row, e.g. `flies.pkg.slp:/video0/video[12]`."""
        return _row_place(*self._row(row))

    def check_headers(self) -> None:
        """Check that all images have one shape.

        Raises:
            DatasetError: They do not; the message names the first two that differ.
        """
        all_headers = self._videos[0].images.file.id.get_filesize() <= HEADER_CHECK_BYTES
        seen: set[str] = set()
        for index in range(len(self._at)):
            video, row = self._row(index)
            if video.images.name not in seen or (all_headers and video.is_encoded):
                seen.add(video.images.name)
                self._check_shape(_shown_shape(_stored_shape(video, row), video.crop), index)

    def _row(self, index: int) -> Row:
        video, row = self._at[index].tolist()
        return self._videos[video], row

    def _check_shape(self, shape: tuple[int, int, int], index: int) -> None:
        if shape != self.shape:
            raise DatasetError(
                f"{self.location(index)} is {_size(shape)}, but {self.location(0)} is "
                f"{_size(self.shape)}: all images "
                "must agree (`hgtrain convert` brings them to one shape)"
            )

    def _decode(self, index: int) -> np.ndarray:
        video, row = self._row(index)
        with _image_file(video, row) as image:
            stored = _image_shape(image, video, row)
            self._check_shape(_shown_shape(stored, video.crop), index)
            try:
                pixels = np.asarray(image).reshape(stored)
            except (OSError, SyntaxError, ValueError) as error:
                raise DatasetError(f"{self.location(index)} cannot be decoded: {error}") from error
        return pixels[..., ::-1] if video.is_bgr else pixels


def package_images(rows: list[Row]) -> PackageImages:
    """Return the images of frames.

    Raises:
        DatasetError: They do not all have one shape.
    """
    # Which row a frame is was the caller's to find out.
    videos = list({video.images.name: video._replace(rows={}) for video, _ in rows}.values())
    numbers = {video.images.name: number for number, video in enumerate(videos)}
    at = np.array([(numbers[video.images.name], row) for video, row in rows], np.int64)
    images = PackageImages(videos, at, _shown_shape(_stored_shape(*rows[0]), rows[0][0].crop))
    images.check_headers()
    return images


def _package_again(
    where: FilePlace,
    videos: list[tuple[str, bool, bool, Crop | None]],
    at: np.ndarray,
    shape: tuple[int, int, int],
) -> PackageImages:
    file = open_again(where)
    again = [
        Video(
            get_dataset(file, name, "iuO", (1, 2, 4), "what was opened before"),
            {},
            is_encoded,
            is_bgr,
            crop,
        )
        for name, is_encoded, is_bgr, crop in videos
    ]
    return PackageImages(again, at, shape)


def _shown_shape(stored: tuple[int, int, int], crop: Crop | None) -> tuple[int, int, int]:
    return stored if crop is None else (crop.bottom - crop.top, crop.right - crop.left, stored[2])


def _cropped(pixels: np.ndarray, crop: Crop | None) -> np.ndarray:
    if crop is None:
        return pixels
    top, bottom = np.clip((crop.top, crop.bottom), 0, pixels.shape[0]).tolist()
    left, right = np.clip((crop.left, crop.right), 0, pixels.shape[1]).tolist()
    shown = np.full(_shown_shape(pixels.shape, crop), crop.fill, np.uint8)
    shown[top - crop.top : bottom - crop.top, left - crop.left : right - crop.left] = pixels[
        top:bottom, left:right
    ]
    return shown


def _row_place(video: Video, row: int) -> str:
    return f"{hdf5_path(video.images)}[{row}]"


def _size(shape: tuple[int, int, int]) -> str:
    plural = "s" if shape[2] > 1 else ""
    return f"{shape[0]} x {shape[1]} (height x width) with {shape[2]} channel{plural}"


def _stored_shape(video: Video, row: int) -> tuple[int, int, int]:
    """Return (H, W, C) of an image from its header.

    Raises:
        DatasetError: The attributes beside it give another shape.
    """
    if not video.is_encoded:
        return check_image_shape(video.images.shape, hdf5_path(video.images))
    with _image_file(video, row) as image:
        shape = _image_shape(image, video, row)
    for axis, name in enumerate(("height", "width", "channels")):
        declared = video.images.attrs.get(name, 0)
        # Videos whose size SLEAP did not know have 0 there.
        if np.ndim(declared) or declared not in (0, shape[axis]):
            raise DatasetError(
                f"{_row_place(video, row)} is {_size(shape)}, but the attribute {name} of "
                f"{hdf5_path(video.images)} is "
                f"{declared}"
            )
    return shape


def _image_file(video: Video, row: int) -> "Image.Image":
    """Return a PNG or JPEG image of which only the header was read."""
    from PIL import Image

    data = np.asarray(read_array(video.images, row)).tobytes()
    try:
        return Image.open(BytesIO(data), formats=("PNG", "JPEG"))
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise DatasetError(
            f"{_row_place(video, row)} is not a PNG or JPEG image that can be read: {error}"
        ) from error


def _image_shape(image: "Image.Image", video: Video, row: int) -> tuple[int, int, int]:
    if image.mode not in CHANNELS:
        raise DatasetError(
            f"{_row_place(video, row)} has pixels of mode {image.mode}, expected 8-bit grey or RGB"
        )
    return image.height, image.width, CHANNELS[image.mode]
