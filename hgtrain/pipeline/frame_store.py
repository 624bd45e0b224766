"""Keeps frames as uint8, resized once, or reads them when they are needed."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.coords import Crop
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.split import Split
from hgtrain.pipeline.preprocess import Preprocessing, resize, to_channels
from hgtrain.pipeline.reader_processes import ReaderPool, Request
from hgtrain.pipeline.samples import Samples

READ_AT_ONCE = 32


class FrameStore:
    """The frames of one side of a split as the network takes them.

    They are uint8, converted in channels, resized, not padded. Where `cached`, they are read and
    prepared once and kept in memory; otherwise on every access.
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
        """Return images `(n, H, W, C)` uint8 in the order asked for.

        Args:
            indices: Into the side's frames.
        """
        if self.cache is not None:
            return self.cache[indices]
        return self._prepare(self._dataset.read_images(self._frames[indices]))

    def readers(self, processes: int, most_frames: int) -> ReaderPool:
        """Return processes that read these frames.

        Args:
            processes: How many.
            most_frames: The most frames of one request.
        """
        return ReaderPool(self._dataset.images, processes, most_frames)

    def request(self, readers: ReaderPool, indices: np.ndarray) -> Request | None:
        """Have images read by index; None as long as the readers take no more."""
        return readers.request(self._frames[indices])

    def take(self, readers: ReaderPool, request: Request) -> np.ndarray:
        """Return what `request` asked for, as a call gives it."""
        return self._prepare(readers.take(request))

    def _prepare(self, images: np.ndarray) -> np.ndarray:
        if self._scale == 1 and images.shape[-1] == self._channels:
            return images
        with tf.device("CPU"):
            return resize(to_channels(tf.constant(images), self._channels), self._scale).numpy()


class StoredSplit(NamedTuple):
    """A split with its frames as the network takes them, for training.

    Attributes:
        split: Which frames are trained and which validated on.
        preprocessing: What was made of them.
        train: The frames to train on.
        validation: The frames to validate on.
        train_samples: What a training batch is made of.
        validation_samples: What is validated on.
        cache: Where frames are kept: device, ram, none.
        crop: What the network sees of a frame; None for all of it.
    """

    split: Split
    preprocessing: Preprocessing
    train: FrameStore
    validation: FrameStore
    train_samples: Samples
    validation_samples: Samples
    cache: str
    crop: Crop | None

    @property
    def size_bytes(self) -> int:
        """Return what the frames of both sides take."""
        return sum(
            len(store) * int(np.prod(store.shape)) for store in (self.train, self.validation)
        )


def store_split(
    split: Split,
    preprocessing: Preprocessing,
    cache: str,
    crop: Crop | None = None,
    progress: Callable[[range], Iterable[int]] = lambda starts: starts,
) -> StoredSplit:
    """Return a split whose frames are read, where they are kept, or read when needed.

    Args:
        split: Which frames.
        preprocessing: What is made of them.
        cache: Where they are kept: device, ram, none.
        crop: What the network sees of a frame; None for all of it.
        progress: Shows how far the reading is.
    """
    sides = split.train, split.validation
    train, validation = (
        FrameStore(
            side.dataset,
            side.frames,
            preprocessing.channels,
            preprocessing.input_scale,
            cache != "none",
            progress,
        )
        for side in sides
    )
    samples = [Samples(side, preprocessing.input_scale, crop is not None) for side in sides]
    return StoredSplit(split, preprocessing, train, validation, samples[0], samples[1], cache, crop)


def prefetched(store: FrameStore, batches: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """Give the images of each of the index arrays.

    The next images are read while the last are worked on.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader") as thread:
        pending: deque[Future[np.ndarray]] = deque()
        for batch in batches:
            pending.append(thread.submit(store, batch))
            if len(pending) > 1:
                yield pending.popleft().result()
        yield from (images.result() for images in pending)
