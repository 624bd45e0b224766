"""Read everything in an HDF5 file once, in a separate process.

This comes before what knows more of the file reads it in this process.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from typing import Any

import h5py

from hgtrain.data.sandbox.process import Sandbox, answer_with, begin_with, step_done
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import check_table, hdf5_errors_as_dataset_error, open_hdf5

SECONDS = 2.0
"""Wall time for the values of a file.

All of its names and attributes are read whatever that takes.
"""

BLOCK_BYTES = 2**24


def probe_hdf5(path: str) -> None:
    """Read a file in another process to see whether that takes it down.

    Parts that cannot be read do not matter here.

    Raises:
        DatasetError: Reading the file takes the other process down.
    """
    Sandbox(__name__, [path]).answer()


def read_everything(paths: Sequence[str]) -> dict[str, Any]:
    """Read the names, attributes and values of some files.

    Raises:
        DatasetError: One of them is no HDF5 file.
    """
    for path in paths:
        begin_with(path)
        end = time.monotonic() + SECONDS
        with closing(open_hdf5(path)) as file:
            for item in _items(file):
                _read_attributes(item)
                step_done()
                if isinstance(item, h5py.Dataset):
                    check_table(item)
                    with suppress(DatasetError), hdf5_errors_as_dataset_error(path):
                        _read_values(item, end)
    return {}


def _items(file: h5py.File) -> Iterator[h5py.Group | h5py.Dataset]:
    """Give what the file itself holds, each once, however many ways lead to it."""
    waiting: list[h5py.Group | h5py.Dataset] = [file]
    seen: set[int] = set()
    while waiting:
        item = waiting.pop()
        yield item
        names: list[str] = []
        if isinstance(item, h5py.Group):
            with suppress(DatasetError), hdf5_errors_as_dataset_error(file.filename):
                names = list(item)
        for name in names:
            with suppress(DatasetError), hdf5_errors_as_dataset_error(file.filename):
                if isinstance(item.get(name, getlink=True), h5py.HardLink):
                    address = h5py.h5o.get_info(item[name].id).addr
                    if address not in seen:
                        seen.add(address)
                        waiting.append(item[name])


def _read_attributes(item: h5py.Group | h5py.Dataset) -> None:
    names: list[str] = []
    with suppress(DatasetError), hdf5_errors_as_dataset_error("attributes"):
        names = list(item.attrs)
    for name in names:
        with suppress(DatasetError), hdf5_errors_as_dataset_error(name):
            item.attrs[name]


def _read_values(dataset: h5py.Dataset, end: float) -> None:
    if dataset.is_virtual or dataset.external:
        return
    if not dataset.size or not dataset.shape:
        dataset[()]
        return
    rows = max(
        1, int(BLOCK_BYTES // max(dataset.dtype.itemsize * dataset.size // dataset.shape[0], 1))
    )
    for start in range(0, dataset.shape[0], rows):
        dataset[start : start + rows]
        step_done()
        if time.monotonic() > end:
            return


if __name__ == "__main__":
    answer_with(read_everything)
