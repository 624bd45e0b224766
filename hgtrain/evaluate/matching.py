"""COCO's keypoint evaluation: average precision and recall over OKS, for any number of animals."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from hgtrain.evaluate.metrics import OKS_STDDEV, object_keypoint_similarity

OKS_THRESHOLDS = tuple(t / 100 for t in range(50, 100, 5))
RECALL_LEVELS = np.linspace(0, 1, 101)
MAX_DETECTIONS = 20
"""In a frame, those of the highest scores; COCO leaves out what is beyond."""

VALUES_AT_ONCE = 2**20
"""Distances between keypoints that are computed in one go, which bounds the memory."""


class FrameMatch(NamedTuple):
    """How alike the predicted and the labelled animals of a frame are.

    Attributes:
        similarity: OKS `(P, G)` of every predicted with every labelled animal.
        scores: `(P,)`, of each predicted animal.
    """

    similarity: np.ndarray
    scores: np.ndarray


def frame_matches(
    truth: np.ndarray,
    visibility: np.ndarray,
    predicted: np.ndarray,
    scores: np.ndarray,
    stddev: float = OKS_STDDEV,
) -> list[FrameMatch]:
    """Return for each frame how alike its predicted and its labelled animals are.

    An animal is labelled when a keypoint of it is labelled with a position, and predicted when a
    keypoint of it has a finite position; a predicted keypoint without one is infinitely far.

    Args:
        truth: `(N, I, K, 2)` px, NaN where missing.
        visibility: `(N, I, K)`, 0 not labelled.
        predicted: `(N, J, K, 2)` px, NaN where missing.
        scores: `(N, J)`; an animal whose score is NaN comes after all others.
        stddev: COCO's sigma, the same for all keypoints.
    """
    labelled = ((visibility > 0) & np.isfinite(truth).all(-1)).any(-1)
    present = np.isfinite(predicted).all(-1).any(-1)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    similarities = _similarities(truth, visibility, predicted, stddev)
    return [
        FrameMatch(similarity[found][:, animals], score[found])
        for similarity, score, found, animals in zip(
            similarities, scores, present, labelled, strict=True
        )
    ]


def _similarities(
    truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray, stddev: float
) -> Iterator[np.ndarray]:
    """Yield the OKS `(J, I)` of every predicted with every labelled animal, frame by frame."""
    values = predicted.shape[1] * visibility[:1].size
    step = max(VALUES_AT_ONCE // max(values, 1), 1)
    for start in range(0, len(truth), step):
        part = slice(start, start + step)
        yield from object_keypoint_similarity(
            truth[part, None], visibility[part, None], predicted[part, :, None], stddev
        )


def single_matches(
    truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> list[FrameMatch]:
    """Return the frames of a head for one animal: at most one labelled and one predicted.

    The score is the mean confidence. Where nothing is labelled in a frame, its prediction stays
    unmatched; where no predicted point is finite, its animal does.

    Args:
        truth: `(N, K, 2)` px, NaN where missing.
        visibility: `(N, K)`, 0 not labelled.
        predicted: `(N, K, 2)` px, NaN where missing.
        confidence: `(N, K)`.
    """
    present = np.isfinite(predicted).all(-1)
    scores = [
        float(values[found].mean()) if found.any() else np.nan
        for values, found in zip(confidence, present, strict=True)
    ]
    return frame_matches(
        truth[:, None], visibility[:, None], predicted[:, None], np.array(scores).reshape(-1, 1)
    )


def average_precision_and_recall(frames: Sequence[FrameMatch]) -> tuple[float | None, float | None]:
    """Return mAP and mAR over OKS thresholds 0.50 to 0.95, as COCO's keypoint evaluation.

    At each threshold predictions take, by falling score, the most similar animal of their frame
    that is still free; what finds none counts against precision. Precision is interpolated at 101
    levels of recall. Of a frame the 20 predictions of the highest scores count. Both are None
    without animals.
    """
    if not _animals(frames):
        return None, None
    ranks = _Ranks(frames)
    found = [ranks.precision_and_recall(threshold) for threshold in OKS_THRESHOLDS]
    precisions, recalls = zip(*found, strict=True)
    return float(np.mean([values.mean() for values in precisions])), float(np.mean(recalls))


def precision_at_recall(frames: Sequence[FrameMatch], threshold: float) -> np.ndarray | None:
    """Return the precision-recall curve at one OKS threshold, to be drawn over `RECALL_LEVELS`.

    Returns:
        `(101,)` precision, the highest at this or a higher recall, 0 beyond the highest recall; its
        mean is COCO's AP at the threshold. None without animals.
    """
    return _Ranks(frames).precision_and_recall(threshold)[0] if _animals(frames) else None


def _animals(frames: Sequence[FrameMatch]) -> int:
    return sum(frame.similarity.shape[1] for frame in frames)


class _Ranks:
    """The predictions of all frames by falling score."""

    def __init__(self, frames: Sequence[FrameMatch]) -> None:
        self._frames = [_surest(frame) for frame in frames]
        self._animals = _animals(frames)
        scores = np.concatenate([frame.scores for frame in self._frames])
        self._order = np.argsort(-scores, kind="stable")

    def precision_and_recall(self, threshold: float) -> tuple[np.ndarray, float]:
        """Return precision at each of `RECALL_LEVELS`, and the recall of all predictions."""
        hits = np.concatenate([_hits(frame, threshold) for frame in self._frames])[self._order]
        found = np.cumsum(hits)
        recall = found / self._animals
        precision = found / np.arange(1, len(found) + 1)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        at_levels = envelope[np.searchsorted(recall, RECALL_LEVELS)]
        return at_levels, recall[-1] if len(recall) else 0.0


def _surest(frame: FrameMatch) -> FrameMatch:
    """Return the predictions of the highest scores, by falling score."""
    order = np.argsort(-frame.scores, kind="stable")[:MAX_DETECTIONS]
    return FrameMatch(frame.similarity[order], frame.scores[order])


def _hits(frame: FrameMatch, threshold: float) -> np.ndarray:
    """Return which predictions, by falling score, found an animal, `(P,)` bool."""
    free = np.where(frame.similarity >= threshold, frame.similarity, -1.0)
    hits = np.zeros(len(frame.scores), bool)
    for prediction in np.flatnonzero((free >= threshold).any(1)):
        if free[prediction].max() >= threshold:
            hits[prediction] = True
            free[:, free[prediction].argmax()] = -1.0
    return hits
