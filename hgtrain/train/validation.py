"""Validates on the clean frames of the other side of the split."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from hgtrain.evaluate.matching import average_precision_and_recall, frame_matches
from hgtrain.evaluate.pairs import in_place_of_labels, pair_animals
from hgtrain.heads import Head, by_stack
from hgtrain.log import progress
from hgtrain.pipeline.crops import crops_around, in_images
from hgtrain.pipeline.frame_store import StoredSplit, prefetched
from hgtrain.pipeline.preprocess import pad
from hgtrain.poses import Poses, joined

TIE = 1e-6
"""What mean OKS counts in the rank beside average precision, which is 0 for many epochs."""


def found_metrics(
    truth: np.ndarray, found: Poses, error_px: float | None
) -> dict[str, float | None]:
    """Return F1 of animals found, and the rank, the lower the better.

    For animals of one keypoint, which have no size that OKS could measure an error by.

    Args:
        truth: `(N, I, 1, 2)` px, NaN where not labelled.
        found: In these frames.
        error_px: Mean over matched pairs, None where there are none.
    """
    labelled, predicted = (np.isfinite(at).all((-1, -2)) for at in (truth, found.points))
    matched = (pair_animals(truth, labelled[..., None], found.points) >= 0).sum()
    f1 = float(2 * matched / max(1, labelled.sum() + predicted.sum()))
    return {"val_f1": f1, "val_rank": -f1 + TIE * (error_px or 0.0)}


def similarity_metrics(truth: np.ndarray, found: Poses) -> dict[str, float | None]:
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
        self._preprocessing, self._crop = frames.preprocessing, frames.crop
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
        unit = "frames" if self._crop is None else "animals"
        shown = progress(read, count, "validating", unit, self._batch_size)
        for start, chosen, images in shown:
            labels = self._samples.labels(chosen)
            batch = self._compiled(
                tf.constant(images), tf.constant(labels.points), tf.constant(labels.weights)
            )
            of_batch, *poses = (part.numpy()[: count - start] for part in batch)
            losses.append(of_batch)
            found.append(Poses(*poses))
            truth.append(self._head.labelled(labels.truth[: len(of_batch)]))
        predicted = joined(found)
        row = {"val_loss": float(np.concatenate(losses).mean(dtype=np.float64))}
        return row | self._metrics(np.concatenate(truth), predicted), predicted

    def _metrics(self, truth: np.ndarray, found: Poses) -> dict[str, float | None]:
        """Return the metrics of what was found, against truth `(N, I, K, 2)` px."""
        matched = found
        if self._head.several_animals and self._crop is None:
            visibility = np.isfinite(truth).all(-1)
            matched = in_place_of_labels(found, pair_animals(truth, visibility, found.points))
        error = np.linalg.norm(matched.points - truth, axis=-1)
        located = np.isfinite(error)
        has_any = bool(located.any())
        metrics = {
            "val_error_px": float(error[located].mean(dtype=np.float64)) if has_any else None,
            "val_confidence": float(matched.confidence[located].mean(dtype=np.float64))
            if has_any
            else None,
        }
        if not self._head.several_animals:
            return metrics
        if self._head.keypoints == 1:
            return metrics | found_metrics(truth, found, metrics["val_error_px"])
        return metrics | similarity_metrics(truth, found)

    def _batch(
        self, images: tf.Tensor, points: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        crop, corners, size = self._crop, None, None
        if crop is None:
            seen, size = pad(images, self._preprocessing.multiple), tuple(images.shape[1:3])
        else:
            # In float already: a GPU gathers no bytes.
            middles = crop.centroids(points)
            seen, corners = crops_around(tf.cast(images, tf.float32), middles, crop.size_px)
            points -= corners[:, :, None]
        stacks = by_stack(self._head, tf.nest.flatten(self._network(seen, training=False)))
        targets = self._head.targets(points, weights, seen.shape[1], seen.shape[2])
        losses = tf.add_n(
            [loss for outputs in stacks for loss in self._head.losses(outputs, targets).values()]
        )
        found = self._head.decode(stacks[-1], size=size)
        if corners is not None:
            found = in_images(found, corners, middles)
        points = self._preprocessing.original_points(found.points)
        return losses, points, found.confidence, found.scores
