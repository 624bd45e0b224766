"""Packs images for HDF5 on several cores: the library itself packs on one."""

import os
import zlib
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import h5py
import numpy as np

GZIP_LEVEL = 1
"""HDF5's own choice, 4, takes twice as long and makes real images smaller by 6% at most."""

IMAGES_A_TRIAL = 64
MAX_THREADS = 8
NOT_PACKED = 1
"""HDF5's mask of a chunk that left out the first filter."""


class ImageChunks:
    """Writes images, each a chunk of a dataset with the gzip filter, in the order they come in.

    Any HDF5 library reads them. No more than two a thread are in memory.

    Args:
        dataset: `(N, H, W, C)` uint8 in chunks `(1, H, W, C)`, with gzip as its only filter.
    """

    def __init__(self, dataset: h5py.Dataset) -> None:
        self._dataset = dataset
        threads = min(MAX_THREADS, len(os.sched_getaffinity(0)))
        self._pool, self._waiting = ThreadPoolExecutor(threads), deque[tuple[int, Future]]()
        self._most_waiting = 2 * threads
        self._strategy = zlib.Z_DEFAULT_STRATEGY

    def __enter__(self) -> "ImageChunks":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def write(self, row: int, image: np.ndarray) -> None:
        """Write an image `(H, W, C)` uint8, which may be changed afterwards, to a row in range."""
        raw = image.tobytes()
        if row % IMAGES_A_TRIAL == 0:
            self._strategy = _fastest_strategy(raw)
        if len(self._waiting) == self._most_waiting:
            self._write_first()
        self._waiting.append((row, self._pool.submit(_chunk, raw, self._strategy)))

    def finish(self) -> None:
        """Write what is still being packed."""
        while self._waiting:
            self._write_first()

    def _write_first(self) -> None:
        row, packed = self._waiting.popleft()
        mask, chunk = packed.result()
        self._dataset.id.write_direct_chunk((row, 0, 0, 0), chunk, mask)


def _fastest_strategy(raw: bytes) -> int:
    """Return the fastest way of zlib that packs an image as well as a search for any match.

    Noise leaves nothing to find: without a search it takes half as long.
    """
    enough = len(_packed(raw, zlib.Z_DEFAULT_STRATEGY))
    faster = (zlib.Z_HUFFMAN_ONLY, zlib.Z_RLE)
    return next(
        (way for way in faster if len(_packed(raw, way)) <= enough), zlib.Z_DEFAULT_STRATEGY
    )


def _chunk(raw: bytes, strategy: int) -> tuple[int, bytes]:
    """Return the filter mask of a chunk, and its bytes; not packed where that makes it larger."""
    packed = _packed(raw, strategy)
    return (0, packed) if len(packed) < len(raw) else (NOT_PACKED, raw)


def _packed(raw: bytes, strategy: int) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, strategy=strategy)
    return packer.compress(raw) + packer.flush()
