"""A trained network with everything around it.

From images as a file holds them to points in their pixels.
"""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hgtrain.config.schema import Config
from hgtrain.heads.peaks import RADIUS, decode, refinement_radius
from hgtrain.model.dynamic_size import any_size
from hgtrain.pipeline.preprocess import pad, resize, to_channels


class Geometry(NamedTuple):
    """What surrounds a network.

    channels: of its input. input_scale: factor by which images are resized. multiple: of which
    padded sides are.
    stride: of its maps. radius: in cells, within which peaks are refined.
    """

    channels: int
    input_scale: float
    multiple: int
    stride: int
    radius: int = RADIUS


class Predictor:
    """Predicts keypoints of images of any size, in batches of one compiled shape.

    model: the network as it is stored. network: what computes it, for any size; the same where that
    can.
    """

    def __init__(
        self,
        model: keras.Model,
        geometry: Geometry,
        batch_size: int = 8,
        refinement: str = "unbiased",
    ) -> None:
        self.model = model
        self.network = any_size(model)
        self.geometry = geometry
        self.batch_size = batch_size
        self._refinement = refinement
        self._compiled = tf.function(
            self.points_and_confidence, autograph=False, reduce_retracing=True
        )

    def confmaps(self, images: tf.Tensor) -> tf.Tensor:
        """Return the last stack's maps `(B, h, w, K)` float32 of images `(B, H, W, C)` uint8."""
        geometry = self.geometry
        prepared = resize(to_channels(images, geometry.channels), geometry.input_scale)
        # In float already here: runtimes for phones pad no unsigned bytes.
        return self.network(pad(tf.cast(prepared, tf.float32), geometry.multiple), training=False)

    def points_and_confidence(self, images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return points `(B, K, 2)` in pixels of `images` `(B, H, W, C)` uint8, and confidence `(B, K)` in 0..1."""
        geometry = self.geometry
        return decode(
            self.confmaps(images),
            geometry.stride,
            geometry.input_scale,
            self._refinement,
            geometry.radius,
        )

    def __call__(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return keypoints `(N, K, 2)` float32 px and confidence `(N, K)` of images `(N, H, W, C)` uint8; N may be 0.

        C is 1 or 3 and converted where the network has another.
        Raises ValueError for another dtype or shape.
        """
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
            raise ValueError(
                f"images must be (N, H, W, 1 or 3) uint8, got {images.shape} {images.dtype}"
            )
        keypoints = self.model.output_shape[-1]
        points = np.empty((len(images), keypoints, 2), np.float32)
        confidence = np.empty((len(images), keypoints), np.float32)
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
            at, values = self._compiled(tf.constant(filled))
            points[part], confidence[part] = at[: len(batch)], values[: len(batch)]
        return points, confidence


def geometry_of(config: Config, image_shape: tuple[int, int, int]) -> Geometry:
    """Return what surrounds the network that the config describes, for images of this shape."""
    backbone = config.model.backbone
    return Geometry(
        channels=config.data.channels or image_shape[2],
        input_scale=config.data.input_scale,
        multiple=backbone.max_stride,
        stride=backbone.output_stride,
        radius=refinement_radius(config.model.head.sigma_px, backbone.output_stride),
    )
