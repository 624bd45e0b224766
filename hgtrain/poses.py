"""What was found in images: animals with their points, confidence and scores."""

from typing import Any, NamedTuple

import numpy as np

CENTROID = "centroid"
"""Name of the one keypoint of an animal of which only the place is known."""


class Poses(NamedTuple):
    """Predictions of some frames, as arrays or as tensors of a compiled graph.

    The axis I of animals is there for one animal too, where it is 1. What was not found is NaN.

    Attributes:
        points: `(N, I, K, 2)` float32, x then y in px, pixel centres at integers.
        confidence: `(N, I, K)` float32 in 0..1.
        scores: `(N, I)` float32 in 0..1, of each animal.
    """

    points: Any
    confidence: Any
    scores: Any


def joined(parts: list[Poses]) -> Poses:
    """Return the arrays of several batches, one or more, as one."""
    return Poses(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def no_poses(instances: int, keypoints: int, frames: int = 0) -> Poses:
    """Return arrays for frames in which nothing is found, NaN throughout."""
    shape = (frames, instances, keypoints, 2)
    points = np.full(shape, np.nan, np.float32)
    return Poses(points, points[..., 0].copy(), points[:, :, 0, 0].copy())


def centroids(points: np.ndarray, anchor: int | None) -> np.ndarray:
    """Return the points around which animals are cropped, as `heads.targets.centroids` does.

    Args:
        points: `(..., K, 2)` in px, NaN where missing.
        anchor: Index of the keypoint that is the centroid; where it is missing, or with None, that
            is the midpoint of the bounding box of the points that are there.

    Returns:
        `(..., 2)` of the points' type, NaN where all are missing.
    """
    present = ~np.isnan(points).any(axis=-1, keepdims=True)
    low = np.where(present, points, np.inf).min(axis=-2)
    high = np.where(present, points, -np.inf).max(axis=-2)
    middle = np.where(present.any(axis=-2), low, np.nan) / 2 + high / 2
    if anchor is None:
        return middle
    return np.where(present[..., anchor, :], points[..., anchor, :], middle)
