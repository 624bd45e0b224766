"""Crops around animals, cut on the device: the same operations in training, prediction and export.

A crop begins at a whole pixel and copies pixels, so a point found in a crop plus the crop's corner
is the point in the image.
"""

import math

import tensorflow as tf

from hgtrain import coords
from hgtrain.poses import Poses


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


def crops_around(images: tf.Tensor, centroids: tf.Tensor, size: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Return a crop for each centroid, and where it begins.

    Args:
        images: `(B, H, W, C)` as the network takes them; what is padded is black like what lies
            outside.
        centroids: `(B, I, 2)` px of these images, NaN where there is no animal.
        size: Side of the crops in px.

    Returns:
        Crops `(B * I, size, size, C)`, and their corners `(B, I, 2)` float32 px.
    """
    corners = crop_corners(centroids, size)
    cut = crops(images, corners, size)
    return (
        tf.reshape(cut, (-1, size, size, images.shape[3])),
        tf.cast(corners, tf.float32),
    )


def in_images(of_crops: Poses, corners: tf.Tensor, centroids: tf.Tensor) -> Poses:
    """Return what was found in crops as the animals of their images.

    Args:
        of_crops: One animal for each crop, `(B * I, 1, K, 2)`, points in px of the crop.
        corners: Where the crops begin, `(B, I, 2)` px.
        centroids: `(B, I, 2)`; where they are NaN there is no animal.
    """
    animals = tf.shape(corners)[:2]
    keypoints = of_crops.points.shape[2]
    is_there = ~tf.math.is_nan(centroids[..., 0])
    points = tf.reshape(of_crops.points, tf.concat([animals, [keypoints, 2]], 0))
    confidence = tf.reshape(of_crops.confidence, tf.concat([animals, [keypoints]], 0))
    scores = tf.reshape(of_crops.scores, animals)
    return Poses(
        tf.where(is_there[..., None, None], points + corners[:, :, None], math.nan),
        tf.where(is_there[..., None], confidence, math.nan),
        tf.where(is_there, scores, math.nan),
    )


def _within(positions: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    return (positions >= 0) & (positions < length)
