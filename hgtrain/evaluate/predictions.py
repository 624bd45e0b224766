"""How well a network does on a dataset: predictions for its frames and their metrics."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from hgtrain.data.selection import labels_of_frames
from hgtrain.data.split import Subset
from hgtrain.evaluate.keypoint_errors import extra_metrics
from hgtrain.evaluate.metrics import pose_metrics
from hgtrain.predict.predictor import Predictor

FRAMES_AT_ONCE = 32


class Predictions(NamedTuple):
    """Predictions for the frames of a side, and how fast they came.

    Attributes:
        points: `(N, K, 2)` px.
        confidence: `(N, K)`.
        images_per_s: Images predicted in a second.
    """

    points: np.ndarray
    confidence: np.ndarray
    images_per_s: float


def predict_side(
    predictor: Predictor,
    side: Subset,
    progress: Callable[[range], Iterable[int]] = lambda starts: starts,
) -> Predictions:
    """Return predictions for every frame of `side`, in its order.

    The time for reading counts in the speed, that for compiling does not.
    """
    predictor(side.dataset.read_images(side.frames[:FRAMES_AT_ONCE]))
    started = time.monotonic()
    parts = [
        predictor(side.dataset.read_images(side.frames[start : start + FRAMES_AT_ONCE]))
        for start in progress(range(0, len(side.frames), FRAMES_AT_ONCE))
    ]
    seconds = time.monotonic() - started
    points, confidence = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Predictions(points, confidence, len(side.frames) / max(seconds, 1e-9))


def evaluate_side(predictions: Predictions, side: Subset) -> dict[str, Any]:
    """Return the metrics of predictions for a side's frames.

    They are those of contract section 5 and those of `metrics_extra`.
    """
    truth, visibility = labels_of_frames(side.dataset, side.frames)
    points, confidence = predictions.points, predictions.confidence
    metrics = pose_metrics(truth, visibility, points, confidence, side.dataset.keypoint_names)
    groups = None if side.dataset.groups is None else side.dataset.groups[side.frames]
    metrics |= extra_metrics(truth, visibility, points, confidence, groups)
    return metrics | {"images_per_s": predictions.images_per_s}
