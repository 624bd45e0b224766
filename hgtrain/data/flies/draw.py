"""`builtin:flies`: labelled pictures of a walking fly, seen from above, drawn from a seed."""

from collections.abc import Iterator

import numpy as np

from hgtrain.data.flies.anatomy import SKELETON, sample_fly
from hgtrain.data.flies.scene import ARENAS, FliesSettings, photograph
from hgtrain.skeleton import Skeleton

FLIES = FliesSettings(version=1, frames=500, seed=0, size=128)


def draw_flies(
    settings: FliesSettings,
) -> tuple[Skeleton, Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, str]]]:
    """Return the skeleton and, frame by frame, image, points, visibility and group.

    Returns:
        The skeleton, and an iterator that gives for each frame:
        image, `(size, size, 1)` uint8;
        points, `(1, K, 2)` float32, x then y in pixels, pixel centres at integers, NaN outside the
        image;
        visibility, `(1, K)` uint8: NOT_LABELLED outside, HIDDEN under something that takes more
        than half of the light, else VISIBLE;
        group, the arena: `arena0` and so on.
    """
    return SKELETON, (draw_fly(settings, index) for index in range(settings.frames))


def draw_fly(settings: FliesSettings, index: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Return frame `index`, as `draw_flies` yields it.

    It depends on nothing but seed, size and index.
    """
    size, number = settings.size, index % len(ARENAS)
    rng = np.random.default_rng((settings.seed, 1, index))
    middle = complex(*(size / 2 - 0.5 + rng.normal(0, 0.055, 2) * size))
    fly = sample_fly(rng, middle, rng.uniform(0.48, 0.58) * size)
    return *photograph(settings, number, rng, [fly]), f"arena{number}"
