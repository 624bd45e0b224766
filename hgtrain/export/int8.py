"""A network in int8 in a TensorFlow Lite model: which operations, and the ranges of values."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.python.convert import mlir_quantize
from tensorflow.lite.tools import flatbuffer_utils

CONVOLUTION = "CONV_2D"

Frames = Callable[[], Iterator[list[np.ndarray]]]


def quantized(
    exact: bytes, converter: Any, network: Callable[[], Any] | None, frames: Frames, scope: str
) -> bytes:
    """Return the model with the network in int8.

    The head and what finds the peaks stay float32: in steps of a 256th positions would be worth
    little.

    Args:
        exact: The model in float32.
        converter: Of the whole model.
        network: Gives a converter of the network alone where what follows it, with loops or NaN,
            is not to be calibrated: it would crash the process, or give ranges of NaN.
        frames: Gives images `(1, H, W, C)` uint8 that ranges are taken from.
        scope: With which names in the network begin.
    """
    operations, names = _operations(exact)
    inside = _inside_network(operations, names, scope)
    outside = [operation for operation in operations if operation not in inside]
    kept_float = {
        "denylisted_nodes": [
            names[tensor]
            for operation in outside
            for tensor in operation["outputs"]
            if tensor in names
        ],
        # Of an operation with several outputs no name counts.
        "denylisted_ops": sorted(
            {operation["op_name"] for operation in outside}
            - {operation["op_name"] for operation in inside}
        ),
    }
    if network is not None:
        # Its tensors have the same names alone.
        own = {
            names[i] for each in inside for i in (*each["inputs"], *each["outputs"]) if i in names
        }
        ranged = _with_ranges(exact, _calibrated(network(), frames), own)
        return bytes(mlir_quantize(ranged, **kept_float))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = frames
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter,
        debug_dataset=frames,
        debug_options=tf.lite.experimental.QuantizationDebugOptions(**kept_float),
    )
    return bytes(debugger.get_nondebug_quantized_model())


def _calibrated(converter: Any, frames: Frames) -> bytes:
    """Return the model of a converter with the ranges of its tensors."""
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = frames
    converter._experimental_calibrate_only = True
    return bytes(converter.convert())


def _with_ranges(model: bytes, calibrated: bytes, chosen: set[str]) -> bytes:
    """Return a model with the ranges that the tensors of these names have in another."""
    written, ranged = (
        flatbuffer_utils.read_model_from_bytearray(bytearray(each)) for each in (model, calibrated)
    )
    ranges = {tensor.name: tensor.quantization for tensor in ranged.subgraphs[0].tensors}
    for tensor in written.subgraphs[0].tensors:
        if tensor.name.decode() in chosen:
            tensor.quantization = ranges.get(tensor.name, tensor.quantization)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(written))


def _operations(model: bytes) -> tuple[list[dict[str, Any]], dict[int, str]]:
    """Return the operations in their order, and the names of tensors by index."""
    interpreter = tf.lite.Interpreter(model_content=model)
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    return interpreter._get_ops_details(), names


def _inside_network(
    operations: list[dict[str, Any]], names: dict[int, str], scope: str
) -> list[dict[str, Any]]:
    """Return the operations of the network without its heads.

    They are in its scope and lead to another convolution there, from the first convolution on.
    """
    first = next(
        place for place, operation in enumerate(operations) if operation["op_name"] == CONVOLUTION
    )
    leads_on: set[int] = set()
    inside: list[dict[str, Any]] = []
    for operation in reversed(operations[first:]):
        outputs = [tensor for tensor in operation["outputs"] if tensor in names]
        if not all(names[tensor].startswith(scope) for tensor in outputs):
            continue
        is_inside = bool(leads_on & set(outputs))
        if is_inside:
            inside.append(operation)
        if is_inside or operation["op_name"] == CONVOLUTION:
            leads_on |= set(operation["inputs"])
    return inside
