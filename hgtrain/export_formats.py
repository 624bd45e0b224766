"""How an exported model is written and opened again, one table entry for each format."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.device import quiet_libraries
from hgtrain.errors import RunError
from hgtrain.predictor import Predictor

Loaded = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Images `(B, H, W, C)` uint8 to keypoints `(B, K, 2)` px and confidence `(B, K)`."""

ONNX_OPSET = 17


class Tolerance(NamedTuple):
    """By how much an exported model may differ from the run it is of."""

    keypoints_px: float
    confidence: float


class ExportedFile(NamedTuple):
    """A file of an export, and how it is opened. tolerance: None where a loss is what was asked for."""

    name: str
    load: Callable[[Path], Loaded]
    tolerance: Tolerance | None


class Served(tf.Module):
    """What is exported: the graph that `evaluate` runs, and no other.

    size: height and width of the images, None for any.
    """

    def __init__(self, predictor: Predictor, channels: int, size: tuple[int, int] | None) -> None:
        super().__init__()
        # What a tf.Module does not hold is not saved.
        self.weights = [variable.value for variable in predictor.network.variables]
        self.image = tf.TensorSpec([None, *(size or (None, None)), channels], tf.uint8, name="image")
        self.predict = tf.function(lambda image: _named(*predictor.points_and_confidence(image)), [self.image])
        self.confmaps = tf.function(lambda image: {"confmaps": predictor.confmaps(image)}, [self.image])


def _named(keypoints: tf.Tensor, confidence: tf.Tensor) -> dict[str, tf.Tensor]:
    return {"keypoints": keypoints, "confidence": confidence}


def _write_savedmodel(served: Served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
    signatures = {"serving_default": served.predict, "confmaps": served.confmaps}
    tf.saved_model.save(served, str(folder), signatures=signatures)
    return [ExportedFile("", _load_savedmodel, Tolerance(0.01, 1e-4))]


def _load_savedmodel(folder: Path) -> Loaded:
    loaded = tf.saved_model.load(str(folder))

    def predict(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        # `loaded` is named so that it lives as long as its signature.
        found = loaded.signatures["serving_default"](image=tf.constant(images))
        return found["keypoints"].numpy(), found["confidence"].numpy()

    return predict


def _write_tflite(served: Served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
    with _quiet():
        exact = _converter(served).convert()
        half = _converter(served)
        half.optimizations = [tf.lite.Optimize.DEFAULT]
        half.target_spec.supported_types = [tf.float16]
        contents = {
            "model_float32.tflite": (exact, Tolerance(0.02, 1e-4)),
            "model_float16.tflite": (half.convert(), Tolerance(0.1, 0.01)),
            "model_int8.tflite": (_quantized(served, exact, calibration), None),
        }
    for name, (content, _) in contents.items():
        (folder / name).write_bytes(content)
    return [ExportedFile(name, _load_tflite, tolerance) for name, (_, tolerance) in contents.items()]


def _converter(served: Served) -> Any:
    return tf.lite.TFLiteConverter.from_concrete_functions([served.predict.get_concrete_function()], served)


def _quantized(served: Served, exact: bytes, calibration: np.ndarray) -> bytes:
    """Return the model with the network in int8, its ranges taken from `calibration` `(n, H, W, C)` uint8.

    The head and what finds the peaks stay float32: in steps of a 256th positions would be worth little.
    """
    converter = _converter(served)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]

    def frames() -> Iterator[list[np.ndarray]]:
        for image in calibration:
            yield [image[None]]

    converter.representative_dataset = frames
    options = tf.lite.experimental.QuantizationDebugOptions(denylisted_nodes=_outside_network(exact))
    debugger = tf.lite.experimental.QuantizationDebugger(
        converter=converter, debug_dataset=frames, debug_options=options
    )
    return debugger.get_nondebug_quantized_model()


def _outside_network(model: bytes) -> list[str]:
    """Return the names of the tensors that come before the first convolution or from the last one on."""
    interpreter = tf.lite.Interpreter(model_content=model)
    names = {tensor["index"]: tensor["name"] for tensor in interpreter.get_tensor_details()}
    operations = interpreter._get_ops_details()
    convolutions = [i for i, operation in enumerate(operations) if operation["op_name"] == "CONV_2D"]
    outside = operations[: convolutions[0]] + operations[convolutions[-1] :]
    return [names[output] for operation in outside for output in operation["outputs"] if output in names]


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

    def predict(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        found = runner(image=images)
        return found["keypoints"].copy(), found["confidence"].copy()

    return predict


def _write_onnx(served: Served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx
    except ImportError as error:
        raise RunError(f"--format onnx needs {error.name}: pip install 'hgtrain[onnx]'") from error
    with quiet_libraries():
        tf2onnx.convert.from_function(
            served.predict,
            input_signature=[served.image],
            opset=ONNX_OPSET,
            custom_op_handlers={"SelectV2": (_choose, [])},
            output_path=str(folder / "model.onnx"),
        )
    return [ExportedFile("model.onnx", _load_onnx, Tolerance(0.02, 1e-4))]


def _choose(context: Any, node: Any, name: str, arguments: Any) -> None:
    # tf2onnx would write condition * x + (1 - condition) * y, which is NaN where the one not chosen is infinite or NaN.
    node.type = "Where"


def _load_onnx(path: Path) -> Loaded:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def predict(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        keypoints, confidence = session.run(["keypoints", "confidence"], {"image": images})
        return keypoints, confidence

    return predict


class Format(NamedTuple):
    """A format. write: (served, folder, calibration images) -> the files. needs_size: images must be of one size."""

    write: Callable[[Served, Path, np.ndarray], list[ExportedFile]]
    needs_size: bool


FORMATS = {
    "savedmodel": Format(_write_savedmodel, needs_size=False),
    "tflite": Format(_write_tflite, needs_size=True),
    "onnx": Format(_write_onnx, needs_size=False),
}
