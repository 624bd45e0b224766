"""What the rest of hgtrain knows of a head: layers, targets, losses and decoding of one kind.

A head owns no loop, dataset, predictor or file, and imports no other head. Nobody asks which kind a
head is: what differs between kinds is said by its methods.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import tensorflow as tf
from keras import KerasTensor, initializers, layers

from hgtrain.coords import Crop, Turn
from hgtrain.heads.decoding.extent import Size
from hgtrain.poses import Poses

# Maps are nearly zero nearly everywhere. From Keras's usual width the first steps only undo the
# noise of the start, and the network stays at the background for hundreds of steps (60 px instead
# of 10 px after 200 steps on 80 frames).
START_STDDEV_FACTOR = 1 / 30

Outputs = Mapping[str, tf.Tensor]
"""What one stack gives, `(B, H / stride, W / stride, channels)` float32 each, by name."""


class Target(NamedTuple):
    """What an output is to be.

    Attributes:
        values: Of the output's shape.
        weights: What each of them counts, of a shape that the head's losses know; what weighs
            nothing teaches nothing, also where its value is NaN.
    """

    values: tf.Tensor
    weights: tf.Tensor


class Head(Protocol):
    """One kind of output, as `heads.make_head` builds it from `model.head`."""

    @property
    def stride(self) -> int:
        """Pixels of the network's input for each cell of the outputs."""

    @property
    def keypoints(self) -> int:
        """How many keypoints `decode` gives."""

    @property
    def max_instances(self) -> int:
        """How many animals `decode` gives for an image."""

    @property
    def several_animals(self) -> bool:
        """Whether an image may hold several animals.

        Without, what users get of `decode` has no axis of animals.
        """

    @property
    def crop(self) -> Crop | None:
        """What the network sees of an image; None for all of it."""

    @property
    def outputs(self) -> dict[str, int]:
        """Channels of each output, by name."""

    def layers(self, features: KerasTensor, stack: int, stacks: int) -> dict[str, KerasTensor]:
        """Return the outputs of a stack.

        Args:
            features: Of the stack, `(B, H / stride, W / stride, C)`.
            stack: From 0.
            stacks: How many there are; layers of the last one have the reference's names.
        """

    def targets(
        self, points: tf.Tensor, weights: tf.Tensor, height: int, width: int
    ) -> dict[str, Target]:
        """Return what each output is to be.

        Args:
            points: `(B, I, K, 2)` float32, px of the network's input, NaN where missing.
            weights: `(B, I, K)`, 1 where labelled, 0 where not.
            height: Of the network's input, a multiple of the stride.
            width: The same.
        """

    def losses(
        self, outputs: Outputs, targets: Mapping[str, Target], hard_keypoint_mining: bool = False
    ) -> dict[str, tf.Tensor]:
        """Return the weighted loss of each example, `(B,)` float32, by output.

        Args:
            outputs: Of one stack.
            targets: As `targets` gives them.
            hard_keypoint_mining: Count an example's worse keypoints alone.
        """

    def confmaps(self, outputs: Outputs) -> tf.Tensor:
        """Return the confidence maps `(B, h, w, K)` among the outputs of a stack."""

    def averaged(
        self, views: Sequence[tuple[Turn, Outputs]], symmetries: Sequence[tuple[int, int]]
    ) -> dict[str, tf.Tensor]:
        """Return the mean of what the network says of an image and of it turned and mirrored.

        Args:
            views: How the image was turned, and the last stack's outputs, cells at their places in
                the image.
            symmetries: Left/right partners among the skeleton's keypoints, by index.
        """

    def decode(
        self, outputs: Outputs, refinement: str = "unbiased", size: Size | None = None
    ) -> Poses:
        """Return the animals that the outputs say, `max_instances` of them in each image.

        Args:
            outputs: Of the last stack.
            refinement: A key of `decoding.peaks.DECODERS`.
            size: Height and width of the image before it was padded at the right and the bottom,
                in px of the network's input: no point is looked for beyond. None: all is image.

        Returns:
            Poses as tensors, points in px of the network's input.
        """

    def labelled(self, points: np.ndarray) -> np.ndarray:
        """Return what `decode` should find.

        Args:
            points: Labels of animals, `(n, I, K, 2)` px, NaN where not labelled.

        Returns:
            `(n, I, k, 2)` in the same px, k being `keypoints`.
        """


def output_layers(
    channels: Mapping[str, int],
    names: Mapping[str, str],
    features: KerasTensor,
    stack: int,
    stacks: int,
) -> dict[str, KerasTensor]:
    """Return a linear layer on a stack's features for each output, `(B, H, W, C)` float32.

    Args:
        channels: Of each output, by name.
        names: Of its layer in the last stack, as the reference names it.
        features: Of the stack.
        stack: From 0.
        stacks: How many there are.
    """
    prefix = f"stack{stack}_" if stack < stacks - 1 else ""
    start = START_STDDEV_FACTOR**2
    return {
        name: layers.Conv2D(
            count,
            1,
            padding="same",
            kernel_initializer=initializers.VarianceScaling(start, "fan_avg", "uniform"),
            # Whatever the precision of the network: peaks are compared and refined by small
            # differences.
            dtype="float32",
            name=prefix + names[name],
        )(features)
        for name, count in channels.items()
    }


def by_stack(head: Head, flat: Sequence[tf.Tensor]) -> list[dict[str, tf.Tensor]]:
    """Return the outputs of each stack, first to last.

    Args:
        head: That made them.
        flat: A network's outputs, or what it gives, in its order: stack after stack, in each by
            name.
    """
    names = sorted(head.outputs)
    return [
        dict(zip(names, flat[start : start + len(names)], strict=True))
        for start in range(0, len(flat), len(names))
    ]
