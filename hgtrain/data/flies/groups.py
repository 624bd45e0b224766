"""`builtin:fly-groups`: labelled pictures of none to five flies that touch and cross."""

from collections.abc import Iterator

import numpy as np

from hgtrain.data.flies.anatomy import SKELETON, sample_fly
from hgtrain.data.flies.scene import ARENAS, FliesSettings, photograph
from hgtrain.skeleton import Skeleton

FLY_GROUPS = FliesSettings(version=1, frames=500, seed=0, size=224)

COUNT_SHARES = (0.08, 0.16, 0.22, 0.22, 0.18, 0.14)
"""Of frames with no fly, one, and so on."""

UNITS = (0.25, 0.29)
"""Of a fly, as shares of the image's size; a fly is about 1.1 units long and as wide."""

MARGIN, NEAREST, TOUCHING, BESIDE = 0.45, 0.65, 0.95, 0.3
"""In units of the largest fly: the least from a fly's middle to the border, the least between the
middles of two flies, and the most between those of two that were put side by side, of which the
last number is the share. A body is 0.3 units wide and 0.85 long."""


def draw_groups(
    settings: FliesSettings,
) -> tuple[Skeleton, Iterator[tuple[np.ndarray, np.ndarray, np.ndarray, str]]]:
    """Return the skeleton and, frame by frame, image, points, visibility and group.

    Returns:
        What `draw.draw_flies` does, but points `(I, K, 2)` and visibility `(I, K)` of none to five
        flies, the lowest first. A keypoint under another fly is HIDDEN like one under the fly's own
        parts, and stays where it is.
    """
    return SKELETON, (draw_group(settings, index) for index in range(settings.frames))


def draw_group(
    settings: FliesSettings, index: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, str]:
    """Return frame `index`, as `draw_groups` yields it.

    It depends on nothing but seed, size and index.
    """
    size, number = settings.size, index % len(ARENAS)
    # The 2 sets its random numbers apart from those of floors (0) and single flies (1).
    rng = np.random.default_rng((settings.seed, 2, index))
    count = int(rng.choice(len(COUNT_SHARES), p=COUNT_SHARES))
    flies = [
        sample_fly(rng, middle, rng.uniform(*UNITS) * size) for middle in _place(rng, count, size)
    ]
    return *photograph(settings, number, rng, flies), f"arena{number}"


def _place(rng: np.random.Generator, count: int, size: int) -> list[complex]:
    """Return where the flies' middles lie: some beside one that is there, the rest anywhere."""
    unit_px = UNITS[1] * size
    low, high = MARGIN * unit_px, size - 1 - MARGIN * unit_px
    middles: list[complex] = []
    # Five flies leave most of the image free, so a place is always found.
    while len(middles) < count:
        if middles and rng.random() < BESIDE:
            step = rng.uniform(NEAREST, TOUCHING) * unit_px
            turn = np.exp(1j * rng.uniform(0, 2 * np.pi)).item()
            middle = middles[rng.integers(len(middles))] + step * turn
        else:
            middle = complex(*rng.uniform(low, high, 2))
        is_inside = low <= middle.real <= high and low <= middle.imag <= high
        if is_inside and all(abs(middle - other) >= NEAREST * unit_px for other in middles):
            middles.append(middle)
    return middles
