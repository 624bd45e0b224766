"""Exports as TensorFlow Lite."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from hgtrain.export.int8 import quantized
from hgtrain.export.served import ExportedFile, Loaded, Served, Tolerance
from hgtrain.poses import Poses
from hgtrain.predict.saved_model import poses_of
from hgtrain.tensorflow_setup import quiet_libraries


def write_tflite(served: Served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
    """Write `served` to `folder` as TensorFlow Lite, as float32, float16 and int8.

    Args:
        served: What is exported.
        folder: Where to.
        calibration: Images `(n, H, W, C)` uint8 that int8's ranges are taken from.

    Returns:
        The files, for the check.
    """
    with _quiet():
        exact = _converter(served, served.predict).convert()
        half = _converter(served, served.predict)
        half.optimizations = [tf.lite.Optimize.DEFAULT]
        half.target_spec.supported_types = [tf.float16]
        contents = {
            "model_float32.tflite": (exact, Tolerance(0.01, 1e-4)),
            "model_float16.tflite": (half.convert(), Tolerance(0.05, 0.01)),
            "model_int8.tflite": (_in_int8(served, exact, calibration), None),
        }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return [
        ExportedFile(name, _load_tflite, tolerance) for name, (_, tolerance) in contents.items()
    ]


def _converter(served: Served, function: Any) -> Any:
    return tf.lite.TFLiteConverter.from_concrete_functions(
        [function.get_concrete_function()], served
    )


def _in_int8(served: Served, exact: bytes, calibration: np.ndarray) -> bytes:
    """Return the model with the network in int8, its ranges taken from `calibration`.

    `calibration` is `(n, H, W, C)` uint8.
    """

    def frames() -> Iterator[list[np.ndarray]]:
        for image in calibration:
            yield [image[None]]

    def network() -> Any:
        return _converter(served, served.outputs)

    alone = network if served.has_network_alone else None
    return quantized(exact, _converter(served, served.predict), alone, frames, served.scope)


@contextmanager
def _quiet() -> Iterator[None]:
    with quiet_libraries(), warnings.catch_warnings():
        # The interpreter announces its own move to another package.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        yield


def _load_tflite(path: Path) -> Loaded:
    with _quiet():
        interpreter = tf.lite.Interpreter(model_path=str(path))
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner()

    def predict(images: np.ndarray) -> Poses:
        return poses_of({name: values.copy() for name, values in runner(image=images).items()})

    return predict
