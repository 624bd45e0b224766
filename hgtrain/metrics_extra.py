"""Metrics beyond the contract's own: error by the animal's size, OKS precision and recall, calibration, per group."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hgtrain.metrics import object_keypoint_similarity

SIZE_FRACTIONS = (0.05, 0.1, 0.2)
OKS_THRESHOLDS = tuple(t / 100 for t in range(50, 100, 5))
RECALL_LEVELS = np.linspace(0, 1, 101)
CALIBRATION_BINS = 10


class Errors(NamedTuple):
    """Distances `(N, K)` px, NaN where there is none; what is labelled with a position, and what is predicted too."""

    distance: np.ndarray
    labelled: np.ndarray
    located: np.ndarray


class FrameMatch(NamedTuple):
    """OKS `(P, G)` of every predicted with every labelled animal of a frame, and the score `(P,)` of each predicted."""

    similarity: np.ndarray
    scores: np.ndarray


def keypoint_errors(truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray) -> Errors:
    """Return the errors of points `(N, K, 2)` px against truth `(N, K, 2)` of visibility `(N, K)`, 0 not labelled."""
    labelled = (visibility > 0) & np.isfinite(truth).all(-1)
    located = labelled & np.isfinite(predicted).all(-1)
    distance = np.linalg.norm(predicted.astype(np.float64) - truth, axis=-1)
    return Errors(np.where(located, distance, np.nan), labelled, located)


def extra_metrics(
    truth: np.ndarray,
    visibility: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    groups: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return `pck_of_size`, `oks_map`, `oks_mar`, `calibration` and `per_group` as plain JSON; None where undefined.

    truth, predicted: `(N, K, 2)` px. visibility, confidence: `(N, K)`. groups: `(N,)` names; None gives an empty list.
    """
    errors = keypoint_errors(truth, visibility, predicted)
    matches = single_matches(truth, visibility, predicted, confidence)
    precision, recall = average_precision_and_recall(matches)
    return {
        "pck_of_size": pck_of_size(errors, truth),
        "oks_map": precision,
        "oks_mar": recall,
        "calibration": calibration(errors.distance[errors.located], confidence[errors.located]),
        "per_group": [] if groups is None else [_group(str(g), errors, groups == g) for g in np.unique(groups)],
    }


def pck_of_size(errors: Errors, truth: np.ndarray) -> dict[str, float | None]:
    """Return the part of labelled keypoints that is within each fraction of the animal's size.

    The size is the longer side of the labelled points' bounding box, at least 1 px. A labelled keypoint without a
    predicted position is not within.
    """
    size = np.ones(len(truth))
    some = errors.labelled.any(-1)
    if some.any():
        points = np.where(errors.labelled[..., None], truth, np.nan)[some]
        size[some] = np.maximum((np.nanmax(points, 1) - np.nanmin(points, 1)).max(-1), 1.0)
    count = errors.labelled.sum()
    relative = (errors.distance / size[:, None])[errors.located]
    return {str(part): float((relative <= part).sum() / count) if count else None for part in SIZE_FRACTIONS}


def single_matches(
    truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray, confidence: np.ndarray
) -> list[FrameMatch]:
    """Return the frames of a head for one animal: at most one labelled and one predicted; the score is the mean.

    Nothing labelled in a frame leaves its prediction unmatched; no finite point leaves its animal unmatched.
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
    """Return mAP and mAR over OKS thresholds 0.50 to 0.95, as COCO's keypoint evaluation; None without animals.

    At each threshold predictions take, by falling score, the most similar animal of their frame that is still free;
    what finds none counts against precision. Precision is interpolated at 101 levels of recall.
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


def calibration(errors: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Return whether confidence orders the errors, both `(n,)`.

    `rank_correlation` is Spearman's between confidence and the negative error: 1 when the surer is always the closer,
    0 when confidence says nothing; None for fewer than two values or no variation. `bins` are up to ten parts of equal
    count by rising confidence, each with `confidence` (mean), `count`, `mean` and `median` error in px.
    """
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, CALIBRATION_BINS) if len(part)]
    bins = [
        {
            "confidence": float(confidence[part].mean()),
            "count": len(part),
            "mean": float(errors[part].mean()),
            "median": float(np.median(errors[part])),
        }
        for part in parts
    ]
    return {"rank_correlation": _rank_correlation(confidence, -errors), "bins": bins}


def _rank_correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    if len(first) < 2:
        return None
    a, b = _ranks(first), _ranks(second)
    if not a.std() or not b.std():
        return None
    return float(np.corrcoef(a, b)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks, equal values sharing the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse]


def _group(name: str, errors: Errors, chosen: np.ndarray) -> dict[str, Any]:
    distances = errors.distance[chosen][errors.located[chosen]]
    return {
        "name": name,
        "frames": int(chosen.sum()),
        "count": len(distances),
        "mean": float(distances.mean()) if len(distances) else None,
        "median": float(np.median(distances)) if len(distances) else None,
    }
