"""How well confidence tells error."""

from typing import Any

import numpy as np

CALIBRATION_BINS = 10


def calibration(errors: np.ndarray, confidence: np.ndarray) -> dict[str, Any]:
    """Return whether confidence orders the errors.

    Args:
        errors: `(n,)` px.
        confidence: `(n,)`.

    Returns:
        `rank_correlation` is Spearman's between confidence and the negative error: 1 when the surer
        is always the closer, 0 when confidence says nothing; None for fewer than two values or no
        variation. `bins` are up to ten parts of equal count by rising confidence, each with
        `confidence` (mean), `count`, `mean` and `median` error in px.
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
