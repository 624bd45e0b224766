"""The whole network: rescaling, backbone and a head on every stack, as one functional Keras model."""

import keras
from keras import layers

from hgtrain.config.schema import ModelConfig
from hgtrain.heads.single_instance import HEADS
from hgtrain.model.hourglass import Hourglass


def build_network(
    config: ModelConfig,
    channels: int,
    keypoints: int,
    precision: str = "float32",
    all_stacks: bool = True,
) -> keras.Model:
    """Return a model from images `(B, H, W, channels)`, uint8 or float 0..255, to confidence maps.

    H and W are any multiples of `max_stride`. Outputs are `(B, H / output_stride, W /
    output_stride, keypoints)`
    float32: a list with one tensor for each stack, or, with `all_stacks` False, the last stack's
    alone.
    precision: a Keras dtype policy; inputs are rescaled and heads computed in float32 whatever it
    is.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(precision)
    try:
        image = keras.Input((None, None, channels), name="input")
        x = layers.Rescaling(1 / 255, dtype="float32", name="rescaling")(image)
        features = Hourglass.from_config(config.backbone).make_backbone(x)
        head = HEADS[config.head.type]
        stacks = len(features)
        wanted = range(stacks) if all_stacks else range(stacks - 1, stacks)
        maps = [head(features[stack], keypoints, stack, stacks) for stack in wanted]
    finally:
        keras.config.set_dtype_policy(before)
    return keras.Model(image, maps if all_stacks else maps[0], name="hgtrain")


def synchronize_batch_norm(network: keras.Model) -> None:
    """Make batch normalisation in training use the statistics of the batch of all replicas, not of each its own part.

    Names and weights stay as they are. Within one replica nothing changes but the last bits.
    """
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.synchronized = True


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Assign the weights of `source` to the layers of the same names in `target`.

    Raises KeyError for a layer of `target` that `source` lacks.
    """
    by_name = {layer.name: layer for layer in source.layers}
    for layer in target.layers:
        for mine, theirs in zip(layer.variables, by_name[layer.name].variables, strict=True):
            mine.assign(theirs)
