"""Makes a batch inside the compiled step: augmented images, targets and weights."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from hgtrain.coords import Crop
from hgtrain.pipeline.augment import (
    augment_geometry,
    augment_intensity,
    draw,
    draw_jitter,
)
from hgtrain.pipeline.preprocess import pad

if TYPE_CHECKING:
    from hgtrain.config.schema import AugmentationConfig


class DeviceCache(NamedTuple):
    """What the device holds of all frames and samples.

    Attributes:
        frames: Images `(N, H, W, C)` uint8.
        points: Of the samples, `(S, I, K, 2)`.
        weights: `(S, I, K)`.
        frame_of: Which frame a sample is of, `(S,)`; None where each frame is one.
    """

    frames: tf.Tensor
    points: tf.Tensor
    weights: tf.Tensor
    frame_of: tf.Tensor | None = None

    def gather(self, samples: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return images, points and weights of samples `(n,)`."""
        frames = samples if self.frame_of is None else tf.gather(self.frame_of, samples)
        return (
            tf.gather(self.frames, frames),
            tf.gather(self.points, samples),
            tf.gather(self.weights, samples),
        )


class BatchSpec(NamedTuple):
    """How frames become batches.

    Attributes:
        augmentation: Which random changes are made.
        symmetries: Left/right partners by index.
        multiple: Of which padded sides are, in px.
        targets: (points, weights, H, W) -> what the outputs are to be, as `Head.targets`.
        seed: Of the random changes.
        batch_size: Samples in a step.
        crop: What the network sees of an image; None for all of it.
    """

    augmentation: "AugmentationConfig"
    symmetries: tuple[tuple[int, int], ...]
    multiple: int
    targets: Callable[[tf.Tensor, tf.Tensor, int, int], Any]
    seed: int
    batch_size: int
    crop: Crop | None = None


def batch_maker(spec: BatchSpec, held: DeviceCache | None) -> Callable[..., tuple[tf.Tensor, Any]]:
    """Return the function that makes one shard of a step's batch on the device.

    The function takes (element, step, shard, num_shards), an element being one step of what `Feed`
    gives, and gives images `(b, H, W, C)` float32 0..255 and targets; b is the batch size divided
    by the number of shards. Points are in px of the network's input, NaN where missing.

    Args:
        spec: How frames become batches.
        held: None where images and labels come with the element.
    """

    def make(
        element: tuple[tf.Tensor, ...], step: tf.Tensor, shard: tf.Tensor, num_shards: int
    ) -> tuple[tf.Tensor, Any]:
        size = spec.batch_size // num_shards
        start = shard * size
        indices, *given = (values[start : start + size] for values in element)
        frames, points, weights = given if held is None else held.gather(indices)
        # Drawn for the whole batch and then cut, so that a sample's draw does not depend on the
        # number of shards.
        draws = draw(spec.seed, step, spec.batch_size)[start : start + size]
        cropping = None
        if spec.crop is not None:
            jitter = draw_jitter(spec.seed, step, spec.batch_size, spec.crop)
            cropping = spec.crop, jitter[start : start + size]
        images, at, kept = augment_geometry(
            frames, points, weights, draws, spec.augmentation, spec.symmetries, cropping
        )
        examples = step * spec.batch_size + tf.cast(start + tf.range(size), tf.int64)
        images = augment_intensity(images, draws, spec.augmentation, spec.seed, examples)
        # Last, so that what is added is black here as in validation.
        images = pad(images, spec.multiple)
        return images, spec.targets(at, kept, images.shape[1], images.shape[2])

    return make
