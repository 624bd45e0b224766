"""Images of HDF5 datasets, read frame by frame.

Pickling keeps only where they lie; they are opened again elsewhere.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple

import h5py
import numpy as np

from hgtrain.data.dataset import ImageSource
from hgtrain.data.formats.base import check_image_shape
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import chunk_bytes, get_dataset, hdf5_path, open_for_dataset, read_array

SMALL_CHUNK_BYTES = 2**20
"""Up to this HDF5 keeps the last chunks as it is."""

KEPT_CHUNK_BYTES = 2**26

INDEX_BYTES = 2**24
"""What HDF5 may keep of its index of chunks, as it counts; it takes six times that. Enough for
200,000 frames, where its own choice of 2 MiB is not; of more frames it reads parts of the index
again."""


class FilePlace(NamedTuple):
    """An open file, to be opened again in another process."""

    path: str
    device: int
    inode: int


def file_place(file: h5py.File) -> FilePlace:
    """Return where an open file lies."""
    stat = os.fstat(file.id.get_vfd_handle())
    return FilePlace(file.filename, stat.st_dev, stat.st_ino)


def open_again(where: FilePlace) -> h5py.File:
    """Return the file opened again.

    Raises:
        DatasetError: It cannot be opened, or another has taken its place.
    """
    with open_for_dataset(where.path) as file:
        if file_place(file) != where:
            raise DatasetError(f"{where.path} was replaced while it was being opened: start again")
        settings = file.id.get_mdc_config()
        settings.set_initial_size, settings.initial_size, settings.max_size = (
            True,
            INDEX_BYTES,
            INDEX_BYTES,
        )
        file.id.set_mdc_config(settings)
        return file


def stored_images(group: h5py.Group, path: str) -> "StoredImages":
    """Return the images of a dataset `(N, H, W, 1 or 3)` uint8.

    Raises:
        DatasetError: The dataset is anything else.
    """
    layout = "(frames, height, width, 1 or 3) uint8"
    dataset = get_dataset(group, path, "fiu", (4,), layout, may_be_sparse=True)
    if dataset.dtype != np.uint8:
        raise DatasetError(
            f"{hdf5_path(dataset)} is {dataset.dtype}, expected uint8: scale the images to 0..255"
        )
    return StoredImages(dataset, check_image_shape(dataset.shape, hdf5_path(dataset)))


def _as_stored(block: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return block


Convert = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""Makes `(n, H, W, C)` uint8 of what is stored of n rows, and the rows `(n,)`."""


class StoredImages:
    """Images of one array dataset, a frame a row.

    The dataset it is made from may be closed and opened again: use the attribute.
    """

    def __init__(
        self, dataset: h5py.Dataset, shape: tuple[int, int, int], convert: Convert = _as_stored
    ) -> None:
        self.shape = shape
        # A chunk that is not packed is read in parts.
        is_packed = dataset.id.get_create_plist().get_nfilters() > 0
        self.frames_a_chunk: int = dataset.chunks[0] if is_packed else 1
        self.dataset = _with_chunk_kept(dataset) if self.frames_a_chunk > 1 else dataset
        self._convert = convert
        self._place = hdf5_path(self.dataset)

    def __reduce__(self) -> tuple:
        return _stored_again, (
            file_place(self.dataset.file),
            self.dataset.name,
            self.shape,
            self._convert,
        )

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8.

        Neighbouring rows, and those of a packed chunk, are read in one piece.
        """
        images = np.empty((len(rows), *self.shape), np.uint8)
        steps = np.diff(rows // self.frames_a_chunk)
        apart = steps != (0 if self.frames_a_chunk > 1 else 1)
        # A fancy index makes HDF5 build a selection row by row; slices are much faster.
        for part in np.split(np.arange(len(rows)), np.flatnonzero(apart) + 1):
            if len(part):
                wanted = rows[part]
                block = read_array(self.dataset, slice(int(wanted[0]), int(wanted[-1]) + 1))
                images[part] = self._convert(
                    block if len(block) == len(wanted) else block[wanted - wanted[0]], wanted
                )
        return images

    def location(self, row: int) -> str:
        """Return file, HDF5 path and row, e.g. `flies.h5:/images[12]`."""
        return f"{self._place}[{row}]"


def _with_chunk_kept(dataset: h5py.Dataset) -> h5py.Dataset:
    """Return the dataset opened again with a cache for one chunk.

    This is done where HDF5's own cache is too small for it. Without it a chunk of many frames would
    be unpacked again for each call.
    """
    size = chunk_bytes(dataset)
    if not SMALL_CHUNK_BYTES < size <= KEPT_CHUNK_BYTES:
        return dataset
    file, name = dataset.file, dataset.name
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(521, size, 1.0)
    # While it is open a second opening shares the first one's cache.
    h5py.h5i.dec_ref(dataset.id)
    return h5py.Dataset(h5py.h5d.open(file.id, name.encode(), access))


def _stored_again(
    where: FilePlace, name: str, shape: tuple[int, int, int], convert: Convert
) -> StoredImages:
    dataset = get_dataset(
        open_again(where), name, "fiu", (4,), "what was opened before", may_be_sparse=True
    )
    return StoredImages(dataset, shape, convert)


class ConcatenatedImages:
    """Images of several sources, one after another; `counts` are their lengths."""

    def __init__(self, parts: Sequence[ImageSource], counts: Sequence[int]) -> None:
        self._parts = tuple(parts)
        self._starts = np.cumsum([0, *counts])
        self.shape = parts[0].shape
        self.frames_a_chunk = max(part.frames_a_chunk for part in parts)

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8 of rows that rise and differ."""
        cuts = np.searchsorted(rows, self._starts)
        found = [
            part.read(rows[first:last] - start)
            for part, start, first, last in zip(
                self._parts, self._starts[:-1], cuts[:-1], cuts[1:], strict=True
            )
            if last > first
        ]
        return np.concatenate(found) if found else np.empty((0, *self.shape), np.uint8)

    def location(self, row: int) -> str:
        """Return file, HDF5 path and row."""
        part = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self._parts[part].location(row - int(self._starts[part]))
