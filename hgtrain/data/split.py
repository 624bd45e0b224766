"""Which frames train and which validate."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from hgtrain.config.head import SINGLE_INSTANCE, HeadConfig
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.fingerprint import fingerprint
from hgtrain.data.open import check_same_images
from hgtrain.data.selection import labels_of_frames, most_animals, select_frames
from hgtrain.errors import DatasetError
from hgtrain.skeleton import check_same_keypoints


@dataclass(frozen=True, eq=False)
class Subset:
    """The frames `(n,)` int64 of a dataset that one side of a split uses."""

    dataset: PoseDataset
    frames: np.ndarray

    @cached_property
    def instances(self) -> int:
        """Return how many labelled animals a frame has at most, at least 1."""
        return most_animals(self.dataset, self.frames)

    def labels(self, rows: slice | np.ndarray = slice(None)) -> tuple[np.ndarray, np.ndarray]:
        """Return the labels of some of the frames, `instances` animals I each.

        Args:
            rows: Which of `frames`; all by default.

        Returns:
            Points `(n, I, K, 2)` float32, NaN where missing, and visibility `(n, I, K)` uint8.
        """
        return labels_of_frames(self.dataset, self.frames[rows], self.instances)


@dataclass(frozen=True, eq=False)
class Split:
    """What is trained on and what is validated on.

    Attributes:
        train: The side to train on.
        validation: The side to validate on.
        notes: What was left out, a sentence each.
    """

    train: Subset
    validation: Subset
    notes: tuple[str, ...] = ()


def make_split(
    train: PoseDataset,
    validation: PoseDataset | None,
    fraction: float | None,
    group_by: str | None,
    seed: int,
    head: HeadConfig = SINGLE_INSTANCE,
) -> Split:
    """Return the two sides of the split.

    The choice depends on the seed and the labels alone. Each side gets at least one frame.

    Args:
        train: The training dataset.
        validation: The dataset to validate on; None takes `fraction` of the training dataset's
            frames instead.
        fraction: The share of frames that validation gets.
        group_by: Where given, every group goes to one side as a whole, and validation gets groups
            until it has the fraction.
        seed: Of the random choice.
        head: The section of the head, which says what frames it can use.

    Raises:
        DatasetError: The sides do not fit together, or there are not two frames or groups to split.
    """
    selected = select_frames(train, head)
    if validation is not None:
        check_same_keypoints(
            train.keypoint_names, validation.keypoint_names, train.path, validation.path
        )
        check_same_images(train, validation)
        other = select_frames(validation, head)
        notes = selected.notes + other.notes + _shared_files(train, validation)
        return Split(Subset(train, selected.frames), Subset(validation, other.frames), notes)
    if fraction is None:
        raise ValueError("neither a validation dataset nor a fraction was given")
    choose = _choose_groups if group_by else _choose_frames
    held_out = choose(train, selected.frames, fraction, np.random.default_rng(seed))
    kept = selected.frames[~np.isin(selected.frames, held_out)]
    return Split(Subset(train, kept), Subset(train, held_out), selected.notes)


def _choose_frames(
    dataset: PoseDataset, frames: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    if len(frames) < 2:
        raise DatasetError(
            f"{dataset.path} has {len(frames)} frame to use, a fraction needs two or more: label "
            "more, or give "
            "data.validation files of its own"
        )
    count = min(max(round(fraction * len(frames)), 1), len(frames) - 1)
    return np.sort(rng.permutation(frames)[:count])


def _choose_groups(
    dataset: PoseDataset, frames: np.ndarray, fraction: float, rng: np.random.Generator
) -> np.ndarray:
    if dataset.groups is None:
        raise DatasetError(
            f"data.group_by needs the group of each frame, and {dataset.path} ({dataset.format}) "
            "has none: add /group "
            "(hgtrain format), or set data.group_by: null"
        )
    groups = dataset.groups[frames]
    names = np.unique(groups)
    if len(names) < 2:
        raise DatasetError(
            f"data.group_by needs two or more groups, but all {len(frames)} frames of "
            f"{dataset.path} are of "
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
    shared = {Path(path).resolve() for path in _files(train)} & {
        Path(path).resolve() for path in _files(validation)
    }
    return tuple(f"{path} is used for training and for validation." for path in sorted(shared))


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


def split_from_json(
    document: dict[str, Any], train: PoseDataset, validation: PoseDataset | None
) -> Split:
    """Return the split that `split_to_json` described, on datasets opened again.

    Args:
        document: What `split_to_json` gave.
        train: The training dataset.
        validation: The dataset to validate on, None where it is `train`.

    Raises:
        DatasetError: A dataset's content is not what it was.
    """
    sides, prints = {}, {}
    for name, dataset in (("train", train), ("validation", validation or train)):
        if id(dataset) not in prints:
            prints[id(dataset)] = fingerprint(dataset)
        now, then = prints[id(dataset)], document[name]["fingerprint"]
        if now != then:
            raise DatasetError(
                f"{dataset.path} has changed since the split was made: its fingerprint is "
                f"{now[:12]}..., the split's "
                f"{name} side has {then[:12]}...: restore the file, or start a new run"
            )
        sides[name] = Subset(dataset, np.array(document[name]["frames"], np.int64))
    return Split(sides["train"], sides["validation"])
