"""A run of a few steps on a few small drawn frames, and how to look at what it left."""

import json
import zipfile
from io import BytesIO

import h5py
import numpy as np

from hgtrain.commands import fit as fit_module
from hgtrain.config.load import load_config
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.signals import StopRequest
from hgtrain.skeleton import Skeleton

CONFIG = """\
data: {train: flies.h5, validation: 0.25}
augmentation: {rotation_deg: [-20, 20], translation_px: [-2, 2]}
model:
  backbone:
    {stem_stride: 2, max_stride: 8, output_stride: 2, stem_filters: 4, filters: 4,
     filter_increase: 0, stacks: 2}
  head: {sigma_px: 3}
training: {batch_size: 4, epochs: 2, steps_per_epoch: 4, learning_rate: 2e-3, warmup_steps: 1,
  deterministic: true}
"""
SMALL = (
    "model.backbone.stacks=1",
    "model.backbone.max_stride=4",
    "output.tensorboard=false",
    "checkpoint.every_steps=3",
    "training.device=cpu",
)
"""Overrides that make it smaller still."""

TIMES = ("images_per_s", "data_wait_fraction", "elapsed_s", "checkpoint_s")
NAMES = ("nose", "ear_left", "ear_right")


def make_frames(count=12, size=32):
    """Yield grey images with a bright spot of its own size and height on each keypoint."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size]
    for _ in range(count):
        points = random.uniform(6, size - 6, (len(NAMES), 2)).astype(np.float32)
        squared = (columns - points[:, 0, None, None]) ** 2 + (rows - points[:, 1, None, None]) ** 2
        spots = np.array([240, 160, 80])[:, None, None] * np.exp(
            -squared / np.array([4, 8, 16])[:, None, None]
        )
        yield spots.max(0).astype(np.uint8)[..., None], points, None, None


def write_data(folder):
    """Write flies.h5 with 12 frames and tiny.yaml, and return the path of the latter."""
    write_dataset(folder / "flies.h5", Skeleton(NAMES, ((0, 1), (0, 2)), ((1, 2),)), make_frames())
    (folder / "tiny.yaml").write_text(CONFIG)
    return folder / "tiny.yaml"


def fit(config_file, folder, *overrides, resume=False):
    return fit_module.fit(load_config(config_file, overrides), folder, resume, StopRequest())


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def without_times(rows):
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def weights_of(path):
    """Return every array in a .keras file by its path, as bytes."""
    arrays = {}
    with (
        zipfile.ZipFile(path) as archive,
        h5py.File(BytesIO(archive.read("model.weights.h5"))) as file,
    ):
        file.visititems(
            lambda name, item: arrays.update(
                {name: item[()].tobytes()} if hasattr(item, "dtype") else {}
            )
        )
    return arrays


def json_of(folder, name):
    return json.loads((folder / name).read_text())


class StopAt(StopRequest):
    """Asks for a stop once so many steps are done."""

    def __init__(self, step):
        super().__init__()
        self.left = step

    def __bool__(self):
        self.left -= 1
        if self.left <= 0:
            self.signum = 15
        return self.left <= 0

    def _leave_if_asked(self):
        pass
