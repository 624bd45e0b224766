"""The loss of confidence maps: squared error, weighted by what is labelled."""

from collections.abc import Callable

import tensorflow as tf

MAP_SCALE = 30.0
"""Maps are compared at this peak height. At unit height their squared error is so small that Adam's
epsilon is no longer small against the gradients, and the network stays at the all-background
solution."""


def confmap_losses(
    maps: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, hard_keypoint_mining: bool
) -> tf.Tensor:
    """Return the loss of each example: the mean over keypoints of the weighted mean squared error.

    Args:
        maps: `(B, H, W, K)` with unit peaks.
        targets: The same.
        weights: `(B, K)`; what weighs nothing adds nothing, also where its target is undefined.
        hard_keypoint_mining: Take the mean over the half of an example's keypoints, rounded up,
            with the largest errors (Chen et al. 2018, Cascaded Pyramid Network, arXiv:1711.07319).

    Returns:
        Losses `(B,)` float32.
    """
    # Chosen, not multiplied alone: NaN times a weight of zero is still NaN.
    error = tf.where(weights > 0, MAP_SCALE**2 * weights * _mean_squares(maps - targets), 0.0)
    if hard_keypoint_mining:
        error = tf.math.top_k(error, k=(error.shape[-1] + 1) // 2).values
    return tf.reduce_mean(error, axis=-1)


def map_losses(
    maps: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, hard_keypoint_mining: bool = False
) -> tf.Tensor:
    """Return the loss of each example where single cells may teach nothing.

    Args:
        maps: `(B, H, W, C)` with unit peaks.
        targets: The same.
        weights: `(B, H, W, C)`, 1 where a cell counts and 0 where it does not; both are part of
            the mean.
        hard_keypoint_mining: As in `confmap_losses`.

    Returns:
        Losses `(B,)` float32.
    """
    error = MAP_SCALE**2 * _mean_squares(tf.where(weights > 0, maps - targets, 0.0))
    if hard_keypoint_mining:
        error = tf.math.top_k(error, k=(error.shape[-1] + 1) // 2).values
    return tf.reduce_mean(error, axis=-1)


@tf.custom_gradient
def _mean_squares(differences: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
    """Return the mean over height and width of the squares, `(B, K)`.

    What has no gradient gets none, whether it is NaN or not.
    """
    cells = tf.cast(tf.shape(differences)[1] * tf.shape(differences)[2], differences.dtype)

    def gradient(upstream: tf.Tensor) -> tf.Tensor:
        # One pass over the maps instead of four.
        return tf.math.multiply_no_nan(differences, (2 / cells) * upstream[:, None, None, :])

    return tf.reduce_mean(tf.square(differences), axis=(1, 2)), gradient
