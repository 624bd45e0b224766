"""What a network is built for, from a config, its datasets or a run.

That is image size, keypoints and the size of the animals. It takes no TensorFlow, so that a mistake
is answered at once.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hgtrain.config.load import load_config
from hgtrain.config.schema import DataConfig, ModelConfig, TrainingConfig, Where
from hgtrain.data.builtin_datasets import BUILTIN
from hgtrain.data.dataset import PoseDataset, skeleton_of
from hgtrain.data.open_split import open_training_data
from hgtrain.errors import ConfigError, DatasetError, RunError
from hgtrain.rundir import layout
from hgtrain.rundir.records import read_described_data
from hgtrain.skeleton import Skeleton, unnamed_skeleton

LARGE_ANIMAL_PERCENTILE = 95


class InputSpec(NamedTuple):
    """What a network is built for, and by which sections of a config.

    Attributes:
        data: How images reach the network.
        model: The network.
        training: How it is trained.
        image_shape: `(H, W, C)` of the dataset's images.
        skeleton: Of the dataset.
        animal_px: Longer side of the labelled keypoints' bounding box in pixels of the dataset's
            images, the 95th percentile over the frames; None without the dataset.
    """

    data: DataConfig
    model: ModelConfig
    training: TrainingConfig
    image_shape: tuple[int, int, int]
    skeleton: Skeleton
    animal_px: float | None = None

    @property
    def keypoints(self) -> int:
        """Return how many keypoints an animal has."""
        return len(self.skeleton.keypoint_names)


def describe(path: Path, overrides: Sequence[str] = ()) -> InputSpec:
    """Return what a config file, or a run directory, is for.

    It is taken from the run, from the training files where they are there, else from
    `data.image_shape` and `data.keypoints`.

    Args:
        path: The config file or run directory.
        overrides: Of the config's keys.

    Raises:
        HgtrainError: Nothing says it.
    """
    if path.is_dir():
        if not (path / layout.CONFIG).is_file():
            raise RunError(f"{path} is no run directory: it has no {layout.CONFIG}")
        config = load_config(path / layout.CONFIG, overrides)
        data, sections = config.data, (config.data, config.model, config.training)
        skeleton, image_shape = read_described_data(path)
        animal = _animal_in_files(data) if _has_files(data) else None
        return InputSpec(*sections, image_shape, skeleton, animal)
    config = load_config(path, overrides)
    data, sections = config.data, (config.data, config.model, config.training)
    if _has_files(data):
        with open_training_data(data.train_files, data.annotated_only) as dataset:
            check_as_described(data, dataset, config.where)
            skeleton = skeleton_of(dataset)
            return InputSpec(*sections, dataset.image_shape, skeleton, animal_px(dataset))
    if data.image_shape is None or data.keypoints is None:
        missing = next(file for file in data.train_files if not _is_there(file))
        raise ConfigError(
            f"{config.where('data.train')}: data.train: there is no file {missing}; without it "
            "data.image_shape "
            "([height, width, channels]) and data.keypoints must be set"
        )
    return InputSpec(*sections, data.image_shape, unnamed_skeleton(data.keypoints))


def check_as_described(data: DataConfig, dataset: PoseDataset, where: Where) -> None:
    """Raise DatasetError unless the dataset is as the config describes it.

    That is what `data.image_shape` and `data.keypoints` say, where they are set.
    """
    found = {
        "data.image_shape": tuple(dataset.image_shape),
        "data.keypoints": len(dataset.keypoint_names),
    }
    for key, said in (
        ("data.image_shape", data.image_shape),
        ("data.keypoints", data.keypoints),
    ):
        if said is not None and said != found[key]:
            raise DatasetError(
                f"{where(key)}: {key} is {said}, but {dataset.path} has {found[key]}: set "
                "it to null"
            )


def animal_px(dataset: PoseDataset) -> float | None:
    """Return the longer side of the animals' bounding boxes that 95 in 100 do not exceed.

    It is None without any animal.
    """
    points = dataset.points.reshape(-1, *dataset.points.shape[2:])
    located = np.where(
        (dataset.visibility.reshape(points.shape[:2]) > 0)[..., None], points, np.nan
    )
    several = located[np.isfinite(located).all(-1).sum(-1) > 1]
    if not len(several):
        return None
    sides = np.nanmax(several, axis=1) - np.nanmin(several, axis=1)
    return float(np.percentile(sides.max(-1), LARGE_ANIMAL_PERCENTILE))


def _animal_in_files(data: DataConfig) -> float | None:
    try:
        with open_training_data(data.train_files, data.annotated_only) as dataset:
            return animal_px(dataset)
    except DatasetError:
        # The run says all that is needed; a file that has changed since only takes the animals'
        # size away.
        return None


def _has_files(data: DataConfig) -> bool:
    return all(map(_is_there, data.train_files))


def _is_there(file: str) -> bool:
    return file.startswith(BUILTIN) or Path(file).exists()
