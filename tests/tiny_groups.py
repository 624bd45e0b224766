"""Runs of a few steps for each head that knows several animals, on small frames of two."""

import numpy as np
from tiny_run import NAMES

from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.skeleton import Skeleton

SKELETON = Skeleton(NAMES, ((0, 1), (0, 2)), ((1, 2),))
SIZE = 48
CONFIG = """\
data: {train: groups.h5, validation: 0.25}
augmentation: {rotation_deg: [-20, 20], translation_px: [-2, 2], flip: horizontal}
model:
  backbone:
    {stem_stride: 2, max_stride: 8, output_stride: 2, stem_filters: 4, filters: 4,
     filter_increase: 0, stacks: 2}
  head: {sigma_px: 3}
training: {batch_size: 4, epochs: 2, steps_per_epoch: 4, learning_rate: 2e-3, warmup_steps: 1,
  deterministic: true}
"""
HEADS = {
    "multi_instance": ("model.head.type=multi_instance", "model.head.paf_width_px=3"),
    "centroid": ("model.head.type=centroid",),
    "centered_instance": ("model.head.type=centered_instance",),
}
"""By its type: the overrides of a config, what it takes from the labels left to them."""


def make_frames(count=12):
    """Yield grey images of two animals, each three bright spots at the corners of a triangle.

    In the first frame there is one; in the second one lacks an ear.
    """
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    triangle = np.array([[0, -7], [-5, 5], [5, 5]])
    for frame in range(count):
        middles = random.uniform(10, 14, (2, 1, 2)) + np.array([[[0, 0]], [[22, 20]]])
        points = (middles + triangle + random.uniform(-2, 2, (2, 3, 2))).astype(np.float32)
        points = points[: 1 if frame == 0 else 2]
        at = points.reshape(-1, 1, 1, 2)
        squared = (columns - at[..., 0]) ** 2 + (rows - at[..., 1]) ** 2
        heights = np.resize([240, 160, 80], len(at))[:, None, None]
        # With noise: of cells that are alike rounding decides which is the highest.
        noise = random.uniform(0, 60, (SIZE, SIZE))
        image = np.maximum((heights * np.exp(-squared / 8)).max(0), noise).astype(np.uint8)[
            ..., None
        ]
        if frame == 1:
            points[0, 1] = np.nan
        yield image, points, None, None


def write_groups(folder):
    """Write groups.h5 with 12 frames and groups.yaml, and return the path of the latter."""
    write_dataset(folder / "groups.h5", SKELETON, make_frames())
    (folder / "groups.yaml").write_text(CONFIG)
    return folder / "groups.yaml"
