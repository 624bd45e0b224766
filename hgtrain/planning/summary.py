"""What a config's network is and costs, as `summarize --json` gives it."""

from typing import Any, NamedTuple

from hgtrain.coords import padded_length, resized_length
from hgtrain.heads import Head, make_head
from hgtrain.model.network import build_network
from hgtrain.model.training_pass import block_of
from hgtrain.planning.input_spec import InputSpec
from hgtrain.planning.memory import Demand, Device, largest_batch, training_memory
from hgtrain.planning.receptive_field import layer_facts


class InputSize(NamedTuple):
    """Size of what reaches the network, in px, after resizing and padding."""

    height: int
    width: int
    channels: int


def input_size(spec: InputSpec) -> InputSize:
    """Return the size of the network's input: of the image, or of an animal's crop."""
    data, multiple = spec.data, spec.model.backbone.max_stride
    channels = data.channels or spec.image_shape[2]
    head = spec.model.head
    if head.sees_crops and head.crop_size_px is not None:
        return InputSize(head.crop_size_px, head.crop_size_px, channels)
    height, width = (
        padded_length(resized_length(side, data.input_scale), multiple)
        for side in spec.image_shape[:2]
    )
    return InputSize(height, width, channels)


def summarize(spec: InputSpec, device: Device) -> dict[str, Any]:
    """Return the document of `summarize --json` (contract, section 5).

    FLOPs are those of the convolutions in one forward pass, an addition and a multiplication for
    each weight and output cell; the bias is what the first addition is made to. Normalisation,
    activation, pooling, upsampling and skip additions, which work cell by cell, are not counted.
    Receptive fields are in px of the network's input, animals in px of the same.
    """
    backbone, training = spec.model.backbone, spec.training
    demand = demand_of(spec)
    layers = demand.layers
    heads = [layer for layer in layers if layer.name.endswith("Head")]
    scale, size = spec.data.input_scale, input_size(spec)
    height, width = (side // backbone.output_stride for side in size[:2])
    outputs = _head(spec).outputs
    return {
        "params": sum(layer.params for layer in layers),
        "trainable_params": sum(layer.trainable_params for layer in layers),
        "layers": [layer._asdict() for layer in layers],
        "outputs": [layer.output_shape for layer in heads],
        # In every stack.
        "outputs_by_name": {name: (height, width, count) for name, count in outputs.items()},
        "head": spec.model.head.model_dump(),
        "image_shape": spec.image_shape,
        "input_shape": size,
        "keypoints": spec.keypoints,
        "stem_stride": backbone.stem_stride,
        "max_stride": backbone.max_stride,
        "output_stride": backbone.output_stride,
        # Outputs of one stack see the same.
        "receptive_field_px": [
            layer.receptive_field_px for layer in heads[:: len(heads) // backbone.stacks]
        ],
        "animal_px": None if spec.animal_px is None else spec.animal_px * scale,
        "flops_per_image": 2 * sum(layer.macs for layer in layers),
        "batch_size": training.batch_size,
        "precision": training.precision,
        "memory": training_memory(demand, training.batch_size),
        "device": {
            "name": device.name,
            "memory": device.memory_bytes,
            "largest_batch": largest_batch(demand, device.memory_bytes),
        },
    }


def demand_of(spec: InputSpec) -> Demand:
    """Return what decides how much memory the training of a config takes.

    Its network's layers are among it.
    """
    size, backbone = input_size(spec), spec.model.backbone
    network = build_network(backbone, _head(spec).layers, size.channels)
    layers = layer_facts(network, size.height, size.width)
    training = spec.training
    blocks = [block_of(layer.name) for layer in layers] if training.recompute else []
    accumulates = training.accumulate_steps > 1
    return Demand(
        layers,
        training.precision,
        training.optimizer,
        training.ema is not None,
        accumulates,
        blocks,
    )


def _head(spec: InputSpec) -> Head:
    model = spec.model
    return make_head(model.head, spec.skeleton, model.backbone.output_stride)
