"""What a network is built for, from a config, its datasets or a run.

That is image size, keypoints and the size of the animals. It takes no TensorFlow, so that a mistake
is answered at once.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hgtrain.config.load import load_config
from hgtrain.config.schema import DataConfig, ModelConfig, TrainingConfig, Where
from hgtrain.data.animals import animal_px
from hgtrain.data.builtin_datasets import BUILTIN
from hgtrain.data.dataset import PoseDataset, skeleton_of
from hgtrain.data.open_split import open_training_data
from hgtrain.data.selection import select_frames
from hgtrain.data.split import Subset, make_split
from hgtrain.errors import ConfigError, DatasetError, RunError
from hgtrain.planning.head_from_labels import (
    check_anchor,
    check_crop,
    check_edges,
    head_from_labels,
    lacks_edges,
)
from hgtrain.rundir import layout
from hgtrain.rundir.records import read_described_data
from hgtrain.skeleton import Skeleton, unnamed_skeleton


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
        return _of_run(path, overrides)
    config = load_config(path, overrides)
    data, model, training = config.data, config.model, config.training
    if _has_files(data):
        with open_training_data(data.train_files, data.annotated_only) as dataset:
            check_as_described(data, dataset, config.where)
            model = _with_head(model, data, dataset, config.where)
            skeleton = skeleton_of(dataset)
            return InputSpec(
                data, model, training, dataset.image_shape, skeleton, animal_px(dataset)
            )
    if data.image_shape is None or data.keypoints is None:
        raise ConfigError(
            f"{config.where('data.train')}: data.train: there is no file {_missing(data)}; without "
            "it data.image_shape ([height, width, channels]) and data.keypoints must be set"
        )
    skeleton = unnamed_skeleton(data.keypoints)
    if lacks_edges(model.head, skeleton):
        key = "model.head.type"
        raise ConfigError(
            f"{config.where(key)}: {key}: {model.head.type} has an output for each of the "
            f"skeleton's edges, which only the dataset says, and there is no file {_missing(data)}"
        )
    model = _without_labels(model, skeleton, _missing(data), config.where)
    return InputSpec(data, model, training, data.image_shape, skeleton)


def _of_run(folder: Path, overrides: Sequence[str]) -> InputSpec:
    if not (folder / layout.CONFIG).is_file():
        raise RunError(f"{folder} is no run directory: it has no {layout.CONFIG}")
    config = load_config(folder / layout.CONFIG, overrides)
    data, model, training = config.data, config.model, config.training
    skeleton, image_shape = read_described_data(folder)
    head, animal = model.head, None
    if head.several_animals:
        check_edges(head, skeleton, str(folder), config.where)
        check_anchor(head, skeleton, str(folder), config.where)
    if _has_files(data):
        # The run says all that is needed; a file that has changed since only takes the animals'
        # size away.
        with (
            suppress(DatasetError),
            open_training_data(data.train_files, data.annotated_only) as dataset,
        ):
            animal = animal_px(dataset)
            if head.sees_crops and head.crop_size_px is None:
                model = _with_head(model, data, dataset, config.where)
    model = _without_labels(model, skeleton, ", ".join(data.train_files), config.where)
    return InputSpec(data, model, training, image_shape, skeleton, animal)


def _with_head(
    model: ModelConfig, data: DataConfig, dataset: PoseDataset, where: Where
) -> ModelConfig:
    """Return the model with what is null in its head taken from the labels, as `fit` does."""
    if not model.head.several_animals:
        return model
    fraction = data.validation_fraction
    if fraction is None:
        side = Subset(dataset, select_frames(dataset, model.head).frames)
    else:
        side = make_split(dataset, None, fraction, data.group_by, data.split_seed, model.head).train
    head = head_from_labels(model.head, side, model.backbone, data.input_scale, where)
    return model.model_copy(update={"head": head})


def _without_labels(
    model: ModelConfig, skeleton: Skeleton, missing: str, where: Where
) -> ModelConfig:
    """Return the model with a head that can be built without the labels.

    Raises:
        ConfigError: The size of the crop is not set, or the network cannot take it.
    """
    head = model.head
    if head.sees_crops:
        key, multiple = "model.head.crop_size_px", model.backbone.max_stride
        if head.crop_size_px is None:
            raise ConfigError(
                f"{where(key)}: {key} must be set, to a multiple of model.backbone.max_stride "
                f"{multiple}: null takes it from the labels, and data.train cannot be read: "
                f"{missing}"
            )
        nothing = np.empty((0, 1, len(skeleton.keypoint_names), 2))
        check_crop(head.crop_size_px, nothing, None, multiple, where)
    if head.anchor in (None, *skeleton.keypoint_names):
        return model
    # Which keypoint it is changes nothing of the network.
    return model.model_copy(update={"head": head.model_copy(update={"anchor": None})})


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


def _has_files(data: DataConfig) -> bool:
    return all(map(_is_there, data.train_files))


def _missing(data: DataConfig) -> str:
    return next(file for file in data.train_files if not _is_there(file))


def _is_there(file: str) -> bool:
    return file.startswith(BUILTIN) or Path(file).exists()
