"""The format of LEAP, as its `generate_training_set` writes it from MATLAB.

MATLAB stores the first axis last, so HDF5 shows `/box (N, C, W, H)` and `/joints (N, 2, K)` (or
`/positions`), with coordinates counted from 1: LEAP draws its own confidence maps on the grid 1..W,
1..H. Both are brought to the convention of `PoseDataset`. Names are the attribute `jointNames` of
`/skeleton`, a line each; `/skeleton/edges (2, E)` counts from 1 too.
Files written from Python, `/box (N, H, W, C)` with `/joints (N, K, 2)`, are read too, with
coordinates counted from 0.

The exporter also writes each frame mirrored; `/exptID`, or else `/labeledIdx`, becomes the group,
so that a split by group keeps a frame and its mirror image together.
"""

from functools import partial
from pathlib import Path

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE, PoseDataset
from hgtrain.data.formats.base import (
    FileDataset,
    Labels,
    check_image_shape,
    check_same_length,
    make_labels,
    missing_points,
    read_points,
)
from hgtrain.data.formats.stored_images import StoredImages
from hgtrain.errors import DatasetError, brief_repr
from hgtrain.hdf5 import as_text, get_dataset, get_item, hdf5_path, open_for_dataset, read_array
from hgtrain.skeleton import Skeleton, check_skeleton, default_names

FORMAT = "LEAP"

_TO_ROWS_FIRST = (0, 3, 2, 1)


def recognises(file: h5py.File) -> bool:
    """Return whether the file has /box and /joints or /positions."""
    return "box" in file and ("joints" in file or "positions" in file)


def open_file(path: str | Path, annotated_only: bool = True) -> PoseDataset:
    """Return the dataset of a LEAP file.

    NaN joints are not labelled. Float images must lie in 0..1 and become 0..255.

    Args:
        path: The file.
        annotated_only: Changes nothing in this format.

    Raises:
        DatasetError: The order of the axes cannot be told from the shapes, or something in the file
            is out of order.
    """
    with open_for_dataset(path) as file:
        layout = "(frames, channels, width, height) uint8, or float in 0..1"
        box = get_dataset(file, "box", "uf", (4,), layout, may_be_sparse=True)
        if box.dtype.kind == "u" and box.dtype != np.uint8:
            raise DatasetError(f"{hdf5_path(box)} is {box.dtype}, expected uint8 or float in 0..1")
        joints = get_dataset(
            file,
            "joints" if "joints" in file else "positions",
            "fiu",
            (3,),
            "(frames, 2, keypoints) float",
        )
        check_same_length(box, joints)
        from_matlab = _is_from_matlab(box, joints)
        points = read_points(joints)
        if from_matlab:
            points = points.transpose(0, 2, 1) - np.float32(1)
        visibility = np.where(missing_points(points), np.uint8(NOT_LABELLED), np.uint8(VISIBLE))
        labels = Labels(points[:, None], visibility[:, None], _read_groups(file, len(points)))
        skeleton, notes = _read_skeleton(file, points.shape[1], from_matlab)
        images = _images(box, from_matlab)
        # Float images out of range are mostly so in every frame: better said now than in the middle
        # of training.
        images.read(np.array([0]))
        return FileDataset(
            file, FORMAT, images, skeleton, make_labels(labels, annotated_only), notes
        )


def _is_from_matlab(box: h5py.Dataset, joints: h5py.Dataset) -> bool:
    channels_second, channels_last = box.shape[1] in (1, 3), box.shape[3] in (1, 3)
    if channels_second == channels_last:
        raise DatasetError(
            f"{hdf5_path(box)} has shape {box.shape}: "
            f"{'two axes' if channels_last else 'no axis'} can be the channels, "
            "expected (frames, 1 or 3, width, height) from MATLAB or (frames, height, width, 1 or "
            "3)"
        )
    if joints.shape[1 if channels_second else 2] != 2:
        raise DatasetError(
            f"{hdf5_path(joints)} has shape {joints.shape}, expected (frames, "
            f"{'2, keypoints' if channels_second else 'keypoints, 2'}) because {hdf5_path(box)} "
            f"has {box.shape}"
        )
    return channels_second


def _images(box: h5py.Dataset, from_matlab: bool) -> StoredImages:
    axes = _TO_ROWS_FIRST if from_matlab else (0, 1, 2, 3)
    shape = check_image_shape(tuple(box.shape[axis] for axis in axes), hdf5_path(box))
    return StoredImages(box, shape, partial(_to_uint8, hdf5_path(box), axes))


def _to_uint8(where: str, axes: tuple[int, ...], block: np.ndarray, rows: np.ndarray) -> np.ndarray:
    images = block.transpose(axes)
    if images.dtype == np.uint8:
        return images
    inside = (images >= 0) & (images <= 1)
    if not inside.all():
        at = tuple(np.argwhere(~inside)[0])
        raise DatasetError(
            f"{where}[{rows[at[0]]}] holds {images[at]}, expected float images in 0..1, or uint8"
        )
    return np.rint(images * 255).astype(np.uint8)


def _read_groups(file: h5py.File, frames: int) -> np.ndarray | None:
    """Return a string for each frame, None where the file has none of that length.

    MATLAB writes a column as (1, N).
    """
    for name in ("exptID", "labeledIdx"):
        if name in file:
            values = read_array(
                get_dataset(file, name, "fiu", (1, 2), "(1, frames) numbers")
            ).ravel()
            if len(values) == frames:
                return np.array([f"{value:g}" for value in values], dtype=str)
    return None


def _read_skeleton(file: h5py.File, count: int, from_matlab: bool) -> tuple[Skeleton, list[str]]:
    names: tuple[str, ...] = ()
    edges: tuple[tuple[int, int], ...] = ()
    notes = []
    if "testing" in file:
        notes.append(f"The frames under {file.filename}:/testing are left out.")
    if "skeleton" in file:
        group = get_item(file, "skeleton")
        lines = np.ravel(group.attrs.get("jointNames", ""))
        names = tuple(name for line in lines for name in as_text(line).splitlines() if name)
        if from_matlab and isinstance(group, h5py.Group) and "edges" in group:
            edges = _read_edges(group)
    if not names:
        names = default_names(count)
        notes.append(
            f"{file.filename}:/skeleton has no attribute jointNames; keypoints are numbered."
        )
    if len(names) != count:
        raise DatasetError(
            f"{file.filename}:/skeleton names {len(names)} joints in its attribute jointNames, "
            f"but there are {count}"
        )
    return check_skeleton(Skeleton(names, edges), f"{file.filename}:/skeleton"), notes


def _read_edges(group: h5py.Group) -> tuple[tuple[int, int], ...]:
    stored = get_dataset(group, "edges", "fiu", (2,), "(2, edges) joint numbers from 1")
    if stored.shape[0] != 2:
        raise DatasetError(f"{hdf5_path(stored)} has shape {stored.shape}, expected (2, edges)")
    edges = read_array(stored)
    if not (np.isfinite(edges) & (edges == np.round(edges))).all():
        raise DatasetError(
            f"{hdf5_path(stored)} holds {brief_repr(edges.tolist())}, expected whole numbers from 1"
        )
    return tuple((int(a) - 1, int(b) - 1) for a, b in edges.T)
