"""The hgtrain format, read and written.

`/images (N, H, W, C)` uint8, `/keypoints (N, K, 2)` or `(N, I, K, 2)` float; optional `/visibility`
uint8 of the same shape without the last axis, as COCO, and `/group (N,)` strings or integers.
Attributes of the root: `keypoint_names`, `edges (E, 2)`, `symmetries (S, 2)`, `format="hgtrain"`,
`version`.
"""

import json
from pathlib import Path

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE, PoseDataset
from hgtrain.data.formats.base import (
    FileDataset,
    Labels,
    check_same_length,
    make_labels,
    missing_points,
    read_flags,
    read_points,
)
from hgtrain.data.formats.stored_images import stored_images
from hgtrain.errors import DatasetError, brief_repr
from hgtrain.hdf5 import as_text, get_dataset, hdf5_path, open_for_dataset, read_array
from hgtrain.skeleton import Skeleton, check_skeleton, default_names

FORMAT = "hgtrain"
VERSION = 1

LabelledImage = tuple[np.ndarray, np.ndarray, np.ndarray | None, str | None]
"""Image `(H, W, C)` uint8; points `(I, K, 2)` or `(K, 2)`; visibility `(I, K)` or `(K,)`, None:
what is not NaN is visible; group."""


def recognises(file: h5py.File) -> bool:
    """Return whether the file is marked as hgtrain's, or has /images and /keypoints."""
    return as_text(file.attrs.get("format", "")) == FORMAT or {"images", "keypoints"} <= set(file)


def open_file(path: str | Path, annotated_only: bool = True) -> PoseDataset:
    """Return the dataset of a file in the hgtrain format.

    Without /visibility every keypoint that is not NaN is visible. With it, a NaN keypoint of
    visibility 1 or 2 is marked as absent. A file without keypoint_names gets keypoint0, keypoint1,
    ... and a note.

    Args:
        path: The file.
        annotated_only: Where False, finite keypoints of visibility 0 count as visible.

    Raises:
        DatasetError: Something in the file is out of order.
    """
    with open_for_dataset(path) as file:
        _check_version(file)
        images = stored_images(file, "images")
        keypoints = get_dataset(
            file, "keypoints", "fiu", (3, 4), "(frames, [instances,] keypoints, 2) float"
        )
        if keypoints.shape[-1] != 2:
            raise DatasetError(
                f"{hdf5_path(keypoints)} has shape {keypoints.shape}, expected 2 (x, y) on the "
                "last axis"
            )
        check_same_length(images.dataset, keypoints)
        skeleton, notes = _read_skeleton(file, keypoints.shape[-2])
        labels = make_labels(_read_labels(file, keypoints), annotated_only)
        return FileDataset(file, FORMAT, images, skeleton, labels, notes)


def _check_version(file: h5py.File) -> None:
    version = file.attrs.get("version", VERSION)
    if not isinstance(version, (int, np.integer)) or version < 1:
        raise DatasetError(
            f"{file.filename}: attribute version of / is {brief_repr(version)}, expected {VERSION}"
        )
    if version > VERSION:
        raise DatasetError(
            f"{file.filename} has version {version} of the hgtrain format, this hgtrain reads up "
            f"to {VERSION}: "
            "upgrade hgtrain"
        )


def _read_labels(file: h5py.File, keypoints: h5py.Dataset) -> Labels:
    shape = (
        keypoints.shape if keypoints.ndim == 4 else (keypoints.shape[0], 1, *keypoints.shape[1:])
    )
    points = read_points(keypoints)
    flags_path = None
    if "visibility" in file:
        stored = get_dataset(
            file, "visibility", "biu", (2, 3), f"{keypoints.shape[:-1]} uint8, 0 to 2"
        )
        visibility, flags_path = read_flags(stored, keypoints, largest=VISIBLE), hdf5_path(stored)
    else:
        visibility = np.where(missing_points(points), np.uint8(NOT_LABELLED), np.uint8(VISIBLE))
    return Labels(
        points.reshape(shape),
        visibility.reshape(shape[:-1]),
        _read_groups(file, keypoints),
        flags_path,
    )


def _read_groups(file: h5py.File, keypoints: h5py.Dataset) -> np.ndarray | None:
    if "group" not in file:
        return None
    stored = get_dataset(file, "group", "OSiu", (1,), "(frames,) strings or integers")
    if stored.dtype.kind == "O" and h5py.check_string_dtype(stored.dtype) is None:
        raise DatasetError(
            f"{hdf5_path(stored)} is {stored.dtype}, expected (frames,) strings or integers"
        )
    check_same_length(keypoints, stored)
    values = read_array(stored).tolist()
    # Groups are few and frames many.
    texts = {value: as_text(value) for value in set(values)}
    return np.array([texts[value] for value in values], dtype=str)


def _read_skeleton(file: h5py.File, count: int) -> tuple[Skeleton, list[str]]:
    names, notes = _read_names(file), []
    if names is None:
        names = default_names(count)
        notes = [
            f"{file.filename} has no attribute keypoint_names; they are called keypoint0 to "
            f"keypoint{count - 1}."
        ]
    if len(names) != count:
        raise DatasetError(
            f"{file.filename}: attribute keypoint_names of / has {len(names)} names, but "
            f"{file.filename}:/keypoints "
            f"has {count} keypoints"
        )
    skeleton = Skeleton(names, _read_pairs(file, "edges"), _read_pairs(file, "symmetries"))
    return check_skeleton(skeleton, f"{file.filename}: attributes of /"), notes


def _read_attribute(file: h5py.File, name: str) -> list | None:
    """Return an attribute as a list, None where the file does not have it.

    It may be stored as an array or as JSON text.
    """
    if name not in file.attrs:
        return None
    try:
        value = file.attrs[name]
        if isinstance(value, (str, bytes)):
            value = json.loads(value)
        return [] if isinstance(value, h5py.Empty) else list(value)
    except (OSError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file.filename}: attribute {name} of / cannot be read as a list: {error}"
        ) from error


def _read_names(file: h5py.File) -> tuple[str, ...] | None:
    names = _read_attribute(file, "keypoint_names")
    if names is None:
        return None
    for name in names:
        if not isinstance(name, (str, bytes)):
            raise DatasetError(
                f"{file.filename}: attribute keypoint_names of / holds {brief_repr(name)}, "
                "expected strings"
            )
    return tuple(as_text(name) for name in names)


def _read_pairs(file: h5py.File, name: str) -> tuple[tuple[int, int], ...]:
    pairs = np.asarray(_read_attribute(file, name) or np.empty((0, 2), np.int64))
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DatasetError(
            f"{file.filename}: attribute {name} of / is {pairs.dtype} of shape {pairs.shape}, "
            "expected pairs of "
            "keypoint indices (n, 2) int"
        )
    return tuple((int(a), int(b)) for a, b in pairs)
