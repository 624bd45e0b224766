"""What all dataset formats share: labels as the dataset holds them, checks of what a file says."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE, Frame, ImageSource, read_in_order
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import hdf5_path, read_array
from hgtrain.skeleton import Skeleton

BLOCK_BYTES = 2**24
"""Labels are read and checked in blocks of this size, so that there is one copy of them in all."""


def _blocks(dataset: h5py.Dataset) -> Iterator[slice]:
    """Give the rows of a dataset in blocks of whole chunks, so that each chunk is unpacked once."""
    row_bytes = max(1, int(np.prod(dataset.shape[1:])) * dataset.dtype.itemsize)
    in_chunk = dataset.chunks[0] if dataset.chunks else 1
    rows = -(-max(1, BLOCK_BYTES // row_bytes) // in_chunk) * in_chunk
    for start in range(0, dataset.shape[0], rows):
        yield slice(start, min(start + rows, dataset.shape[0]))


def read_points(dataset: h5py.Dataset) -> np.ndarray:
    """Return points `(..., 2)` float32, both coordinates NaN where one is.

    Raises:
        DatasetError: A coordinate is infinite.
    """
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
                f"{hdf5_path(dataset)}{at} is {raw[first]}, expected a finite coordinate: use NaN "
                "for a missing keypoint"
            )
    return points


def missing_points(points: np.ndarray) -> np.ndarray:
    """Return which points `(..., 2)` have a coordinate that is NaN, `(...)` bool."""
    # any() over an axis of two is ten times slower.
    return np.isnan(points[..., 0]) | np.isnan(points[..., 1])


def read_flags(dataset: h5py.Dataset, like: h5py.Dataset, largest: int) -> np.ndarray:
    """Return flags 0..largest as uint8 of the shape of `like` without its last axis.

    Raises:
        DatasetError: The file holds anything else.
    """
    if dataset.shape != like.shape[:-1]:
        raise DatasetError(
            f"{hdf5_path(dataset)} has shape {dataset.shape}, expected {like.shape[:-1]} because "
            f"{hdf5_path(like)} has "
            f"{like.shape}"
        )
    flags = np.empty(dataset.shape, np.uint8)
    for rows in _blocks(dataset):
        raw = read_array(dataset, rows)
        wrong = (raw < 0) | (raw > largest) if raw.dtype.kind != "b" else np.zeros((), bool)
        if wrong.any():
            first = tuple(int(i) for i in np.argwhere(wrong)[0])
            at = [rows.start + first[0], *first[1:]]
            raise DatasetError(
                f"{hdf5_path(dataset)}{at} is {raw[first]}, expected one of "
                f"{list(range(largest + 1))}"
            )
        flags[rows] = raw
    return flags


def check_same_length(first: h5py.Dataset, second: h5py.Dataset) -> None:
    """Check that both have the same number of frames.

    Raises:
        DatasetError: They do not.
    """
    if first.shape[0] != second.shape[0]:
        raise DatasetError(
            f"{hdf5_path(first)} has {first.shape[0]} frames {first.shape} but "
            f"{hdf5_path(second)} has {second.shape[0]} "
            f"{second.shape}: there must be one entry for each image"
        )


def check_image_shape(shape: tuple[int, ...], where: str) -> tuple[int, int, int]:
    """Return `(H, W, C)` of stored images `(N, H, W, C)`.

    Raises:
        DatasetError: C is neither 1 nor 3.
    """
    if shape[3] not in (1, 3):
        hint = (
            ": the channels seem to come first, move that axis to the end"
            if shape[1] in (1, 3)
            else ""
        )
        raise DatasetError(
            f"{where} has shape {shape} with {shape[3]} channels, expected (frames, height, "
            f"width, 1 or 3){hint}"
        )
    return shape[1], shape[2], shape[3]


class Labels(NamedTuple):
    """What a file says about its frames.

    Attributes:
        points: `(N, I, K, 2)` float32.
        visibility: `(N, I, K)` uint8.
        groups: `(N,)` strings or None.
        flags_path: File and HDF5 path of what marks keypoints as not annotated; None where the file
            has no such marks.
    """

    points: np.ndarray
    visibility: np.ndarray
    groups: np.ndarray | None = None
    flags_path: str | None = None


def make_labels(labels: Labels, annotated_only: bool) -> Labels:
    """Return labels whose points are NaN in both coordinates or in none.

    Args:
        labels: What the file says; its points are changed in place.
        annotated_only: Where False, every finite point counts as visible, whatever the file marks
            it as.
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
        """Return images `(n, H, W, C)` uint8 in the order asked for.

        Negative indices count from the end.
        """
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
