"""Makes a batch inside the compiled step: augmented images, targets and weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.pipeline.augment import augment_geometry, augment_intensity, draw
from hgtrain.pipeline.preprocess import pad

if TYPE_CHECKING:
    from hgtrain.config.schema import AugmentationConfig

LabelsOf = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Gives the labels of frames.

Indices into a side's frames `(n,)` -> points `(n, I, K, 2)` px of the network's input, and
weights `(n, I, K)`.
"""


class DeviceCache(NamedTuple):
    """What the device holds of all frames.

    Attributes:
        frames: Images `(N, H, W, C)` uint8.
        points: `(N, I, K, 2)`.
        weights: `(N, I, K)`.
    """

    frames: tf.Tensor
    points: tf.Tensor
    weights: tf.Tensor


class BatchSpec(NamedTuple):
    """How frames become batches.

    Attributes:
        augmentation: Which random changes are made.
        symmetries: Left/right partners by index.
        multiple: Of which padded sides are, in px.
        targets: (points, weights, H, W) -> what the outputs are to be, as `Head.targets`.
        seed: Of the random changes.
        batch_size: Samples in a step.
    """

    augmentation: "AugmentationConfig"
    symmetries: tuple[tuple[int, int], ...]
    multiple: int
    targets: Callable[[tf.Tensor, tf.Tensor, int, int], Any]
    seed: int
    batch_size: int


def batch_maker(spec: BatchSpec, held: DeviceCache | None) -> Callable[..., tuple[tf.Tensor, Any]]:
    """Return the function that makes one part of a step's batch on the device.

    The function takes (element, step, part, parts), an element being a step's part of what `Feed`
    gives, and gives images `(b, H, W, C)` float32 0..255 and targets; b is the batch size divided
    by the number of parts. Points are in px of the network's input, NaN where missing.

    Args:
        spec: How frames become batches.
        held: None where images and labels come with the element.
    """

    def make(
        element: tuple[tf.Tensor, ...], step: tf.Tensor, part: tf.Tensor, parts: int
    ) -> tuple[tf.Tensor, Any]:
        size = spec.batch_size // parts
        start = part * size
        indices, *given = (values[start : start + size] for values in element)
        frames, points, weights = (
            given if held is None else (tf.gather(values, indices) for values in held)
        )
        # Drawn for the whole batch and then cut, so that a sample's draw does not depend on the
        # number of parts.
        draws = draw(spec.seed, step, spec.batch_size)[start : start + size]
        images, at, kept = augment_geometry(
            frames,
            points,
            weights,
            draws,
            spec.augmentation,
            spec.symmetries,
        )
        examples = step * spec.batch_size + tf.cast(start + tf.range(size), tf.int64)
        images = augment_intensity(images, draws, spec.augmentation, spec.seed, examples)
        # Last, so that what is added is black here as in validation.
        images = pad(images, spec.multiple)
        return images, spec.targets(at, kept, images.shape[1], images.shape[2])

    return make
