"""Makes a batch inside the compiled step: augmented images, targets and weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.pipeline.augment import augment_geometry, augment_intensity, draw
from hgtrain.pipeline.preprocess import pad

if TYPE_CHECKING:
    from hgtrain.config.schema import AugmentationConfig

LabelsOf = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Indices into a side's frames `(n,)` -> points `(n, K, 2)` px of the network's input, and weights `(n, K)`."""


class DeviceCache(NamedTuple):
    """What the device holds of all frames.

    Images `(N, H, W, C)` uint8, points `(N, K, 2)` and weights `(N, K)`.
    """

    frames: tf.Tensor
    points: tf.Tensor
    weights: tf.Tensor


class BatchSpec(NamedTuple):
    """How frames become batches. multiple: padded sides. stride: of the maps.

    targets: (points, H, W) -> maps.
    """

    augmentation: "AugmentationConfig"
    symmetries: tuple[tuple[int, int], ...]
    multiple: int
    targets: Callable[[tf.Tensor, int, int], tf.Tensor]
    seed: int
    batch_size: int


def batch_maker(
    recipe: BatchSpec, held: DeviceCache | None
) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Return the function that makes one part of a step's batch on the device.

    held: None where images and labels come with the element. Points are in px of the network's
    input, NaN where missing. The function takes (element, step, part, parts), an element being a
    step's part of what `Feed` gives, and gives images `(b, H, W, C)` float32 0..255, maps and
    weights `(b, K)`; b is the batch size divided by the number of parts.
    """

    def make(
        element: tuple[tf.Tensor, ...], step: tf.Tensor, part: tf.Tensor, parts: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = recipe.batch_size // parts
        start = part * size
        indices, *given = (values[start : start + size] for values in element)
        frames, points, weights = (
            given if held is None else (tf.gather(values, indices) for values in held)
        )
        # Drawn for the whole batch and then cut, so that a sample's draw does not depend on the
        # number of parts.
        draws = draw(recipe.seed, step, recipe.batch_size)[start : start + size]
        images, at, kept = augment_geometry(
            frames,
            points,
            weights,
            draws,
            recipe.augmentation,
            recipe.symmetries,
        )
        examples = step * recipe.batch_size + tf.cast(start + tf.range(size), tf.int64)
        images = augment_intensity(images, draws, recipe.augmentation, recipe.seed, examples)
        # Last, so that what is added is black here as in validation.
        images = pad(images, recipe.multiple)
        return images, recipe.targets(at, images.shape[1], images.shape[2]), kept

    return make
