"""How far the animals that an exported model finds are from the run's.

A frame's animals are a set: which comes first may change where scores are equal to rounding.
"""

from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf

from hgtrain.poses import Poses, joined
from hgtrain.predict.predictor import Predictor

SAME_PX = 0.5
"""Up to it two keypoints are of the same peak."""

FAR_PX = 1e3
"""Farther apart two keypoints are no less alike, also where only one of them is there."""

PATCHES = (None, 8, 1)
"""A network's outputs are changed by channel, in squares of so many cells, and cell by cell."""


def compare_animals(
    predictor: Predictor, images: np.ndarray, run: Poses, exported: Poses
) -> dict[str, Any]:
    """Return the differences between the animals of an exported model and the run's.

    Args:
        predictor: Of the run.
        images: `(n, H, W, C)` uint8.
        run: What the run finds in them.
        exported: What the exported model finds, of the same shapes.

    Returns:
        The largest difference in position, in which a keypoint that only one of them finds is
        infinitely far off; that of 95% of the positions; the largest in confidence and score; and
        the number of keypoints that rounding decides on, which are left out.
    """
    exported = in_order_of(run, exported)
    apart = apart_px(run.points, exported.points)
    confidence = _of_confidence(run, exported, apart <= SAME_PX)
    undecided = np.zeros(apart.shape, bool)
    for frame in np.flatnonzero((apart > SAME_PX).any((1, 2))):
        rows = slice(frame, frame + 1)
        changed = _with_rounding(predictor, images[rows], 2 * confidence + 1e-7)
        undecided[frame] = _decided_by_rounding(
            _frames(run, rows), _frames(exported, rows), changed
        )
    undecided &= apart > SAME_PX
    is_there = np.isfinite(run.points).any(-1) | np.isfinite(exported.points).any(-1)
    counted = np.where(undecided, 0, apart)[is_there]
    return {
        "keypoints_px": float(counted.max(initial=0)),
        # One of them and not between two, of which one may be infinite.
        "keypoints_p95_px": float(np.percentile(counted, 95, method="higher"))
        if counted.size
        else 0.0,
        "confidence": confidence,
        "ties": int(undecided.sum()),
    }


def in_order_of(one: Poses, other: Poses) -> Poses:
    """Return the animals of `other` at the places of those of `one` that they are nearest to.

    The nearest two of a frame go together first, each animal once.

    Args:
        one: `(N, I, ...)`.
        other: The same; or of one frame, which each frame of `one` is another draw of.
    """
    order = np.array([_nearest_first(*pair) for pair in zip(one.points, other.points, strict=True)])
    rows = np.arange(len(order))[:, None]
    return Poses(*(part[rows, order] for part in other)) if len(order) else other


def apart_px(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how far keypoints `(..., 2)` are apart, along x or y; NaN is at the same place as NaN.

    It is infinite where only one of them is there.
    """
    apart = np.abs(points - others).max(-1)
    is_nowhere = np.isnan(points).all(-1) & np.isnan(others).all(-1)
    return np.where(np.isfinite(apart), apart, np.where(is_nowhere, 0, np.inf))


def _nearest_first(points: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return which of others `(I, K, 2)` is nearest to each of `points`, each once, `(I,)`."""
    left = np.minimum(apart_px(points[:, None], others), FAR_PX).mean(-1)
    order = np.zeros(len(points), int)
    for _ in order:
        animal, nearest = np.unravel_index(left.argmin(), left.shape)
        order[animal] = nearest
        left[animal] = left[:, nearest] = np.inf
    return order


def _frames(poses: Poses, rows: slice) -> Poses:
    return Poses(*(part[rows] for part in poses))


def _of_confidence(run: Poses, exported: Poses, is_same: np.ndarray) -> float:
    """Return the largest difference in confidence and score of animals and keypoints both find."""
    has_same = (is_same & np.isfinite(run.confidence)).any(-1)
    pairs = (
        (run.confidence, exported.confidence, is_same),
        (run.scores, exported.scores, is_same.all(-1) & has_same),
    )
    return max(float(np.abs(a - b)[where & ~np.isnan(a)].max(initial=0)) for a, b, where in pairs)


def _with_rounding(predictor: Predictor, image: np.ndarray, rounding: float) -> Poses:
    """Return what the run finds in an image when its network's outputs change by rounding.

    Args:
        predictor: Of the run.
        image: `(1, H, W, C)` uint8.
        rounding: By how much outputs change, up or down.

    Returns:
        Of several such changes one after the other, `(draws, I, ...)`.
    """
    repeated = tf.constant(np.repeat(image, predictor.batch_size, axis=0))
    changed = [
        predictor.with_changed_outputs(partial(_rounded, rounding=rounding, patch=patch))
        for patch in PATCHES
    ]
    return joined([Poses(*(part.numpy() for part in each.poses(repeated))) for each in changed])


def _rounded(output: tf.Tensor, rounding: float, patch: int | None) -> tf.Tensor:
    """Return an output `(B, h, w, C)` with rounding added to or taken from each patch at random."""
    count, height, width, channels = output.shape
    rows, columns = (1 if patch is None else -(-side // patch) for side in (height, width))
    signs = np.random.default_rng(0).choice([-1, 1], (count, rows, columns, channels))
    for axis, side in ((1, height), (2, width)):
        signs = np.repeat(signs, patch or side, axis=axis)
    return output + rounding * tf.constant(signs[:, :height, :width], output.dtype)


def _decided_by_rounding(run: Poses, exported: Poses, changed: Poses) -> np.ndarray:
    """Return of which keypoints `(I, K)` of a frame rounding decides where they are and whether.

    They are those that the run places elsewhere, or does not find, in some of its changed outputs,
    and places as the exported model does in some.

    Args:
        run: What the run finds in the frame, `(1, I, ...)`.
        exported: What the exported model finds.
        changed: What the run finds in changed outputs, `(draws, I, ...)`.
    """
    lost, found = (
        [
            apart_px(
                one.points[0], in_order_of(one, _frames(changed, slice(draw, draw + 1))).points[0]
            )
            for draw in range(len(changed.points))
        ]
        for one in (run, exported)
    )
    is_decided: np.ndarray = (np.max(lost, axis=0) > SAME_PX) & (np.min(found, axis=0) <= SAME_PX)
    return is_decided
