"""Exports as ONNX."""

from pathlib import Path
from typing import Any

import numpy as np

from hgtrain.errors import RunError
from hgtrain.export.served import ExportedFile, Loaded, Served, Tolerance
from hgtrain.poses import Poses
from hgtrain.predict.saved_model import poses_of
from hgtrain.tensorflow_setup import quiet_libraries

ONNX_OPSET = 17


def write_onnx(served: Served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
    """Write `served` to `folder` as ONNX; return its files, for the check."""
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
    return [ExportedFile("model.onnx", _load_onnx, Tolerance(0.01, 1e-4))]


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
