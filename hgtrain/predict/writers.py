"""Predictions as files, written as they come: `.h5`, `.csv` and `.slp`.

`.h5`: `/points (N, I, K, 2)` float32, x then y in pixels of the image, pixel centres at integers,
NaN where nothing was found; `/confidence (N, I, K)` and `/instance_score (N, I)` float32 in 0..1;
`/source (N,)` and `/frame (N,)`: the row of `/sources`, which names files, and the frame's number
in that file. Attributes: `format="hgtrain-predictions"`, `version`, `keypoint_names`, `edges`,
`symmetries`, `model`, and `complete`, False when the input broke before its end.

`.csv`: one row for each animal: `source`, `frame`, `instance`, `score`, and for each keypoint
`NAME.x`, `NAME.y`, `NAME.confidence`; empty where nothing was found or the frame is damaged.

`.slp`: SLEAP's labels with predicted instances, opened by SLEAP and sleap-io.
"""

import csv
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hgtrain.data.convert.sleap_io import import_sleap_io, to_foreign_skeleton, to_foreign_video
from hgtrain.data.media.frame_source import FrameSource
from hgtrain.errors import RunError
from hgtrain.files import path_beside, take_place
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton

FORMAT, VERSION = "hgtrain-predictions", 1
ROWS_AT_ONCE = 256


class PredictionFile(ABC):
    """A file of predictions that takes its name when it is closed.

    `write` adds frames of the source of index `source`, numbered from `first` on. `close` keeps
    what was written; a file without any frames is removed.
    """

    def __init__(
        self, path: Path, skeleton: Skeleton, sources: Sequence[FrameSource], model: str
    ) -> None:
        self.path = path
        self.frames = 0
        self._skeleton, self._sources, self._model = skeleton, sources, model
        self._beside = path_beside(path)
        try:
            self._open()
        except OSError as error:
            raise RunError(f"{path} cannot be written: {error.strerror or error}") from error

    def write(self, source: int, first: int, found: Poses) -> None:
        """Add the predictions of the frames `first`, `first + 1`, ... of a source."""
        self._write(source, first, found)
        self.frames += len(found.points)

    def close(self, complete: bool) -> None:
        """Finish the file; `complete` says whether all frames are in it."""
        self._close(complete)
        if self.frames:
            take_place(self._beside, self.path)
        else:
            self._beside.unlink(missing_ok=True)

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _write(self, source: int, first: int, found: Poses) -> None: ...

    @abstractmethod
    def _close(self, complete: bool) -> None: ...


class Hdf5File(PredictionFile):
    """The layout of the module's text."""

    def _open(self) -> None:
        keypoints = len(self._skeleton.keypoint_names)
        self._file = file = h5py.File(self._beside, "x")
        self._rows = {
            "points": _growing(file, "points", (1, keypoints, 2), "f4", np.nan),
            "confidence": _growing(file, "confidence", (1, keypoints), "f4", np.nan),
            "instance_score": _growing(file, "instance_score", (1,), "f4", np.nan),
            "source": _growing(file, "source", (), "i4"),
            "frame": _growing(file, "frame", (), "i8"),
        }
        files = list(dict.fromkeys(name for source in self._sources for name in source.files))
        self._number = {name: i for i, name in enumerate(files)}
        text = h5py.string_dtype()
        file.create_dataset("sources", data=np.array(files, dtype=object), dtype=text)
        file.attrs["format"], file.attrs["version"], file.attrs["model"] = (
            FORMAT,
            VERSION,
            self._model,
        )
        file.attrs["keypoint_names"] = np.array(self._skeleton.keypoint_names, dtype=text)
        for name in ("edges", "symmetries"):
            file.attrs[name] = np.array(getattr(self._skeleton, name), np.int64).reshape(-1, 2)

    def _write(self, source: int, first: int, found: Poses) -> None:
        places = [self._sources[source].place(first + i) for i in range(len(found.points))]
        columns = {
            "points": found.points,
            "confidence": found.confidence,
            "instance_score": found.scores,
            "source": np.array([self._number[place.file] for place in places]),
            "frame": np.array([place.number for place in places]),
        }
        for name, values in columns.items():
            rows = self._rows[name]
            rows.resize(self.frames + len(values), axis=0)
            if values.ndim > 1 and values.shape[1] > rows.shape[1]:
                rows.resize(values.shape[1], axis=1)
            rows[(slice(self.frames, None), *(slice(n) for n in values.shape[1:2]))] = values

    def _close(self, complete: bool) -> None:
        self._file.attrs["complete"] = complete
        self._file.close()


def _growing(
    file: h5py.File, name: str, shape: tuple[int, ...], dtype: str, fill: float = 0
) -> h5py.Dataset:
    limits = (None, *shape) if len(shape) < 1 else (None, None, *shape[1:])
    return file.create_dataset(
        name,
        (0, *shape),
        dtype,
        maxshape=limits,
        chunks=(ROWS_AT_ONCE, *shape),
        compression="gzip",
        fillvalue=fill,
    )


class CsvFile(PredictionFile):
    """The columns of the module's text."""

    def _open(self) -> None:
        self._file = self._beside.open("x", encoding="utf-8", newline="")
        self._table = csv.writer(self._file)
        columns = [
            f"{name}.{part}"
            for name in self._skeleton.keypoint_names
            for part in ("x", "y", "confidence")
        ]
        self._table.writerow(["source", "frame", "instance", "score", *columns])

    def _write(self, source: int, first: int, found: Poses) -> None:
        for i, (points, confidence, scores) in enumerate(zip(*found, strict=True)):
            place = self._sources[source].place(first + i)
            present = np.flatnonzero(np.isfinite(points).any((-1, -2)))
            # Where there is always one animal each frame has its row, also one that is damaged.
            for instance in range(1) if len(points) == 1 else present:
                values = np.concatenate([points[instance], confidence[instance][:, None]], axis=1)
                cells = [_cell(value) for value in values.ravel()]
                self._table.writerow(
                    [place.file, place.number, instance, _cell(scores[instance]), *cells]
                )

    def _close(self, complete: bool) -> None:
        self._file.close()


def _cell(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


class SlpFile(PredictionFile):
    """SLEAP's format, written frame by frame.

    sleap-io writes all but the tables of frames, instances and points, which grow here, so that
    memory does not grow with the frames. The columns are those sleap-io writes.
    """

    def _open(self) -> None:
        sleap_io = import_sleap_io(f"to write {self.path}")
        skeleton = to_foreign_skeleton(self._skeleton)
        videos = [
            to_foreign_video(one.files, one.kind, one.shape, one.rate) for one in self._sources
        ]
        labels = sleap_io.Labels(
            videos=videos, skeletons=[skeleton], provenance={"model": self._model}
        )
        sleap_io.save_slp(labels, str(self._beside), embed=False, verbose=False)
        self._file = h5py.File(self._beside, "r+")
        self._tables = {}
        for name in ("frames", "instances", "pred_points"):
            dtype = self._file[name].dtype
            del self._file[name]
            self._tables[name] = self._file.create_dataset(
                name, (0,), dtype, maxshape=(None,), chunks=(4 * ROWS_AT_ONCE,), compression="gzip"
            )

    def _write(self, source: int, first: int, found: Poses) -> None:
        keypoints = found.points.shape[2]
        present = np.isfinite(found.points).all(-1)
        frame_of, instance_of = np.nonzero(present.any(-1))
        instances_before, points_before = (
            len(self._tables[name]) for name in ("instances", "pred_points")
        )
        starts = np.searchsorted(frame_of, np.arange(len(found.points) + 1)) + instances_before
        rows = np.arange(len(frame_of))
        self._append(
            "frames",
            frame_id=self.frames + np.arange(len(found.points)),
            video=source,
            frame_idx=first + np.arange(len(found.points)),
            instance_id_start=starts[:-1],
            instance_id_end=starts[1:],
        )
        self._append(
            "instances",
            instance_id=instances_before + rows,
            instance_type=1,
            frame_id=self.frames + frame_of,
            skeleton=0,
            track=-1,
            from_predicted=-1,
            score=found.scores[frame_of, instance_of],
            point_id_start=points_before + rows * keypoints,
            point_id_end=points_before + (rows + 1) * keypoints,
            tracking_score=0.0,
        )
        points = found.points[frame_of, instance_of].reshape(-1, 2)
        self._append(
            "pred_points",
            x=points[:, 0],
            y=points[:, 1],
            visible=present[frame_of, instance_of].ravel(),
            complete=False,
            score=found.confidence[frame_of, instance_of].ravel(),
        )

    def _append(self, name: str, **columns: Any) -> None:
        table = self._tables[name]
        rows = np.zeros(max(np.size(column) for column in columns.values()), table.dtype)
        if all(np.ndim(column) == 0 or np.size(column) for column in columns.values()):
            for column, values in columns.items():
                rows[column] = values
            table.resize(len(table) + len(rows), axis=0)
            table[len(table) - len(rows) :] = rows

    def _close(self, complete: bool) -> None:
        self._file.close()


FILES: dict[str, type[PredictionFile]] = {
    ".h5": Hdf5File,
    ".hdf5": Hdf5File,
    ".csv": CsvFile,
    ".slp": SlpFile,
}
"""By the suffix of the file."""


def file_type(path: Path) -> type[PredictionFile]:
    """Return what writes a file of this name; RunError for a suffix that is not known."""
    try:
        return FILES[path.suffix.lower()]
    except KeyError as error:
        raise RunError(
            f"{path}: predictions are written as {', '.join(FILES)}, got {path.suffix!r}"
        ) from error
