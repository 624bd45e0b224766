"""The fingerprint of a dataset, by which a run knows its data again."""

import hashlib
import json

import numpy as np

from hgtrain.data.dataset import PoseDataset

FINGERPRINT_FRAMES = 64
HASHED_AT_ONCE = 2**15
"""Frames whose points are copied at once."""


def fingerprint(dataset: PoseDataset) -> str:
    """Return a sha256 in hex that is equal for datasets of equal content, wherever they lie.

    It does not depend on the format. It covers keypoint names, edges, symmetries, shapes, points,
    visibility and the pixels of up to 64 evenly spaced frames; a change in any other frame's pixels
    goes unnoticed.
    """
    skeleton = (dataset.keypoint_names, dataset.edges, dataset.symmetries)
    header = json.dumps([*skeleton, dataset.image_shape, dataset.points.shape], default=int)
    digest = hashlib.sha256(header.encode())
    for start in range(0, len(dataset), HASHED_AT_ONCE):
        # NaN has many bit patterns, and both zeros are equal.
        points = dataset.points[start : start + HASHED_AT_ONCE] + np.float32(0)
        points[np.isnan(points)] = np.nan
        digest.update(points.astype("<f4", copy=False).tobytes())
    for start in range(0, len(dataset), HASHED_AT_ONCE):
        digest.update(dataset.visibility[start : start + HASHED_AT_ONCE].tobytes())
    for row in np.unique(np.linspace(0, len(dataset) - 1, FINGERPRINT_FRAMES).astype(np.int64)):
        digest.update(dataset.read_images([row]).tobytes())
    return digest.hexdigest()
