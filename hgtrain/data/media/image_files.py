"""Reads image files."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from hgtrain.errors import DatasetError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
UNREADABLE_IMAGE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for a file that it cannot read."""
MODES = {1: ("L", "gray"), 3: ("RGB", "rgb24")}
"""Channels to Pillow's and FFmpeg's name of the layout."""

EXIF_ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes the picture of the stored pixels, by EXIF orientation; 1 is as stored."""


def image_size(file: str) -> tuple[int, int] | None:
    """Return width and height of an image file as viewers show it.

    None stands for a file without a header that can be read.
    """
    try:
        with Image.open(file) as image:
            return image.size if orientation(image) < 5 else image.size[::-1]
    except UNREADABLE_IMAGE:
        return None


def page_count(file: Path) -> int:
    """Return the number of pages of a TIFF or GIF file.

    It is 1 for every other file, and where it cannot be read.
    """
    if file.suffix.lower() in (".png", ".jpg", ".jpeg", ".bmp"):
        return 1
    try:
        with Image.open(file) as image:
            return int(getattr(image, "n_frames", 1))
    except UNREADABLE_IMAGE:
        return 1


def read_image(file: str, channels: int, page: int = 0) -> np.ndarray:
    """Return a page of an image file as `(H, W, channels)` uint8.

    It is turned as its EXIF data say, as viewers do. Of 16 bits the upper 8 are taken.

    Raises:
        DatasetError: It cannot be read.
    """
    try:
        # Not by its name: Pillow maps a file, and then turns an uncompressed TIFF that lies on its
        # side wrongly.
        with Path(file).open("rb") as data, Image.open(data) as image:
            if page:
                image.seek(page)
            turned = orientation(image)
            picture = image.transpose(UPRIGHT[turned]) if turned > 1 else image
            pixels = _eight_bits(file, picture, channels)
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


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 where it has none.

    It is 1 for TIFF files too, which Pillow turns itself.
    """
    if image.format == "TIFF":
        return 1
    try:
        found = image.getexif().get(EXIF_ORIENTATION, 1)
    except (*UNREADABLE_IMAGE, KeyError, TypeError, struct.error):
        return 1
    return found if found in UPRIGHT else 1
