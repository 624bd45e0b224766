"""A dataset with two animals in a frame, small enough to count by hand."""

from pathlib import Path

import numpy as np

from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.skeleton import Skeleton

BODY = np.array([[0, 0], [20, 0], [-40, 0], [0, -10], [0, 10]], np.float32)
"""Of an animal that heads for +x: 60 px long, the tail 40 px from the body."""

NAMES = ("body", "nose", "tail", "ear_left", "ear_right")
EDGES = ((0, 1), (0, 2), (0, 3), (0, 4))
SKELETON = Skeleton(NAMES, EDGES, ((3, 4),))
FRAMES = 12


def crowd_frames() -> list[np.ndarray]:
    """Return the animals of each frame, `(I, K, 2)`.

    In ten frames there is one that heads for +x and, twice as large, one that heads for -x; then
    there is one frame with the first alone, and one with none.
    """
    small, large = BODY + 60, -2 * BODY + 140
    return [*[np.stack([small, large])] * 10, small[None], np.full((1, 5, 2), np.nan, np.float32)]


def write_crowd(path: Path, skeleton: Skeleton = SKELETON) -> Path:
    """Write frames of 200x200 px and return the file."""
    random = np.random.default_rng(0)
    frames = [
        (random.integers(0, 256, (200, 200, 1), np.uint8), animals, None, None)
        for animals in crowd_frames()
    ]
    write_dataset(path, skeleton, frames)
    return path
