"""The order of the frames of an epoch."""

from functools import lru_cache

import numpy as np


def epoch_order(seed: int, epoch: int, frames: int, samples: int, first: int = 0) -> np.ndarray:
    """Return which frame each sample of an epoch is, `(samples,)` int32.

    An epoch is shuffled passes over `frames`, end to end.

    Args:
        seed: Of the shuffling.
        epoch: Number of the epoch.
        frames: How many there are.
        samples: How many samples to give, from `first` on.
        first: The sample to begin with; what is before it takes neither time nor memory.
    """
    passes = range(first // frames, -(-(first + samples) // frames))
    order = np.concatenate([_shuffled(seed, epoch, i, frames) for i in passes])
    start = first % frames
    return order[start : start + samples]


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, number: int, frames: int) -> np.ndarray:
    """Return one pass of an epoch.

    The last pass is begun where the first of the next epoch is read ahead.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, number])))
    return random.permutation(frames).astype(np.int32)
