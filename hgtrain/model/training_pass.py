"""The forward pass of training: the network's own layers and weights, in less time or memory."""

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import NamedTuple

import keras
import tensorflow as tf
from keras import KerasTensor, layers

Tensors = dict[int, tf.Tensor]
"""Values of a pass by the identity of the symbolic tensor they stand for."""


class TrainingPass:
    """The outputs of every stack, a list, as `network(images, training=True)` gives them.

    Images are `(B, H, W, C)`.

    Args:
        network: Functional, each layer in it once. BatchNormalization over one device's batch is
            one fused operation, which makes a step a quarter faster; it is the same mathematics,
            and inference is left to Keras.
        recompute: Whether only what passes from one block of layers to the next is kept for the
            backward pass, which computes the rest again (Chen et al. 2016, arXiv:1604.06174).
    """

    def __init__(self, network: keras.Model, recompute: bool = False) -> None:
        self._inputs, self._outputs = network.inputs, network.outputs
        # In the order of depth, inputs first, which is an order of computation.
        wired = [layer for layer in network.layers if not isinstance(layer, layers.InputLayer)]
        blocks = [list(block) for _, block in groupby(wired, lambda layer: block_of(layer.name))]
        self._segments = [
            _Segment(block, _needed_after(blocks[i + 1 :], network))
            for i, block in enumerate(blocks)
        ]
        self._recompute = recompute

    def __call__(self, images: tf.Tensor) -> list[tf.Tensor]:
        """Return the maps and update the moving statistics."""
        values = {id(self._inputs[0]): _Between.of(images)}
        for segment in self._segments:
            run = _computed_again(segment) if self._recompute else segment
            results = run([values[key].tensor() for key in segment.inputs])
            values |= zip(segment.outputs, map(_Between.of, results), strict=True)
        return [values[id(output)].tensor() for output in self._outputs]


class _Between(NamedTuple):
    """What passes from a block to others, as rows `(B * H * W, C)`.

    Its gradient is a sum over blocks of the sums within each. If all had one shape, TensorFlow
    would add them up in one go, but not where blocks are computed again: in the other order they
    round differently.
    """

    rows: tf.Tensor
    shape: tuple[int, ...]

    @classmethod
    def of(cls, tensor: tf.Tensor) -> "_Between":
        """Take a tensor `(B, H, W, C)`."""
        return cls(_rows(tensor), (-1, *tensor.shape[1:]))

    def tensor(self) -> tf.Tensor:
        """Return the tensor."""
        return tf.reshape(self.rows, self.shape)


def _rows(tensor: tf.Tensor) -> tf.Tensor:
    return tf.reshape(tensor, (-1, tensor.shape[-1]))


def block_of(layer_name: str) -> str:
    """Return the block a layer belongs to: a stack, or one of the stem's large convolutions."""
    block, *rest = layer_name.split("_")
    if block.startswith("reinject"):
        # With the stack before: all that it passes on is then the next one's input.
        return block.replace("reinject", "stack")
    if not block.startswith("stem"):
        return block
    # With the pooling: what lies before it is the largest of all, and is not kept then.
    return "_".join(rest[:-1]) or "conv3x3"


def _needed_after(blocks: Sequence[Sequence[layers.Layer]], network: keras.Model) -> set[int]:
    used = {id(tensor) for block in blocks for layer in block for tensor in _inputs_of(layer)}
    return used | {id(tensor) for tensor in network.outputs}


def _inputs_of(layer: layers.Layer) -> Sequence[KerasTensor]:
    return tf.nest.flatten(layer.input)


class _Segment:
    """Layers computed one after the other.

    `inputs` come from outside, `outputs` are needed outside.
    """

    def __init__(self, block: Sequence[layers.Layer], needed_after: set[int]) -> None:
        self._layers = block
        made = [id(layer.output) for layer in block]
        taken = dict.fromkeys(id(tensor) for layer in block for tensor in _inputs_of(layer))
        self.weights = [variable for layer in block for variable in layer.trainable_variables]
        self.inputs = [key for key in taken if key not in made]
        self.outputs = [key for key in made if key in needed_after]

    def __call__(self, inputs: Sequence[tf.Tensor], updates: bool = True) -> list[tf.Tensor]:
        """Return the outputs.

        Args:
            inputs: What comes from outside, in the order of `inputs`.
            updates: Whether moving statistics follow the batch.
        """
        values: Tensors = dict(zip(self.inputs, inputs, strict=True))
        for layer in self._layers:
            of_layer = [values[id(tensor)] for tensor in _inputs_of(layer)]
            values[id(layer.output)] = _run(layer, of_layer, updates)
        return [values[key] for key in self.outputs]


def _run(layer: layers.Layer, inputs: list[tf.Tensor], updates: bool) -> tf.Tensor:
    if isinstance(layer, layers.BatchNormalization) and layer.trainable and not layer.synchronized:
        return _normalised(layer, inputs[0], updates)
    # In bfloat16 Keras's way is the faster one: oneDNN computes the gradient of the bias along with
    # the kernel's.
    if type(layer) is layers.Conv2D and layer.compute_dtype == "float32":
        return _convolved(layer, inputs[0])
    if isinstance(layer, layers.UpSampling2D) and layer.interpolation == "nearest":
        return _repeated(inputs[0], layer.size)
    return layer(inputs[0] if len(inputs) == 1 else inputs, training=True)


def _repeated(x: tf.Tensor, times: tuple[int, int]) -> tf.Tensor:
    """Return `x` `(B, H, W, C)` with each pixel that many times in height and width.

    It takes two operations, where Keras has ten.
    """

    @tf.custom_gradient
    def repeated(x: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]:
        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # Not the operation's own, which is not deterministic on a GPU.
            return tf.nn.avg_pool2d(upstream, times, times, "VALID") * (times[0] * times[1])

        size = [count * length for count, length in zip(times, x.shape[1:3], strict=True)]
        return tf.raw_ops.ResizeNearestNeighbor(images=x, size=size), gradient

    return repeated(x)


def _convolved(layer: layers.Conv2D, x: tf.Tensor) -> tf.Tensor:
    """Return what the float32 layer makes of `x`.

    Only the gradient of its bias is computed by another operation.
    """
    convolved = layer.convolution_op(tf.cast(x, tf.float32), layer.kernel.value)
    return layer.activation(_biased(convolved, layer.bias.value))


@tf.custom_gradient
def _biased(
    x: tf.Tensor, bias: tf.Tensor
) -> tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]]:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # As rows: of the convolution's shape TensorFlow would have oneDNN compute it along with the
        # kernel's gradient, which takes three times as long, and with it a step on a CPU 3% longer.
        return upstream, tf.raw_ops.BiasAddGrad(out_backprop=_rows(upstream))

    return tf.nn.bias_add(x, bias), gradient


def _normalised(layer: layers.BatchNormalization, x: tf.Tensor, updates: bool) -> tf.Tensor:
    """Return `x` `(B, H, W, C)` normalised by its own statistics.

    The layer's moving statistics follow them.
    """
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=layer.gamma.value,
        offset=layer.beta.value,
        mean=tf.zeros((0,)),
        variance=tf.zeros((0,)),
        epsilon=layer.epsilon,
        is_training=True,
    )
    if updates:
        # The operation gives the unbiased variance, Keras keeps the biased one.
        count = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        for moving, value in (
            (layer.moving_mean, mean),
            (layer.moving_variance, variance * ((count - 1) / count)),
        ):
            # The variable itself, which is assigned to in Keras's stateless scope too.
            moving.value.assign(moving.value * layer.momentum + value * (1 - layer.momentum))
    return y


def _computed_again(segment: _Segment) -> Callable[[Sequence[tf.Tensor]], list[tf.Tensor]]:
    """Return the segment as a function that keeps its inputs alone for its gradient."""

    def given(tensors: Sequence[tf.Tensor], updates: bool) -> list[tf.Tensor]:
        count = len(segment.inputs)
        # In the scope of the values given here a layer's assignments are not carried out.
        with keras.StatelessScope(zip(segment.weights, tensors[count:], strict=True)):
            return segment(tensors[:count], updates)

    @tf.custom_gradient
    def run(*tensors: tf.Tensor) -> tuple[list[tf.Tensor], Callable[..., list[tf.Tensor]]]:
        def gradient(*upstream: tf.Tensor) -> list[tf.Tensor]:
            # Not before the gradient is here: started earlier, it would fill the memory it is to
            # save.
            with tf.control_dependencies(upstream), tf.GradientTape() as tape:
                again = [tf.identity(tensor) for tensor in tensors]
                tape.watch(again)
                outputs = given(again, updates=False)
            return tape.gradient(outputs, again, output_gradients=upstream)

        return given(tensors, updates=True), gradient

    # The weights' values are given too. Where the segment read its variables itself, TensorFlow's
    # optimizer of graphs fused other operations in one process than in the next, which round
    # differently.
    return lambda inputs: run(
        *inputs, *(tf.convert_to_tensor(weight.value) for weight in segment.weights)
    )
