"""Metrics beyond the contract's own.

They are the error by the animal's size, OKS precision and recall, calibration, and errors per
group.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hgtrain.evaluate.calibration import calibration
from hgtrain.evaluate.matching import (
    FrameMatch,
    average_precision_and_recall,
    single_matches,
)

SIZE_FRACTIONS = (0.05, 0.1, 0.2)


class Errors(NamedTuple):
    """How far predicted keypoints are from labelled ones.

    Attributes:
        distance: `(N, K)` or `(N, I, K)` px, NaN where there is none.
        labelled: Of the same shape, what is labelled with a position.
        located: Of the same shape, what is labelled with a position and predicted too.
    """

    distance: np.ndarray
    labelled: np.ndarray
    located: np.ndarray


def keypoint_errors(truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray) -> Errors:
    """Return the errors of predicted points.

    Args:
        truth: `(N, K, 2)` or `(N, I, K, 2)` px.
        visibility: `(N, K)` or `(N, I, K)`, 0 not labelled.
        predicted: Of the same shape as `truth`, each animal at the place of the labelled one.
    """
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
    matches: Sequence[FrameMatch] | None = None,
) -> dict[str, Any]:
    """Return the metrics beyond the contract's, as plain JSON.

    Args:
        truth: `(N, K, 2)` px, or `(N, I, K, 2)` for several animals a frame.
        visibility: `(N, K)` or `(N, I, K)`.
        predicted: Of the same shape as `truth`, each animal at the place of the labelled one.
        confidence: Of the same shape as `visibility`.
        groups: `(N,)` names of the frames; None gives an empty list.
        matches: What average precision is over; None for one animal a frame.

    Returns:
        `pck_of_size`, `oks_map`, `oks_mar`, `calibration` and `per_group`; None where one is
        undefined.
    """
    errors = keypoint_errors(truth, visibility, predicted)
    if matches is None:
        matches = single_matches(truth, visibility, predicted, confidence)
    precision, recall = average_precision_and_recall(matches)
    return {
        "pck_of_size": pck_of_size(errors, truth),
        "oks_map": precision,
        "oks_mar": recall,
        "calibration": calibration(errors.distance[errors.located], confidence[errors.located]),
        "per_group": []
        if groups is None
        else [_group(str(g), errors, groups == g) for g in np.unique(groups)],
    }


def pck_of_size(errors: Errors, truth: np.ndarray) -> dict[str, float | None]:
    """Return the part of labelled keypoints that is within each fraction of the animal's size.

    The size is that of `animal_sizes`. A labelled keypoint without a predicted position is not
    within.
    """
    size = animal_sizes(truth, errors.labelled)
    count = errors.labelled.sum()
    relative = (errors.distance / size[..., None])[errors.located]
    return {
        str(part): float((relative <= part).sum() / count) if count else None
        for part in SIZE_FRACTIONS
    }


def animal_sizes(truth: np.ndarray, labelled: np.ndarray) -> np.ndarray:
    """Return the longer side of the labelled points' bounding box, at least 1 px.

    Args:
        truth: `(..., K, 2)` px.
        labelled: `(..., K)`, what is labelled with a position.

    Returns:
        `(...)` px; 1 where nothing is labelled.
    """
    size = np.ones(truth.shape[:-2])
    some = labelled.any(-1)
    if some.any():
        points = np.where(labelled[..., None], truth, np.nan)[some]
        size[some] = np.maximum((np.nanmax(points, 1) - np.nanmin(points, 1)).max(-1), 1.0)
    return size


def _group(name: str, errors: Errors, chosen: np.ndarray) -> dict[str, Any]:
    distances = errors.distance[chosen][errors.located[chosen]]
    return {
        "name": name,
        "frames": int(chosen.sum()),
        "count": len(distances),
        "mean": float(distances.mean()) if len(distances) else None,
        "median": float(np.median(distances)) if len(distances) else None,
    }
