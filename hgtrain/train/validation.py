"""Validates on the clean frames of the other side of the split."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hgtrain.evaluate.matching import average_precision_and_recall, frame_matches
from hgtrain.evaluate.pairs import in_place_of_labels, pair_animals
from hgtrain.heads import Head, by_stack
from hgtrain.log import progress
from hgtrain.pipeline.frame_store import StoredSplit, prefetched
from hgtrain.pipeline.preprocess import pad
from hgtrain.poses import Poses, joined

TIE = 1e-6
"""What mean OKS counts in the rank beside average precision, which is 0 for many epochs."""


def several_metrics(truth: np.ndarray, found: Poses) -> dict[str, float | None]:
    """Return COCO's average precision and the rank, the lower the better.

    Args:
        truth: `(N, I, K, 2)` px, NaN where not labelled.
        found: In these frames.
    """
    matches = frame_matches(truth, np.isfinite(truth).all(-1), found.points, found.scores)
    precision, _ = average_precision_and_recall(matches)
    if precision is None:
        return {"val_oks_map": None}
    best = [frame.similarity.max(0, initial=0.0) for frame in matches]
    similarity = float(np.concatenate(best).mean())
    return {"val_oks_map": precision, "val_rank": -(precision + TIE * similarity)}


class Validation:
    """The clean samples of the validation side, all of them, in order."""

    def __init__(
        self, network: keras.Model, head: Head, frames: StoredSplit, batch_size: int
    ) -> None:
        self._network = network
        self._head = head
        self._preprocessing = frames.preprocessing
        self._store, self._samples = frames.validation, frames.validation_samples
        self._batch_size = min(batch_size, len(self._samples))
        self._compiled = tf.function(self._batch, autograph=False)

    def __call__(self) -> tuple[dict[str, Any], Poses]:
        """Return the row of metrics, and the animals, points in px of the dataset's images."""
        losses: list[np.ndarray] = []
        found: list[Poses] = []
        truth: list[np.ndarray] = []
        count = len(self._samples)
        starts = range(0, count, self._batch_size)
        # The last batch starts over with the first samples: another shape would be another
        # compilation.
        batches = [np.arange(start, start + self._batch_size) % count for start in starts]
        rows = [self._samples.rows(batch) for batch in batches]
        read = zip(starts, batches, prefetched(self._store, rows), strict=True)
        for start, chosen, images in progress(read, len(starts), "validating", "batches"):
            labels = self._samples.labels(chosen)
            batch = self._compiled(
                tf.constant(images), tf.constant(labels.points), tf.constant(labels.weights)
            )
            of_batch, *poses = (part.numpy()[: count - start] for part in batch)
            losses.append(of_batch)
            found.append(Poses(*poses))
            truth.append(labels.truth[: len(of_batch)])
        predicted = joined(found)
        row = {"val_loss": float(np.concatenate(losses).mean(dtype=np.float64))}
        return row | self._metrics(np.concatenate(truth), predicted), predicted

    def _metrics(self, truth: np.ndarray, found: Poses) -> dict[str, float | None]:
        """Return the metrics of what was found, against truth `(N, I, K, 2)` px."""
        metrics = {}
        if self._head.several_animals:
            metrics = several_metrics(truth, found)
            visibility = np.isfinite(truth).all(-1)
            found = in_place_of_labels(found, pair_animals(truth, visibility, found.points))
        error = np.linalg.norm(found.points - truth, axis=-1)
        located = np.isfinite(error)
        has_any = bool(located.any())
        return {
            "val_error_px": float(error[located].mean(dtype=np.float64)) if has_any else None,
            "val_confidence": float(found.confidence[located].mean(dtype=np.float64))
            if has_any
            else None,
            **metrics,
        }

    def _batch(
        self, images: tf.Tensor, points: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        padded = pad(images, self._preprocessing.multiple)
        stacks = by_stack(self._head, tf.nest.flatten(self._network(padded, training=False)))
        targets = self._head.targets(points, weights, padded.shape[1], padded.shape[2])
        losses = tf.add_n([self._head.losses(outputs, targets) for outputs in stacks])
        points, confidence, scores = self._head.decode(stacks[-1])
        return losses, self._preprocessing.original_points(points), confidence, scores
