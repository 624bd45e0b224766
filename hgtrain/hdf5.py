"""Reading HDF5 files that somebody else made: nothing in them is trusted before it is checked."""

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hgtrain.errors import DatasetError

SIGNATURE = b"\x89HDF\r\n\x1a\n"

FILTERS = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    32000: "lzf",
}

UNWRITTEN_BYTES = 2**16
PLAUSIBLE_BYTES = 2**26
# gzip, the strongest of the filters, reaches 1032 to 1.
PLAUSIBLE_RATIO = 2000
SPARSE_BYTES = 2**36
"""What images may declare where some are stored.

A file may have room for frames that are still to be written.
"""
CHUNK_BYTES = 2**30
_OPEN_FAILURES = (
    (
        "truncated file",
        "is truncated: it was cut off while it was written or copied; copy or write it again",
    ),
    ("signature not found", "is not an HDF5 file"),
    (
        "unable to lock file",
        "is locked: another program has it open for writing, or the file system has no locks "
        "(then set "
        "HDF5_USE_FILE_LOCKING=FALSE while nothing writes to it)",
    ),
    (
        "already open for write",
        "is open for writing, or its writer was killed: wait for the writer, or clear the mark "
        "with `h5clear -s`",
    ),
)


_RAISED_BY_H5PY = (
    OSError,
    KeyError,
    RuntimeError,
    ValueError,
    TypeError,
    OverflowError,
    MemoryError,
    AttributeError,
)


def is_hdf5(path: str | Path) -> bool:
    """Return whether a file begins as HDF5 files do, damaged or not.

    False for folders and what is not there.

    A user block of 512 bytes, or twice, four times ... as many, may come first; MATLAB's files have
    one.
    """
    if not Path(path).is_file():
        return False
    with Path(path).open("rb") as file:
        size, at = file.seek(0, os.SEEK_END), 0
        while at < size:
            file.seek(at)
            if file.read(len(SIGNATURE)) == SIGNATURE:
                return True
            at = max(512, 2 * at)
    return False


def open_hdf5(path: str | Path) -> h5py.File:
    """Return the file opened for reading.

    Raises DatasetError with the reason when it is missing, a directory, a device, unreadable,
    truncated, locked by a writer or not an HDF5 file.
    """
    name = str(path)
    if Path(name).exists() and not (Path(name).is_file() or Path(name).is_dir()):
        # Opening a named pipe waits for ever.
        raise DatasetError(f"{name} is a device or a pipe, expected an HDF5 file")
    try:
        return h5py.File(name, "r")
    except FileNotFoundError as error:
        raise DatasetError(f"{name}: there is no such file") from error
    except OSError as error:
        raise DatasetError(f"{name} {_open_failure(Path(name), str(error))}") from error


def _open_failure(path: Path, text: str) -> str:
    if path.is_dir():
        return (
            f"is a directory, expected an HDF5 file: `hgtrain convert {path} NEW.h5` reads "
            "projects "
            "of other programs"
        )
    for fragment, meaning in _OPEN_FAILURES:
        if fragment in text:
            return meaning
    if "Permission denied" in text:
        return "cannot be read: permission denied"
    return f"cannot be opened: {text}"


@contextmanager
def open_for_dataset(path: str | Path) -> Iterator[h5py.File]:
    """Yield the file of `open_hdf5`.

    It stays open unless the block raises, of h5py's own exceptions a DatasetError.
    """
    file = open_hdf5(path)
    try:
        with hdf5_errors_as_dataset_error(str(path)):
            yield file
    except BaseException:
        file.close()
        raise


@contextmanager
def hdf5_errors_as_dataset_error(where: str) -> Iterator[None]:
    """Turn what h5py raises within the block into DatasetError.

    Nearly anything, wherever a file is damaged.

    What was not raised inside h5py is a defect of hgtrain and passes.
    """
    try:
        yield
    except _RAISED_BY_H5PY as error:
        frame = error.__traceback__
        while frame is not None and frame.tb_next is not None:
            frame = frame.tb_next
        if frame is None or not frame.tb_frame.f_globals.get("__name__", "").startswith("h5py"):
            raise
        raise DatasetError(f"{where} cannot be read, the file is damaged: {error}") from error


def hdf5_path(item: h5py.Group | h5py.Dataset) -> str:
    """Return file and HDF5 path, e.g. `flies.h5:/images`, for messages."""
    return f"{item.file.filename}:{item.name}"


def child_names(group: h5py.Group) -> str:
    """Return the names in a group as messages list them, at most twelve."""
    names = list(group)
    listed = ", ".join(f"/{name}" for name in names[:12]) or "nothing"
    return listed + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def get_item(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
    """Return what lies at a relative path, reached by hard links only.

    DatasetError names what is missing.
    """
    item: h5py.Group | h5py.Dataset = group
    for name in path.strip("/").split("/"):
        if not isinstance(item, h5py.Group) or name not in item:
            root = group.file
            raise DatasetError(
                f"{root.filename} has no /{path.strip('/')}: the file holds {child_names(root)}"
            )
        link = item.get(name, getlink=True)
        where = f"{item.file.filename}:{item.name.rstrip('/')}/{name}"
        if not isinstance(link, h5py.HardLink):
            kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
            raise DatasetError(
                f"{where} is {kind} to {link.path}: store the data in the file itself"
            )
        item = item[name]
    return item


def get_dataset(
    group: h5py.Group,
    path: str,
    kinds: str,
    ranks: Sequence[int],
    layout: str,
    may_be_sparse: bool = False,
) -> h5py.Dataset:
    """Return a stored dataset that may be read.

    kinds: the numpy type letters allowed, e.g. `fiu`. ranks: the numbers of axes allowed.
    layout: what is expected, for messages, e.g. `(frames, keypoints, 2) float`.
    may_be_sparse: whether most of it may be unwritten, as long as something is stored.
    Raises DatasetError when it is missing, is stored elsewhere, is empty, or has another type or
    rank.
    """
    item = get_item(group, path)
    if not isinstance(item, h5py.Dataset):
        raise DatasetError(f"{hdf5_path(item)} is a group, expected a dataset {layout}")
    _check_stored_here(item)
    if item.dtype.kind not in kinds:
        raise DatasetError(f"{hdf5_path(item)} is {item.dtype}, expected {layout}")
    if item.shape is None or len(item.shape) not in ranks or 0 in item.shape:
        raise DatasetError(
            f"{hdf5_path(item)} has shape {item.shape}, expected {layout} with no empty axis"
        )
    _check_size(item, may_be_sparse)
    return item


def _check_stored_here(dataset: h5py.Dataset) -> None:
    if dataset.is_virtual:
        raise DatasetError(
            f"{hdf5_path(dataset)} is a virtual dataset: store the data in the file itself"
        )
    if dataset.external:
        raise DatasetError(
            f"{hdf5_path(dataset)} is stored in {dataset.external[0][0]}: store the data in the "
            "file itself"
        )
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code = plist.get_filter(number)[0]
        if code not in FILTERS or not h5py.h5z.filter_avail(code):
            raise DatasetError(
                f"{hdf5_path(dataset)} needs HDF5 filter {code} "
                f"({FILTERS.get(code, 'a plugin')}), which is not available: "
                "rewrite the file with `h5repack -f GZIP=4`"
            )


def _check_size(dataset: h5py.Dataset, may_be_sparse: bool) -> None:
    declared = int(dataset.size) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    plausible = max(SPARSE_BYTES if may_be_sparse else PLAUSIBLE_BYTES, PLAUSIBLE_RATIO * stored)
    limit = plausible if stored else UNWRITTEN_BYTES
    if declared > limit or stored > dataset.file.id.get_filesize():
        raise DatasetError(
            f"{hdf5_path(dataset)} declares {declared:,} bytes, but the file stores {stored:,} of "
            "them: it was never "
            "written or is damaged"
        )
    chunk = chunk_bytes(dataset)
    if chunk > CHUNK_BYTES:
        raise DatasetError(
            f"{hdf5_path(dataset)} has chunks of {chunk:,} bytes, at most {CHUNK_BYTES:,} are "
            "read: rewrite the file with "
            "smaller chunks (`h5repack -l CHUNK=...`)"
        )


def read_array(dataset: h5py.Dataset, rows: slice | int = slice(None)) -> np.ndarray:
    """Return the values of some rows; DatasetError when the file is damaged there."""
    with hdf5_errors_as_dataset_error(hdf5_path(dataset)):
        return dataset[rows]


def chunk_bytes(dataset: h5py.Dataset) -> int:
    """Return the size of one chunk once it is unpacked; 0 where there are no chunks."""
    return int(np.prod(dataset.chunks or (0,), dtype=np.float64)) * dataset.dtype.itemsize


def check_table(dataset: h5py.Dataset) -> None:
    """Refuse a table, a list of texts or numbers that does harm to who reads it whole.

    Where fields lie over one another the HDF5 library writes beyond the memory it was given, and a
    declared size may be any. Images, which are read a few at a time, are not looked at.

    Raises:
        DatasetError: It has such fields, or declares far more than it stores.
    """
    try:
        dtype, size = dataset.dtype, dataset.size
    except _RAISED_BY_H5PY:
        # Then nothing can be read either.
        return
    fields: Mapping[str, Any] = dtype.fields or {}
    places = sorted((field[1], field[1] + field[0].itemsize) for field in fields.values())
    if any(end > start for (_, end), (start, _) in pairwise(places)):
        raise DatasetError(
            f"{hdf5_path(dataset)} has fields that lie over one another: the file is damaged or "
            "made to do harm, do not use it"
        )
    if size and (dtype.kind in "VO" or dataset.ndim < 3):
        _check_size(dataset, may_be_sparse=False)


def as_text(value: object) -> str:
    """Return a string that HDF5 may hold as bytes; padding removed."""
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).rstrip(
        "\0 "
    )
