"""Writes the hgtrain format."""

import os
import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE
from hgtrain.data.formats.hgtrain_format import FORMAT, VERSION, LabelledImage
from hgtrain.data.formats.image_chunks import GZIP_LEVEL, ImageChunks
from hgtrain.errors import DatasetError
from hgtrain.files import fsync
from hgtrain.hdf5 import as_text
from hgtrain.skeleton import Skeleton, check_skeleton

_UNWRITABLE = re.compile("[\0\ud800-\udfff]")
"""NUL, which ends text in HDF5, and halves of characters, which are not in UTF-8."""


def write_dataset(path: str | Path, skeleton: Skeleton, frames: Iterable[LabelledImage]) -> int:
    """Write a new file in the hgtrain format and return the number of frames written.

    The first frame sets H, W and C; instances may vary from frame to frame and are padded with NaN.
    Memory does not grow with the number of frames. A file of that name is replaced only when the
    new one is complete on disk.

    Raises:
        DatasetError: The skeleton makes no sense, a frame is unlike the first, or there is no frame
            at all.
    """
    target = Path(path)
    if not target.parent.is_dir():
        raise DatasetError(f"{target}: there is no folder {target.parent}")
    # As they will be read: HDF5 pads text.
    names = tuple(map(as_text, skeleton.keypoint_names))
    skeleton = skeleton._replace(keypoint_names=names)
    check_skeleton(skeleton, f"{target}: skeleton")
    for name in names:
        if _UNWRITABLE.search(name):
            raise DatasetError(
                f"{target}: skeleton: the name {name!r} has a character that HDF5 cannot hold, "
                "rename the keypoint"
            )
    with _replaced_when_complete(target) as beside, h5py.File(beside, "x") as file:
        left = iter(frames)
        first = next(left, None)
        if first is None:
            raise DatasetError(f"{target}: there are no frames to write")
        count = 0
        writer = _Writer(file, first[0], len(skeleton.keypoint_names))
        with writer.images:
            for count, frame in enumerate(chain([first], left), start=1):
                try:
                    writer.append(frame)
                except ValueError as error:
                    raise DatasetError(f"{target}: frame {count - 1}: {error}") from error
            writer.finish()
        _write_attributes(file, skeleton)
    return count


@contextmanager
def _replaced_when_complete(target: Path) -> Iterator[Path]:
    beside = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.partial")
    try:
        yield beside
        fsync(beside)
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
    """Datasets that grow in blocks; the image of a frame is one chunk."""

    BLOCK = 256

    def __init__(self, file: h5py.File, first_image: np.ndarray, keypoints: int) -> None:
        self._shape, self._keypoints = first_image.shape, keypoints
        if first_image.ndim != 3 or first_image.shape[2] not in (1, 3):
            raise DatasetError(
                f"frame 0 has an image of shape {first_image.shape}, expected (height, width, 1 "
                "or 3)"
            )
        self._count, self._has_groups = 0, False
        text = h5py.string_dtype()

        def grown(
            name: str, shape: tuple[int, ...], dtype: object, chunks: tuple[int, ...], fill: object
        ) -> h5py.Dataset:
            limits = (None, *(None if size == 0 else size for size in shape))
            return file.create_dataset(
                name,
                (0, *shape),
                dtype,
                maxshape=limits,
                chunks=chunks,
                fillvalue=fill,
                compression="gzip",
                compression_opts=GZIP_LEVEL,
            )

        self._file = file
        self._image_rows = grown("images", self._shape, np.uint8, (1, *self._shape), 0)
        self.images = ImageChunks(self._image_rows)
        self._points = grown(
            "keypoints", (0, keypoints, 2), np.float32, (self.BLOCK, 1, keypoints, 2), np.nan
        )
        self._visibility = grown(
            "visibility", (0, keypoints), np.uint8, (self.BLOCK, 1, keypoints), NOT_LABELLED
        )
        self._groups = grown("group", (), text, (self.BLOCK,), "")

    def append(self, frame: LabelledImage) -> None:
        image, points, visibility, group = frame
        if image.shape != self._shape or image.dtype != np.uint8:
            raise ValueError(
                f"the image is {image.dtype} {image.shape}, expected uint8 {self._shape} as the "
                "first"
            )
        points = np.asarray(points, np.float32)
        points = points[None] if points.ndim == 2 else points
        if points.ndim != 3 or points.shape[1:] != (self._keypoints, 2):
            raise ValueError(
                f"the points have shape {points.shape}, expected (instances, {self._keypoints}, 2)"
            )
        if np.isinf(points).any():
            raise ValueError("a point is at infinity, expected finite coordinates or NaN")
        if visibility is None:
            visibility = np.where(np.isnan(points).any(-1), NOT_LABELLED, VISIBLE)
        visibility = np.asarray(visibility).reshape(points.shape[:2])
        if not np.isin(visibility, range(VISIBLE + 1)).all():
            raise ValueError(
                f"the visibility has values {np.unique(visibility).tolist()}, expected 0 to "
                f"{VISIBLE}"
            )
        self._grow(len(points))
        row, instances = self._count, slice(len(points))
        self.images.write(row, image)
        self._points[row, instances] = points
        self._visibility[row, instances] = visibility
        # Names of files may have bytes that are no text, and a byte of 0 ends text in HDF5.
        self._groups[row] = _UNWRITABLE.sub("?", group or "")
        self._has_groups |= group is not None
        self._count += 1

    def _grow(self, instances: int) -> None:
        rows = len(self._image_rows)
        if self._count == rows:
            self._resize(rows + self.BLOCK)
        if instances > self._points.shape[1]:
            self._points.resize(instances, axis=1)
            self._visibility.resize(instances, axis=1)

    def _resize(self, rows: int) -> None:
        for dataset in (self._image_rows, self._points, self._visibility, self._groups):
            dataset.resize(rows, axis=0)

    def finish(self) -> None:
        self.images.finish()
        self._resize(self._count)
        if not self._has_groups:
            del self._file["group"]
