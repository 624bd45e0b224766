"""How an exported model is written and opened again, one table entry for each format."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hgtrain.export.onnx import write_onnx
from hgtrain.export.savedmodel import write_savedmodel
from hgtrain.export.served import ExportedFile, Served
from hgtrain.export.tflite import write_tflite

FARTHEST = 10
"""Where a map is nearly flat, a rounding moves the peak by more than everywhere else."""


class Format(NamedTuple):
    """A format of exported models.

    Attributes:
        write: (served, folder, calibration images) -> the files.
        needs_size: Whether images must be of one size.
    """

    write: Callable[[Served, Path, np.ndarray], list[ExportedFile]]
    needs_size: bool


FORMATS = {
    "savedmodel": Format(write_savedmodel, needs_size=False),
    "tflite": Format(write_tflite, needs_size=True),
    "onnx": Format(write_onnx, needs_size=False),
}
