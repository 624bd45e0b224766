"""Opens datasets: which format a file has, several files as one dataset."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import h5py

from hgtrain.data.builtin_datasets import BUILTIN, builtin_file
from hgtrain.data.concatenated import Concatenated
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.formats import deepposekit, hgtrain_format, leap, sleap_package
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import child_names, hdf5_errors_as_dataset_error, is_hdf5, open_hdf5
from hgtrain.skeleton import check_same_keypoints

SUFFIXES = (".h5", ".hdf5", ".hdf", ".slp", ".mat", "")
"""What HDF5 files are called."""


class _Format(NamedTuple):
    recognises: Callable[[h5py.File], bool]
    open_file: Callable[[str | Path, bool], PoseDataset]
    layout: str


FORMATS = {
    hgtrain_format.FORMAT: _Format(
        hgtrain_format.recognises, hgtrain_format.open_file, "/images and /keypoints"
    ),
    deepposekit.FORMAT: _Format(
        deepposekit.recognises,
        deepposekit.open_file,
        "/images, /annotations, /annotated and /skeleton",
    ),
    sleap_package.FORMAT: _Format(
        sleap_package.recognises,
        sleap_package.open_file,
        "/video0/video, /frames, /instances, /points and /metadata",
    ),
    leap.FORMAT: _Format(leap.recognises, leap.open_file, "/box and /joints or /positions"),
}
"""Tried in this order; the first that recognises a file opens it."""


def open_dataset(path: str | Path, annotated_only: bool = True) -> PoseDataset:
    """Return the dataset in a file, whatever its name, or a built-in one such as `builtin:flies`.

    Args:
        path: The file or the name of a built-in dataset.
        annotated_only: Where False, keypoints that the file marks as not annotated, but has
            coordinates for, count as visible.

    Raises:
        DatasetError: The file cannot be opened, is of no known format, or is out of order.
    """
    name = str(path)
    if name.startswith(BUILTIN):
        return hgtrain_format.open_file(builtin_file(name), annotated_only)
    if Path(name).suffix.lower() not in SUFFIXES and Path(name).is_file() and not is_hdf5(name):
        raise DatasetError(
            f"{name} is not an HDF5 file: `hgtrain convert {name} NEW.h5` reads labels of other "
            "programs"
        )
    with closing(open_hdf5(name)) as file, hdf5_errors_as_dataset_error(name):
        known = next((known for known in FORMATS.values() if known.recognises(file)), None)
        if known is None:
            if (csv := _deeplabcut_csv(file, name)) is not None:
                raise DatasetError(
                    f"{name} holds labels of DeepLabCut without their images; convert the CSV "
                    f"beside it with `hgtrain convert {csv} NEW.h5`"
                )
            layouts = "; ".join(f"{name}: {known.layout}" for name, known in FORMATS.items())
            raise DatasetError(
                f"{name} is of no known format: it holds {child_names(file)}, expected one of "
                f"({layouts}); "
                "`hgtrain convert` reads more"
            )
    return known.open_file(name, annotated_only)


def _deeplabcut_csv(file: h5py.File, name: str) -> Path | None:
    """Return the CSV that DeepLabCut writes beside a table of pandas, None for any other file."""
    tables = (group for group in file.values() if isinstance(group, h5py.Group))
    if not any("pandas_type" in group.attrs for group in tables):
        return None
    return Path(name).with_suffix(".csv")


def open_all(paths: Sequence[str | Path], annotated_only: bool = True) -> PoseDataset:
    """Return the dataset of one file, or several files as one, their frames one after another.

    Groups get the file as a prefix, and a file without groups is one group. Edges and symmetries
    are those of the first file.

    Args:
        paths: The files.
        annotated_only: As for `open_dataset`.

    Raises:
        DatasetError: A file cannot be used, or not all have the same keypoints in the same order
            and images of one shape; the message then names two files.
    """
    if not paths:
        raise DatasetError("no dataset was given")
    with _closed_on_error() as opened:
        for path in paths:
            opened.append(open_dataset(path, annotated_only))
        for other in opened[1:]:
            check_same_keypoints(
                opened[0].keypoint_names, other.keypoint_names, opened[0].path, other.path
            )
            check_same_images(opened[0], other)
        return opened[0] if len(opened) == 1 else Concatenated(opened)


@contextmanager
def _closed_on_error() -> Iterator[list[PoseDataset]]:
    opened: list[PoseDataset] = []
    try:
        yield opened
    except BaseException:
        for dataset in opened:
            dataset.close()
        raise


def check_same_images(first: PoseDataset, other: PoseDataset) -> None:
    """Check that the images have one shape.

    Raises:
        DatasetError: They do not.
    """
    if first.image_shape != other.image_shape:
        raise DatasetError(
            f"images of {first.path} have shape {first.image_shape} but those of {other.path} "
            f"{other.image_shape}: all "
            "must have the same (height, width, channels)"
        )
