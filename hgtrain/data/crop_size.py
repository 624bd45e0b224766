"""Where animals are cropped, how large a crop has to be, and what it would cut off."""

import math

import numpy as np

from hgtrain.coords import NEGLIGIBLE_PX, crop_corners, padded_length
from hgtrain.poses import centroids

WHOLE_PERCENTILE = 99.5
"""Of the animals, by their extent, that are to be whole in a crop: a few labels are far off."""


def crop_size_px(
    points: np.ndarray, anchor: int | None, multiple: int, largest_scale: float = 1.0
) -> int:
    """Return the side of a square crop that holds nearly all animals whole, however turned.

    Twice the 99.5th percentile, over animals, of the distance from the centroid to the farthest
    labelled keypoint, times the scale, and one pixel: n pixels span n - 1 from centre to centre.
    Corners are rounded to whole pixels, which takes no more than the half pixel around the
    outermost centre.

    Args:
        points: `(N, I, K, 2)` in px, NaN where missing.
        anchor: As for `centroids`.
        multiple: Of which the side is, e.g. the network's greatest stride.
        largest_scale: Factor by which augmentation enlarges animals at most.

    Returns:
        The side in px, a multiple of `multiple`; `multiple` itself without any labelled keypoint.
    """
    distances = np.linalg.norm(points - centroids(points, anchor)[..., None, :], axis=-1)
    farthest = np.where(np.isnan(distances), -1.0, distances).max(axis=-1)
    labelled = farthest[farthest >= 0]
    if not labelled.size:
        return multiple
    radius = float(np.percentile(labelled, WHOLE_PERCENTILE)) * largest_scale
    return padded_length(math.ceil(2 * radius + 1 - NEGLIGIBLE_PX), multiple)


def share_cut_off(points: np.ndarray, anchor: int | None, size: int) -> float:
    """Return the share of labelled keypoints that lie outside their animal's crop, 0..1.

    Args:
        points: `(N, I, K, 2)` in px, NaN where missing.
        anchor: As for `centroids`.
        size: Side of the crop in px.

    Returns:
        0 without any labelled keypoint.
    """
    corners = crop_corners(centroids(points, anchor), size)
    inside = points - corners[..., None, :]
    labelled = ~np.isnan(points).any(axis=-1)
    outside = ((inside < -0.5) | (inside > size - 0.5)).any(axis=-1)
    return float((outside & labelled).sum() / max(1, labelled.sum()))
