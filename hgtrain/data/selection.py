"""Which frames of a dataset a network for one animal can use, and their labels."""

from typing import NamedTuple

import numpy as np

from hgtrain.config.choices import HEAD_TYPES
from hgtrain.data.concatenated import flags_path
from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
from hgtrain.errors import DatasetError


class Selection(NamedTuple):
    """Frames `(n,)` int64 that rise, and what was left out, a sentence each."""

    frames: np.ndarray
    notes: tuple[str, ...]


def select_frames(dataset: PoseDataset) -> Selection:
    """Return the frames with exactly one animal that has a labelled keypoint.

    Raises:
        DatasetError: No frame is left; the message gives the reason and the fix.
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
            f"{flags_path(dataset)} marks every keypoint as not annotated, although {filled} of "
            f"{dataset.path} have "
            "coordinates: set data.annotated_only: false to use them"
        )
    return (
        f"{dataset.path} has no frame to use: {several} of {len(dataset)} have several animals, "
        f"{none} no labelled "
        f"keypoint, and a {HEAD_TYPES[0]} head needs frames with exactly one animal"
    )


def labels_of_frames(dataset: PoseDataset, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of the labelled animal of each frame.

    Args:
        dataset: Where the frames come from.
        frames: As `select_frames` gives them.

    Returns:
        Points `(n, K, 2)` float32 and visibility `(n, K)` uint8.
    """
    visibility = dataset.visibility[frames]
    slots = (visibility != NOT_LABELLED).any(-1).argmax(-1)
    rows = np.arange(len(slots))
    return dataset.points[frames][rows, slots], visibility[rows, slots]
