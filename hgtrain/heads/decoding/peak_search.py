"""Peaks of several animals in px: local maxima, refined by their maps or by offset maps."""

from typing import NamedTuple

import tensorflow as tf

from hgtrain.coords import cells_to_pixels
from hgtrain.heads.decoding.extent import Size, near_image
from hgtrain.heads.decoding.peaks import Peaks, local_maxima, refinement_radius
from hgtrain.heads.targets.offsets import offsets_at_peaks

SPARE_PEAKS = 2
"""Peaks of a keypoint that are looked at beyond the most animals: some are false."""


class PeakSearch(NamedTuple):
    """What peaks are looked for.

    Attributes:
        max_instances: How many animals there are at most.
        threshold: Peaks are higher.
        sigma_px: Standard deviation of the Gaussians, in px of the network's input.
        stride: Px for each cell.
    """

    max_instances: int
    threshold: float
    sigma_px: float
    stride: int


def find_peaks(
    maps: tf.Tensor,
    offsets: tf.Tensor | None,
    search: PeakSearch,
    refinement: str,
    size: Size | None,
) -> Peaks:
    """Return the highest local maxima of each map, in px of the network's input.

    Args:
        maps: `(B, h, w, K)`, of the image alone.
        offsets: `(B, h, w, 2 K)`, in cells, which then refine `unbiased`; None for none.
        search: What is looked for.
        refinement: A key of `peaks.DECODERS`.
        size: As for `Head.decode`.
    """
    if refinement != "unbiased":
        offsets = None
    peaks = local_maxima(
        maps,
        search.max_instances + SPARE_PEAKS,
        search.threshold,
        refinement_radius(search.sigma_px, search.stride),
        refinement if offsets is None else "none",
    )
    cells = peaks.points
    if offsets is not None:
        cells += offsets_at_peaks(offsets, cells)
    points = near_image(cells_to_pixels(cells, search.stride), size, search.stride)
    return peaks._replace(points=points)
