"""What the network is to predict: confidence maps drawn from points, inside the compiled graph."""

import tensorflow as tf


def confidence_maps(
    points: tf.Tensor, height: int, width: int, stride: int, sigma_px: float
) -> tf.Tensor:
    """Return Gaussians with unit peak, zero where a point is NaN.

    Cell (i, j) is evaluated at pixel (x, y) = (j * stride, i * stride), as the reference does.

    Args:
        points: `(B, K, 2)`, x then y, in px of the network's input.
        height: Of the network's input, px, a multiple of `stride`.
        width: The same.
        stride: Px for each cell.
        sigma_px: Standard deviation, in px of the network's input.

    Returns:
        Maps `(B, height / stride, width / stride, K)` float32.
    """
    xs = tf.range(0, width, stride, dtype=tf.float32)
    ys = tf.range(0, height, stride, dtype=tf.float32)
    # A Gaussian is the product of one along x and one along y: exp is taken of H + W values, not of
    # H * W.
    along_x = tf.exp(-tf.square(points[:, None, :, 0] - xs[:, None]) / (2 * sigma_px**2))
    along_y = tf.exp(-tf.square(points[:, None, :, 1] - ys[:, None]) / (2 * sigma_px**2))
    present = ~tf.reduce_any(tf.math.is_nan(points), axis=-1)[:, None, :]
    along_x = tf.where(present, along_x, 0.0)
    along_y = tf.where(present, along_y, 0.0)
    return along_y[:, :, None, :] * along_x[:, None, :, :]
