"""Where labels of several animals teach: by cell, since one animal alone may lack a keypoint."""

from typing import NamedTuple

import tensorflow as tf

MARGIN = 0.5
"""An animal may reach beyond its labelled points by this part of their bounding box's longer side:
that is where keypoints of it that are not labelled may be."""
LEAST_MARGIN_PX = 16.0
FOREGROUND = 0.01
"""A cell where a target is higher says where something is, whatever else is not labelled there."""


class Grid(NamedTuple):
    """The cells of an output: height and width of the network's input in px, px for each cell."""

    height: int
    width: int
    stride: int


def near_animals(points: tf.Tensor, grid: Grid) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which rows and which columns of cells are near each animal.

    Args:
        points: `(B, I, K, 2)` px of the network's input, NaN where missing.
        grid: The cells.

    Returns:
        Rows `(B, I, h)` and columns `(B, I, w)`, 1.0 or 0.0; near an animal without points none.
    """
    present = tf.math.is_finite(points)
    # Finite, so that what is not there is near nothing.
    low = tf.reduce_min(tf.where(present, points, points.dtype.max), axis=2)
    high = tf.reduce_max(tf.where(present, points, points.dtype.min), axis=2)
    longer = tf.reduce_max(high - low, axis=-1, keepdims=True)
    margin = tf.maximum(MARGIN * longer, LEAST_MARGIN_PX)
    low, high = low - margin, high + margin
    columns, rows = (
        tf.cast((low[..., axis, None] <= at) & (at <= high[..., axis, None]), tf.float32)
        for axis, at in enumerate(
            tf.range(0, side, grid.stride, dtype=tf.float32) for side in (grid.width, grid.height)
        )
    )
    return rows, columns


def map_weights(
    points: tf.Tensor,
    unknown: tf.Tensor,
    maps: tf.Tensor,
    grid: Grid,
    complete: bool,
) -> tf.Tensor:
    """Return what each cell of a map counts, 1.0 or 0.0.

    Near an animal whose keypoint is unknown, what is no foreground counts nothing in its map.
    Where labels are not complete, background counts near labelled animals only.

    Args:
        points: `(B, I, K, 2)` px of the network's input, NaN where missing.
        unknown: `(B, I, C)`, which of the maps lack what an animal would add to them.
        maps: The targets, `(B, h, w, C)`.
        grid: The cells.
        complete: Whether every animal is labelled.
    """
    rows, columns = near_animals(points, grid)
    # Products of an axis each: how many animals lack the keypoint around a cell.
    lacking = tf.einsum("bih,biw,bic->bhwc", rows, columns, tf.cast(unknown, rows.dtype))
    counted = lacking == 0
    if not complete:
        counted &= (tf.einsum("bih,biw->bhw", rows, columns) > 0)[..., None]
    return tf.cast(counted | (tf.abs(maps) > FOREGROUND), maps.dtype)
