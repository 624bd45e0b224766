"""Output heads: from the backbone's features to what the network predicts."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras import KerasTensor, initializers, layers

from hgtrain.heads.confidence_maps import TARGETS

# Maps are nearly zero nearly everywhere. From Keras's usual width the first steps only undo the
# noise of the start, and the network stays at the background for hundreds of steps (60 px instead
# of 10 px after 200 steps on 80 frames).
START_STDDEV_FACTOR = 1 / 30


def single_instance_confmaps(
    features: KerasTensor, keypoints: int, stack: int, stacks: int
) -> KerasTensor:
    """Return confidence maps `(B, H, W, keypoints)` float32 of one stack.

    Linear, targets peak at 1.

    The last stack's layer has the name the reference gives its only head, so that weights fit by
    name.
    """
    name = "SingleInstanceConfmapsHead"
    if stack < stacks - 1:
        name = f"stack{stack}_{name}"
    start = initializers.VarianceScaling(
        START_STDDEV_FACTOR**2, mode="fan_avg", distribution="uniform"
    )
    # float32 whatever the precision of the network: peaks are compared and refined by small
    # differences.
    return layers.Conv2D(
        keypoints, 1, padding="same", kernel_initializer=start, dtype="float32", name=name
    )(features)


HEADS: dict[str, Callable[[KerasTensor, int, int, int], KerasTensor]] = {
    "single_instance": single_instance_confmaps,
}
"""By `model.head.type`: (features of a stack, keypoints, stack, stacks) -> output tensor."""


def draw_targets(head: Any, stride: int) -> Callable[[tf.Tensor, int, int], tf.Tensor]:
    """Return the function (points, height, width) -> maps of a `model.head` section."""
    targets = TARGETS[head.type]
    return lambda points, height, width: targets(points, height, width, stride, head.sigma_px)
