"""How well a network does on a dataset: predictions for its frames and their metrics."""

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from hgtrain.data.split import Subset
from hgtrain.evaluate.instances import poses_metrics
from hgtrain.heads import Head
from hgtrain.log import doing
from hgtrain.poses import CENTROID, Poses, joined
from hgtrain.predict.predictor import Predictor

FRAMES_AT_ONCE = 32


def predict_side(
    predictor: Predictor,
    side: Subset,
    progress: Callable[[range], Iterable[int]] = lambda starts: starts,
) -> tuple[Poses, float]:
    """Return the animals found in every frame of `side`, in its order, and the images per second.

    A network that sees crops gets them around the labelled animals, unless another network finds
    these. The time for reading counts in the speed, that for compiling does not.
    """

    def of_frames(start: int) -> Poses:
        rows = slice(start, start + FRAMES_AT_ONCE)
        images = side.dataset.read_images(side.frames[rows])
        if not predictor.needs_centroids:
            return predictor(images)
        return predictor(images, labelled_centroids(predictor, side, rows))

    with doing("preparing the network"):
        of_frames(0)
    started = time.monotonic()
    parts = [of_frames(start) for start in progress(range(0, len(side.frames), FRAMES_AT_ONCE))]
    seconds = time.monotonic() - started
    return joined(parts), len(side.frames) / max(seconds, 1e-9)


def labelled_centroids(predictor: Predictor, side: Subset, rows: slice) -> np.ndarray:
    """Return around which places a network sees labelled animals, `(n, I, 2)` px, NaN for none."""
    points, visibility = side.labels(rows)
    labelled = np.where((visibility > 0)[..., None], points, np.nan).astype(np.float32)
    return predictor.centroids(labelled)


def evaluate_side(found: Poses, images_per_s: float, side: Subset, head: Head) -> dict[str, Any]:
    """Return the metrics of what was found in a side's frames.

    They are those of contract section 5 and those of `extra_metrics`.

    Args:
        found: In every frame of the side.
        images_per_s: How fast it was found.
        side: Whose labels it is measured against.
        head: That found it.
    """
    truth, visibility = labels_of(head, side)
    names: Sequence[str] = side.dataset.keypoint_names
    if head.keypoints != len(names):
        names = [CENTROID]
    groups = None if side.dataset.groups is None else side.dataset.groups[side.frames]
    metrics = poses_metrics(truth, visibility, found, names, groups, head.several_animals)
    return metrics | {"images_per_s": images_per_s}


def labels_of(head: Head, side: Subset) -> tuple[np.ndarray, np.ndarray]:
    """Return what a head should find in a side's frames.

    Returns:
        Points `(N, I, k, 2)` px and visibility `(N, I, k)`, k being the head's keypoints.
    """
    points, visibility = side.labels()
    if head.keypoints == visibility.shape[2]:
        return points, visibility
    labelled = np.where((visibility > 0)[..., None], points, np.nan)
    return head.labelled(labelled), visibility.max(-1, keepdims=True)
