"""The order of the samples of an epoch."""

from functools import lru_cache

import numpy as np


def epoch_order(seed: int, epoch: int, samples: int, count: int, first: int = 0) -> np.ndarray:
    """Return which samples an epoch takes, `(count,)` int32.

    An epoch is shuffled passes over all samples, end to end.

    Args:
        seed: Of the shuffling.
        epoch: Number of the epoch.
        samples: How many there are.
        count: How many to give, from `first` on.
        first: The place to begin with; what is before it takes neither time nor memory.
    """
    passes = range(first // samples, -(-(first + count) // samples))
    order = np.concatenate([_shuffled(seed, epoch, i, samples) for i in passes])
    start = first % samples
    return order[start : start + count]


@lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, number: int, samples: int) -> np.ndarray:
    """Return one pass of an epoch.

    The last pass is begun where the first of the next epoch is read ahead.
    """
    random = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, number])))
    return random.permutation(samples).astype(np.int32)
