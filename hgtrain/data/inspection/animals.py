"""How many animals frames have, how near they come, and what crops of them would cut off."""

from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np

from hgtrain.data.animals import animal_px, root_keypoint
from hgtrain.data.crop_size import crop_size_px, share_cut_off
from hgtrain.data.dataset import NOT_LABELLED, PoseDataset, skeleton_of

NEAR_FRACTION = 0.05
"""Of the animals' length, within which keypoints of two animals are hard to tell apart."""

FRAMES_AT_ONCE = 1024


def animals_report(dataset: PoseDataset) -> dict[str, Any]:
    """Return what `inspect` says of the animals.

    Returns:
        `animals_per_frame`: `min`, `mean`, `max`. `empty_frames`: how many have none. `overlaps`:
            frames with `boxes` of animals that overlap, and with keypoints of two animals `near`
            one another, nearer than `near_px` (None where no animal has a size). `crop`: a crop of
            `size_px` px of the images around `anchor` (a keypoint; None for the middle of the
            bounding box), large enough for nearly all animals, would have `cut_off` as many of the
            labelled `keypoints`.
    """
    marked = dataset.visibility != NOT_LABELLED
    counts = marked.any(-1).sum(1)
    points = np.where(marked[..., None], dataset.points, np.nan)
    length = animal_px(dataset)
    near_px = None if length is None else NEAR_FRACTION * length
    several = points[counts > 1]
    labelled = int(np.isfinite(points).all(-1).sum())
    root = root_keypoint(skeleton_of(dataset), points)
    size = crop_size_px(points, root, 1)
    return {
        "animals_per_frame": {
            "min": int(counts.min()),
            "mean": float(counts.mean()),
            "max": int(counts.max()),
        },
        "empty_frames": int((counts == 0).sum()),
        "overlaps": {
            "boxes": int(boxes_overlap(several).sum()),
            "near": int(keypoints_near(several, near_px or 0.0).sum()),
            "near_px": near_px,
        },
        "crop": {
            "size_px": size,
            "anchor": None if root is None else dataset.keypoint_names[root],
            "keypoints": labelled,
            "cut_off": round(share_cut_off(points, root, size) * labelled),
        },
    }


def boxes_overlap(points: np.ndarray) -> np.ndarray:
    """Return for each frame whether the bounding boxes of two of its animals overlap or touch.

    Args:
        points: `(n, I, K, 2)` in px, NaN where missing.

    Returns:
        `(n,)` bool.
    """
    found = np.zeros(len(points), bool)
    for _, _, overlap in _overlapping_pairs(points, 0.0):
        found |= overlap
    return found


def keypoints_near(points: np.ndarray, distance_px: float) -> np.ndarray:
    """Return for each frame whether keypoints of two of its animals are nearer than a distance.

    Args:
        points: `(n, I, K, 2)` in px, NaN where missing.
        distance_px: The distance.

    Returns:
        `(n,)` bool.
    """
    found = np.zeros(len(points), bool)
    for a, b, overlap in _overlapping_pairs(points, distance_px):
        frames = np.flatnonzero(overlap & ~found)
        for start in range(0, len(frames), FRAMES_AT_ONCE):
            rows = frames[start : start + FRAMES_AT_ONCE]
            away = points[rows, a, :, None] - points[rows, b, None]
            found[rows] = (np.hypot(away[..., 0], away[..., 1]) < distance_px).any((1, 2))
    return found


def _overlapping_pairs(
    points: np.ndarray, margin_px: float
) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield two animals each and in which frames `(n,)` their boxes are no further apart."""
    there = np.isfinite(points).all(-1, keepdims=True)
    # Of an animal without a point nothing overlaps.
    low = np.where(there, points, np.inf).min(2)
    high = np.where(there, points, -np.inf).max(2) + margin_px
    for a, b in combinations(range(points.shape[1]), 2):
        yield a, b, ((low[:, a] <= high[:, b]) & (low[:, b] <= high[:, a])).all(-1)
