"""What the labels say of the animals: how large they are, and which keypoint is their root."""

import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, PoseDataset
from hgtrain.data.selection import labels_of_frames
from hgtrain.skeleton import Skeleton

LARGE_ANIMAL_PERCENTILE = 95

ROOT_LABELLED = 0.95
"""A root that is labelled in a larger share of the animals can stand for where they are."""


def located_animals(dataset: PoseDataset, frames: np.ndarray) -> np.ndarray:
    """Return the labelled points of all animals of some frames.

    Args:
        dataset: Where the frames come from.
        frames: As `select_frames` gives them.

    Returns:
        `(n, I, K, 2)` float32 px, NaN where not labelled or missing.
    """
    points, visibility = labels_of_frames(dataset, frames)
    return np.where((visibility != NOT_LABELLED)[..., None], points, np.nan).astype(np.float32)


def animal_px(dataset: PoseDataset) -> float | None:
    """Return the longer side of the animals' bounding boxes that 95 in 100 do not exceed.

    It is None without any animal.
    """
    points = dataset.points.reshape(-1, *dataset.points.shape[2:])
    located = np.where(
        (dataset.visibility.reshape(points.shape[:2]) > 0)[..., None], points, np.nan
    )
    several = located[np.isfinite(located).all(-1).sum(-1) > 1]
    if not len(several):
        return None
    sides = np.nanmax(several, axis=1) - np.nanmin(several, axis=1)
    return float(np.percentile(sides.max(-1), LARGE_ANIMAL_PERCENTILE))


def root_keypoint(skeleton: Skeleton, points: np.ndarray) -> int | None:
    """Return the root of the skeleton's edges where it is labelled in nearly all animals.

    A root is a keypoint from which edges lead and to which none does; of several it is the one with
    the most edges.

    Args:
        skeleton: Of the dataset.
        points: `(..., K, 2)`, NaN where missing.

    Returns:
        The keypoint's index, None where no root is labelled in more than 95 in 100 animals.
    """
    there = np.isfinite(points).all(-1).reshape(-1, points.shape[-2])
    animals = there[there.any(-1)]
    firsts = [first for first, _ in skeleton.edges]
    seconds = {second for _, second in skeleton.edges}
    roots = [
        root
        for root in sorted(set(firsts) - seconds)
        if len(animals) and animals[:, root].mean() > ROOT_LABELLED
    ]
    return max(roots, key=firsts.count, default=None)
