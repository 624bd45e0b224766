"""An exported SavedModel as a predictor; TensorFlow alone is enough to load one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hgtrain import files
from hgtrain.errors import RunError
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton

MODEL_FILE, METADATA = "saved_model.pb", "metadata.json"
SIGNATURE = "serving_default"
OUTPUTS, SCORES = {"keypoints", "confidence"}, "instance_score"


class SavedModelPredictor:
    """The signature `serving_default` of an export.

    Attributes:
        channels: Of its images.
    """

    def __init__(self, folder: Path, batch_size: int = 8) -> None:
        from hgtrain.tensorflow_setup import import_tensorflow

        import_tensorflow()
        import tensorflow as tf

        self.batch_size = batch_size
        self.skeleton = _skeleton(folder / METADATA)
        try:
            # Kept: the signature does not keep what it belongs to alive.
            self._loaded = tf.saved_model.load(str(folder))
        except (OSError, ValueError, tf.errors.OpError) as error:
            raise RunError(f"{folder} cannot be loaded as a SavedModel: {error}") from error
        self._signature, self.channels = _checked_signature(self._loaded, folder)
        self._constant = tf.constant

    def __call__(self, images: np.ndarray) -> Poses:
        """Return the animals of images `(N, H, W, C)` uint8, points in their px."""
        found = self._signature(image=self._constant(images))
        return poses_of({name: values.numpy() for name, values in found.items()})


def poses_of(outputs: Mapping[str, np.ndarray]) -> Poses:
    """Return the animals that the outputs of an exported model are.

    Args:
        outputs: By name; those for one animal have no axis of animals, and its score is its mean
            confidence.
    """
    points, confidence = outputs["keypoints"], outputs["confidence"]
    if SCORES in outputs:
        return Poses(points, confidence, outputs[SCORES])
    return Poses(points[:, None], confidence[:, None], confidence.mean(-1)[:, None])


def is_export(folder: Path) -> bool:
    """Return whether the folder holds a SavedModel."""
    return (folder / MODEL_FILE).is_file()


def described_channels(folder: Path) -> int:
    """Return the channels of the images an export takes, as its metadata.json says.

    Where it does not say so the export is loaded.

    Raises:
        RunError: It does not describe an export.
    """
    path = folder / METADATA
    _skeleton(path)
    match files.read_json(path):
        case {"input": {"shape": [*_, (1 | 3) as channels]}}:
            return int(channels)
    return SavedModelPredictor(folder).channels


def _skeleton(path: Path) -> Skeleton:
    metadata = files.read_json(path)
    try:
        pairs = [
            tuple((int(a), int(b)) for a, b in metadata.get(name, []))
            for name in ("edges", "symmetries")
        ]
        return Skeleton(tuple(metadata["keypoint_names"]), *pairs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(
            f"{path} does not describe an export: {error!r} for keypoint_names, edges, symmetries"
        ) from error


def _checked_signature(loaded: Any, folder: Path) -> tuple[Any, int]:
    signature = loaded.signatures.get(SIGNATURE)
    inputs = {} if signature is None else signature.structured_input_signature[1]
    outputs = {} if signature is None else signature.structured_outputs
    if "image" not in inputs or not set(outputs) >= OUTPUTS:
        raise RunError(
            f"{folder} has no signature {SIGNATURE} from image to keypoints and confidence, it has "
            f"{sorted(inputs)} to {sorted(outputs)}: export the run again with `hgtrain export`"
        )
    channels = inputs["image"].shape[-1]
    if channels not in (1, 3):
        raise RunError(f"{folder} takes images of {channels} channels, expected 1 or 3")
    return signature, channels
