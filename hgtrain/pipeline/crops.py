"""Crops around animals, cut on the device: the same operations in training, prediction and export.

A crop begins at a whole pixel and copies pixels, so a point found in a crop plus the crop's corner
is the point in the image.
"""

import math

import tensorflow as tf

from hgtrain import coords


def centroids(points: tf.Tensor, anchor: int | None) -> tf.Tensor:
    """Return the points around which animals are cropped, as `data.crop_size.centroids` does.

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


def crop_corners(centroids: tf.Tensor, size: int) -> tf.Tensor:
    """Return the pixels at the top left of crops, x then y; see `coords.crop_corners`.

    Args:
        centroids: `(..., 2)` in px, NaN where there is no animal.
        size: Side of the crops in px.

    Returns:
        `(..., 2)` int32; where the centroid is NaN a crop that begins there holds no pixel of the
        image.
    """
    corners = coords.crop_corners(centroids, size)
    # The integer that NaN becomes is another on each device.
    return tf.cast(tf.where(tf.math.is_nan(corners), float(-size), corners), tf.int32)


def crops(images: tf.Tensor, corners: tf.Tensor, size: int) -> tf.Tensor:
    """Return the crops that begin at `corners`, zero outside of the image.

    Args:
        images: `(B, H, W, C)`, of any type, C known. Bytes are gathered on the CPU wherever the
            graph runs, unless XLA compiles it: TensorFlow has no such kernel for GPUs, but one for
            float32.
        corners: `(B, I, 2)` int32, x then y, as `crop_corners` gives them.
        size: Side of the crops in px.

    Returns:
        `(B, I, size, size, C)` of the images' type.
    """
    shape, channels = tf.shape(images), images.shape[3]
    batch, height, width = shape[0], shape[1], shape[2]
    along = tf.range(size)
    columns, rows = corners[..., :1] + along, corners[..., 1:] + along
    is_column, is_row = _within(columns, width), _within(rows, height)
    first = tf.reshape(tf.range(batch) * (height * width), (-1, 1, 1))
    index = (first + rows * width)[..., :, None] + columns[..., None, :]
    inside = is_row[..., :, None] & is_column[..., None, :]
    # A black pixel after all others is what lies outside: to choose between bytes afterwards is
    # nothing that TensorFlow Lite can do.
    pixels = tf.concat(
        [tf.reshape(images, (-1, channels)), tf.zeros((1, channels), images.dtype)], axis=0
    )
    cut = tf.gather(pixels, tf.where(inside, index, batch * height * width))
    # The number of animals is said, not inferred: of no images it could not be.
    return tf.reshape(cut, (batch, tf.shape(corners)[1], size, size, channels))


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
    count = points.shape[1]
    away = points[:, :, None] - points[:, None]
    near = tf.reduce_sum(away**2, axis=-1) < distance**2
    place = tf.range(count)
    mine, other = values[:, :, None], values[:, None]
    higher = (other > mine) | ((other == mine) & (place[None, :] < place[:, None]))
    beaten = near & higher & valid[:, None]
    kept = valid
    # Whether a point stays depends on higher ones only, so after n rounds the n highest are right.
    for _ in range(count - 1):
        kept = valid & ~tf.reduce_any(beaten & kept[:, None], axis=-1)
    return kept


def _within(positions: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    return (positions >= 0) & (positions < length)
