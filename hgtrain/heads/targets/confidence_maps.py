"""What the network is to predict: confidence maps drawn from points, inside the compiled graph."""

from collections.abc import Callable

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


def multi_confidence_maps(
    points: tf.Tensor, height: int, width: int, stride: int, sigma_px: float
) -> tf.Tensor:
    """Return the maximum over animals of their confidence maps.

    Args:
        points: `(B, I, K, 2)`, x then y, in px of the network's input; NaN where missing, also all
            of an animal.
        height: Of the network's input, px.
        width: The same.
        stride: Px for each cell.
        sigma_px: Standard deviation, in px of the network's input.

    Returns:
        Maps `(B, ceil(height / stride), ceil(width / stride), K)` float32.
    """
    cells = (-(-height // stride), -(-width // stride))
    return over_animals(
        points,
        tf.zeros((tf.shape(points)[0], *cells, points.shape[2])),
        lambda maps, animal: tf.maximum(
            maps, confidence_maps(animal, height, width, stride, sigma_px)
        ),
    )


def over_animals(
    points: tf.Tensor, blank: tf.Tensor, add: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]
) -> tf.Tensor:
    """Return what is drawn after every animal was added.

    One animal is drawn at a time: all side by side, 16 animals of 24 keypoints need 3.5 MB for each
    frame and keypoint at 192x192 cells. The animals that no frame has, at the end, are left out.

    Args:
        points: `(B, I, K, 2)`, NaN where missing.
        blank: What is drawn before the first animal.
        add: From what is drawn so far and an animal's points `(B, K, 2)` to what is drawn then.
    """
    is_there = tf.reduce_any(tf.math.is_finite(points), axis=(0, 2, 3))
    count = tf.reduce_max(tf.where(is_there, tf.range(1, points.shape[1] + 1), 0))
    _, drawn = tf.while_loop(
        lambda animal, drawn: animal < count,
        lambda animal, drawn: (animal + 1, add(drawn, tf.gather(points, animal, axis=1))),
        (tf.constant(0), blank),
        # The next animal needs what is drawn of this one: there is nothing to do at the same time.
        parallel_iterations=1,
    )
    return drawn
