"""A trained network with everything around it.

It leads from images as a file holds them to points in their pixels.
"""

import keras
import numpy as np
import tensorflow as tf

from hgtrain.heads import Head, by_stack
from hgtrain.model.dynamic_size import any_size
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.poses import Poses, no_poses


class Predictor:
    """Predicts keypoints of images of any size, in batches of one compiled shape.

    Attributes:
        model: The network as it is stored.
        network: What computes it, for any size; the same where that can.
    """

    def __init__(
        self,
        model: keras.Model,
        head: Head,
        preprocessing: Preprocessing,
        batch_size: int = 8,
        refinement: str = "unbiased",
    ) -> None:
        self.model = model
        self.network = any_size(model)
        self.head = head
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self._refinement = refinement
        self._compiled = tf.function(self.poses, autograph=False, reduce_retracing=True)

    def outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the last stack's outputs `(B, h, w, C)` float32 by name.

        Args:
            images: `(B, H, W, C)` uint8.
        """
        given = self.network(self.preprocessing(images), training=False)
        return by_stack(self.head, tf.nest.flatten(given))[-1]

    def confmaps(self, images: tf.Tensor) -> tf.Tensor:
        """Return the last stack's confidence maps `(B, h, w, K)` of images `(B, H, W, C)` uint8."""
        return self.head.confmaps(self.outputs(images))

    def poses(self, images: tf.Tensor) -> Poses:
        """Return the animals as tensors, points in px of the images.

        Args:
            images: `(B, H, W, C)` uint8.
        """
        found = self.head.decode(self.outputs(images), self._refinement)
        return found._replace(points=self.preprocessing.original_points(found.points))

    def __call__(self, images: np.ndarray) -> Poses:
        """Return the animals of images as arrays, points in px of the images.

        Args:
            images: `(N, H, W, C)` uint8; N may be 0, C is 1 or 3 and converted where the network
                has another.

        Raises:
            ValueError: For another dtype or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ValueError(
                f"images must be (N, H, W, 1 or 3) uint8, got {images.shape} {images.dtype}"
            )
        found = no_poses(self.head.max_instances, self.head.keypoints, len(images))
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = images[part]
            # The last batch is filled up: another shape would be another compilation.
            missing = min(self.batch_size, max(len(images), 1)) - len(batch)
            filled = (
                np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])
                if missing
                else batch
            )
            for kept, values in zip(found, self._compiled(tf.constant(filled)), strict=True):
                kept[part] = values[: len(batch)]
        return found
