"""Exports as SavedModel."""

from pathlib import Path

import numpy as np
import tensorflow as tf

from hgtrain.export.served import ExportedFile, Loaded, Served, Tolerance
from hgtrain.poses import Poses
from hgtrain.predict.saved_model import poses_of


def write_savedmodel(served: Served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
    """Write `served` to `folder` as SavedModel; return its files, for the check."""
    signatures = {"serving_default": served.predict_any, "confmaps": served.confmaps_any}
    tf.saved_model.save(served, str(folder), signatures=signatures)
    return [ExportedFile("", _load_savedmodel, Tolerance(0.005, 1e-4))]


def _load_savedmodel(folder: Path) -> Loaded:
    loaded = tf.saved_model.load(str(folder))

    def predict(images: np.ndarray) -> Poses:
        # `loaded` is named so that it lives as long as its signature.
        found = loaded.signatures["serving_default"](image=tf.constant(images))
        return poses_of({name: values.numpy() for name, values in found.items()})

    return predict
