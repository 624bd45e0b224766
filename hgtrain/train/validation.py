"""Validates on the clean frames of the other side of the split."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hgtrain.coords import resized_points
from hgtrain.data.split import Subset
from hgtrain.heads import Head, by_stack
from hgtrain.log import progress
from hgtrain.pipeline.frame_store import FrameStore, prefetched
from hgtrain.pipeline.preprocess import Preprocessing, pad
from hgtrain.poses import Poses, joined


class Labels(NamedTuple):
    """Labels of one side.

    Attributes:
        points: `(N, I, K, 2)` in px of the network's input, NaN where missing.
        weights: `(N, I, K)`, 1 where labelled.
        truth: Points in px of the dataset's images.
    """

    points: np.ndarray
    weights: np.ndarray
    truth: np.ndarray


def subset_labels(side: Subset, input_scale: float, indices: np.ndarray) -> Labels:
    """Return the labels of some of a side's frames."""
    points, visibility = side.labels(indices)
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
        head: Head,
        preprocessing: Preprocessing,
        store: FrameStore,
        labels: Callable[[np.ndarray], Labels],
        batch_size: int,
    ) -> None:
        self._network = network
        self._head = head
        self._preprocessing = preprocessing
        self._store = store
        self._labels = labels
        self._batch_size = min(batch_size, len(store))
        self._compiled = tf.function(self._batch, autograph=False)

    def __call__(self) -> tuple[dict[str, Any], Poses]:
        """Return the row of metrics, and the animals, points in px of the dataset's images."""
        losses: list[np.ndarray] = []
        found: list[Poses] = []
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
            of_batch, *poses = (part.numpy()[: len(self._store) - start] for part in batch)
            losses.append(of_batch)
            found.append(Poses(*poses))
            truth = labels.truth[: len(of_batch)]
            errors.append(np.linalg.norm(found[-1].points - truth, axis=-1))
        predicted, error = joined(found), np.concatenate(errors)
        located = np.isfinite(error)
        row = {
            "val_loss": float(np.concatenate(losses).mean(dtype=np.float64)),
            "val_error_px": float(error[located].mean(dtype=np.float64)) if located.any() else None,
            "val_confidence": float(predicted.confidence[located].mean(dtype=np.float64))
            if located.any()
            else None,
        }
        return row, predicted

    def _batch(
        self, images: tf.Tensor, points: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        padded = pad(images, self._preprocessing.multiple)
        stacks = by_stack(self._head, tf.nest.flatten(self._network(padded, training=False)))
        targets = self._head.targets(points, weights, padded.shape[1], padded.shape[2])
        losses = tf.add_n([self._head.losses(outputs, targets) for outputs in stacks])
        points, confidence, scores = self._head.decode(stacks[-1])
        return losses, self._preprocessing.original_points(points), confidence, scores
