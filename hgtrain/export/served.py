"""What an export serves, and what each format says of the files that it wrote."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.poses import Poses
from hgtrain.predict.predictor import Predictor
from hgtrain.predict.saved_model import SCORES

SKELETON_KEYS = ("keypoint_names", "edges", "symmetries")

Loaded = Callable[[np.ndarray], Poses]
"""Images `(B, H, W, C)` uint8 to the animals in them."""


class Tolerance(NamedTuple):
    """By how much an exported model may differ from the run it is of.

    Attributes:
        cells: Of the maps, for 95% of all positions; the farthest may be `FARTHEST` times as far.
        confidence: At most.
    """

    cells: float
    confidence: float


class ExportedFile(NamedTuple):
    """A file of an export, and how it is opened.

    Attributes:
        name: Of the file.
        load: Opens the file at a path.
        tolerance: None where a loss is what was asked for.
    """

    name: str
    load: Callable[[Path], Loaded]
    tolerance: Tolerance | None


class Served(tf.Module):
    """What is exported: the graph that `evaluate` runs, and no other.

    Args:
        predictor: Of the run.
        channels: Of the images.
        size: Height and width of the images, None for any.
        metadata: What metadata.json says of the run.
    """

    def __init__(
        self,
        predictor: Predictor,
        channels: int,
        size: tuple[int, int] | None,
        metadata: Mapping[str, Any],
    ) -> None:
        super().__init__()
        # A tf.Module would wrap a dict, to follow what is in it.
        self.keypoint_names, self.edges, self.symmetries = (
            json.dumps(metadata.get(name, [])) for name in SKELETON_KEYS
        )
        # What a tf.Module does not hold is not saved.
        self.weights = predictor.variables
        self.image = tf.TensorSpec(
            [None, *(size or (None, None)), channels], tf.uint8, name="image"
        )
        self.predict = tf.function(
            lambda image: _named(predictor.poses(image), predictor.head.several_animals),
            [self.image],
        )
        self.outputs = tf.function(predictor.outputs, [self.image])
        self.scope = predictor.network.name
        # A network that sees crops has other inputs than images.
        self.has_network_alone = predictor.head.several_animals and predictor.head.crop is None
        self.confmaps = tf.function(
            lambda image: {"confmaps": predictor.confmaps(image)}, [self.image]
        )
        # Apart from `predict`: with a number of images that is computed TensorFlow Lite would be
        # slow.
        self.predict_any, self.confmaps_any = (
            tf.function(_for_any_number(function), [self.image])
            for function in (self.predict, self.confmaps)
        )


def _named(poses: Poses, several_animals: bool) -> dict[str, tf.Tensor]:
    """Return the outputs of the signature; those of one animal have no axis of animals."""
    if not several_animals:
        return {"keypoints": poses.points[:, 0], "confidence": poses.confidence[:, 0]}
    return {
        "keypoints": poses.points,
        "confidence": poses.confidence,
        SCORES: poses.scores,
    }


def _for_any_number(
    function: Callable[[tf.Tensor], dict[str, tf.Tensor]],
) -> Callable[..., dict[str, tf.Tensor]]:
    """Return the function made to work for no images too.

    oneDNN's fused convolutions would give outputs of a wrong shape for none.
    """

    def computed(image: tf.Tensor) -> dict[str, tf.Tensor]:
        count = tf.shape(image)[0]
        blank = tf.zeros(
            tf.concat([[tf.maximum(1 - count, 0)], tf.shape(image)[1:]], 0), image.dtype
        )
        return {
            name: values[:count] for name, values in function(tf.concat([image, blank], 0)).items()
        }

    return computed
