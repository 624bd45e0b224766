"""Which prediction belongs to which labelled animal, and the average precision over them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hgtrain.evaluate.metrics import object_keypoint_similarity

OKS_THRESHOLDS = tuple(t / 100 for t in range(50, 100, 5))
RECALL_LEVELS = np.linspace(0, 1, 101)


class FrameMatch(NamedTuple):
    """How alike the predicted and the labelled animals of a frame are.

    Attributes:
        similarity: OKS `(P, G)` of every predicted with every labelled animal.
        scores: `(P,)`, of each predicted animal.
    """

    similarity: np.ndarray
    scores: np.ndarray


def single_matches(
    truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> list[FrameMatch]:
    """Return the frames of a head for one animal: at most one labelled and one predicted.

    The score is the mean confidence. Where nothing is labelled in a frame, its prediction stays
    unmatched; where no predicted point is finite, its animal does.
    """
    similarity = object_keypoint_similarity(truth, visibility, predicted)
    present = np.isfinite(predicted).all(-1)
    matches = []
    for frame in range(len(truth)):
        labelled, found = int(np.isfinite(similarity[frame])), int(present[frame].any())
        scores = [float(confidence[frame][present[frame]].mean())] if found else []
        matches.append(FrameMatch(np.full((found, labelled), similarity[frame]), np.array(scores)))
    return matches


def average_precision_and_recall(frames: Sequence[FrameMatch]) -> tuple[float | None, float | None]:
    """Return mAP and mAR over OKS thresholds 0.50 to 0.95, as COCO's keypoint evaluation.

    At each threshold predictions take, by falling score, the most similar animal of their frame
    that is still free; what finds none counts against precision. Precision is interpolated at 101
    levels of recall. Both are None without animals.
    """
    animals = sum(frame.similarity.shape[1] for frame in frames)
    if not animals:
        return None, None
    scores = np.concatenate([np.sort(frame.scores)[::-1] for frame in frames])
    order = np.argsort(-scores, kind="stable")
    precisions, recalls = [], []
    for threshold in OKS_THRESHOLDS:
        hits = np.concatenate([_hits(frame, threshold) for frame in frames])[order]
        found = np.cumsum(hits)
        recall = found / animals
        precision = found / np.arange(1, len(found) + 1)
        envelope = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
        precisions.append(envelope[np.searchsorted(recall, RECALL_LEVELS)].mean())
        recalls.append(recall[-1] if len(recall) else 0.0)
    return float(np.mean(precisions)), float(np.mean(recalls))


def _hits(frame: FrameMatch, threshold: float) -> np.ndarray:
    """Return which predictions, by falling score, found an animal, `(P,)` bool."""
    free = np.where(frame.similarity >= threshold, frame.similarity, -1.0)
    hits = np.zeros(len(frame.scores), bool)
    for place, prediction in enumerate(np.argsort(-frame.scores, kind="stable")):
        if free.shape[1] and free[prediction].max() >= threshold:
            hits[place] = True
            free[:, free[prediction].argmax()] = -1.0
    return hits
