"""How well a network does on a dataset: predictions for its frames and their metrics."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from hgtrain.data.split import Subset
from hgtrain.evaluate.keypoint_errors import extra_metrics
from hgtrain.evaluate.metrics import pose_metrics
from hgtrain.poses import Poses, joined
from hgtrain.predict.predictor import Predictor

FRAMES_AT_ONCE = 32


def predict_side(
    predictor: Predictor,
    side: Subset,
    progress: Callable[[range], Iterable[int]] = lambda starts: starts,
) -> tuple[Poses, float]:
    """Return the animals found in every frame of `side`, in its order, and the images per second.

    The time for reading counts in the speed, that for compiling does not.
    """
    predictor(side.dataset.read_images(side.frames[:FRAMES_AT_ONCE]))
    started = time.monotonic()
    parts = [
        predictor(side.dataset.read_images(side.frames[start : start + FRAMES_AT_ONCE]))
        for start in progress(range(0, len(side.frames), FRAMES_AT_ONCE))
    ]
    seconds = time.monotonic() - started
    return joined(parts), len(side.frames) / max(seconds, 1e-9)


def evaluate_side(found: Poses, images_per_s: float, side: Subset) -> dict[str, Any]:
    """Return the metrics of what was found in a side's frames.

    They are those of contract section 5 and those of `extra_metrics`.
    """
    truth, visibility = (labels[:, 0] for labels in side.labels())
    points, confidence = found.points[:, 0], found.confidence[:, 0]
    metrics = pose_metrics(truth, visibility, points, confidence, side.dataset.keypoint_names)
    groups = None if side.dataset.groups is None else side.dataset.groups[side.frames]
    metrics |= extra_metrics(truth, visibility, points, confidence, groups)
    return metrics | {"images_per_s": images_per_s}
