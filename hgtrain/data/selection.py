"""Which frames of a dataset a head can use, and their labels."""

from typing import NamedTuple

import numpy as np

from hgtrain.config.choices import HEAD_TYPES
from hgtrain.config.head import MULTI_INSTANCE, SINGLE_INSTANCE, HeadConfig
from hgtrain.data.concatenated import flags_path
from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
from hgtrain.errors import DatasetError

SPARE_INSTANCES = 2
"""Animals that are looked for beyond the most in a labelled frame."""


class UnsuitedHeadError(DatasetError):
    """No frame is left, because the head is for one animal and they have several."""


class Selection(NamedTuple):
    """Frames `(n,)` int64, strictly increasing, and what was left out, a sentence each."""

    frames: np.ndarray
    notes: tuple[str, ...]


def suited_head(dataset: PoseDataset) -> HeadConfig:
    """Return the head that can use all labelled frames: for several animals where one has them."""
    return MULTI_INSTANCE if most_animals(dataset, np.arange(len(dataset))) > 1 else SINGLE_INSTANCE


def select_frames(dataset: PoseDataset, head: HeadConfig = SINGLE_INSTANCE) -> Selection:
    """Return the frames that a head can use.

    For one animal these are those with exactly one animal that has a labelled keypoint. For several
    animals they are those with any, and those that were labelled as empty.

    Args:
        dataset: Whose frames.
        head: The section of the head.

    Raises:
        DatasetError: No frame is left; the message gives the reason and the fix. It is an
            `UnsuitedHeadError` where another head could use some.
    """
    animals = (dataset.visibility != NOT_LABELLED).any(-1).sum(-1)
    several, none = int((animals > 1).sum()), int((animals == 0).sum())
    usable = animals == 1
    notes = []
    if head.several_animals:
        usable = animals > 0
        if none and not head.needs_animals and marks_empty_frames(dataset):
            usable[:] = True
            notes.append(f"{dataset.path}: {none} frames have no animal, and teach that.")
            none = 0
    elif several:
        notes.append(f"{dataset.path}: {several} frames with several animals are left out.")
    if none:
        notes.append(f"{dataset.path}: {none} frames without a labelled keypoint are left out.")
    frames = np.flatnonzero(usable).astype(np.int64)
    if not animals[frames].any():
        is_unsuited = several > 0 and not head.several_animals
        kind = UnsuitedHeadError if is_unsuited else DatasetError
        raise kind(_nothing_left(dataset, head, several, none))
    return Selection(frames, tuple(notes))


def marks_empty_frames(dataset: PoseDataset) -> bool:
    """Return whether a frame without labels is one without animals, not one nobody labelled.

    It is in hgtrain's own format with an axis of animals. Other formats list what was labelled, and
    with one animal a frame without it has nothing to say.
    """
    return dataset.format == "hgtrain" and dataset.points.shape[1] > 1


def _nothing_left(dataset: PoseDataset, head: HeadConfig, several: int, none: int) -> str:
    filled = int(np.isfinite(dataset.points).all(-1).sum())
    if not several and filled and flags_path(dataset):
        return (
            f"{flags_path(dataset)} marks every keypoint as not annotated, although {filled} of "
            f"{dataset.path} have "
            "coordinates: set data.annotated_only: false to use them"
        )
    if head.several_animals:
        return (
            f"{dataset.path} has no frame to use: none of its {len(dataset)} frames has a labelled "
            "keypoint"
        )
    fix = (
        f"; for several animals set model.head.type to {HEAD_TYPES[1]}, or let `hgtrain init "
        f"{dataset.path} -o CONFIG` write a config"
    )
    return (
        f"{dataset.path} has no frame to use: {several} of {len(dataset)} have several animals, "
        f"{none} no labelled keypoint, and a {head.type} head needs frames with exactly one animal"
        f"{fix if several else ''}"
    )


def most_animals(dataset: PoseDataset, frames: np.ndarray) -> int:
    """Return how many animals with a labelled keypoint a frame has at most, at least 1."""
    labelled = (dataset.visibility[frames] != NOT_LABELLED).any(-1)
    return max(1, int(labelled.sum(-1).max(initial=0)))


def labels_of_frames(
    dataset: PoseDataset, frames: np.ndarray, instances: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the animals of each frame, those with a labelled keypoint first.

    Args:
        dataset: Where the frames come from.
        frames: As `select_frames` gives them.
        instances: How many animals I to give of each frame, at least `most_animals` of all frames
            that are asked for in turn; None for those of these frames.

    Returns:
        Points `(n, I, K, 2)` float32, NaN where missing, and visibility `(n, I, K)` uint8.
    """
    instances = instances or most_animals(dataset, frames)
    points, visibility = dataset.points[frames], dataset.visibility[frames]
    labelled = (visibility != NOT_LABELLED).any(-1)
    slots = np.argsort(~labelled, axis=1, kind="stable")[:, :instances]
    rows = np.arange(len(slots))[:, None]
    return points[rows, slots], visibility[rows, slots]
