"""HDF5 files read with distrust, and the dataset that all formats share.

A file is refused, with the HDF5 path, when it points outside itself (soft and external links, virtual datasets,
external storage), needs a filter that is not part of HDF5, or declares far more than it stores.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE, Frame, ImageSource, Skeleton, read_in_order
from hgtrain.errors import DatasetError

SIGNATURE = b"\x89HDF\r\n\x1a\n"

FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf"}

UNWRITTEN_BYTES = 2**16
PLAUSIBLE_BYTES = 2**26
# gzip, the strongest of the filters, reaches 1032 to 1.
PLAUSIBLE_RATIO = 2000
SPARSE_BYTES = 2**36
"""What images may declare where some are stored: a file may have room for frames that are still to be written."""
CHUNK_BYTES = 2**30
BLOCK_BYTES = 2**24
"""Labels are read and checked in blocks of this size, so that there is one copy of them in all."""

_OPEN_FAILURES = (
    ("truncated file", "is truncated: it was cut off while it was written or copied; copy or write it again"),
    ("signature not found", "is not an HDF5 file"),
    (
        "unable to lock file",
        "is locked: another program has it open for writing, or the file system has no locks (then set "
        "HDF5_USE_FILE_LOCKING=FALSE while nothing writes to it)",
    ),
    (
        "already open for write",
        "is open for writing, or its writer was killed: wait for the writer, or clear the mark with `h5clear -s`",
    ),
)


_RAISED_BY_H5PY = (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError, MemoryError, AttributeError)


def is_hdf5(path: str | Path) -> bool:
    """Return whether a file begins as HDF5 files do, damaged or not: False for folders and what is not there.

    A user block of 512 bytes, or twice, four times ... as many, may come first; MATLAB's files have one.
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

    Raises DatasetError with the reason when it is missing, a directory, a device, unreadable, truncated, locked by a
    writer or not an HDF5 file.
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
        return "is a directory, expected an HDF5 file"
    for fragment, meaning in _OPEN_FAILURES:
        if fragment in text:
            return meaning
    if "Permission denied" in text:
        return "cannot be read: permission denied"
    return f"cannot be opened: {text}"


@contextmanager
def kept_open(path: str | Path) -> Iterator[h5py.File]:
    """Yield the file of `open_hdf5`; it stays open unless the block raises, of h5py's own exceptions a DatasetError."""
    file = open_hdf5(path)
    try:
        with named_damage(str(path)):
            yield file
    except BaseException:
        file.close()
        raise


@contextmanager
def named_damage(where: str) -> Iterator[None]:
    """Turn what h5py raises within the block into DatasetError: nearly anything, wherever a file is damaged.

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


def place(item: h5py.Group | h5py.Dataset) -> str:
    """Return file and HDF5 path, e.g. `flies.h5:/images`, for messages."""
    return f"{item.file.filename}:{item.name}"


def members(group: h5py.Group) -> str:
    """Return the names in a group as messages list them, at most twelve."""
    names = list(group)
    listed = ", ".join(f"/{name}" for name in names[:12]) or "nothing"
    return listed + (f" and {len(names) - 12} more" if len(names) > 12 else "")


def get_item(group: h5py.Group, path: str) -> h5py.Group | h5py.Dataset:
    """Return what lies at a relative path, reached by hard links only; DatasetError names what is missing."""
    item: h5py.Group | h5py.Dataset = group
    for name in path.strip("/").split("/"):
        if not isinstance(item, h5py.Group) or name not in item:
            root = group.file
            raise DatasetError(f"{root.filename} has no /{path.strip('/')}: the file holds {members(root)}")
        link = item.get(name, getlink=True)
        where = f"{item.file.filename}:{item.name.rstrip('/')}/{name}"
        if not isinstance(link, h5py.HardLink):
            kind = "an external link" if isinstance(link, h5py.ExternalLink) else "a soft link"
            raise DatasetError(f"{where} is {kind} to {link.path}: store the data in the file itself")
        item = item[name]
    return item


def get_dataset(
    group: h5py.Group, path: str, kinds: str, ranks: Sequence[int], layout: str, may_be_sparse: bool = False
) -> h5py.Dataset:
    """Return a stored dataset that may be read.

    kinds: the numpy type letters allowed, e.g. `fiu`. ranks: the numbers of axes allowed.
    layout: what is expected, for messages, e.g. `(frames, keypoints, 2) float`.
    may_be_sparse: whether most of it may be unwritten, as long as something is stored.
    Raises DatasetError when it is missing, is stored elsewhere, is empty, or has another type or rank.
    """
    item = get_item(group, path)
    if not isinstance(item, h5py.Dataset):
        raise DatasetError(f"{place(item)} is a group, expected a dataset {layout}")
    _check_stored_here(item)
    if item.dtype.kind not in kinds:
        raise DatasetError(f"{place(item)} is {item.dtype}, expected {layout}")
    if item.shape is None or len(item.shape) not in ranks or 0 in item.shape:
        raise DatasetError(f"{place(item)} has shape {item.shape}, expected {layout} with no empty axis")
    _check_size(item, may_be_sparse)
    return item


def _check_stored_here(dataset: h5py.Dataset) -> None:
    if dataset.is_virtual:
        raise DatasetError(f"{place(dataset)} is a virtual dataset: store the data in the file itself")
    if dataset.external:
        raise DatasetError(f"{place(dataset)} is stored in {dataset.external[0][0]}: store the data in the file itself")
    plist = dataset.id.get_create_plist()
    for number in range(plist.get_nfilters()):
        code = plist.get_filter(number)[0]
        if code not in FILTERS or not h5py.h5z.filter_avail(code):
            raise DatasetError(
                f"{place(dataset)} needs HDF5 filter {code} ({FILTERS.get(code, 'a plugin')}), which is not available: "
                "rewrite the file with `h5repack -f GZIP=4`"
            )


def _check_size(dataset: h5py.Dataset, may_be_sparse: bool) -> None:
    declared = int(dataset.size) * dataset.dtype.itemsize
    stored = dataset.id.get_storage_size()
    plausible = max(SPARSE_BYTES if may_be_sparse else PLAUSIBLE_BYTES, PLAUSIBLE_RATIO * stored)
    limit = plausible if stored else UNWRITTEN_BYTES
    if declared > limit or stored > dataset.file.id.get_filesize():
        raise DatasetError(
            f"{place(dataset)} declares {declared:,} bytes, but the file stores {stored:,} of them: it was never "
            "written or is damaged"
        )
    chunk = chunk_bytes(dataset)
    if chunk > CHUNK_BYTES:
        raise DatasetError(
            f"{place(dataset)} has chunks of {chunk:,} bytes, at most {CHUNK_BYTES:,} are read: rewrite the file with "
            "smaller chunks (`h5repack -l CHUNK=...`)"
        )


def read_array(dataset: h5py.Dataset, rows: slice | int = slice(None)) -> np.ndarray:
    """Return the values of some rows; DatasetError when the file is damaged there."""
    with named_damage(place(dataset)):
        return dataset[rows]


def chunk_bytes(dataset: h5py.Dataset) -> int:
    """Return the size of one chunk once it is unpacked; 0 where there are no chunks."""
    return int(np.prod(dataset.chunks or (0,), dtype=np.float64)) * dataset.dtype.itemsize


def _blocks(dataset: h5py.Dataset) -> Iterator[slice]:
    """Give the rows of a dataset in blocks of whole chunks, so that each chunk is unpacked once."""
    row_bytes = max(1, int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize)
    in_chunk = dataset.chunks[0] if dataset.chunks else 1
    rows = -(-max(1, BLOCK_BYTES // row_bytes) // in_chunk) * in_chunk
    for start in range(0, dataset.shape[0], rows):
        yield slice(start, min(start + rows, dataset.shape[0]))


def read_points(dataset: h5py.Dataset) -> np.ndarray:
    """Return points `(..., 2)` float32, both coordinates NaN where one is; DatasetError for infinite ones."""
    points = np.empty(dataset.shape, np.float32)
    for rows in _blocks(dataset):
        raw = read_array(dataset, rows)
        with np.errstate(over="ignore"):
            points[rows] = raw
        infinite = np.isinf(points[rows])
        if infinite.any():
            first = tuple(int(i) for i in np.argwhere(infinite)[0])
            at = [rows.start + first[0], *first[1:]]
            raise DatasetError(
                f"{place(dataset)}{at} is {raw[first]}, expected a finite coordinate: use NaN for a missing keypoint"
            )
    return points


def missing_points(points: np.ndarray) -> np.ndarray:
    """Return which points `(..., 2)` have a coordinate that is NaN, `(...)` bool."""
    # any() over an axis of two is ten times slower.
    return np.isnan(points[..., 0]) | np.isnan(points[..., 1])


def read_flags(dataset: h5py.Dataset, like: h5py.Dataset, largest: int) -> np.ndarray:
    """Return flags 0..largest as uint8 of the shape of `like` without its last axis; DatasetError for anything else."""
    if dataset.shape != like.shape[:-1]:
        raise DatasetError(
            f"{place(dataset)} has shape {dataset.shape}, expected {like.shape[:-1]} because {place(like)} has "
            f"{like.shape}"
        )
    flags = np.empty(dataset.shape, np.uint8)
    for rows in _blocks(dataset):
        raw = read_array(dataset, rows)
        wrong = (raw < 0) | (raw > largest) if raw.dtype.kind != "b" else np.zeros((), bool)
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            at = [rows.start + first[0], *first[1:]]
            raise DatasetError(f"{place(dataset)}{at} is {raw[first]}, expected one of {list(range(largest + 1))}")
        flags[rows] = raw
    return flags


def check_same_length(first: h5py.Dataset, second: h5py.Dataset) -> None:
    """Raise DatasetError unless both have the same number of frames."""
    if first.shape[0] != second.shape[0]:
        raise DatasetError(
            f"{place(first)} has {first.shape[0]} frames {first.shape} but {place(second)} has {second.shape[0]} "
            f"{second.shape}: there must be one entry for each image"
        )


def check_image_shape(shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
    """Return `(H, W, C)` of stored images `(N, H, W, C)`; DatasetError unless C is 1 or 3."""
    if shape[3] not in (1, 3):
        hint = ": the channels seem to come first, move that axis to the end" if shape[1] in (1, 3) else ""
        raise DatasetError(
            f"{where} has shape {shape} with {shape[3]} channels, expected (frames, height, width, 1 or 3){hint}"
        )
    return shape[1], shape[2], shape[3]


def check_skeleton(skeleton: Skeleton, where: str) -> Skeleton:
    """Return the skeleton; DatasetError for empty or repeated names and for pairs that make no sense."""
    names = skeleton.keypoint_names
    for index, name in enumerate(names):
        if not name or name in names[:index]:
            problem = f"is also keypoint {names.index(name)}" if name else "is empty"
            raise DatasetError(f"{where}: the name {name!r} of keypoint {index} {problem}; names must differ")
    for kind, pairs in (("edge", skeleton.edges), ("symmetry", skeleton.symmetries)):
        for pair in pairs:
            if pair[0] == pair[1] or not all(0 <= i < len(names) for i in pair):
                raise DatasetError(
                    f"{where}: {kind} {tuple(pair)} must join two different keypoints out of 0 to {len(names) - 1}"
                )
    partners = [i for pair in skeleton.symmetries for i in pair]
    for index in partners:
        if partners.count(index) > 1:
            raise DatasetError(f"{where}: keypoint {index} ({names[index]}) is in more than one symmetry")
    return skeleton


def default_names(count: int) -> tuple[str, ...]:
    """Return `keypoint0`, `keypoint1`, ... for files that name no keypoints."""
    return tuple(f"keypoint{i}" for i in range(count))


def as_text(value: object) -> str:
    """Return a string that HDF5 may hold as bytes; padding removed."""
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).rstrip("\0 ")


class Labels(NamedTuple):
    """What a file says about its frames.

    points: `(N, I, K, 2)` float32. visibility: `(N, I, K)` uint8. groups: `(N,)` strings or None.
    flags_path: file and HDF5 path of what marks keypoints as not annotated; None where the file has no such marks.
    """

    points: np.ndarray
    visibility: np.ndarray
    groups: np.ndarray | None = None
    flags_path: str | None = None


def make_labels(labels: Labels, annotated_only: bool) -> Labels:
    """Return labels whose points, changed in place, are NaN in both coordinates or none.

    With annotated_only False every finite point counts as visible, whatever the file marks it as.
    """
    missing = missing_points(labels.points)
    labels.points[missing] = np.nan
    if annotated_only:
        return labels
    unmarked = (labels.visibility == NOT_LABELLED) & ~missing
    return labels._replace(visibility=np.where(unmarked, np.uint8(VISIBLE), labels.visibility))


class FileDataset:
    """A `PoseDataset` in one open HDF5 file; also has `flags_path` of its labels."""

    def __init__(
        self,
        file: h5py.File,
        format_name: str,
        images: ImageSource,
        skeleton: Skeleton,
        labels: Labels,
        notes: Sequence[str] = (),
    ) -> None:
        self._file = file
        self.images = images
        self.path: str = file.filename
        self.format = format_name
        self.image_shape = images.shape
        self.keypoint_names, self.edges, self.symmetries = skeleton
        self.points, self.visibility, self.groups, self.flags_path = labels
        self.notes = tuple(notes)

    def __len__(self) -> int:
        return len(self.points)

    def __getitem__(self, index: int) -> Frame:
        row = int(self._rows([index])[0])
        return Frame(self.read_images([row])[0], self.points[row])

    def read_images(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8 in the order asked for; negative indices count from the end."""
        if not self._file:
            raise ValueError(f"{self.path} is closed")
        return read_in_order(self.images, self._rows(indices))

    def location(self, index: int) -> str:
        """Return where a frame lies, e.g. `flies.h5:/images[12]`."""
        return self.images.location(int(self._rows([index])[0]))

    def close(self) -> None:
        """Close the file; the labels stay."""
        self._file.close()

    def _rows(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        rows = np.asarray(indices, dtype=np.int64)
        wrong = rows[(rows < -len(self)) | (rows >= len(self))]
        if len(wrong):
            raise IndexError(f"frame {wrong[0]} of {self.path}, which has {len(self)} frames")
        return np.where(rows < 0, rows + len(self), rows)
