"""How good predictions are, in pixels of the dataset's own images; NumPy only."""

from collections.abc import Sequence
from typing import Any

import numpy as np

PCK_THRESHOLDS_PX = (1, 2, 5, 10)
PERCENTILES = (75, 90, 95, 99)
OKS_STDDEV = 0.025
PRESENT_CONFIDENCE = 0.2
"""A keypoint is predicted as present from this confidence on, as in the reference."""


def pose_metrics(
    truth: np.ndarray,
    visibility: np.ndarray,
    predicted: np.ndarray,
    confidence: np.ndarray,
    names: Sequence[str],
) -> dict[str, Any]:
    """Return the metrics of contract section 5 that one animal has, as plain JSON values.

    All but `images_per_s`. Errors are over keypoints that are labelled with a position and
    predicted with one. A labelled keypoint without a predicted position counts against `pck`, `oks`
    and recall; one labelled as absent counts for precision only.

    Args:
        truth: `(N, K, 2)` px, or `(N, I, K, 2)` for several animals a frame; NaN where missing.
        visibility: `(N, K)` or `(N, I, K)`, 0 not labelled.
        predicted: Of the same shape as `truth`, each animal at the place of the labelled one.
        confidence: Of the same shape as `visibility`.
        names: Of the keypoints.

    Returns:
        The metrics; None where one is undefined.
    """
    labelled = (visibility > 0) & np.isfinite(truth).all(-1)
    located = labelled & np.isfinite(predicted).all(-1)
    distance = np.linalg.norm(predicted.astype(np.float64) - truth, axis=-1)
    errors = distance[located]
    return {
        "frames": len(truth),
        "keypoints": int(labelled.sum()),
        "error_px": _distribution(errors),
        "rmse_px": _number(np.sqrt(np.mean(errors**2))) if errors.size else None,
        "pck": _pck(distance, labelled, located),
        "oks": _mean(object_keypoint_similarity(truth, visibility, predicted)),
        "visibility": visibility_metrics(truth, visibility, confidence),
        "per_keypoint": [
            {
                "name": name,
                "count": len(of_name),
                "mean": _mean(of_name),
                "median": _number(np.median(of_name)) if len(of_name) else None,
            }
            for k, name in enumerate(names)
            for of_name in [distance[..., k][located[..., k]]]
        ],
    }


def object_keypoint_similarity(
    truth: np.ndarray, visibility: np.ndarray, predicted: np.ndarray, stddev: float = OKS_STDDEV
) -> np.ndarray:
    """Return the OKS of each animal in 0..1, NaN where nothing is labelled.

    `exp(-d^2 / (2 * (2 * stddev)^2 * area))`, averaged over labelled keypoints (COCO keypoint
    evaluation; area of the labelled points' bounding box and one stddev for all, as in the
    reference). The area is at least 1 px^2, else one labelled point, or points in a line, could not
    be matched at all.

    Args:
        truth: `(..., K, 2)` px.
        visibility: `(..., K)`, 0 not labelled.
        predicted: `(..., K, 2)` px; the leading axes broadcast with those of `truth`.
        stddev: COCO's sigma, the same for all keypoints.

    Returns:
        `(...)`, as the leading axes broadcast.
    """
    labelled = (visibility > 0) & np.isfinite(truth).all(-1)
    positions = np.where(labelled[..., None], truth, np.nan).astype(np.float64)
    some = labelled.any(-1)
    area = np.ones(truth.shape[:-2])
    if some.any():
        sides = np.nanmax(positions[some], axis=1) - np.nanmin(positions[some], axis=1)
        area[some] = np.maximum(sides.prod(-1), 1.0)
    squared = ((predicted.astype(np.float64) - positions) ** 2).sum(-1)
    similarity = np.exp(-squared / (2 * (2 * stddev) ** 2 * area[..., None]))
    total = np.where(labelled & np.isfinite(similarity), similarity, 0.0).sum(-1)
    return np.where(some, total / np.maximum(labelled.sum(-1), 1), np.nan)


def visibility_metrics(
    truth: np.ndarray, visibility: np.ndarray, confidence: np.ndarray
) -> dict[str, float | None]:
    """Return how well confidence tells which keypoints are there, of those that are labelled.

    Args:
        truth: `(..., K, 2)` px; labelled without a position is absent.
        visibility: `(..., K)`, 0 not labelled.
        confidence: `(..., K)`; a keypoint is predicted from `PRESENT_CONFIDENCE` on.

    Returns:
        `precision` and `recall`, None where undefined.
    """
    labelled = visibility > 0
    present = labelled & np.isfinite(truth).all(-1)
    predicted = labelled & (confidence >= PRESENT_CONFIDENCE)
    true_positive = (predicted & present).sum()
    return {
        "precision": _number(true_positive / predicted.sum()) if predicted.any() else None,
        "recall": _number(true_positive / present.sum()) if present.any() else None,
    }


def _distribution(errors: np.ndarray) -> dict[str, float | None]:
    names = ["mean", "median", *(f"p{p}" for p in PERCENTILES)]
    if not errors.size:
        return dict.fromkeys(names)
    values = [np.mean(errors), np.median(errors), *np.percentile(errors, PERCENTILES)]
    return {name: _number(value) for name, value in zip(names, values, strict=True)}


def _pck(
    distance: np.ndarray, labelled: np.ndarray, located: np.ndarray
) -> dict[str, float | None]:
    count = labelled.sum()
    return {
        str(threshold): _number((distance[located] <= threshold).sum() / count) if count else None
        for threshold in PCK_THRESHOLDS_PX
    }


def _mean(values: np.ndarray) -> float | None:
    finite = values[np.isfinite(values)]
    return _number(finite.mean()) if finite.size else None


def _number(value: Any) -> float:
    return float(value)
