"""What a dataset looks like, as far as it matters for a config."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hgtrain.config.head import HeadConfig
from hgtrain.data.animals import animal_px, located_animals, root_keypoint
from hgtrain.data.crop_size import crop_size_px
from hgtrain.data.dataset import NOT_LABELLED, PoseDataset, skeleton_of
from hgtrain.data.selection import select_frames, suited_head
from hgtrain.skeleton import Skeleton, partners_by_name

SAME_DIRECTION = 0.8
"""From which mean length on all animals count as facing one way.

It is that of a keypoint's direction from the animal's middle.
"""


class Crowd(NamedTuple):
    """What matters where there are several animals.

    Attributes:
        frames: How many have several.
        most: Labelled animals in a frame at most, at least 1.
        anchor: Name of the keypoint that can stand for where an animal is, None for none.
        crop_px: Side of a crop around it that holds nearly all animals whole, px of the images.
        fewest_keypoints: Labelled keypoints that nearly all labelled animals have.
    """

    frames: int
    most: int
    anchor: str | None
    crop_px: int
    fewest_keypoints: int = 1


class DatasetStats(NamedTuple):
    """What a dataset looks like.

    Attributes:
        frames: How many.
        image_shape: `(H, W, C)`.
        skeleton: Of the dataset.
        animal_px: Size of the animals, in pixels of the images.
        spread: Of the animals' size, 10th to 90th percentile, as a part of the median.
        faces_one_way: Whether the animals all face the same way.
        has_partners: Whether left and right keypoints have partners, as far as names tell all.
        flip: How a mirrored image still looks like one of them: none, horizontal, vertical.
        annotated_only: Whether only annotated frames count.
        head: The section of the head whose frames these are; besides `type` it has its defaults.
        crowd: What is of interest where there are several.
    """

    frames: int
    image_shape: tuple[int, int, int]
    skeleton: Skeleton
    animal_px: float
    spread: float
    faces_one_way: bool
    has_partners: bool
    flip: str
    annotated_only: bool
    head: HeadConfig
    crowd: Crowd


def dataset_stats(
    dataset: PoseDataset, annotated_only: bool, head: HeadConfig | None = None
) -> DatasetStats:
    """Return what matters for a config, of all animals.

    Args:
        dataset: The dataset.
        annotated_only: Whether only annotated frames count.
        head: The section of a head; None for the one that fits the labels.

    Raises:
        DatasetError: No frame of the dataset can be used.
    """
    head = head or suited_head(dataset)
    frames = select_frames(dataset, head).frames
    located = located_animals(dataset, frames)
    animals = located.reshape(-1, *located.shape[2:])
    longest = animal_px(dataset) or float(max(dataset.image_shape[:2])) / 4
    faces_one_way, symmetries = _faces_one_way(animals), dataset.symmetries
    lacks_partners = bool(partners_by_name(dataset.keypoint_names, symmetries))
    return DatasetStats(
        frames=len(frames),
        image_shape=dataset.image_shape,
        skeleton=skeleton_of(dataset),
        animal_px=longest,
        spread=_spread(animals),
        faces_one_way=faces_one_way,
        has_partners=bool(symmetries) and not lacks_partners,
        flip="none" if lacks_partners else _flip(animals, symmetries, faces_one_way),
        annotated_only=annotated_only,
        head=head,
        crowd=_crowd(dataset, located),
    )


def _crowd(dataset: PoseDataset, located: np.ndarray) -> Crowd:
    labelled = (dataset.visibility != NOT_LABELLED).any(-1).sum(-1)
    skeleton = skeleton_of(dataset)
    root = root_keypoint(skeleton, located)
    return Crowd(
        frames=int((labelled > 1).sum()),
        most=max(1, int(labelled.max(initial=0))),
        anchor=None if root is None else skeleton.keypoint_names[root],
        crop_px=crop_size_px(located, root, 1),
        fewest_keypoints=_fewest_keypoints(located),
    )


def _fewest_keypoints(located: np.ndarray) -> int:
    """Return how many keypoints 99 of 100 labelled animals `(N, I, K, 2)` have."""
    counts = np.isfinite(located).all(-1).sum(-1)
    labelled = counts[counts > 0]
    return max(1, int(np.percentile(labelled, 1))) if labelled.size else 1


def _spread(points: np.ndarray) -> float:
    several = points[np.isfinite(points).all(-1).sum(-1) > 1]
    if not len(several):
        return 1.0
    sides = (np.nanmax(several, axis=1) - np.nanmin(several, axis=1)).max(-1)
    low, middle, high = np.percentile(sides, (10, 50, 90))
    return float((high - low) / max(middle, 1.0))


def _faces_one_way(points: np.ndarray) -> bool:
    several = points[np.isfinite(points).all(-1).sum(-1) > 1]
    if len(several) < 2:
        return False
    away = several - np.nanmean(several, axis=1, keepdims=True)
    means = _mean_directions(away)
    return bool(len(means)) and bool(np.linalg.norm(means, axis=-1).max() > SAME_DIRECTION)


def _mean_directions(vectors: np.ndarray) -> np.ndarray:
    """Return the mean of unit vectors over frames, `(n, K, 2)` to `(k, 2)`.

    Those k of the K that are known in two frames at least.
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    directions = np.where(length > 0, vectors / np.maximum(length, 1e-6), np.nan)
    known = np.isfinite(directions).all(-1).sum(0) > 1
    return np.nanmean(directions[:, known], axis=0) if known.any() else np.empty((0, 2))


def _flip(points: np.ndarray, symmetries: Sequence[tuple[int, int]], faces_one_way: bool) -> str:
    """Return the flip that mirrors animals to what they look like themselves.

    Where they face all ways, any does. Where they face one way it is the one that exchanges left
    and right; from the side these lie over one another, and no flip keeps feet down and the head
    where it is.

    Args:
        points: `(n, K, 2)`, NaN where missing.
        symmetries: Left/right partners.
        faces_one_way: Whether the animals all face the same way.
    """
    if not symmetries:
        return "none"
    if not faces_one_way:
        return "horizontal"
    left, right = np.array(symmetries).T
    means = _mean_directions(points[:, right] - points[:, left])
    if not len(means) or np.median(np.linalg.norm(means, axis=-1)) < SAME_DIRECTION:
        return "none"
    across = np.abs(means).mean(0)
    return "horizontal" if across[0] > across[1] else "vertical"
