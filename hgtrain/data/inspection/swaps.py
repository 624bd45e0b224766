"""Finds left/right keypoints that seem to be exchanged."""

import numpy as np


def swapped_pairs(points: np.ndarray, left: int, right: int) -> np.ndarray:
    """Return for each animal whether two keypoints look exchanged, False where one is NaN.

    The other keypoints are laid over their average by turning, moving and scaling; a pair is
    exchanged where its points lie on the wrong side by more than half of their distance in the
    average. The result is never True where only two others are labelled.

    Args:
        points: `(n, K, 2)`.
        left: Index of the left keypoint.
        right: Index of the right keypoint.
    """
    shapes = points[..., 0].astype(np.float64) + 1j * points[..., 1]
    others = np.ones(shapes.shape[1], bool)
    others[[left, right]] = False
    known = np.isfinite(shapes)
    enough = (known & others).sum(1) >= 2
    if not enough.any():
        return np.zeros(len(points), bool)
    mean = shapes[np.argmax((known & others).sum(1) + known.all(1))]
    for _ in range(3):
        aligned = _aligned(shapes, mean, known & others & np.isfinite(mean))
        with np.errstate(invalid="ignore"):
            mean = np.array([_median(column[enough & np.isfinite(column)]) for column in aligned.T])
    aligned = _aligned(shapes, mean, known & others & np.isfinite(mean))
    axis = mean[left] - mean[right]
    if not np.isfinite(axis) or abs(axis) == 0:
        return np.zeros(len(points), bool)
    with np.errstate(invalid="ignore"):
        along = ((aligned[:, left] - aligned[:, right]) / axis).real
        return enough & (along < -0.5)


def _median(values: np.ndarray) -> complex:
    return (
        complex(np.median(values.real), np.median(values.imag))
        if len(values)
        else complex(np.nan, np.nan)
    )


def _aligned(shapes: np.ndarray, mean: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return shapes `(n, K)` complex, each turned, scaled and moved.

    What is `used` of them then lies as close to `mean` as it can.
    """
    count = np.maximum(used.sum(1, keepdims=True), 1)
    here, there = np.where(used, shapes, 0), np.where(used, mean, 0)
    centre, goal = here.sum(1, keepdims=True) / count, there.sum(1, keepdims=True) / count
    here, there = np.where(used, shapes - centre, 0), np.where(used, mean - goal, 0)
    factor = (np.conj(here) * there).sum(1, keepdims=True) / np.maximum(
        (np.abs(here) ** 2).sum(1, keepdims=True), 1e-12
    )
    return factor * (shapes - centre) + goal
