"""The order of the frames of an epoch."""

from functools import lru_cache

import numpy as np


def epoch_order(seed: int, epoch: int, frames: int, samples: int, first: int = 0) -> np.ndarray:
    """Return which frame each sample of an epoch is, `(samples,)` int32.

    Shuffled passes over `frames`, end to end.

    first: the sample to begin with; what is before it takes neither time nor memory.
    """
    passes = range(first // frames, -(-(first + samples) // frames))
    order = np.concatenate([_shuffled(seed, epoch, i, frames) for i in passes])
    start = first % frames
    return order[start : start + samples]


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, number: int, frames: int) -> np.ndarray:
    """Return one pass of an epoch; its last is begun where the first of the next is read ahead."""
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, number])))
    return random.permutation(frames).astype(np.int32)
