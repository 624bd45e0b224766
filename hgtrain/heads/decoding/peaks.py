"""From confidence maps to points: the peaks of every map, refined to a fraction of a cell.

One animal is at the global peak of each map; several are at its local maxima.

The same TensorFlow operations serve validation, `evaluate`, `predict` and the exported model.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

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

    This is what the reference does: along x and along y on its own, with 0 beyond the border. Only
    the refinement is local; `local_maxima` finds more than one peak. Shapes are those of
    `global_peaks`.
    """
    cells, row, column, values = _highest(maps)
    x, y = _quarter_way(_patch(cells, row, column, 1))
    x, y = tf.cast(column, tf.float32) + x, tf.cast(row, tf.float32) + y
    return _as_points(x, y, values), values


def integral_peaks(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the centre of mass of the 5x5 cells around the highest cell of each map.

    This is what the reference does. The point is drawn towards the highest cell when the Gaussian
    is wider than the patch. Beyond the border is 0. Shapes are those of `global_peaks`.
    """
    cells, row, column, values = _highest(maps)
    x, y = _to_centre_of_mass(_patch(cells, row, column, 2))
    x, y = tf.cast(column, tf.float32) + x, tf.cast(row, tf.float32) + y
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


class Peaks(NamedTuple):
    """Where the maps of some images have peaks, P for each of K keypoints.

    Attributes:
        points: `(B, K, P, 2)` float32, x then y; in cells from `local_maxima`.
        values: `(B, K, P)` float32, of the maps there, highest first; 0 where there is no peak.
        valid: `(B, K, P)` bool, whether there is a peak.
    """

    points: tf.Tensor
    values: tf.Tensor
    valid: tf.Tensor


def local_maxima(
    maps: tf.Tensor,
    count: int,
    threshold: float,
    radius: int = RADIUS,
    refinement: str = "unbiased",
) -> Peaks:
    """Return the highest local maxima of each map, refined as the global peak is.

    A local maximum is not below any of its eight neighbours, and above those that come before it
    in reading order: equal cells in a rectangle are one peak. Beside the border there are fewer
    neighbours.

    Args:
        maps: `(B, H, W, K)`.
        count: P, how many are returned for each map.
        threshold: They are higher.
        radius: How many cells around a maximum the unbiased refinement uses.
        refinement: A key of `DECODERS`.
    """
    shape = tf.shape(maps)
    height, width, keypoints = shape[1], shape[2], maps.shape[3]
    is_peak = _is_local_maximum(maps) & (maps > threshold)
    heights = tf.transpose(tf.where(is_peak, maps, tf.float32.min), (0, 3, 1, 2))
    found = tf.math.top_k(
        tf.reshape(heights, (-1, keypoints, height * width)), tf.minimum(count, height * width)
    )
    # A map may have fewer cells than there is room for.
    room = [[0, 0], [0, 0], [0, count - tf.shape(found.values)[2]]]
    values = tf.pad(found.values, room, constant_values=tf.float32.min)
    cells = tf.pad(found.indices, room)
    values, cells = (tf.ensure_shape(each, (None, keypoints, count)) for each in (values, cells))
    valid = values > threshold
    row, column = cells // width, cells % width
    if refinement == "unbiased":
        x, y = _refined(maps, row, column, _reach(row, column, valid, radius), radius)
    else:
        x, y = _moved(maps, row, column, refinement)
    return Peaks(tf.stack([x, y], axis=-1), tf.where(valid, values, 0.0), valid)


def _reach(row: tf.Tensor, column: tf.Tensor, valid: tf.Tensor, radius: int) -> tf.Tensor:
    """Return how many cells around each peak `(B, K, P)` are nearer to it than to others.

    With cells of another animal's hill two keypoints three sigma apart were placed 1.2 cells off.
    Peaks within about a standard deviation are dents in one hill, and do not count as others.
    """
    x, y = tf.cast(column, tf.float32), tf.cast(row, tf.float32)
    apart = tf.maximum(
        tf.abs(x[..., None] - x[..., None, :]), tf.abs(y[..., None] - y[..., None, :])
    )
    is_other = valid[..., None, :] & (2 * apart >= radius)
    nearest = tf.reduce_min(tf.where(is_other, apart, 2.0 * radius + 1), axis=-1)
    return tf.maximum((nearest - 1) / 2, 1.0)


def _is_local_maximum(maps: tf.Tensor) -> tf.Tensor:
    lowest = tf.float32.min
    line = tf.nn.max_pool2d(maps, (1, 3), 1, "SAME")
    lines = tf.pad(line, [[0, 0], [1, 1], [0, 0], [0, 0]], constant_values=lowest)
    before = tf.pad(maps[:, :, :-1], [[0, 0], [0, 0], [1, 0], [0, 0]], constant_values=lowest)
    return (maps >= line) & (maps > before) & (maps > lines[:, :-2]) & (maps >= lines[:, 2:])


def _refined(
    maps: tf.Tensor, row: tf.Tensor, column: tf.Tensor, reach: tf.Tensor, radius: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return x and y `(B, K, P)` float32 of peaks, refined without bias.

    Args:
        maps: `(B, H, W, K)`.
        row: `(B, K, P)` int32, of a peak's cell.
        column: The same.
        reach: `(B, K, P)` float32, from `_reach`.
        radius: As for `global_peaks`.
    """
    height, width = tf.unstack(tf.shape(maps)[1:3])
    top, left = row - radius, column - radius
    if radius == 1:
        # As in `_full_window`.
        top = tf.clip_by_value(top, 0, tf.maximum(height - 3, 0))
        left = tf.clip_by_value(left, 0, tf.maximum(width - 3, 0))
    windows = tf.maximum(_windows(maps, top, left, 2 * radius + 1), 0.0)
    if radius > 1:
        at = tf.abs(tf.range(-radius, radius + 1, dtype=tf.float32))
        is_near = at <= tf.reshape(reach, (-1, 1))
        windows = tf.where(is_near[:, :, None] & is_near[:, None, :], windows, 0.0)
    vertex = _three_point_vertex if radius == 1 else _fitted_vertex
    to_x, to_y = (
        tf.reshape(vertex(tf.reduce_sum(windows, axis=axis)), tf.shape(row)) for axis in (1, 2)
    )
    x = _near(column, tf.cast(left, tf.float32) + to_x, width)
    return x, _near(row, tf.cast(top, tf.float32) + to_y, height)


def _moved(
    maps: tf.Tensor, row: tf.Tensor, column: tf.Tensor, refinement: str
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return x and y `(B, K, P)` float32 of peaks, refined as the reference does or not at all."""
    x, y = tf.cast(column, tf.float32), tf.cast(row, tf.float32)
    if refinement == "none":
        return x, y
    radius, move = {"local": (1, _quarter_way), "integral": (2, _to_centre_of_mass)}[refinement]
    move_x, move_y = move(_windows(maps, row - radius, column - radius, 2 * radius + 1))
    return x + tf.reshape(move_x, tf.shape(x)), y + tf.reshape(move_y, tf.shape(y))


def _windows(maps: tf.Tensor, top: tf.Tensor, left: tf.Tensor, side: int) -> tf.Tensor:
    """Return the cells from rows and columns `(B, K, P)` on, `(B * K * P, side, side)`.

    Beyond the border is 0.
    """
    shape = tf.shape(maps)
    height, width, keypoints = shape[1], shape[2], maps.shape[3]
    count = keypoints * top.shape[2]
    rows, columns = (tf.reshape(first, (-1, count, 1)) + tf.range(side) for first in (top, left))
    is_inside = ((rows >= 0) & (rows < height))[..., None] & ((columns >= 0) & (columns < width))[
        :, :, None
    ]
    keypoint = tf.repeat(tf.range(keypoints), top.shape[2])[:, None, None]
    cells = (rows[..., None] * width + columns[:, :, None]) * keypoints + keypoint
    cells = tf.reshape(tf.where(is_inside, cells, 0), (-1, count * side * side))
    flat = tf.reshape(maps, (-1, height * width * keypoints))
    windows = tf.reshape(tf.gather(flat, cells, batch_dims=1), (-1, count, side, side))
    return tf.reshape(tf.where(is_inside, windows, 0.0), (-1, side, side))


def _quarter_way(patch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return x and y `(n,)` from the middle of patches `(n, 3, 3)` towards higher neighbours."""
    return (
        0.25 * tf.sign(patch[:, 1, 2] - patch[:, 1, 0]),
        0.25 * tf.sign(patch[:, 2, 1] - patch[:, 0, 1]),
    )


def _to_centre_of_mass(patch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return x and y `(n,)` from the middle of patches `(n, 5, 5)` to their centres of mass."""
    total = tf.reduce_sum(patch, axis=(1, 2))
    at = tf.range(-2.0, 3.0)
    return (
        tf.math.divide_no_nan(tf.reduce_sum(patch * at[None, None, :], (1, 2)), total),
        tf.math.divide_no_nan(tf.reduce_sum(patch * at[None, :, None], (1, 2)), total),
    )


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
