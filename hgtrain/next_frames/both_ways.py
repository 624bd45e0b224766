"""Predictions of images and of their mirror images: where the two differ, one is wrong."""

from collections.abc import Sequence

import numpy as np

from hgtrain.poses import Poses
from hgtrain.predict.stream import Model
from hgtrain.skeleton import Skeleton, partners_by_name


class BothWays:
    """Finds the animals of images twice: as they are, and mirrored from left to right.

    Args:
        model: What predicts.
        skeleton: Of what it finds. Left/right partners, those that the names tell too, are
            exchanged in the mirror image.
    """

    def __init__(self, model: Model, skeleton: Skeleton) -> None:
        self.batch_size = model.batch_size
        self._model = model
        self._order = mirrored_order(skeleton)

    def __call__(self, images: np.ndarray) -> Poses:
        """Return the animals of images `(n, H, W, C)` uint8, points in their px.

        Of the axis of animals the first half is of the images, the second half of the mirror
        images, mirrored back.
        """
        found = self._model(images)
        other = self._model(np.ascontiguousarray(images[:, :, ::-1]))
        points = other.points[:, :, self._order]
        points[..., 0] = images.shape[2] - 1 - points[..., 0]
        mirrored = Poses(points, other.confidence[:, :, self._order], other.scores)
        return Poses(*(np.concatenate(pair, axis=1) for pair in zip(found, mirrored, strict=True)))


def halves(found: Poses) -> tuple[Poses, Poses]:
    """Return what `BothWays` found in the images, and in their mirror images."""
    animals = found.points.shape[1] // 2
    return Poses(*(part[:, :animals] for part in found)), Poses(
        *(part[:, animals:] for part in found)
    )


def mirrored_order(skeleton: Skeleton) -> Sequence[int]:
    """Return for each keypoint which one of a mirror image it is."""
    names = skeleton.keypoint_names
    order = list(range(len(names)))
    for left, right in (*skeleton.symmetries, *partners_by_name(names, skeleton.symmetries)):
        order[left], order[right] = right, left
    return order
