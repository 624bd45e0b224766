"""A trained network with everything around it.

It leads from images as a file holds them to points in their pixels.
"""

from collections.abc import Callable
from copy import copy
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from hgtrain.heads import Head, by_stack
from hgtrain.heads.decoding.extent import Size
from hgtrain.model.dynamic_size import any_size
from hgtrain.pipeline.crops import crops_around, in_images
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.poses import Poses, no_poses
from hgtrain.predict.averaging import Averaging


class Predictor:
    """Predicts keypoints of images of any size, in batches of one compiled shape.

    Attributes:
        model: The network as it is stored.
        network: What computes it, for any size; the same where that can.
        averaging: Over which turned images outputs are averaged; None for the image alone.
    """

    def __init__(
        self,
        model: keras.Model,
        head: Head,
        preprocessing: Preprocessing,
        batch_size: int = 8,
        refinement: str = "unbiased",
        averaging: Averaging | None = None,
    ) -> None:
        self.model = model
        self.network = any_size(model)
        self.head = head
        self.preprocessing = preprocessing
        self.batch_size = batch_size
        self.refinement = refinement
        self.averaging = averaging
        self._compiled = tf.function(self.poses, autograph=False, reduce_retracing=True)

    @property
    def variables(self) -> list[tf.Variable]:
        """Return the variables of all that computes."""
        return [variable.value for variable in self.network.variables]

    def _outputs(self, prepared: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the last stack's outputs of the network's own input, by name."""
        return by_stack(self.head, tf.nest.flatten(self.network(prepared, training=False)))[-1]

    def _averaged(self, prepared: tf.Tensor, size: Size) -> dict[str, tf.Tensor]:
        """Return the outputs, averaged where asked for.

        Args:
            prepared: The network's own input.
            size: Height and width of the image in it, before it was padded.
        """
        if self.averaging is None:
            return self._outputs(prepared)
        multiple = self.preprocessing.multiple
        return self.averaging.outputs(self._outputs, prepared, size, self.head, multiple)

    def with_changed_outputs(self, change: Callable[[tf.Tensor], tf.Tensor]) -> Self:
        """Return what finds animals, by `poses`, in changed outputs of the network.

        Args:
            change: Of each output `(B, h, w, C)` float32.
        """
        changed = copy(self)
        outputs = self._outputs
        changed._outputs = lambda prepared: {  # type: ignore[method-assign]
            name: change(output) for name, output in outputs(prepared).items()
        }
        return changed

    def outputs(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return the last stack's outputs `(B, h, w, C)` float32 by name.

        Args:
            images: `(B, H, W, C)` uint8.
        """
        return self._averaged(self.preprocessing(images), self.preprocessing.size(images))

    def confmaps(self, images: tf.Tensor) -> tf.Tensor:
        """Return the last stack's confidence maps `(B, h, w, K)` of images `(B, H, W, C)` uint8."""
        return self.head.confmaps(self.outputs(images))

    @property
    def max_instances(self) -> int:
        """Return how many animals are given of an image whose centroids are not handed in."""
        return self.head.max_instances

    @property
    def needs_centroids(self) -> bool:
        """Return whether somebody has to say around which places to look."""
        return self.head.crop is not None

    def centroids(self, points: np.ndarray) -> np.ndarray:
        """Return around which places the network sees animals, `(..., 2)` px, NaN for none.

        Args:
            points: Of the animals, `(..., K, 2)` float32 px, NaN where missing.

        Raises:
            ValueError: The network sees whole images.
        """
        if self.head.crop is None:
            raise ValueError("a network that sees whole images needs no centroids")
        centroids: np.ndarray = self.head.crop.centroids(tf.constant(points)).numpy()
        return centroids

    def poses(self, images: tf.Tensor, centroids: tf.Tensor | None = None) -> Poses:
        """Return the animals as tensors, points in px of the images.

        Args:
            images: `(B, H, W, C)` uint8.
            centroids: Around which places to look, `(B, I, 2)` px of the images, NaN for none;
                where the network sees crops.
        """
        crop = self.head.crop
        if crop is None:
            size = self.preprocessing.size(images)
            found = self.head.decode(self.outputs(images), self.refinement, size)
        elif centroids is None:
            raise ValueError("the network sees crops around animals: centroids must be given")
        else:
            middles = self.preprocessing.resized_points(centroids)
            cut, corners = crops_around(self.preprocessing(images), middles, crop.size_px)
            outputs = self._averaged(cut, (crop.size_px, crop.size_px))
            of_crops = self.head.decode(outputs, self.refinement)
            found = in_images(of_crops, corners, middles)
        return found._replace(points=self.preprocessing.original_points(found.points))

    def __call__(self, images: np.ndarray, centroids: np.ndarray | None = None) -> Poses:
        """Return the animals of images as arrays, points in px of the images.

        Args:
            images: `(N, H, W, C)` uint8; N may be 0, C is 1 or 3 and converted where the network
                has another.
            centroids: As for `poses`, `(N, I, 2)` float32.

        Raises:
            ValueError: For another dtype or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ValueError(
                f"images must be (N, H, W, 1 or 3) uint8, got {images.shape} {images.dtype}"
            )
        given = (images,) if centroids is None else (images, centroids.astype(np.float32))
        instances = self.max_instances if centroids is None else centroids.shape[1]
        found = no_poses(instances, self.keypoints, len(images))
        for start in range(0, len(images), self.batch_size):
            part = slice(start, start + self.batch_size)
            batch = [values[part] for values in given]
            count = len(batch[0])
            # The last batch is filled up: another shape would be another compilation.
            missing = min(self.batch_size, max(len(images), 1)) - count
            if missing:
                batch = [np.concatenate([one, np.repeat(one[-1:], missing, 0)]) for one in batch]
            for kept, values in zip(found, self._compiled(*map(tf.constant, batch)), strict=True):
                kept[part] = values[:count]
        return found

    @property
    def keypoints(self) -> int:
        """Return how many keypoints an animal has."""
        return self.head.keypoints
