"""The config of a training run: every key, its default, its limits, and what must fit together."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PrivateAttr

from hgtrain.config import fields
from hgtrain.config.backbone import BackboneConfig
from hgtrain.config.head import HeadConfig
from hgtrain.config.section import Section
from hgtrain.config.yaml import KeyPath

Where = Callable[[str], str]
"""Gives where a dotted key was given, as `Config.where` does."""


class DataConfig(Section):
    """Which frames are trained and validated on, and how they reach the network."""

    train: fields.Files = Field(
        description="A file, a list of files, builtin:flies or builtin:fly-groups"
    )
    validation: fields.FractionOrFiles = Field(
        default=0.1, description="Fraction of the frames, or files of their own"
    )
    group_by: Literal["group", "video"] | None = Field(
        default=None,
        description="Keep frames of one group (e.g. one video) on one side of the split",
    )
    split_seed: fields.Seed = Field(
        default=0, description="Seed of the split into training and validation frames"
    )
    annotated_only: bool = Field(
        default=True, description="Leave out keypoints that the file marks as not annotated"
    )
    complete: bool = Field(
        default=True,
        description="Every animal in a labelled frame is labelled; false: background is taught "
        "near labelled animals only",
    )
    input_scale: Annotated[float, Field(ge=0.01, le=4)] = Field(
        default=1.0, description="Images are resized by this factor before the network"
    )
    channels: Annotated[Literal[1, 3] | None, fields.one_of(1, 3, None)] = Field(
        default=None, description="Channels the network sees; null: as the file"
    )
    image_shape: fields.Shape = Field(
        default=None,
        description="[height, width, channels] of the images, to summarize without files; null: "
        "as the file",
    )
    keypoints: fields.Size | None = Field(
        default=None,
        description="Number of keypoints, to summarize without files; null: as the file",
    )
    cache: Literal["auto", "device", "ram", "none"] = Field(
        default="auto",
        description="Where decoded images are kept; none: read ahead by processes; auto: the "
        "first that fits",
    )

    @property
    def train_files(self) -> tuple[str, ...]:
        """Return the training files, one or more."""
        return (self.train,) if isinstance(self.train, str) else self.train

    @property
    def validation_files(self) -> tuple[str, ...] | None:
        """Return the validation files.

        None where validation takes a fraction of the training files.
        """
        if isinstance(self.validation, float):
            return None
        return (self.validation,) if isinstance(self.validation, str) else self.validation

    @property
    def validation_fraction(self) -> float | None:
        """Return the fraction of the frames to validate on, in (0, 1).

        None where validation has its own files.
        """
        return self.validation if isinstance(self.validation, float) else None


class AugmentationConfig(Section):
    """Random changes of each training image.

    A range is low and high, null where the operation is off.
    """

    rotation_deg: fields.Range = Field(
        default=(-180.0, 180.0), description="Range of the rotation, degrees"
    )
    scale: fields.PositiveRange = Field(
        default=(0.9, 1.1), description="Range of the factor of size"
    )
    translation_px: fields.Range = Field(
        default=(-10.0, 10.0), description="Range of the shift along x and y, pixels"
    )
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none", description="Axes to flip along; left/right keypoints swap with the image"
    )
    brightness: fields.Range = Field(
        default=(-0.1, 0.1), description="Range of what is added, images in 0..1"
    )
    contrast: fields.RangeFromZero = Field(
        default=(0.8, 1.2), description="Range of the factor about the image mean"
    )
    gamma: fields.PositiveRange = Field(
        default=None, description="Range of the exponent, images in 0..1"
    )
    noise_std: fields.NoiseOrZero = Field(
        default=0.0, description="Standard deviation of noise per pixel, images in 0..1"
    )
    blur_sigma_px: fields.RangeFromZero = Field(
        default=None, description="Range of the Gaussian blur's sigma, pixels"
    )
    fill: Literal["constant", "reflect"] = Field(
        default="constant", description="What enters from outside: constant (0) or reflect"
    )


class ModelConfig(Section):
    """Backbone and head."""

    backbone: BackboneConfig = Field(
        default_factory=BackboneConfig, description="The stacked hourglass"
    )
    head: HeadConfig = Field(default_factory=HeadConfig, description="What the network predicts")


class TrainingConfig(Section):
    """How, how long and where the network is trained."""

    batch_size: fields.Size = Field(
        default=8, description="Images that pass at once, over all devices"
    )
    accumulate_steps: fields.Size = Field(
        default=1,
        description="Batches whose gradients make one update, as one batch this many times as "
        "large",
    )
    recompute: bool = Field(
        default=False,
        description="Compute activations again for the backward pass: less memory, a third more "
        "time",
    )
    epochs: fields.Count = Field(default=100, description="Epochs to train")
    max_minutes: fields.Minutes | None = Field(
        default=None,
        description="Minutes that training and evaluation may take: fewer steps are done where not "
        "all fit; null: any",
    )
    steps_per_epoch: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None,
        description="Steps in an epoch; null: one pass over the training frames, at least 200",
    )
    optimizer: Literal["adam", "sgd"] = Field(
        default="adam", description="adam, or sgd with Nesterov momentum 0.9"
    )
    learning_rate: fields.Rate = Field(default=1e-3, description="Learning rate after the warm-up")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        default="cosine", description="Learning rate over the steps"
    )
    warmup_steps: fields.CountOrZero | None = Field(
        default=None, description="Steps of linear warm-up; null: 5% of all steps, at most 200"
    )
    min_learning_rate: fields.RateOrZero = Field(
        default=1e-6, description="Where cosine ends and plateau stops; at most learning_rate"
    )
    plateau_factor: fields.Fraction = Field(
        default=0.5, description="Factor of the learning rate on a plateau"
    )
    plateau_patience_epochs: fields.Count = Field(
        default=5, description="Epochs without improvement that make a plateau"
    )
    weight_decay: fields.RateOrZero = Field(
        default=0.0, description="Weight decay of the optimizer"
    )
    early_stopping_epochs: fields.Count | None = Field(
        default=None,
        description="Epochs without improvement after which training stops; null: never",
    )
    hard_keypoint_mining: bool = Field(
        default=False, description="Weigh the keypoints with the largest loss more"
    )
    ema: fields.Fraction | None = Field(
        default=None, description="Decay of the weights' moving average; null: none"
    )
    initial_weights: fields.Folder | None = Field(
        default=None,
        description="Run directory or .keras file to start from, layer by layer; null: at random",
    )
    gradient_clip_norm: fields.Positive | None = Field(
        default=None, description="Largest global gradient norm; null: any"
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32", description="Precision of the network's arithmetic"
    )
    xla: Literal["on", "off", "auto"] = Field(
        default="auto", description="Compile the step with XLA"
    )
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="Device; gpu is an error where there is none"
    )
    strategy: Literal["auto", "single", "mirrored", "multi_worker"] = Field(
        default="auto",
        description="One device, all of this machine, or all of the machines that TF_CONFIG or "
        "Slurm names",
    )
    synchronize_batch_norm: bool = Field(
        default=False,
        description="Batch normalisation over the batch of all devices, not of each its own part",
    )
    seed: fields.Seed = Field(default=0, description="Seed of weights, order and augmentation")
    deterministic: bool = Field(
        default=False, description="Use deterministic operations only, which are slower"
    )
    on_nonfinite: Literal["stop", "skip"] = Field(
        default="stop",
        description="When a step's loss is not finite: stop, or leave that step out, ten times at "
        "most",
    )

    @property
    def images_per_step(self) -> int:
        """Return the images that one update is made of."""
        return self.batch_size * self.accumulate_steps


class CheckpointConfig(Section):
    """When the state that `--resume` needs is written."""

    every_steps: fields.Count | None = Field(
        default=None, description="Steps between checkpoints; null: once an epoch"
    )
    keep: fields.Count = Field(default=2, description="Newest checkpoints that are kept")


class OutputConfig(Section):
    """Where results go."""

    run_dir: fields.Folder | None = Field(
        default=None, description="Run directory; null: runs/<config name>-<time>"
    )
    tensorboard: bool = Field(default=True, description="Write TensorBoard logs")


class Config(Section):
    """A validated, frozen config.

    It equals another with the same values, wherever either was read from.
    """

    data: DataConfig = Field(description="Which frames are trained and validated on")
    augmentation: AugmentationConfig = Field(
        default_factory=AugmentationConfig, description="Random changes of each training image"
    )
    model: ModelConfig = Field(default_factory=ModelConfig, description="Backbone and head")
    training: TrainingConfig = Field(
        default_factory=TrainingConfig, description="How, how long and where to train"
    )
    checkpoint: CheckpointConfig = Field(
        default_factory=CheckpointConfig, description="When the state for --resume is written"
    )
    output: OutputConfig = Field(default_factory=OutputConfig, description="Where results go")

    _path: str = PrivateAttr("config")
    _places: dict[KeyPath, str] = PrivateAttr(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Config) and self.model_dump() == other.model_dump()

    @property
    def name(self) -> str:
        """Return the file's name without folder and suffix."""
        return Path(self._path).stem

    def where(self, key: str) -> str:
        """Return where a dotted key was given: `a.yaml:14` or `--set KEY=VALUE`.

        A key that has its default gives the file alone.
        """
        return self._places.get(tuple(key.split(".")), self._path)
