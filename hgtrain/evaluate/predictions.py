"""How well a network does on a dataset: predictions for its frames and their metrics."""

import time
from collections.abc import Callable, Iterable
from typing import Any

from hgtrain.data.split import Subset
from hgtrain.evaluate.instances import poses_metrics
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


def evaluate_side(
    found: Poses, images_per_s: float, side: Subset, several: bool = False
) -> dict[str, Any]:
    """Return the metrics of what was found in a side's frames.

    They are those of contract section 5 and those of `extra_metrics`.

    Args:
        found: In every frame of the side.
        images_per_s: How fast it was found.
        side: Whose labels it is measured against.
        several: Whether a frame may hold several animals.
    """
    truth, visibility = side.labels()
    names, groups = side.dataset.keypoint_names, side.dataset.groups
    groups = None if groups is None else groups[side.frames]
    metrics = poses_metrics(truth, visibility, found, names, groups, several)
    return metrics | {"images_per_s": images_per_s}
