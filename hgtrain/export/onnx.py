"""Exports as ONNX."""

from pathlib import Path
from typing import Any

import numpy as np

from hgtrain.errors import RunError
from hgtrain.export.served import SKELETON_KEYS, ExportedFile, Loaded, Served, Tolerance
from hgtrain.poses import Poses
from hgtrain.predict.saved_model import SCORES, poses_of
from hgtrain.tensorflow_setup import quiet_libraries

ONNX_OPSET = 17
DIMENSIONS = ("batch", "height", "width")
OUTPUT_ORDER = ("keypoints", "confidence", SCORES)


def write_onnx(served: Served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
    """Write `served` to `folder` as ONNX; return its files, for the check."""
    try:
        import onnxruntime  # noqa: F401
        import tf2onnx
    except ImportError as error:
        raise RunError(f"--format onnx needs {error.name}: pip install 'hgtrain[onnx]'") from error
    with quiet_libraries():
        model, _ = tf2onnx.convert.from_function(
            served.predict,
            input_signature=[served.image],
            opset=ONNX_OPSET,
            custom_op_handlers={"SelectV2": (_choose, [])},
        )
    _describe(model, served)
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    return [ExportedFile("model.onnx", _load_onnx, Tolerance(0.01, 1e-4))]


def _describe(model: Any, served: Served) -> None:
    """Give a model what programs show of it: named dimensions, outputs in order, keypoint names."""
    graph = model.graph
    outputs = sorted(graph.output, key=lambda output: OUTPUT_ORDER.index(output.name))
    # What is put in is a copy.
    del graph.output[:]
    graph.output.extend(outputs)
    for value in (*graph.input, *graph.output):
        names = DIMENSIONS if value.name == served.image.name else DIMENSIONS[:1]
        for dimension, name in zip(value.type.tensor_type.shape.dim, names, strict=False):
            if not dimension.dim_value:
                dimension.dim_param = name
    for key in SKELETON_KEYS:
        model.metadata_props.add(key=key, value=getattr(served, key))


def _choose(context: Any, node: Any, name: str, arguments: Any) -> None:
    # tf2onnx would write condition * x + (1 - condition) * y, which is NaN where the one not chosen
    # is infinite or NaN.
    node.type = "Where"


def _load_onnx(path: Path) -> Loaded:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    names = [output.name for output in session.get_outputs()]

    def predict(images: np.ndarray) -> Poses:
        return poses_of(dict(zip(names, session.run(names, {"image": images}), strict=True)))

    return predict
