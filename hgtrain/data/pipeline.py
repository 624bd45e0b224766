"""From one side of a split to the batch of a training step.

The host decides which frames a step sees, a function of (seed, epoch), and hands over uint8 images or mere indices;
augmentation and targets are computed on the device, inside the compiled step.
"""

import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.data.augment import augment_geometry, augment_intensity, draw
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.resize import pad, resize, to_channels

if TYPE_CHECKING:
    from hgtrain.config import AugmentationConfig

READ_AT_ONCE = 32


def epoch_order(seed: int, epoch: int, frames: int, samples: int) -> np.ndarray:
    """Return which frame each sample of an epoch is, `(samples,)` int32: shuffled passes over `frames`, end to end."""
    passes = -(-samples // frames)
    random = (np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, i]))) for i in range(passes))
    order = np.concatenate([generator.permutation(frames) for generator in random])
    return order[:samples].astype(np.int32)


class FrameStore:
    """The frames of one side of a split as the network takes them: uint8, converted in channels, resized, not padded.

    cached: read and prepared once, kept in memory; otherwise on every access.
    """

    def __init__(
        self,
        dataset: PoseDataset,
        frames: np.ndarray,
        channels: int,
        scale: float,
        cached: bool,
        progress: Callable[[range], Iterable[int]] = lambda starts: starts,
    ) -> None:
        self._dataset = dataset
        self._frames = frames
        self._channels = channels
        self._scale = scale
        self.shape: tuple[int, int, int] = self._prepare(dataset.read_images(frames[:1])).shape[1:]
        self.cache: np.ndarray | None = None
        if cached:
            cache = np.empty((len(frames), *self.shape), np.uint8)
            for start in progress(range(0, len(frames), READ_AT_ONCE)):
                part = slice(start, start + READ_AT_ONCE)
                cache[part] = self._prepare(dataset.read_images(frames[part]))
            self.cache = cache

    def __len__(self) -> int:
        return len(self._frames)

    def __call__(self, indices: np.ndarray) -> np.ndarray:
        """Return images `(n, H, W, C)` uint8 by index into the side's frames, in the order asked for."""
        if self.cache is not None:
            return self.cache[indices]
        return self._prepare(self._dataset.read_images(self._frames[indices]))

    def _prepare(self, images: np.ndarray) -> np.ndarray:
        with tf.device("CPU"):
            return resize(to_channels(tf.constant(images), self._channels), self._scale).numpy()


class Feed:
    """Hands over the samples of training steps: indices where the device holds the frames, images else.

    While the device computes, a thread reads ahead what the next call will most likely ask for.
    """

    def __init__(self, store: FrameStore, on_device: bool, seed: int, batch_size: int, steps_per_epoch: int) -> None:
        self._store = store
        self._seed = seed
        self._batch_size = batch_size
        self._steps_per_epoch = steps_per_epoch
        self.device_frames = tf.constant(store.cache) if on_device else None
        self._ahead: tuple[tuple[int, int], Future] | None = None
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    def __call__(self, first_step: int, count: int) -> tuple[tuple[np.ndarray, ...], float]:
        """Return the element of `count` steps, within one epoch, and the seconds waited for it.

        The element is indices `(count, B)` int32 and, unless the device holds the frames, images
        `(count, B, H, W, C)` uint8.
        """
        started = time.monotonic()
        if self._ahead is not None and self._ahead[0] == (first_step, count):
            element = self._ahead[1].result()
        else:
            element = self._read(first_step, count)
        waited = time.monotonic() - started
        following = first_step + count
        left = self._steps_per_epoch - following % self._steps_per_epoch
        request = (following, min(count, left))
        self._ahead = (request, self._reader.submit(self._read, *request))
        return element, waited

    def _read(self, first_step: int, count: int) -> tuple[np.ndarray, ...]:
        epoch, position = divmod(first_step, self._steps_per_epoch)
        order = epoch_order(self._seed, epoch, len(self._store), self._steps_per_epoch * self._batch_size)
        indices = order.reshape(-1, self._batch_size)[position : position + count]
        if self.device_frames is not None:
            return (indices,)
        return indices, self._store(indices.ravel()).reshape(*indices.shape, *self._store.shape)

    def close(self) -> None:
        """Stop reading ahead."""
        self._reader.shutdown(cancel_futures=True)


class Recipe(NamedTuple):
    """How frames become batches. multiple: padded sides. stride: of the maps. targets: (points, H, W) -> maps."""

    augmentation: "AugmentationConfig"
    symmetries: tuple[tuple[int, int], ...]
    multiple: int
    targets: Callable[[tf.Tensor, int, int], tf.Tensor]
    seed: int
    batch_size: int


def batch_maker(
    recipe: Recipe, device_frames: tf.Tensor | None, points: np.ndarray, weights: np.ndarray
) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Return the function that makes one part of a step's batch on the device.

    points: `(N, K, 2)` px of the network's input, NaN where missing; weights: `(N, K)`. The function takes (element,
    step, part, parts) and gives images `(b, H, W, C)` float32 0..255, maps and weights `(b, K)`; b is the batch size
    divided by the number of parts.
    """
    all_points, all_weights = tf.constant(points, tf.float32), tf.constant(weights, tf.float32)

    def make(
        element: tuple[tf.Tensor, ...], step: tf.Tensor, part: tf.Tensor, parts: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = recipe.batch_size // parts
        start = part * size
        indices = element[0][start : start + size]
        frames = tf.gather(device_frames, indices) if device_frames is not None else element[1][start : start + size]
        # Drawn for the whole batch and then cut, so that a sample's draw does not depend on the number of parts.
        draws = draw(recipe.seed, step, recipe.batch_size)[start : start + size]
        images, at, kept = augment_geometry(
            frames,
            tf.gather(all_points, indices),
            tf.gather(all_weights, indices),
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
