"""Datasets as commands use them: opened by what is in the file, several as one, split into two sides, fingerprinted."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

from hgtrain.data import deepposekit, leap, native, sleap_package
from hgtrain.data.builtin import FLIES, draw_flies
from hgtrain.data.concatenated import Concatenated, flags_path
from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
from hgtrain.data.hdf5 import members, named_damage, open_hdf5
from hgtrain.errors import DatasetError

BUILTIN = "builtin:"

FINGERPRINT_FRAMES = 64
HASHED_AT_ONCE = 2**15
"""Frames whose points are copied at once."""


class _Format(NamedTuple):
    recognises: Callable[[h5py.File], bool]
    open_file: Callable[[str | Path, bool], PoseDataset]
    layout: str


FORMATS = {
    native.FORMAT: _Format(native.recognises, native.open_file, "/images and /keypoints"),
    deepposekit.FORMAT: _Format(
        deepposekit.recognises, deepposekit.open_file, "/images, /annotations, /annotated and /skeleton"
    ),
    sleap_package.FORMAT: _Format(
        sleap_package.recognises, sleap_package.open_file, "/video0/video, /frames, /instances, /points and /metadata"
    ),
    leap.FORMAT: _Format(leap.recognises, leap.open_file, "/box and /joints or /positions"),
}
"""Tried in this order; the first that recognises a file opens it."""


def open_dataset(path: str | Path, annotated_only: bool = True) -> PoseDataset:
    """Return the dataset in a file, whatever its name, or behind `builtin:flies`.

    annotated_only False counts keypoints that the file marks as not annotated, but has coordinates for, as visible.
    Raises DatasetError when the file cannot be opened, is of no known format, or is out of order.
    """
    name = str(path)
    if name.startswith(BUILTIN):
        return native.open_file(builtin_file(name), annotated_only)
    with closing(open_hdf5(name)) as file, named_damage(name):
        known = next((known for known in FORMATS.values() if known.recognises(file)), None)
        if known is None:
            layouts = "; ".join(f"{name}: {known.layout}" for name, known in FORMATS.items())
            raise DatasetError(
                f"{name} is of no known format: it holds {members(file)}, expected one of ({layouts}); "
                "`hgtrain convert` reads more"
            )
    return known.open_file(name, annotated_only)


Progress = Callable[[Iterable[native.LabelledImage], int], Iterable[native.LabelledImage]]
"""Passes on the frames it is given, and shows how many of the total are through."""


def _silent(frames: Iterable[native.LabelledImage], total: int) -> Iterable[native.LabelledImage]:
    return frames


def _draw_flies(path: Path, progress: Progress) -> None:
    skeleton, frames = draw_flies(FLIES)
    native.write_dataset(path, skeleton, progress(frames, FLIES.frames))


BUILTINS = {
    "flies": (f"flies-v{FLIES.version}-seed{FLIES.seed}-{FLIES.size}px-{FLIES.frames}.h5", _draw_flies),
}


def builtin_file(name: str, progress: Progress = _silent) -> Path:
    """Return the file of a built-in dataset such as `builtin:flies`, drawn into the cache folder where it is missing.

    The folder is `$HGTRAIN_CACHE`, else `$XDG_CACHE_HOME/hgtrain`, else `~/.cache/hgtrain`. Two processes may draw at
    once: each writes a file of its own and the last rename wins. DatasetError for a name that is not known.
    """
    known = BUILTINS.get(name.removeprefix(BUILTIN))
    if known is None:
        raise DatasetError(f"{name} is not known, expected one of {', '.join(BUILTIN + key for key in BUILTINS)}")
    path = cache_folder() / known[0]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            known[1](path, progress)
        except OSError as error:
            raise DatasetError(
                f"{name} cannot be drawn into {path} ({error}): set HGTRAIN_CACHE to a folder"
            ) from error
    return path


def cache_folder() -> Path:
    """Return the folder for what is made once: `$HGTRAIN_CACHE`, or where the system has caches."""
    if "HGTRAIN_CACHE" in os.environ:
        return Path(os.environ["HGTRAIN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hgtrain"


def open_all(paths: Sequence[str | Path], annotated_only: bool = True) -> PoseDataset:
    """Return the dataset of one file, or several files as one, their frames one after another.

    Groups get the file as a prefix, and a file without groups is one group. Edges and symmetries are those of the first
    file. Raises DatasetError, which names two files, unless all have the same keypoints in the same order and images of
    one shape.
    """
    if not paths:
        raise DatasetError("no dataset was given")
    with _closed_on_error() as opened:
        for path in paths:
            opened.append(open_dataset(path, annotated_only))
        for other in opened[1:]:
            check_same_keypoints(opened[0], other)
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


def check_same_keypoints(first: PoseDataset, other: PoseDataset) -> None:
    """Raise DatasetError unless the keypoints agree by name and order."""
    if first.keypoint_names == other.keypoint_names:
        return
    theirs = (first.keypoint_names, other.keypoint_names)
    if len(theirs[0]) != len(theirs[1]):
        raise DatasetError(
            f"{first.path} has {len(theirs[0])} keypoints ({', '.join(theirs[0])}) but {other.path} has "
            f"{len(theirs[1])} ({', '.join(theirs[1])}): they must be the same, in the same order"
        )
    index = next(i for i, (a, b) in enumerate(zip(*theirs, strict=True)) if a != b)
    raise DatasetError(
        f"keypoint {index} of {first.path} is {theirs[0][index]!r} but that of {other.path} is {theirs[1][index]!r}: "
        "keypoints must be the same, in the same order"
    )


def check_same_images(first: PoseDataset, other: PoseDataset) -> None:
    """Raise DatasetError unless the images have one shape."""
    if first.image_shape != other.image_shape:
        raise DatasetError(
            f"images of {first.path} have shape {first.image_shape} but those of {other.path} {other.image_shape}: all "
            "must have the same (height, width, channels)"
        )


class Selection(NamedTuple):
    """Frames `(n,)` int64 that rise, and what was left out, a sentence each."""

    frames: np.ndarray
    notes: tuple[str, ...]


def select_single_instance(dataset: PoseDataset) -> Selection:
    """Return the frames with exactly one animal that has a labelled keypoint.

    Raises DatasetError when no frame is left, with the reason and the fix.
    """
    animals = (dataset.visibility != NOT_LABELLED).any(-1).sum(-1)
    frames = np.flatnonzero(animals == 1).astype(np.int64)
    several, none = int((animals > 1).sum()), int((animals == 0).sum())
    notes = []
    if several:
        notes.append(f"{dataset.path}: {several} frames with several animals are left out.")
    if none:
        notes.append(f"{dataset.path}: {none} frames without a labelled keypoint are left out.")
    if not len(frames):
        raise DatasetError(_nothing_left(dataset, several, none))
    return Selection(frames, tuple(notes))


def _nothing_left(dataset: PoseDataset, several: int, none: int) -> str:
    filled = int(np.isfinite(dataset.points).all(-1).sum())
    if not several and filled and flags_path(dataset):
        return (
            f"{flags_path(dataset)} marks every keypoint as not annotated, although {filled} of {dataset.path} have "
            "coordinates: set data.annotated_only: false to use them"
        )
    return (
        f"{dataset.path} has no frame to use: {several} of {len(dataset)} have several animals, {none} no labelled "
        "keypoint, and a single_instance head needs frames with exactly one animal"
    )


def single_instance_labels(dataset: PoseDataset, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return points `(n, K, 2)` float32 and visibility `(n, K)` uint8 of the labelled animal of each frame.

    frames: as `select_single_instance` gives them.
    """
    visibility = dataset.visibility[frames]
    slots = (visibility != NOT_LABELLED).any(-1).argmax(-1)
    rows = np.arange(len(slots))
    return dataset.points[frames][rows, slots], visibility[rows, slots]


@dataclass(frozen=True, eq=False)
class Side:
    """The frames `(n,)` int64 of a dataset that one side of a split uses."""

    dataset: PoseDataset
    frames: np.ndarray


@dataclass(frozen=True, eq=False)
class Split:
    """What is trained on and what is validated on; notes say what was left out, a sentence each."""

    train: Side
    validation: Side
    notes: tuple[str, ...] = ()


def make_split(
    train: PoseDataset, validation: PoseDataset | None, fraction: float | None, group_by: str | None, seed: int
) -> Split:
    """Return the sides: validation from its own dataset, or else `fraction` of the training dataset's frames.

    The choice depends on the seed and the labels alone. Each side gets at least one frame; with group_by every group
    goes to one side as a whole, and validation gets groups until it has the fraction.
    Raises DatasetError when sides do not fit together, or there are not two frames or groups to split.
    """
    selected = select_single_instance(train)
    if validation is not None:
        check_same_keypoints(train, validation)
        check_same_images(train, validation)
        other = select_single_instance(validation)
        notes = selected.notes + other.notes + _shared_files(train, validation)
        return Split(Side(train, selected.frames), Side(validation, other.frames), notes)
    if fraction is None:
        raise ValueError("neither a validation dataset nor a fraction was given")
    choose = _choose_groups if group_by else _choose_frames
    held_out = choose(train, selected.frames, fraction, np.random.default_rng(seed))
    kept = selected.frames[~np.isin(selected.frames, held_out)]
    return Split(Side(train, kept), Side(train, held_out), selected.notes)


def _choose_frames(dataset: PoseDataset, frames: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    if len(frames) < 2:
        raise DatasetError(
            f"{dataset.path} has {len(frames)} frame to use, a fraction needs two or more: label more, or give "
            "data.validation files of its own"
        )
    count = min(max(round(fraction * len(frames)), 1), len(frames) - 1)
    return np.sort(rng.permutation(frames)[:count])


def _choose_groups(dataset: PoseDataset, frames: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    if dataset.groups is None:
        raise DatasetError(
            f"data.group_by needs the group of each frame, and {dataset.path} ({dataset.format}) has none: add /group "
            "(hgtrain format), or set data.group_by: null"
        )
    groups = dataset.groups[frames]
    names = np.unique(groups)
    if len(names) < 2:
        raise DatasetError(
            f"data.group_by needs two or more groups, but all {len(frames)} frames of {dataset.path} are of "
            f"{str(names[0])!r}: set data.group_by: null, or give data.validation files of its own"
        )
    chosen = np.zeros(len(frames), bool)
    for name in rng.permutation(names)[: len(names) - 1]:
        if chosen.sum() >= fraction * len(frames):
            break
        chosen |= groups == name
    return frames[chosen]


def files_of(split: Split) -> tuple[str, ...]:
    """Return the files that both sides are read from, each once."""
    return tuple(dict.fromkeys((*_files(split.train.dataset), *_files(split.validation.dataset))))


def _files(dataset: PoseDataset) -> tuple[str, ...]:
    return getattr(dataset, "paths", (dataset.path,))


def _shared_files(train: PoseDataset, validation: PoseDataset) -> tuple[str, ...]:
    shared = {Path(path).resolve() for path in _files(train)} & {Path(path).resolve() for path in _files(validation)}
    return tuple(f"{path} is used for training and for validation." for path in sorted(shared))


def fingerprint(dataset: PoseDataset) -> str:
    """Return a sha256 in hex that is equal for datasets of equal content, wherever they lie and in whatever format.

    It covers keypoint names, edges, symmetries, shapes, points, visibility and the pixels of up to 64 evenly spaced
    frames; a change in any other frame's pixels goes unnoticed.
    """
    skeleton = (dataset.keypoint_names, dataset.edges, dataset.symmetries)
    header = json.dumps([*skeleton, dataset.image_shape, dataset.points.shape], default=int)
    digest = hashlib.sha256(header.encode())
    for start in range(0, len(dataset), HASHED_AT_ONCE):
        # NaN has many bit patterns, and both zeros are equal.
        points = dataset.points[start : start + HASHED_AT_ONCE] + np.float32(0)
        points[np.isnan(points)] = np.nan
        digest.update(points.astype("<f4", copy=False).tobytes())
    for start in range(0, len(dataset), HASHED_AT_ONCE):
        digest.update(dataset.visibility[start : start + HASHED_AT_ONCE].tobytes())
    for row in np.unique(np.linspace(0, len(dataset) - 1, FINGERPRINT_FRAMES).astype(np.int64)):
        digest.update(dataset.read_images([row]).tobytes())
    return digest.hexdigest()


def split_to_json(split: Split) -> dict[str, dict[str, Any]]:
    """Return files, fingerprint and frames of both sides, as `split.json` holds them."""
    datasets = {id(side.dataset): side.dataset for side in (split.train, split.validation)}
    prints = {number: fingerprint(dataset) for number, dataset in datasets.items()}
    return {
        name: {
            "files": list(_files(side.dataset)),
            "fingerprint": prints[id(side.dataset)],
            "frames": side.frames.tolist(),
        }
        for name, side in (("train", split.train), ("validation", split.validation))
    }


def split_from_json(document: dict[str, Any], train: PoseDataset, validation: PoseDataset | None) -> Split:
    """Return the split that `split_to_json` described, on datasets opened again; validation None: as train.

    Raises DatasetError when a dataset's content is not what it was.
    """
    sides, prints = {}, {}
    for name, dataset in (("train", train), ("validation", validation or train)):
        if id(dataset) not in prints:
            prints[id(dataset)] = fingerprint(dataset)
        now, then = prints[id(dataset)], document[name]["fingerprint"]
        if now != then:
            raise DatasetError(
                f"{dataset.path} has changed since the split was made: its fingerprint is {now[:12]}..., the split's "
                f"{name} side has {then[:12]}...: restore the file, or start a new run"
            )
        sides[name] = Side(dataset, np.array(document[name]["frames"], np.int64))
    return Split(sides["train"], sides["validation"])
