"""Reads image files."""

import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError

from hgtrain.data.media.bit_depth import BitDepth
from hgtrain.errors import DatasetError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
UNREADABLE_IMAGE = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    Image.DecompressionBombError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
)
"""What Pillow raises for a file that it cannot read, of a damaged header too."""
MODES = {1: ("L", "gray"), 3: ("RGB", "rgb24")}
"""Channels to Pillow's and FFmpeg's name of the layout."""

OTHER_ORDER = {"LA;16B": "RGBA"} | {
    f"{colours};16{order}": f"{colours};16{other}"
    for colours in ("RGB", "RGBA", "RGBX")
    for order, other in (("B", "L"), ("L", "B"), ("N", "B" if sys.byteorder == "little" else "L"))
}
"""Pillow's names of pixels of 16 bits in colour, to those of the other order of bytes."""

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


def read_image(file: str, channels: int, depth: BitDepth, page: int = 0) -> np.ndarray:
    """Return a page of an image file as `(H, W, channels)` uint8.

    It is turned as its EXIF data say, as viewers do.

    Args:
        file: The image file.
        channels: 1 or 3.
        depth: Of 16-bit images, whose upper 8 bits are taken.
        page: From 0, of TIFF and GIF files.

    Raises:
        DatasetError: It cannot be read.
    """
    with _opened(file, page) as image:
        # First: the orientation of a PNG is found by reading it all.
        deep = _sixteen_bits(file, image, page)
        turned = orientation(image)
        picture = image if deep is None else Image.fromarray(depth.upper_8(deep))
        picture = picture.transpose(UPRIGHT[turned]) if turned > 1 else picture
        pixels = np.asarray(picture.convert(MODES[channels][0]))
    return pixels.reshape(*pixels.shape[:2], channels)


def largest_value(file: str, page: int = 0) -> int:
    """Return the largest value of a 16-bit image, 0 for other images and what cannot be read."""
    try:
        with _opened(file, page) as image:
            deep = _sixteen_bits(file, image, page)
    except DatasetError:
        return 0
    return 0 if deep is None or not deep.size else int(deep.max())


@contextmanager
def _opened(file: str, page: int) -> Iterator[Image.Image]:
    """Give an image file at a page; DatasetError for what goes wrong while it is read."""
    try:
        # Not by its name: Pillow maps a file, and then turns an uncompressed TIFF that lies on its
        # side wrongly.
        with Path(file).open("rb") as data, Image.open(data) as image:
            if page:
                image.seek(page)
            yield image
    except UnidentifiedImageError as error:
        size = Path(file).stat().st_size
        raise DatasetError(f"{file}: is no image that can be read ({size} bytes)") from error
    except UNREADABLE_IMAGE as error:
        where = f"{file}: page {page}" if page else file
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DatasetError(f"{where}: cannot be read as an image: {reason}") from error


def _sixteen_bits(file: str, image: Image.Image, page: int) -> np.ndarray | None:
    """Return the pixels `(H, W)` or `(H, W, 3)` uint16 of an image, None if it has not 16 bits."""
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("I", "F"):
        raise DatasetError(f"{file}: has pixels of 32 bits, expected 8 or 16: save it with 8 bits")
    tiles = getattr(image, "tile", [])
    layout = _byte_order(tiles[0]) if tiles else ""
    if layout not in OTHER_ORDER:
        return None
    upper = np.asarray(image).astype(np.uint16)
    with _opened(file, page) as again:
        # Pillow has no colours of 16 bits, it reads the upper byte of each value alone: in the
        # other order of bytes that is the lower one.
        assert isinstance(again, ImageFile.ImageFile)
        again.tile = [_in_order(tile, OTHER_ORDER[layout]) for tile in again.tile]
        lower = np.asarray(again).astype(np.uint16)
    if layout == "LA;16B":
        # What was read as four colours are two bytes of grey and two of transparency.
        return lower[..., 0] << 8 | lower[..., 1]
    return (upper << 8 | lower)[..., :3]


def _byte_order(tile: tuple[Any, ...]) -> str:
    """Return Pillow's name of how the pixels of a tile are stored."""
    return str(tile[3] if isinstance(tile[3], str) else tile[3][0])


def _in_order(tile: tuple[Any, ...], layout: str) -> Any:
    codec, extents, offset, stored = tile
    args = layout if isinstance(stored, str) else (layout, *stored[1:])
    # A named tuple of Pillow's from version 11 on.
    again = (codec, extents, offset, args)
    return tile._make(again) if hasattr(tile, "_make") else again


def orientation(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 where it has none.

    It is 1 for TIFF files too, which Pillow turns itself.
    """
    if image.format == "TIFF":
        return 1
    try:
        found = image.getexif().get(EXIF_ORIENTATION, 1)
    except UNREADABLE_IMAGE:
        return 1
    return found if found in UPRIGHT else 1
