"""Top-down: one network finds animals, another the keypoints of each in a crop around it."""

from collections.abc import Callable
from typing import Self

import tensorflow as tf

from hgtrain.heads.decoding.duplicates import duplicate_animals
from hgtrain.poses import Poses
from hgtrain.predict.predictor import Predictor


class TopDownPredictor(Predictor):
    """Predicts the animals of images with two networks in one graph.

    Both take the images as the dataset has them, each at its own scale. The score of an animal is
    that of its centroid times the mean confidence of its keypoints. Of animals that lie on top of
    each other the one with the highest score stays.

    Args:
        centroids: Finds the animals.
        instances: Finds the keypoints of the animal in the middle of a crop.
    """

    def __init__(self, centroids: Predictor, instances: Predictor) -> None:
        super().__init__(
            instances.model,
            instances.head,
            instances.preprocessing,
            instances.batch_size,
            instances.refinement,
            instances.averaging,
        )
        self._centroids = centroids

    @property
    def variables(self) -> list[tf.Variable]:
        """Return the variables of both networks."""
        return [*self._centroids.variables, *super().variables]

    @property
    def max_instances(self) -> int:
        """Return how many animals are given of an image."""
        return self._centroids.max_instances

    @property
    def needs_centroids(self) -> bool:
        """Return that nobody has to say where animals are."""
        return False

    def confmaps(self, images: tf.Tensor) -> tf.Tensor:
        """Return the map of centroids `(B, h, w, 1)` of images `(B, H, W, C)` uint8."""
        return self._centroids.confmaps(images)

    def with_changed_outputs(self, change: Callable[[tf.Tensor], tf.Tensor]) -> Self:
        """Return the same as that of a predictor, both networks' outputs changed."""
        changed = super().with_changed_outputs(change)
        changed._centroids = self._centroids.with_changed_outputs(change)
        return changed

    def poses(self, images: tf.Tensor, centroids: tf.Tensor | None = None) -> Poses:
        """Return the animals as tensors, best first, points in px of the images.

        Args:
            images: `(B, H, W, C)` uint8.
            centroids: Not needed.
        """
        places = self._centroids.poses(images)
        found = super().poses(images, places.points[:, :, 0])
        scores = found.scores * places.scores
        kept = ~tf.math.is_nan(scores) & ~duplicate_animals(found.points, scores)
        rank = tf.where(kept, scores, -1.0)
        best = tf.math.top_k(rank, self.max_instances)
        is_there = best.values >= 0
        points, confidence = (
            tf.gather(each, best.indices, batch_dims=1) for each in (found.points, found.confidence)
        )
        nothing = float("nan")
        return Poses(
            tf.where(is_there[..., None, None], points, nothing),
            tf.where(is_there[..., None], confidence, nothing),
            tf.where(is_there, best.values, nothing),
        )
