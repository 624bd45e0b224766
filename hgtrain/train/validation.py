"""Validates on the clean frames of the other side of the split."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hgtrain.config.schema import Config
from hgtrain.coords import resized_points
from hgtrain.data.selection import single_instance_labels
from hgtrain.data.split import Subset
from hgtrain.heads.losses import confmap_losses
from hgtrain.heads.peaks import decode
from hgtrain.heads.single_instance import draw_targets
from hgtrain.log import progress
from hgtrain.pipeline.frame_store import FrameStore, prefetched
from hgtrain.pipeline.preprocess import pad
from hgtrain.predict.predictor import Geometry


class Labels(NamedTuple):
    """Labels of one side.

    points: `(N, K, 2)` in px of the network's input, NaN where missing. weights: `(N, K)`, 1 where
    labelled. truth: points in px of the dataset's images.
    """

    points: np.ndarray
    weights: np.ndarray
    truth: np.ndarray


def subset_labels(side: Subset, input_scale: float, indices: np.ndarray) -> Labels:
    """Return the labels of some of a side's frames, for a head for one animal."""
    points, visibility = single_instance_labels(side.dataset, side.frames[indices])
    labelled = visibility > 0
    truth = np.where(labelled[..., None], points, np.nan).astype(np.float32)
    return Labels(
        resized_points(truth, input_scale).astype(np.float32), labelled.astype(np.float32), truth
    )


class Validation:
    """The clean frames of the validation side, all of them, in order."""

    def __init__(
        self,
        network: keras.Model,
        geometry: Geometry,
        store: FrameStore,
        labels: Callable[[np.ndarray], Labels],
        config: Config,
    ) -> None:
        self._network = network
        self._geometry = geometry
        self._store = store
        self._labels = labels
        self._head = config.model.head
        self._batch_size = min(config.training.batch_size, len(store))
        self._compiled = tf.function(self._batch, autograph=False)

    def __call__(self) -> tuple[dict[str, Any], np.ndarray]:
        """Return the row of metrics, and the points `(N, K, 2)` in px of the dataset's images."""
        losses: list[np.ndarray] = []
        points: list[np.ndarray] = []
        confidence: list[np.ndarray] = []
        errors: list[np.ndarray] = []
        starts = range(0, len(self._store), self._batch_size)
        # The last batch starts over with the first frames: another shape would be another
        # compilation.
        batches = [
            np.arange(start, start + self._batch_size) % len(self._store) for start in starts
        ]
        read = zip(starts, batches, prefetched(self._store, batches), strict=True)
        for start, chosen, images in progress(read, len(starts), "validating", "batches"):
            labels = self._labels(chosen)
            batch = self._compiled(
                tf.constant(images), tf.constant(labels.points), tf.constant(labels.weights)
            )
            for parts, part in zip((losses, points, confidence), batch, strict=True):
                parts.append(part.numpy()[: len(self._store) - start])
            errors.append(np.linalg.norm(points[-1] - labels.truth[: len(points[-1])], axis=-1))
        predicted, error = np.concatenate(points), np.concatenate(errors)
        located = np.isfinite(error)
        row = {
            "val_loss": float(np.concatenate(losses).mean(dtype=np.float64)),
            "val_error_px": float(error[located].mean(dtype=np.float64)) if located.any() else None,
            "val_confidence": float(np.concatenate(confidence)[located].mean(dtype=np.float64))
            if located.any()
            else None,
        }
        return row, predicted

    def _batch(
        self, images: tf.Tensor, points: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        padded = pad(images, self._geometry.multiple)
        stacks = tf.nest.flatten(self._network(padded, training=False))
        targets = draw_targets(self._head, self._geometry.stride)(
            points, padded.shape[1], padded.shape[2]
        )
        losses = tf.add_n(
            [confmap_losses(maps, targets, weights, hard_keypoint_mining=False) for maps in stacks]
        )
        geometry = self._geometry
        decoded = decode(stacks[-1], geometry.stride, geometry.input_scale, radius=geometry.radius)
        return losses * self._head.loss_weight, *decoded
