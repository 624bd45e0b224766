"""Which predicted animal is which labelled one, and how well keypoints are grouped into animals."""

import numpy as np

from hgtrain.evaluate.keypoint_errors import animal_sizes
from hgtrain.poses import Poses

REACH = 0.5
"""Part of an animal's size within which a keypoint still lies on this animal."""

SMALLEST_REACH_PX = 10.0
"""The reach of small animals, and of those with one labelled point: the widest PCK threshold."""


def pair_animals(truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return which predicted animal each labelled one is matched with.

    A predicted animal can be a labelled one when at least half of the keypoints that both have lie
    within its reach: half the animal's size (the longer side of the labelled points' bounding box),
    at least 10 px. So an animal with bad legs is still this animal, and a stray is not. Closest
    pairs are matched first, each animal once: what counts is the mean of 1 - distance / reach over
    the labelled keypoints, 0 for those beyond the reach or not predicted. Scores play no part.

    OKS is not used here: at COCO's sigmas it is near 0 for errors of a tenth of the size, and every
    mediocre prediction would be one animal missed and one too many.

    Args:
        truth: `(N, I, K, 2)` px, NaN where missing.
        visibility: `(N, I, K)`, 0 not labelled.
        predicted: `(N, J, K, 2)` px, NaN where missing.

    Returns:
        `(N, I)` int, the place among the predicted animals; -1 where there is none, or where
        nothing is labelled.
    """
    labelled = (visibility > 0) & np.isfinite(truth).all(-1)
    reach = _reach(truth, labelled)
    pairs = np.full(labelled.shape[:2], -1)
    for frame in np.flatnonzero(labelled.any((1, 2))):
        distance = _distances(truth[frame], labelled[frame], predicted[frame])
        pairs[frame] = _closest_first(_closeness(distance, labelled[frame], reach[frame]))
    return pairs


def in_place_of_labels(found: Poses, pairs: np.ndarray) -> Poses:
    """Return the predicted animals at the places of the labelled ones they are matched with.

    Args:
        found: `(N, J, ...)`.
        pairs: `(N, I)`, as `pair_animals` gives them.

    Returns:
        `(N, I, ...)`, NaN where a labelled animal is missed.
    """
    return Poses(
        points=_chosen(found.points, pairs),
        confidence=_chosen(found.confidence, pairs),
        scores=_chosen(found.scores, pairs),
    )


def group_purity(truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray) -> float | None:
    """Return the share of a predicted animal's keypoints that are of one labelled animal.

    A predicted keypoint is of the animal whose same keypoint is nearest, within that animal's reach
    (as in `pair_animals`). Keypoints beyond any reach are not judged, as they tell nothing of the
    grouping; nor are those within reach of the bounding box of an animal that has no label for this
    keypoint, as they may be of that animal. The share is that of the animal with the most.

    Args:
        truth: `(N, I, K, 2)` px, NaN where missing.
        visibility: `(N, I, K)`, 0 not labelled.
        predicted: `(N, J, K, 2)` px, NaN where missing.

    Returns:
        The mean over the predicted animals with at least two keypoints that are judged; 1 is
        perfect. None without such animals.
    """
    labelled = (visibility > 0) & np.isfinite(truth).all(-1)
    reach = _reach(truth, labelled)
    shares = [
        share
        for frame in np.flatnonzero(labelled.any((1, 2)))
        for share in _purities(truth[frame], labelled[frame], reach[frame], predicted[frame])
    ]
    return float(np.mean(shares)) if shares else None


def _chosen(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return `values` of `(N, J, ...)` at `pairs`, NaN where it is -1."""
    nothing = np.full((len(values), 1, *values.shape[2:]), np.nan, values.dtype)
    # Index -1 is the last place, where nothing is.
    return np.concatenate([values, nothing], axis=1)[np.arange(len(pairs))[:, None], pairs]


def _reach(truth: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    return np.maximum(REACH * animal_sizes(truth, labelled), SMALLEST_REACH_PX)


def _distances(truth: np.ndarray, labelled: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Return px from each predicted keypoint to the same one of each animal, `(J, I, K)`.

    It is infinite where either is missing.
    """
    located = np.isfinite(predicted).all(-1)
    positions = np.where(located[..., None], predicted, 0).astype(np.float64)
    labels = np.where(labelled[..., None], truth, 0)
    distance = np.linalg.norm(positions[:, None] - labels, axis=-1)
    return np.where(located[:, None] & labelled, distance, np.inf)


def _closeness(distance: np.ndarray, labelled: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Return how close each predicted animal is to each labelled one, `(J, I)` in 0..1.

    It is -1 where they are not the same animal.
    """
    near = np.maximum(1 - distance / reach[:, None], 0).sum(-1)
    closeness = near / np.maximum(labelled.sum(-1), 1)
    within = (distance <= reach[:, None]).sum(-1)
    shared = np.isfinite(distance).sum(-1)
    return np.where((within > 0) & (2 * within >= shared), closeness, -1.0)


def _closest_first(closeness: np.ndarray) -> np.ndarray:
    """Return the predicted animal of each labelled one, `(I,)`, -1 where there is none."""
    free = closeness.copy()
    pairs = np.full(free.shape[1], -1)
    while free.size and free.max() >= 0:
        predicted, labelled = np.unravel_index(free.argmax(), free.shape)
        pairs[labelled] = predicted
        free[predicted] = -1.0
        free[:, labelled] = -1.0
    return pairs


def _purities(
    truth: np.ndarray, labelled: np.ndarray, reach: np.ndarray, predicted: np.ndarray
) -> list[float]:
    """Return the share of each predicted animal that can be judged."""
    distance = _distances(truth, labelled, predicted)
    owner = distance.argmin(1)
    is_owned = distance.min(1) <= reach[owner]
    low = np.where(labelled[..., None], truth, np.inf).min(1) - reach[:, None]
    high = np.where(labelled[..., None], truth, -np.inf).max(1) + reach[:, None]
    points = predicted[:, None]
    is_near = ((points >= low[:, None]) & (points <= high[:, None])).all(-1)
    is_owned &= ~(is_near & ~labelled).any(1)
    counts = [np.bincount(animals[use]) for animals, use in zip(owner, is_owned, strict=True)]
    return [float(count.max() / count.sum()) for count in counts if count.sum() > 1]
