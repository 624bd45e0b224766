"""From one side of a split to the batch of a training step.

The host decides which frames a step sees, a function of (seed, epoch), and hands over uint8 images or mere indices;
augmentation and targets are computed on the device, inside the compiled step.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.data.augment import augment_geometry, augment_intensity, draw
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.readers import Readers, Request
from hgtrain.data.resize import pad, resize, to_channels

if TYPE_CHECKING:
    from hgtrain.config import AugmentationConfig

READ_AT_ONCE = 32

PIECE_BYTES, PIECE_STEPS = 2**23, 256
"""What is read ahead in one piece: as many steps as there are in either, at least one."""

AHEAD_BYTES, AHEAD_PIECES = 2**28, 16
"""How far is read ahead, at most; at least two pieces."""

LabelsOf = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Indices into a side's frames `(n,)` -> points `(n, K, 2)` px of the network's input, and weights `(n, K)`."""


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

    def readers(self, processes: int, most_frames: int) -> Readers:
        """Return processes that read these frames; most_frames: of one request."""
        return Readers(self._dataset.images, processes, most_frames)

    def request(self, readers: Readers, indices: np.ndarray) -> Request | None:
        """Have images read by index; None as long as the readers take no more."""
        return readers.request(self._frames[indices])

    def take(self, readers: Readers, request: Request) -> np.ndarray:
        """Return what `request` asked for, as a call gives it."""
        return self._prepare(readers.take(request))

    def _prepare(self, images: np.ndarray) -> np.ndarray:
        if self._scale == 1 and images.shape[-1] == self._channels:
            return images
        with tf.device("CPU"):
            return resize(to_channels(tf.constant(images), self._channels), self._scale).numpy()


def in_turn(store: FrameStore, batches: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Give the images of each of the index arrays; the next are read while the last are worked on."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader") as thread:
        ahead: deque[Future[np.ndarray]] = deque()
        for batch in batches:
            ahead.append(thread.submit(store, batch))
            if len(ahead) > 1:
                yield ahead.popleft().result()
        yield from (images.result() for images in ahead)


class Held(NamedTuple):
    """What the device holds of all frames: images `(N, H, W, C)` uint8, points `(N, K, 2)` and weights `(N, K)`."""

    frames: tf.Tensor
    points: tf.Tensor
    weights: tf.Tensor


class _Piece(NamedTuple):
    """Steps that are being read ahead, `end` is not among them."""

    first: int
    end: int
    arrays: Future[tuple[np.ndarray, ...]]


class Feed:
    """Hands over the samples of training steps: indices where the device holds the frames, images and labels else.

    While the device computes, the next steps are read ahead in pieces, across calls and epochs: by processes, or by a
    thread where `processes` is 0. What is in memory depends neither on the number of frames nor on that of steps.
    """

    def __init__(
        self, store: FrameStore, labels: LabelsOf, schedule: tuple[int, int, int], on_device: bool, processes: int = 0
    ) -> None:
        """schedule: seed, batch size and steps of an epoch."""
        self._store = store
        self._labels = labels
        self._seed, self._batch_size, self._steps_per_epoch = schedule
        self._order = lru_cache(maxsize=2)(self._order_of_epoch)
        self.held: Held | None = None
        if on_device:
            self.held = Held(tf.constant(store.cache), *map(tf.constant, labels(np.arange(len(store)))))
        step_bytes = max(1, self._batch_size * int(np.prod(store.shape)))
        self._piece_steps = max(1, min(PIECE_BYTES // step_bytes, PIECE_STEPS))
        self._readers = store.readers(processes, self._piece_steps * self._batch_size) if processes else None
        fitting = AHEAD_BYTES // (self._piece_steps * step_bytes)
        # What is in memory already is not worth more.
        self._most_pieces = max(2, min(fitting, AHEAD_PIECES)) if processes else 2
        self._pieces: deque[_Piece] = deque()
        self._next_step = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    def __call__(self, first_step: int, count: int) -> tuple[tuple[np.ndarray, ...], float]:
        """Return the element of up to `count` steps, within one epoch, and the seconds waited for it.

        The element is indices `(n, B)` int32 and, unless the device holds the frames, images `(n, B, H, W, C)` uint8,
        points `(n, B, K, 2)` and weights `(n, B, K)` float32; n is at least 1.
        """
        started = time.monotonic()
        if self.held is not None:
            return (self._indices(first_step, count),), time.monotonic() - started
        element = self._take(first_step, count)
        waited = time.monotonic() - started
        self._read_ahead()
        return element, waited

    def _take(self, first_step: int, count: int) -> tuple[np.ndarray, ...]:
        pieces = self._pieces
        while pieces and pieces[0].end <= first_step:
            pieces.popleft()
        if not pieces or first_step < pieces[0].first:
            # The start, while the readers are starting too, or a jump.
            pieces.clear()
            count = min(count, self._piece_steps)
            self._next_step = first_step + count
            return self._read(self._indices(first_step, count), None)
        piece = pieces[0]
        arrays = piece.arrays.result()
        if first_step + count >= piece.end:
            pieces.popleft()
        start = first_step - piece.first
        return tuple(array[start : start + count] for array in arrays)

    def _read_ahead(self) -> None:
        while len(self._pieces) < self._most_pieces:
            first = self._next_step
            steps = min(self._piece_steps, self._steps_per_epoch - first % self._steps_per_epoch)
            indices = self._indices(first, steps)
            request = None
            if self._readers is not None:
                request = self._store.request(self._readers, indices.ravel())
                if request is None:
                    return
            self._pieces.append(_Piece(first, first + steps, self._thread.submit(self._read, indices, request)))
            self._next_step = first + steps

    def _read(self, indices: np.ndarray, request: Request | None) -> tuple[np.ndarray, ...]:
        flat = indices.ravel()
        if request is None or self._readers is None:
            images = self._store(flat)
        else:
            images = self._store.take(self._readers, request)
        return indices, *(array.reshape(*indices.shape, *array.shape[1:]) for array in (images, *self._labels(flat)))

    def _indices(self, first_step: int, count: int) -> np.ndarray:
        epoch, position = divmod(first_step, self._steps_per_epoch)
        return self._order(epoch)[position : position + count]

    def _order_of_epoch(self, epoch: int) -> np.ndarray:
        samples = self._steps_per_epoch * self._batch_size
        return epoch_order(self._seed, epoch, len(self._store), samples).reshape(-1, self._batch_size)

    def close(self) -> None:
        """Stop reading ahead."""
        for piece in self._pieces:
            piece.arrays.cancel()
        self._thread.shutdown(cancel_futures=True)
        if self._readers is not None:
            self._readers.close()


class Recipe(NamedTuple):
    """How frames become batches. multiple: padded sides. stride: of the maps. targets: (points, H, W) -> maps."""

    augmentation: "AugmentationConfig"
    symmetries: tuple[tuple[int, int], ...]
    multiple: int
    targets: Callable[[tf.Tensor, int, int], tf.Tensor]
    seed: int
    batch_size: int


def batch_maker(recipe: Recipe, held: Held | None) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """Return the function that makes one part of a step's batch on the device.

    held: None where images and labels come with the element. Points are in px of the network's input, NaN where
    missing. The function takes (element, step, part, parts), an element being a step's part of what `Feed` gives, and
    gives images `(b, H, W, C)` float32 0..255, maps and weights `(b, K)`; b is the batch size divided by the number of
    parts.
    """

    def make(
        element: tuple[tf.Tensor, ...], step: tf.Tensor, part: tf.Tensor, parts: int
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        size = recipe.batch_size // parts
        start = part * size
        indices, *given = (values[start : start + size] for values in element)
        frames, points, weights = given if held is None else (tf.gather(values, indices) for values in held)
        # Drawn for the whole batch and then cut, so that a sample's draw does not depend on the number of parts.
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
