"""The loss of confidence maps: squared error, weighted by what is labelled."""

import tensorflow as tf

MAP_SCALE = 30.0
"""Maps are compared at this peak height. At unit height their squared error is so small that Adam's epsilon is no
longer small against the gradients, and the network stays at the all-background solution."""


def confmap_losses(maps: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor, hard_keypoint_mining: bool) -> tf.Tensor:
    """Return the loss of each example, `(B,)` float32: the mean over keypoints of the weighted mean squared error.

    maps, targets: `(B, H, W, K)` with unit peaks. weights: `(B, K)`; what weighs nothing adds nothing, also where its
    target is undefined.
    hard_keypoint_mining: the half of an example's keypoints with the largest errors counts twice and the rest not at
    all (Chen et al. 2018, Cascaded Pyramid Network, arXiv:1711.07319).
    """
    error = tf.reduce_mean(tf.math.squared_difference(maps, targets), axis=(1, 2))
    error *= MAP_SCALE**2 * weights
    if not hard_keypoint_mining:
        return tf.reduce_mean(error, axis=-1)
    keypoints = error.shape[-1]
    hardest = tf.math.top_k(error, k=(keypoints + 1) // 2).values
    return 2 * tf.reduce_sum(hardest, axis=-1) / keypoints
