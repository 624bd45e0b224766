"""From confidence maps to points: the global peak of every map, refined to a fraction of a cell.

The same TensorFlow operations serve validation, `evaluate`, `predict` and the exported model.
"""

import tensorflow as tf

from hgtrain.coords import cells_to_pixels, original_points

# Only keeps the logarithm finite; far below what a map holds beside its peak.
SMALLEST = 1e-10


def global_peaks(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the peak of each map, refined without bias: points `(B, K, 2)` float32 in cells, and values `(B, K)`.

    maps: `(B, H, W, K)`. Points are x then y, cell centres at integers; the value is that of the highest cell.
    The logarithm of a Gaussian is a parabola, so the vertex through the highest cell and its neighbours is the centre
    itself, whatever the width (DARK, Zhang et al. 2020, arXiv:1910.06278, to second order along each axis). At a border
    the parabola goes through the three outermost cells. A flat map gives the centre of its first highest cell.
    """
    shape = tf.shape(maps)
    height, width, keypoints = shape[1], shape[2], shape[3]
    flat = tf.reshape(tf.transpose(maps, (0, 3, 1, 2)), (-1, height * width))
    highest = tf.argmax(flat, axis=1, output_type=tf.int32)
    row, column = highest // width, highest % width
    cells = tf.reshape(flat, (-1, height, width))
    x = _vertex(tf.gather(cells, row, batch_dims=1), column)
    y = _vertex(tf.gather(tf.transpose(cells, (0, 2, 1)), column, batch_dims=1), row)
    points = tf.reshape(tf.stack([x, y], axis=-1), (-1, keypoints, 2))
    values = tf.reshape(tf.gather(flat, highest, batch_dims=1), (-1, keypoints))
    return points, values


def _vertex(line: tf.Tensor, peak: tf.Tensor) -> tf.Tensor:
    """Return the vertex `(n,)` of the log-parabola around `peak` `(n,)` in each line of cells `(n, length)`."""
    length = tf.shape(line)[1]
    centre = tf.clip_by_value(peak, 1, tf.maximum(length - 2, 1))
    around = tf.minimum(centre[:, None] + tf.constant([-1, 0, 1]), length - 1)
    left, middle, right = tf.unstack(tf.math.log(tf.maximum(tf.gather(line, around, batch_dims=1), SMALLEST)), axis=1)
    offset = tf.math.divide_no_nan(left - right, 2 * (left - 2 * middle + right))
    at = tf.cast(peak, tf.float32)
    # Noise can bend the outermost parabola the wrong way: never farther than one cell from the highest.
    refined = tf.clip_by_value(tf.cast(centre, tf.float32) + offset, at - 1, at + 1)
    return tf.where(length < 3, at, refined)


def decode(maps: tf.Tensor, stride: int, input_scale: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Return points `(B, K, 2)` float32 in pixels of the original image, and confidence `(B, K)` in 0..1.

    maps: `(B, H, W, K)` with unit peaks. stride: of the maps in the network's input. input_scale: the factor by which
    the original image was resized before the network.
    """
    cells, values = global_peaks(maps)
    points = original_points(cells_to_pixels(cells, stride), input_scale)
    return points, tf.clip_by_value(values, 0.0, 1.0)
