"""Feeds the compiled step: batches of uint8 images and points, ahead of their use."""

import time
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.pipeline.batch import DeviceCache
from hgtrain.pipeline.frame_store import FrameStore
from hgtrain.pipeline.order import epoch_order
from hgtrain.pipeline.reader_processes import Request
from hgtrain.pipeline.samples import Samples

PIECE_BYTES, PIECE_STEPS = 2**23, 256
"""What is read ahead in one piece: as many steps as there are in either, at least one."""

AHEAD_BYTES, AHEAD_PIECES = 2**28, 16
"""How far is read ahead, at most; at least two pieces."""


class _Piece(NamedTuple):
    """Steps that are being read ahead, `end` is not among them."""

    first: int
    end: int
    arrays: Future[tuple[np.ndarray, ...]]


class Feed:
    """Hands over the samples of training steps.

    These are indices where the device holds the frames, otherwise images and labels.

    While the device computes, the next steps are read ahead in pieces, across calls and epochs: by
    processes, or by a thread where `processes` is 0. What is in memory depends neither on the
    number of frames nor on that of steps.
    """

    def __init__(
        self,
        store: FrameStore,
        samples: Samples,
        schedule: tuple[int, int, int],
        on_device: bool,
        processes: int = 0,
    ) -> None:
        """Prepare to hand over samples.

        Args:
            store: Gives the images.
            samples: What steps are made of: their frames and labels.
            schedule: Seed, batch size and steps of an epoch.
            on_device: Whether the device holds the frames.
            processes: How many read ahead; 0 for a thread instead.
        """
        self._store = store
        self._samples = samples
        self._seed, self._batch_size, self._steps_per_epoch = schedule
        self.held: DeviceCache | None = None
        if on_device:
            points, weights, _ = samples.labels(np.arange(len(samples)))
            frame_of = None if samples.frame_of is None else tf.constant(samples.frame_of)
            frames = tf.constant(store.cache)
            self.held = DeviceCache(frames, tf.constant(points), tf.constant(weights), frame_of)
        step_bytes = max(1, self._batch_size * int(np.prod(store.shape)))
        self._piece_steps = max(1, min(PIECE_BYTES // step_bytes, PIECE_STEPS))
        self._readers = (
            store.readers(processes, self._piece_steps * self._batch_size) if processes else None
        )
        fitting = AHEAD_BYTES // (self._piece_steps * step_bytes)
        # What is in memory already is not worth more.
        self._most_pieces = max(2, min(fitting, AHEAD_PIECES)) if processes else 2
        self._pieces: deque[_Piece] = deque()
        self._next_step = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="reader")

    def __call__(self, first_step: int, count: int) -> tuple[tuple[np.ndarray, ...], float]:
        """Return the element of up to `count` steps, within one epoch.

        Returns:
            The element, and the seconds waited for it. The element is indices `(n, B)` int32 and,
            unless the device holds the frames, images `(n, B, H, W, C)` uint8, points
            `(n, B, I, K, 2)` and weights `(n, B, I, K)` float32; n is at least 1.
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
                rows = self._samples.rows(indices.ravel())
                request = self._store.request(self._readers, rows)
                if request is None:
                    return
            self._pieces.append(
                _Piece(first, first + steps, self._thread.submit(self._read, indices, request))
            )
            self._next_step = first + steps

    def _read(self, indices: np.ndarray, request: Request | None) -> tuple[np.ndarray, ...]:
        flat = indices.ravel()
        if request is None or self._readers is None:
            images = self._store(self._samples.rows(flat))
        else:
            images = self._store.take(self._readers, request)
        return indices, *(
            array.reshape(*indices.shape, *array.shape[1:])
            for array in (images, *self._samples.labels(flat)[:2])
        )

    def _indices(self, first_step: int, count: int) -> np.ndarray:
        epoch, position = divmod(first_step, self._steps_per_epoch)
        count = min(count, self._steps_per_epoch - position)
        first, taken = position * self._batch_size, count * self._batch_size
        order = epoch_order(self._seed, epoch, len(self._samples), taken, first)
        return order.reshape(-1, self._batch_size)

    def close(self) -> None:
        """Stop reading ahead."""
        for piece in self._pieces:
            piece.arrays.cancel()
        self._thread.shutdown(cancel_futures=True)
        if self._readers is not None:
            self._readers.close()
