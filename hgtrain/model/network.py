"""The whole network: rescaling, backbone and a head on every stack, as one functional model."""

from collections.abc import Callable

import keras
from keras import KerasTensor, layers

from hgtrain.config.schema import BackboneConfig
from hgtrain.model.backbones import backbone_of

HeadLayers = Callable[[KerasTensor, int, int], dict[str, KerasTensor]]
"""(features of a stack, stack, stacks) -> its outputs by name."""


def build_network(
    backbone: BackboneConfig,
    head_layers: HeadLayers,
    channels: int,
    precision: str = "float32",
    all_stacks: bool = True,
) -> keras.Model:
    """Return a model from images to a head's outputs.

    Args:
        backbone: The `model.backbone` section.
        head_layers: Gives the outputs of a stack by name, as `Head.layers`.
        channels: Of the images.
        precision: A Keras dtype policy; inputs are rescaled and heads computed in float32 whatever
            it is.
        all_stacks: Whether the model has the outputs of all stacks.

    Returns:
        A model of images `(B, H, W, channels)`, uint8 or float 0..255, H and W any multiples of
        `max_stride`. Outputs are `(B, H / output_stride, W / output_stride, C)` float32, a tensor
        where the head has one and a dict where it has several: a list with one of them for each
        stack, or, with `all_stacks` False, the last stack's alone.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        image = keras.Input((None, None, channels), name="input")
        x = layers.Rescaling(1 / 255, dtype="float32", name="rescaling")(image)
        stacks = backbone.stacks
        laid: dict[int, dict[str, KerasTensor]] = {}

        def outputs_of(features: KerasTensor, stack: int) -> list[KerasTensor]:
            if stack not in laid:
                laid[stack] = head_layers(features, stack, stacks)
            return [output for _, output in sorted(laid[stack].items())]

        features = backbone_of(backbone).make_backbone(x, outputs_of)
        wanted = range(stacks) if all_stacks else range(stacks - 1, stacks)
        for stack in wanted:
            outputs_of(features[stack], stack)
        outputs = [_plain(laid[stack]) for stack in wanted]
    finally:
        keras.config.set_dtype_policy(before)
    return keras.Model(image, outputs if all_stacks else outputs[0], name="hgtrain")


def _plain(outputs: dict[str, KerasTensor]) -> KerasTensor | dict[str, KerasTensor]:
    """Return an only output as a tensor: what opens `best.keras` has no use for its name."""
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def synchronize_batch_norm(network: keras.Model) -> None:
    """Make batch normalisation in training use the statistics of the batch of all replicas.

    Otherwise each replica would use those of its own part. Names and weights stay as they are.
    Within one replica nothing changes but the last bits.
    """
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Assign the weights of `source` to the layers of the same names in `target`.

    Raises:
        KeyError: `source` lacks a layer of `target`.
    """
    by_name = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        for mine, theirs in zip(layer.variables, by_name[layer.name].variables, strict=True):
            mine.assign(theirs)
