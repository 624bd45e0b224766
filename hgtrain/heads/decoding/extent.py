"""Where the image ends in maps that go on over what it was padded with."""

from collections.abc import Mapping

import tensorflow as tf

Size = tuple[int | tf.Tensor, int | tf.Tensor]
"""Height and width of the image in the network's input, px: what lies beyond is padding."""


def within_image(
    outputs: Mapping[str, tf.Tensor], size: Size | None, stride: int
) -> Mapping[str, tf.Tensor]:
    """Return the cells whose centre is in the image, `(B, h, w, C)` each; all without a size."""
    if size is None:
        return outputs
    # Without negative numbers, whose quotient is another in exported models' runtimes.
    height, width = ((side + stride - 1) // stride for side in size)
    return {name: maps[:, :height, :width] for name, maps in outputs.items()}


def near_image(points: tf.Tensor, size: Size | None, stride: int) -> tf.Tensor:
    """Return points `(..., 2)` px, moved to half a cell outside of the image where beyond."""
    if size is None:
        return points
    margin = (stride - 1) / 2
    farthest = tf.cast(tf.stack([size[1], size[0]]), tf.float32) - 1 + margin
    return tf.minimum(tf.maximum(points, -margin), farthest)
