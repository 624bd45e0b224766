"""Where an animal is: the point that top-down finds first and crops around."""

import math

import tensorflow as tf


def centroids(points: tf.Tensor, anchor: int | None) -> tf.Tensor:
    """Return the points around which animals are cropped, as `poses.centroids` does.

    Args:
        points: `(..., K, 2)` in px, NaN where missing.
        anchor: Index of the keypoint that is the centroid; where it is missing, or with None, that
            is the midpoint of the bounding box of the points that are there.

    Returns:
        `(..., 2)` of the points' type, NaN where all are missing.
    """
    present = tf.reduce_all(~tf.math.is_nan(points), axis=-1, keepdims=True)
    # By choice of numbers that are finite: a runtime for phones need not know infinity.
    low = tf.reduce_min(tf.where(present, points, points.dtype.max), axis=-2)
    high = tf.reduce_max(tf.where(present, points, points.dtype.min), axis=-2)
    middle = tf.where(tf.reduce_any(present, axis=-2), low / 2 + high / 2, math.nan)
    if anchor is None:
        return middle
    return tf.where(present[..., anchor, :], points[..., anchor, :], middle)
