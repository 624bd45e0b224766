"""Processes that read images ahead of training, each with file handles of its own.

They import no TensorFlow. h5py reads in one thread at a time, so only processes unpack images while
others do. What they read comes through memory that they share with the parent: a message of
megabytes through a pipe would hang the parent for good if its writer were killed in the middle of
it.
"""

import mmap
import os
import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process, reduction
from typing import Any, NamedTuple

import numpy as np

from hgtrain.data.dataset import ImageSource, read_in_order
from hgtrain.errors import RunError

MAX_READERS = 4
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


def reader_count() -> int:
    """Return how many processes should read here: one core is left to training."""
    return max(1, min(MAX_READERS, len(os.sched_getaffinity(0)) - 1))


class Request(NamedTuple):
    """Images that are being read.

    Attributes:
        done: Is set when they are read.
        slot: Where in the shared memory they will lie.
        frames: How many.
    """

    done: Future[None]
    slot: int
    frames: int


class ReaderPool:
    """Reads images by row in processes, several requests at a time.

    Signals that stop the parent are ignored by the readers, and they end when the parent does, by
    whatever cause.
    """

    def __init__(self, images: ImageSource, processes: int, most_rows: int) -> None:
        """Start the processes.

        Args:
            images: What to read.
            processes: How many to start.
            most_rows: The most rows of one request.

        Raises:
            RunError: There can be none.
        """
        self._shape = images.shape
        slots = 2 * processes + 1
        self._free = deque(range(slots))
        # Pickled here, and opened where an error can be handed back.
        pickled = pickle.dumps(images)
        try:
            self._shared = _Shared(slots, most_rows * int(np.prod(images.shape)))
            self._pool = ProcessPoolExecutor(
                processes, get_context("spawn"), _begin, (pickled, self._shared)
            )
            with _signals_held_back():
                for _ in range(processes):
                    self._pool.submit(_open)
        except OSError as error:
            raise RunError(
                f"processes that read frames cannot be started ({error}), which data.cache: none "
                "needs: lift the "
                "limit, or set data.cache: ram"
            ) from error

    def request(self, rows: np.ndarray) -> Request | None:
        """Begin to read images; None as long as too many requests have not been taken yet."""
        if not self._free:
            return None
        slot = self._free.popleft()
        with _named_death(), _signals_held_back():
            return Request(self._pool.submit(_read, rows, slot), slot, len(rows))

    def take(self, request: Request) -> np.ndarray:
        """Return the images `(n, H, W, C)` uint8 of a request, once.

        Raises:
            DatasetError: They cannot be read.
            RunError: A reader was killed.
        """
        with _named_death():
            request.done.result()
        images = self._shared.view(request.slot, (request.frames, *self._shape)).copy()
        self._free.append(request.slot)
        return images

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(cancel_futures=True)
        self._shared.close()


@contextmanager
def _named_death() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool as error:
        raise RunError(
            "a process that reads frames for training has ended, killed from outside or for lack "
            "of memory; the last "
            "checkpoint is as it was: go on with --resume, with more memory if that was it"
        ) from error


@contextmanager
def _signals_held_back() -> Iterator[None]:
    """Have processes that are started within the block begin with these signals held back.

    This holds from before any of their code.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Shared:
    """Memory in slots of one size.

    It goes with the last process that has it, so that nothing is left behind.
    """

    def __init__(self, slots: int, slot_bytes: int, descriptor: int | None = None) -> None:
        self._slots, self._slot_bytes = slots, slot_bytes
        self._descriptor = os.memfd_create("frames") if descriptor is None else descriptor
        if descriptor is None:
            os.ftruncate(self._descriptor, slots * slot_bytes)
        self._memory = mmap.mmap(self._descriptor, slots * slot_bytes)

    def __reduce__(self) -> tuple:
        return _attached, (self._slots, self._slot_bytes, reduction.DupFd(self._descriptor))

    def view(self, slot: int, shape: tuple[int, ...]) -> np.ndarray:
        """Return the beginning of a slot as an array of uint8."""
        count = int(np.prod(shape))
        return np.frombuffer(self._memory, np.uint8, count, slot * self._slot_bytes).reshape(shape)

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
        os.close(self._descriptor)


# What follows runs in the readers.

_pickled = b""
_images: ImageSource | None = None
_shared: _Shared | None = None


def _attached(slots: int, slot_bytes: int, descriptor: Any) -> _Shared:
    return _Shared(slots, slot_bytes, descriptor.detach())


def _begin(pickled: bytes, shared: _Shared) -> None:
    global _pickled, _shared
    _pickled, _shared = pickled, shared
    for signum in STOP_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    # A parent that is killed closes nothing that the pool's queues would notice.
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
    os._exit(1)


def _open() -> ImageSource:
    global _images
    if _images is None:
        _images = pickle.loads(_pickled)
    return _images


def _read(rows: np.ndarray, slot: int) -> None:
    images = _open()
    if _shared is not None:
        _shared.view(slot, (len(rows), *images.shape))[:] = read_in_order(images, rows)
