"""From confidence maps to points: the global peak of every map, refined to a fraction of a cell.

The same TensorFlow operations serve validation, `evaluate`, `predict` and the exported model.
"""

import math
from collections.abc import Callable

import tensorflow as tf

# Only keeps the logarithm finite: next to the smallest float32 there is, since the tail of a
# Gaussian that is narrow against the stride counts where its centre lies beyond the outermost cell.
SMALLEST = 1e-37

# Large enough not to be 0 in float16.
NO_BEND = 1e-6

RADIUS = 3


def refinement_radius(sigma_px: float, stride: int) -> int:
    """Return how many cells around the highest one to use for Gaussians of this width.

    It is about 2.4 sigma, and at least 1. For a sigma below 0.6 cells a second neighbour holds
    nothing that float32 could tell from the first.
    """
    return max(1, int(2.4 * sigma_px / stride + 0.6))


def global_peaks(maps: tf.Tensor, radius: int = RADIUS) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the peak of each map, refined without bias.

    The logarithm of a Gaussian is a parabola, so the vertex of the parabola through its cells is
    the centre itself, whatever the width and also beside a border. The parabola is fitted, by least
    squares weighted with the cells' values (after Guo 2011, A Simple Algorithm for Fitting a
    Gaussian Function), to the sums over the rows, and over the columns, of the cells up to `radius`
    from the highest: a trained network's maps are blocky from its upsampling, and their three
    highest cells alone are off by twice as much (2.8 px against 1.5 px on real frames). Where there
    is no peak, as in a flat map, the point is the centre of the first highest cell.

    Args:
        maps: `(B, H, W, K)`.
        radius: How many cells around the highest one are used.

    Returns:
        Points `(B, K, 2)` float32 in cells, x then y, cell centres at integers; and the values
        `(B, K)` of the highest cells.
    """
    cells, row, column, values = _highest(maps)
    # Three cells must all be there; of more, those beyond the border weigh nothing. To move a wide
    # window inwards would take in cells that hold nothing but noise instead, ten times the error
    # beside a border.
    window, vertex = (
        (_full_window, _three_point_vertex) if radius == 1 else (_padded_window, _fitted_vertex)
    )
    patch, top, left = window(cells, row, column, radius)
    x = _near(column, left + vertex(tf.reduce_sum(patch, axis=1)), tf.shape(maps)[2])
    y = _near(row, top + vertex(tf.reduce_sum(patch, axis=2)), tf.shape(maps)[1])
    return _as_points(x, y, values), values


def unrefined_peaks(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the highest cell of each map, shapes as `global_peaks`."""
    _, row, column, values = _highest(maps)
    return _as_points(tf.cast(column, tf.float32), tf.cast(row, tf.float32), values), values


def local_peaks(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the highest cell of each map moved a quarter cell towards its higher neighbour.

    This is what the reference does: along x and along y on its own, with 0 beyond the border.
    Shapes are those of `global_peaks`.
    """
    cells, row, column, values = _highest(maps)
    patch = _patch(cells, row, column, 1)
    x = tf.cast(column, tf.float32) + 0.25 * tf.sign(patch[:, 1, 2] - patch[:, 1, 0])
    y = tf.cast(row, tf.float32) + 0.25 * tf.sign(patch[:, 2, 1] - patch[:, 0, 1])
    return _as_points(x, y, values), values


def integral_peaks(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the centre of mass of the 5x5 cells around the highest cell of each map.

    This is what the reference does. The point is drawn towards the highest cell when the Gaussian
    is wider than the patch. Beyond the border is 0. Shapes are those of `global_peaks`.
    """
    cells, row, column, values = _highest(maps)
    patch = _patch(cells, row, column, 2)
    total = tf.reduce_sum(patch, axis=(1, 2))
    at = tf.range(-2.0, 3.0)
    x = tf.cast(column, tf.float32) + tf.math.divide_no_nan(
        tf.reduce_sum(patch * at[None, None, :], (1, 2)), total
    )
    y = tf.cast(row, tf.float32) + tf.math.divide_no_nan(
        tf.reduce_sum(patch * at[None, :, None], (1, 2)), total
    )
    return _as_points(x, y, values), values


DECODERS: dict[str, Callable[[tf.Tensor, int], tuple[tf.Tensor, tf.Tensor]]] = {
    "unbiased": global_peaks,
    "integral": lambda maps, radius: integral_peaks(maps),
    "local": lambda maps, radius: local_peaks(maps),
    "none": lambda maps, radius: unrefined_peaks(maps),
}
"""From maps to points.

Takes maps `(B, H, W, K)` and the radius of the refinement, and gives points `(B, K, 2)` in cells
and values `(B, K)`.
"""


def _highest(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the first highest cell of each map.

    Returns:
        Cells `(B * K, H, W)`, row and column `(B * K,)` of the highest, and its value `(B, K)`.
    """
    shape = tf.shape(maps)
    height, width, keypoints = shape[1], shape[2], shape[3]
    flat = tf.reshape(tf.transpose(maps, (0, 3, 1, 2)), (-1, height * width))
    highest = tf.argmax(flat, axis=1, output_type=tf.int32)
    values = tf.reshape(tf.gather(flat, highest, batch_dims=1), (-1, keypoints))
    return tf.reshape(flat, (-1, height, width)), highest // width, highest % width, values


def _as_points(x: tf.Tensor, y: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tf.stack([x, y], axis=-1), (-1, tf.shape(values)[1], 2))


def _patch(cells: tf.Tensor, row: tf.Tensor, column: tf.Tensor, radius: int) -> tf.Tensor:
    """Return the cells around one of each map, 0 beyond the border.

    Returns:
        Patches `(n, 2 * radius + 1, 2 * radius + 1)`.
    """
    padded = tf.pad(cells, [[0, 0], [radius, radius], [radius, radius]])
    around = tf.range(2 * radius + 1)
    rows = tf.gather(padded, row[:, None] + around, batch_dims=1)
    return tf.transpose(
        tf.gather(tf.transpose(rows, (0, 2, 1)), column[:, None] + around, batch_dims=1), (0, 2, 1)
    )


def _padded_window(
    cells: tf.Tensor, row: tf.Tensor, column: tf.Tensor, radius: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return as `_full_window`; beyond the border is 0."""
    window = tf.maximum(_patch(cells, row, column, radius), 0.0)
    return window, tf.cast(row - radius, tf.float32), tf.cast(column - radius, tf.float32)


def _full_window(
    cells: tf.Tensor, row: tf.Tensor, column: tf.Tensor, radius: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the cells around one of each map, not below 0.

    At a border the window moves inwards, so that it is always full; of a smaller map the rest is 0.

    Returns:
        Windows `(n, size, size)`, and the first row and the first column `(n,)`.
    """
    size = 2 * radius + 1
    height, width = tf.shape(cells)[1], tf.shape(cells)[2]
    cells = tf.pad(
        cells, [[0, 0], [0, tf.maximum(size - height, 0)], [0, tf.maximum(size - width, 0)]]
    )
    top = tf.clip_by_value(row - radius, 0, tf.maximum(height - size, 0))
    left = tf.clip_by_value(column - radius, 0, tf.maximum(width - size, 0))
    rows = tf.gather(cells, top[:, None] + tf.range(size), batch_dims=1)
    window = tf.gather(tf.transpose(rows, (0, 2, 1)), left[:, None] + tf.range(size), batch_dims=1)
    return (
        tf.maximum(tf.transpose(window, (0, 2, 1)), 0.0),
        tf.cast(top, tf.float32),
        tf.cast(left, tf.float32),
    )


def _near(cell: tf.Tensor, refined: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return where a peak is along one axis: as refined, but within a cell of the highest."""
    at = tf.cast(cell, tf.float32)
    # NaN: no peak along this axis. A parabola needs three cells.
    is_refined = tf.math.is_finite(refined) & (length >= 3)
    return tf.where(is_refined, tf.clip_by_value(refined, at - 1, at + 1), at)


def _log(values: tf.Tensor) -> tf.Tensor:
    """Return the natural logarithm of values >= 0, and of those below SMALLEST that of SMALLEST."""
    # A choice, not a maximum: where an exported model's constants are float16, SMALLEST is 0.
    return tf.where(values > SMALLEST, tf.math.log(values), math.log(SMALLEST))


def _three_point_vertex(profile: tf.Tensor) -> tf.Tensor:
    """Return the vertex `(n,)` of the log-parabola through profiles `(n, 3)` >= 0.

    It is NaN where the parabola opens upwards.
    """
    left, middle, right = tf.unstack(_log(profile), axis=1)
    curvature = left - 2 * middle + right
    return tf.where(curvature < 0, 1 + tf.math.divide_no_nan(left - right, 2 * curvature), math.nan)


def _fitted_vertex(profile: tf.Tensor) -> tf.Tensor:
    """Return the vertex `(n,)` of the log-parabola fitted to profiles `(n, size)` >= 0.

    It is NaN where the parabola opens upwards.
    """
    weights = tf.math.divide_no_nan(profile, tf.reduce_max(profile, axis=1, keepdims=True))
    logs = _log(weights)
    at = tf.range(profile.shape[1], dtype=tf.float32)
    total = tf.reduce_sum(weights, axis=1)
    mean = tf.math.divide_no_nan(tf.reduce_sum(weights * at, axis=1), total)
    # In polynomials orthogonal under the weights each coefficient is a sum of its own, without
    # cancellations.
    first = at - mean[:, None]
    spread = tf.reduce_sum(weights * first**2, axis=1)
    skew = tf.math.divide_no_nan(tf.reduce_sum(weights * first**3, axis=1), spread)
    second = first**2 - skew[:, None] * first - tf.math.divide_no_nan(spread, total)[:, None]
    slope = tf.math.divide_no_nan(tf.reduce_sum(weights * logs * first, axis=1), spread)
    bend = tf.reduce_sum(weights * second**2, axis=1)
    curvature = tf.math.divide_no_nan(tf.reduce_sum(weights * logs * second, axis=1), bend)
    vertex = mean + (skew - tf.math.divide_no_nan(slope, curvature)) / 2
    # Two cells alone have no curvature: what is left of it is rounding, of either sign.
    return tf.where((curvature < 0) & (bend > NO_BEND), vertex, math.nan)
