"""One animal that is found twice."""

import tensorflow as tf

SAME_ANIMAL = 0.1
"""Mean distance of two animals' keypoints, as part of an animal's size, below which it is one."""


def suppress_duplicates(
    points: tf.Tensor, values: tf.Tensor, valid: tf.Tensor, distance: float | tf.Tensor
) -> tf.Tensor:
    """Return which points to keep: of those nearer to each other than `distance` the highest.

    As in non-maximum suppression a point that is dropped drops no other. Of equal values the first
    is kept.

    Args:
        points: `(B, P, 2)` in px, P known.
        values: `(B, P)`.
        valid: `(B, P)` bool; the others neither stay nor suppress.
        distance: In px.

    Returns:
        `(B, P)` bool.
    """
    away = points[:, :, None] - points[:, None]
    return _kept(tf.reduce_sum(away**2, axis=-1) < distance**2, values, valid)


def duplicate_animals(points: tf.Tensor, scores: tf.Tensor) -> tf.Tensor:
    """Return which animals lie on top of one with a higher score, `(B, I)` bool.

    They do where the mean distance of their keypoints is below SAME_ANIMAL of the longer side of
    the better one's bounding box.

    Args:
        points: `(B, I, K, 2)` in px, all of an animal or NaN; I known.
        scores: `(B, I)`, NaN where there is no animal.
    """
    valid = ~tf.math.is_nan(scores)
    points = tf.where(valid[..., None, None], points, 0.0)
    size = tf.reduce_max(tf.reduce_max(points, axis=2) - tf.reduce_min(points, axis=2), axis=-1)
    away_x, away_y = (points[:, :, None, :, axis] - points[:, None, :, :, axis] for axis in (0, 1))
    distance = tf.reduce_mean(tf.sqrt(away_x**2 + away_y**2), axis=-1)
    near = distance < SAME_ANIMAL * size[:, None]
    return valid & ~_kept(near, tf.where(valid, scores, -1.0), valid)


def _kept(near: tf.Tensor, values: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
    """Return which `(B, P)` bool stay, of those near to each other `(B, P, P)` the highest."""
    count = values.shape[1]
    place = tf.range(count)
    mine, other = values[:, :, None], values[:, None]
    higher = (other > mine) | ((other == mine) & (place[None, :] < place[:, None]))
    beaten = near & higher & valid[:, None]
    kept = valid
    # Whether a point stays depends on higher ones only, so after n rounds the n highest are right.
    for _ in range(count - 1):
        kept = valid & ~tf.reduce_any(beaten & kept[:, None], axis=-1)
    return kept
