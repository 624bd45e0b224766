"""The hgtrain format, read and written.

`/images (N, H, W, C)` uint8, `/keypoints (N, K, 2)` or `(N, I, K, 2)` float; optional `/visibility` uint8 of the same
shape without the last axis, as COCO, and `/group (N,)` strings or integers. Attributes of the root: `keypoint_names`,
`edges (E, 2)`, `symmetries (S, 2)`, `format="hgtrain"`, `version`.
"""

import json
import os
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE, PoseDataset, Skeleton
from hgtrain.data.hdf5 import (
    FileDataset,
    Labels,
    as_text,
    check_same_length,
    check_skeleton,
    default_names,
    get_dataset,
    kept_open,
    make_labels,
    missing_points,
    place,
    read_array,
    read_flags,
    read_points,
)
from hgtrain.data.images import stored_images
from hgtrain.errors import DatasetError

FORMAT = "hgtrain"
VERSION = 1

LabelledImage = tuple[np.ndarray, np.ndarray, np.ndarray | None, str | None]
"""Image `(H, W, C)` uint8; points `(I, K, 2)` or `(K, 2)`; visibility `(I, K)` or `(K,)`, None: what is not NaN is
visible; group."""


def recognises(file: h5py.File) -> bool:
    """Return whether the file is marked as hgtrain's, or has /images and /keypoints."""
    return as_text(file.attrs.get("format", "")) == FORMAT or {"images", "keypoints"} <= set(file)


def open_file(path: str | Path, annotated_only: bool = True) -> PoseDataset:
    """Return the dataset of a file in the hgtrain format.

    Without /visibility every keypoint that is not NaN is visible. With it, a NaN keypoint of visibility 1 or 2 is
    marked as absent, and annotated_only False counts finite keypoints of visibility 0 as visible.
    A file without keypoint_names gets keypoint0, keypoint1, ... and a note. DatasetError for anything out of order.
    """
    with kept_open(path) as file:
        _check_version(file)
        images = stored_images(file, "images")
        keypoints = get_dataset(file, "keypoints", "fiu", (3, 4), "(frames, [instances,] keypoints, 2) float")
        if keypoints.shape[-1] != 2:
            raise DatasetError(f"{place(keypoints)} has shape {keypoints.shape}, expected 2 (x, y) on the last axis")
        check_same_length(images.dataset, keypoints)
        skeleton, notes = _read_skeleton(file, keypoints.shape[-2])
        labels = make_labels(_read_labels(file, keypoints), annotated_only)
        return FileDataset(file, FORMAT, images, skeleton, labels, notes)


def _check_version(file: h5py.File) -> None:
    version = file.attrs.get("version", VERSION)
    if not isinstance(version, (int, np.integer)) or version < 1:
        raise DatasetError(f"{file.filename}: attribute version of / is {version!r}, expected {VERSION}")
    if version > VERSION:
        raise DatasetError(
            f"{file.filename} has version {version} of the hgtrain format, this hgtrain reads up to {VERSION}: "
            "upgrade hgtrain"
        )


def _read_labels(file: h5py.File, keypoints: h5py.Dataset) -> Labels:
    shape = keypoints.shape if keypoints.ndim == 4 else (keypoints.shape[0], 1, *keypoints.shape[1:])
    points = read_points(keypoints)
    flags_path = None
    if "visibility" in file:
        stored = get_dataset(file, "visibility", "biu", (2, 3), f"{keypoints.shape[:-1]} uint8, 0 to 2")
        visibility, flags_path = read_flags(stored, keypoints, largest=VISIBLE), place(stored)
    else:
        visibility = np.where(missing_points(points), np.uint8(NOT_LABELLED), np.uint8(VISIBLE))
    return Labels(points.reshape(shape), visibility.reshape(shape[:-1]), _read_groups(file, keypoints), flags_path)


def _read_groups(file: h5py.File, keypoints: h5py.Dataset) -> np.ndarray | None:
    if "group" not in file:
        return None
    stored = get_dataset(file, "group", "OSiu", (1,), "(frames,) strings or integers")
    if stored.dtype.kind == "O" and h5py.check_string_dtype(stored.dtype) is None:
        raise DatasetError(f"{place(stored)} is {stored.dtype}, expected (frames,) strings or integers")
    check_same_length(keypoints, stored)
    values = read_array(stored).tolist()
    # Groups are few and frames many.
    texts = {value: as_text(value) for value in set(values)}
    return np.array([texts[value] for value in values], dtype=str)


def _read_skeleton(file: h5py.File, count: int) -> tuple[Skeleton, list[str]]:
    names, notes = _read_names(file), []
    if names is None:
        names = default_names(count)
        notes = [f"{file.filename} has no attribute keypoint_names; they are called keypoint0 to keypoint{count - 1}."]
    if len(names) != count:
        raise DatasetError(
            f"{file.filename}: attribute keypoint_names of / has {len(names)} names, but {file.filename}:/keypoints "
            f"has {count} keypoints"
        )
    skeleton = Skeleton(names, _read_pairs(file, "edges"), _read_pairs(file, "symmetries"))
    return check_skeleton(skeleton, f"{file.filename}: attributes of /"), notes


def _read_attribute(file: h5py.File, name: str) -> list | None:
    """Return an attribute as a list, which may be stored as an array or as JSON text; None where there is none."""
    if name not in file.attrs:
        return None
    try:
        value = file.attrs[name]
        if isinstance(value, (str, bytes)):
            value = json.loads(value)
        return [] if isinstance(value, h5py.Empty) else list(value)
    except (OSError, TypeError, ValueError) as error:
        raise DatasetError(f"{file.filename}: attribute {name} of / cannot be read as a list: {error}") from error


def _read_names(file: h5py.File) -> tuple[str, ...] | None:
    names = _read_attribute(file, "keypoint_names")
    if names is None:
        return None
    for name in names:
        if not isinstance(name, (str, bytes)):
            raise DatasetError(f"{file.filename}: attribute keypoint_names of / holds {name!r}, expected strings")
    return tuple(as_text(name) for name in names)


def _read_pairs(file: h5py.File, name: str) -> tuple[tuple[int, int], ...]:
    pairs = np.asarray(_read_attribute(file, name) or np.empty((0, 2), np.int64))
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
        raise DatasetError(
            f"{file.filename}: attribute {name} of / is {pairs.dtype} of shape {pairs.shape}, expected pairs of "
            "keypoint indices (n, 2) int"
        )
    return tuple((int(a), int(b)) for a, b in pairs)


def write_dataset(path: str | Path, skeleton: Skeleton, frames: Iterable[LabelledImage]) -> int:
    """Return the number of frames written to a new file in the hgtrain format.

    The first frame sets H, W and C; instances may vary from frame to frame and are padded with NaN. Memory does not
    grow with the number of frames. A file of that name is replaced only when the new one is complete on disk.
    Raises DatasetError for a skeleton that makes no sense, a frame unlike the first, or no frame at all.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise DatasetError(f"{target}: there is no folder {target.parent}")
    check_skeleton(skeleton, f"{target}: skeleton")
    with _replaced_when_complete(target) as beside, h5py.File(beside, "x") as file:
        count = 0
        writer: _Writer | None = None
        for count, frame in enumerate(frames, start=1):
            writer = writer or _Writer(file, frame[0], len(skeleton.keypoint_names))
            try:
                writer.append(frame)
            except ValueError as error:
                raise DatasetError(f"{target}: frame {count - 1}: {error}") from error
        if writer is None:
            raise DatasetError(f"{target}: there are no frames to write")
        writer.finish()
        _write_attributes(file, skeleton)
    return count


@contextmanager
def _replaced_when_complete(target: Path) -> Iterator[Path]:
    beside = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield beside
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(target)
    finally:
        beside.unlink(missing_ok=True)


def _write_attributes(file: h5py.File, skeleton: Skeleton) -> None:
    file.attrs["format"] = FORMAT
    file.attrs["version"] = VERSION
    file.attrs["keypoint_names"] = np.array(skeleton.keypoint_names, dtype=h5py.string_dtype())
    for name, pairs in (("edges", skeleton.edges), ("symmetries", skeleton.symmetries)):
        file.attrs[name] = np.array(pairs, np.int64).reshape(-1, 2)


class _Writer:
    """Datasets that grow in blocks; the images of a frame are one chunk."""

    BLOCK = 256

    def __init__(self, file: h5py.File, first_image: np.ndarray, keypoints: int) -> None:
        self._shape, self._keypoints = first_image.shape, keypoints
        if first_image.ndim != 3 or first_image.shape[2] not in (1, 3):
            raise DatasetError(f"frame 0 has an image of shape {first_image.shape}, expected (height, width, 1 or 3)")
        self._count, self._has_groups = 0, False
        text = h5py.string_dtype()

        def grown(
            name: str, shape: tuple[int, ...], dtype: object, chunks: tuple[int, ...], fill: object
        ) -> h5py.Dataset:
            limits = (None, *(None if size == 0 else size for size in shape))
            return file.create_dataset(
                name, (0, *shape), dtype, maxshape=limits, chunks=chunks, fillvalue=fill, compression="gzip"
            )

        self._file = file
        self._images = grown("images", self._shape, np.uint8, (1, *self._shape), 0)
        self._points = grown("keypoints", (0, keypoints, 2), np.float32, (self.BLOCK, 1, keypoints, 2), np.nan)
        self._visibility = grown("visibility", (0, keypoints), np.uint8, (self.BLOCK, 1, keypoints), NOT_LABELLED)
        self._groups = grown("group", (), text, (self.BLOCK,), "")

    def append(self, frame: LabelledImage) -> None:
        image, points, visibility, group = frame
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ValueError(f"the image is {image.dtype} {image.shape}, expected uint8 {self._shape} as the first")
        points = np.asarray(points, np.float32)
        points = points[None] if points.ndim == 2 else points
        if points.ndim != 3 or points.shape[1:] != (self._keypoints, 2) or np.isinf(points).any():
            raise ValueError(
                f"the points have shape {points.shape}, expected (instances, {self._keypoints}, 2), finite or NaN"
            )
        if visibility is None:
            visibility = np.where(np.isnan(points).any(-1), NOT_LABELLED, VISIBLE)
        visibility = np.asarray(visibility).reshape(points.shape[:2])
        if not np.isin(visibility, range(VISIBLE + 1)).all():
            raise ValueError(f"the visibility has values {np.unique(visibility).tolist()}, expected 0 to {VISIBLE}")
        self._grow(len(points))
        row, instances = self._count, slice(len(points))
        self._images[row] = image
        self._points[row, instances] = points
        self._visibility[row, instances] = visibility
        self._groups[row] = group or ""
        self._has_groups |= group is not None
        self._count += 1

    def _grow(self, instances: int) -> None:
        rows = len(self._images)
        if self._count == rows:
            self._resize(rows + self.BLOCK)
        if instances > self._points.shape[1]:
            self._points.resize(instances, axis=1)
            self._visibility.resize(instances, axis=1)

    def _resize(self, rows: int) -> None:
        for dataset in (self._images, self._points, self._visibility, self._groups):
            dataset.resize(rows, axis=0)

    def finish(self) -> None:
        self._resize(self._count)
        if not self._has_groups:
            del self._file["group"]
