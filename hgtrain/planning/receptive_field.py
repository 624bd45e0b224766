"""What every layer of a network sees, gives and costs, read from the graph that is trained.

The receptive field follows the recurrence of Araujo, Norris and Sim 2019 (Computing Receptive
Fields of Convolutional Neural Networks) along the longest path: `r += (kernel - 1) * j`, and j, the
distance in input pixels between neighbouring cells, is multiplied by the stride or divided by the
factor of an upsampling. Nearest upsampling gives neighbouring cells the same source, so that the
field of a single cell is smaller or larger: on average over the cells it is the recurrence's after
the first stack, and differs by at most `max_stride` for each further stack.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras


class LayerFacts(NamedTuple):
    """One layer, for one image.

    Attributes:
        name: Of the layer.
        type: Its class.
        output_shape: `(H, W, C)`.
        params: Numbers it holds.
        trainable_params: Those of them that are trained.
        receptive_field_px: Side of the square of input pixels that a cell depends on.
        macs: Multiplications with an addition in one forward pass; those of convolutions, 0 for
            what works element by element.
    """

    name: str
    type: str
    output_shape: tuple[int, int, int]
    params: int
    trainable_params: int
    receptive_field_px: float
    macs: int


class _Field(NamedTuple):
    """Side of the receptive field and distance of neighbouring cells.

    Both are in px of the network's input.
    """

    side: float
    distance: float


def _convolved(layer: Any, field: _Field) -> _Field:
    return _Field(
        field.side + (layer.kernel_size[0] - 1) * field.distance, field.distance * layer.strides[0]
    )


def _pooled(layer: Any, field: _Field) -> _Field:
    return _Field(
        field.side + (layer.pool_size[0] - 1) * field.distance, field.distance * layer.strides[0]
    )


def _upsampled(layer: Any, field: _Field) -> _Field:
    # Bilinear takes two cells on each axis, nearest one.
    side = field.side + (field.distance if layer.interpolation == "bilinear" else 0)
    return _Field(side, field.distance / layer.size[0])


_FIELDS: dict[str, Callable[[Any, _Field], _Field]] = {
    "Conv2D": _convolved,
    "MaxPooling2D": _pooled,
    "UpSampling2D": _upsampled,
}
"""By a layer's type; every other works cell by cell."""

LISTED_WITH_THE_INPUT = ("Rescaling",)
"""Layers that only change the unit of the pixels.

Part of the input, as in the reference's list of layers.
"""


def layer_facts(network: keras.Model, height: int, width: int) -> list[LayerFacts]:
    """Return the layers of a functional network in order, for images of `height` x `width`.

    The rescaling of the pixels to 0..1 is left out.
    """
    shapes: dict[str, tuple[int, int, int]] = {}
    fields: dict[str, _Field] = {}
    facts = []
    for layer in network.layers:
        sources = [
            tensor._keras_history.operation.name for tensor in keras.tree.flatten(layer.input)
        ]
        before = [name for name in sources if name != layer.name]
        if not before:
            shapes[layer.name], fields[layer.name] = (
                (height, width, layer.output.shape[-1]),
                _Field(1, 1),
            )
        else:
            batches = [(1, *shapes[name]) for name in before]
            shapes[layer.name] = layer.compute_output_shape(
                batches if len(batches) > 1 else batches[0]
            )[1:]
            widest = max((fields[name] for name in before), key=lambda field: field.side)
            fields[layer.name] = _FIELDS.get(type(layer).__name__, lambda _, field: field)(
                layer, widest
            )
        if type(layer).__name__ not in LISTED_WITH_THE_INPUT:
            facts.append(_facts(layer, shapes[layer.name], fields[layer.name]))
    return facts


def _facts(layer: keras.Layer, shape: tuple[int, int, int], field: _Field) -> LayerFacts:
    height, width, channels = shape
    trainable = sum(int(keras.ops.size(weight)) for weight in layer.trainable_weights)
    macs = 0
    if isinstance(layer, keras.layers.Conv2D):
        kernel_height, kernel_width, inputs, _ = layer.kernel.shape
        macs = kernel_height * kernel_width * inputs * channels * height * width
    return LayerFacts(
        name=layer.name,
        type=type(layer).__name__,
        output_shape=(int(height), int(width), int(channels)),
        params=layer.count_params(),
        trainable_params=trainable,
        receptive_field_px=int(field.side) if field.side == int(field.side) else field.side,
        macs=int(macs),
    )
