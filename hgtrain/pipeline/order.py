"""The order of the frames of an epoch."""

import numpy as np


def epoch_order(seed: int, epoch: int, frames: int, samples: int) -> np.ndarray:
    """Return which frame each sample of an epoch is, `(samples,)` int32.

    Shuffled passes over `frames`, end to end.
    """
    passes = -(-samples // frames)
    random = (
        np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, i])))
        for i in range(passes)
    )
    order = np.concatenate([generator.permutation(frames) for generator in random])
    return order[:samples].astype(np.int32)
