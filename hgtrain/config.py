"""The config of a training run: every key, its default, its limits, and what must fit together."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from hgtrain import config_fields as kinds
from hgtrain.config_errors import describe
from hgtrain.config_rules import broken_rules
from hgtrain.config_source import ConfigSource, Problem
from hgtrain.errors import ConfigError
from hgtrain.yaml_source import KeyPath, Value, dotted, plain_scalar


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: object) -> object:
        return {} if value is None else value


class DataConfig(_Section):
    """Which frames are trained and validated on, and how they reach the network."""

    train: kinds.Files = Field(description="A file, a list of files, or builtin:flies")
    validation: kinds.FractionOrFiles = Field(default=0.1, description="Fraction of the frames, or files of their own")
    group_by: Literal["group", "video"] | None = Field(
        default=None, description="Keep frames of one group (e.g. one video) on one side of the split"
    )
    split_seed: kinds.Seed = Field(default=0, description="Seed of the split into training and validation frames")
    annotated_only: bool = Field(default=True, description="Leave out keypoints that the file marks as not annotated")
    input_scale: Annotated[float, Field(gt=0, le=4)] = Field(
        default=1.0, description="Images are resized by this factor before the network"
    )
    channels: Annotated[Literal[1, 3] | None, kinds.one_of(1, 3, None)] = Field(
        default=None, description="Channels the network sees; null: as the file"
    )
    image_shape: kinds.Shape = Field(
        default=None,
        description="[height, width, channels] of the images, to summarize without files; null: as the file",
    )
    keypoints: kinds.Count | None = Field(
        default=None, description="Number of keypoints, to summarize without files; null: as the file"
    )
    cache: Literal["auto", "device", "ram", "none"] = Field(
        default="auto",
        description="Where decoded images are kept; none: read ahead by processes; auto: the first that fits",
    )

    @property
    def train_files(self) -> tuple[str, ...]:
        """Return the training files, one or more."""
        return (self.train,) if isinstance(self.train, str) else self.train

    @property
    def validation_files(self) -> tuple[str, ...] | None:
        """Return the validation files; None where validation is a fraction of the training files."""
        if isinstance(self.validation, float):
            return None
        return (self.validation,) if isinstance(self.validation, str) else self.validation

    @property
    def validation_fraction(self) -> float | None:
        """Return the fraction of the frames to validate on, in (0, 1); None where validation has its own files."""
        return self.validation if isinstance(self.validation, float) else None


class AugmentationConfig(_Section):
    """Random changes of each training image; a range is low and high, null where the operation is off."""

    rotation_deg: kinds.Range = Field(default=(-180.0, 180.0), description="Range of the rotation, degrees")
    scale: kinds.PositiveRange = Field(default=(0.9, 1.1), description="Range of the factor of size")
    translation_px: kinds.Range = Field(default=(-10.0, 10.0), description="Range of the shift along x and y, pixels")
    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        default="none", description="Axes to flip along; left/right keypoints swap with the image"
    )
    brightness: kinds.Range = Field(default=(-0.1, 0.1), description="Range of what is added, images in 0..1")
    contrast: kinds.RangeFromZero = Field(default=(0.8, 1.2), description="Range of the factor about the image mean")
    gamma: kinds.PositiveRange = Field(default=None, description="Range of the exponent, images in 0..1")
    noise_std: kinds.PositiveOrZero = Field(
        default=0.0, description="Standard deviation of noise per pixel, images in 0..1"
    )
    blur_sigma_px: kinds.RangeFromZero = Field(default=None, description="Range of the Gaussian blur's sigma, pixels")
    fill: Literal["constant", "reflect"] = Field(
        default="constant", description="What enters from outside: constant (0) or reflect"
    )


class BackboneConfig(_Section):
    """The stacked hourglass, with the names and defaults of the reference."""

    stem_stride: Annotated[Literal[1, 2, 4], kinds.one_of(1, 2, 4)] = Field(default=4, description="Stride of the stem")
    max_stride: kinds.PowerOfTwo = Field(default=64, description="Stride of the coarsest features, a power of two")
    output_stride: kinds.PowerOfTwo = Field(default=4, description="Stride of the confidence maps, a power of two")
    stem_filters: kinds.Count = Field(default=128, description="Filters of the stem")
    filters: kinds.Count = Field(default=256, description="Filters of the first block")
    filter_increase: kinds.CountOrZero = Field(default=128, description="Filters added with each block down")
    stacks: kinds.Count = Field(default=3, description="Hourglasses in a row, each supervised")
    interp_method: Literal["nearest", "bilinear"] = Field(default="nearest", description="Interpolation on the way up")


class HeadConfig(_Section):
    """What the network predicts."""

    type: Annotated[Literal["single_instance"], kinds.AVAILABLE_HEAD] = Field(
        default="single_instance", description="Kind of head; single_instance: one animal per image"
    )
    sigma_px: kinds.Positive = Field(default=5.0, description="Sigma of the Gaussian, pixels of the network's input")
    loss_weight: kinds.Positive = Field(default=1.0, description="Factor of this head's loss")


class ModelConfig(_Section):
    """Backbone and head."""

    backbone: BackboneConfig = Field(default_factory=BackboneConfig, description="The stacked hourglass")
    head: HeadConfig = Field(default_factory=HeadConfig, description="What the network predicts")


class TrainingConfig(_Section):
    """How, how long and where the network is trained."""

    batch_size: kinds.Count = Field(default=8, description="Images that pass at once, over all devices")
    accumulate_steps: kinds.Count = Field(
        default=1,
        description="Batches whose gradients make one update, as one batch this many times as large",
    )
    recompute: bool = Field(
        default=False, description="Compute activations again for the backward pass: less memory, a third more time"
    )
    epochs: kinds.Count = Field(default=100, description="Epochs to train")
    steps_per_epoch: kinds.Count | None = Field(
        default=None, description="Steps in an epoch; null: one pass over the training frames, at least 200"
    )
    optimizer: Literal["adam", "sgd"] = Field(default="adam", description="adam, or sgd with Nesterov momentum 0.9")
    learning_rate: kinds.Positive = Field(default=1e-3, description="Learning rate after the warm-up")
    schedule: Literal["cosine", "plateau", "constant"] = Field(
        default="cosine", description="Learning rate over the steps"
    )
    warmup_steps: kinds.CountOrZero | None = Field(
        default=None, description="Steps of linear warm-up; null: 5% of all steps, at most 200"
    )
    min_learning_rate: kinds.PositiveOrZero = Field(
        default=1e-6, description="Where cosine ends and plateau stops; at most learning_rate"
    )
    plateau_factor: kinds.OpenFraction = Field(default=0.5, description="Factor of the learning rate on a plateau")
    plateau_patience_epochs: kinds.Count = Field(
        default=5, description="Epochs without improvement that make a plateau"
    )
    weight_decay: kinds.PositiveOrZero = Field(default=0.0, description="Weight decay of the optimizer")
    early_stopping_epochs: kinds.Count | None = Field(
        default=None, description="Epochs without improvement after which training stops; null: never"
    )
    hard_keypoint_mining: bool = Field(default=False, description="Weigh the keypoints with the largest loss more")
    ema: kinds.OpenFraction | None = Field(default=None, description="Decay of the weights' moving average; null: none")
    initial_weights: kinds.Folder | None = Field(
        default=None, description="Run directory or .keras file to start from, layer by layer; null: at random"
    )
    gradient_clip_norm: kinds.Positive | None = Field(
        default=None, description="Largest global gradient norm; null: any"
    )
    precision: Literal["float32", "mixed_bfloat16", "mixed_float16"] = Field(
        default="float32", description="Precision of the network's arithmetic"
    )
    xla: Literal["on", "off", "auto"] = Field(default="auto", description="Compile the step with XLA")
    device: Literal["auto", "cpu", "gpu"] = Field(
        default="auto", description="Device; gpu is an error where there is none"
    )
    strategy: Literal["auto", "single", "mirrored", "multi_worker"] = Field(
        default="auto",
        description="One device, all of this machine, or all of the machines that TF_CONFIG or Slurm names",
    )
    synchronize_batch_norm: bool = Field(
        default=False, description="Batch normalisation over the batch of all devices, not of each its own part"
    )
    seed: kinds.Seed = Field(default=0, description="Seed of weights, order and augmentation")
    deterministic: bool = Field(default=False, description="Use deterministic operations only, which are slower")
    on_nonfinite: Literal["stop", "skip"] = Field(
        default="stop", description="When a step's loss is not finite: stop, or leave that step out, ten times at most"
    )

    @property
    def images_per_step(self) -> int:
        """Return the images that one update is made of."""
        return self.batch_size * self.accumulate_steps


class CheckpointConfig(_Section):
    """When the state that `--resume` needs is written."""

    every_steps: kinds.Count | None = Field(default=None, description="Steps between checkpoints; null: once an epoch")
    keep: kinds.Count = Field(default=2, description="Newest checkpoints that are kept")


class OutputConfig(_Section):
    """Where results go."""

    run_dir: kinds.Folder | None = Field(default=None, description="Run directory; null: runs/<config name>-<time>")
    tensorboard: bool = Field(default=True, description="Write TensorBoard logs")


class Config(_Section):
    """A validated, frozen config; equal to another with the same values, wherever either was read from."""

    data: DataConfig = Field(description="Which frames are trained and validated on")
    augmentation: AugmentationConfig = Field(
        default_factory=AugmentationConfig, description="Random changes of each training image"
    )
    model: ModelConfig = Field(default_factory=ModelConfig, description="Backbone and head")
    training: TrainingConfig = Field(default_factory=TrainingConfig, description="How, how long and where to train")
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
        """Return `a.yaml:14` or `--set KEY=VALUE` for a dotted key; the file alone where the key has its default."""
        return self._places.get(tuple(key.split(".")), self._path)


def _flat_defaults(section: type[BaseModel], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, _Section):
            yield from _flat_defaults(field.annotation, (*path, name))
        else:
            yield (*path, name), field.get_default()


_DEFAULTS = dict(_flat_defaults(Config))
_PATH_KEYS = (("data", "train"), ("data", "validation"), ("training", "initial_weights"), ("output", "run_dir"))


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Return the config of a YAML file with its overrides, `KEY=VALUE` with the value in YAML, later ones stronger.

    Relative paths, those in overrides too, become absolute from the file's folder. A section that is empty or null has
    its defaults; a range of augmentation that is [0, 0] becomes None. ConfigError holds every mistake, one a line.
    """
    source = ConfigSource(path, overrides)
    _make_paths_absolute(source.values, Path(path).parent.absolute())
    problems = list(source.problems)
    wrong: list[KeyPath] = []
    try:
        config = Config.model_validate(source.values)
    except ValidationError as error:
        findings = error.errors(include_url=False)
        wrong = [finding["loc"] for finding in findings]
        problems += [Problem(source.origin(finding["loc"]), describe(finding, _DEFAULTS)) for finding in findings]
    for keys, text in broken_rules(_valid_values(source.values, wrong)):
        given = next((place for key in keys if (place := tuple(key.split("."))) in source.origins), ())
        problems.append(Problem(source.origin(given), text))
    if problems:
        problems.sort(key=lambda problem: problem.origin.order)
        raise ConfigError("\n".join(f"{problem.origin.text}: {problem.text}" for problem in problems))
    config._path = source.name
    config._places = {key: origin.text for key, origin in source.origins.items()}
    return config


def _make_paths_absolute(values: dict[str, Value], folder: Path) -> None:
    for section, key in _PATH_KEYS:
        inner = values.get(section)
        if isinstance(inner, dict) and key in inner:
            inner[key] = _absolute(inner[key], folder)


def _absolute(value: Value, folder: Path) -> Value:
    # What is wrong stays as it is, for the message.
    if isinstance(value, list) and all(map(kinds.is_path, value)):
        return [_absolute(item, folder) for item in value]
    if not kinds.is_path(value) or value.startswith(kinds.BUILTIN_PREFIX):
        return value
    try:
        expanded = Path(value).expanduser()
    except RuntimeError:  # no such user: a file of that name may still be there
        expanded = Path(value)
    return os.path.normpath(folder / expanded)


def _valid_values(values: Mapping[Any, Any], wrong: list[KeyPath]) -> dict[str, Any]:
    """Return dotted keys and their values, or defaults, without those that are wrong or in a wrong section."""
    result = {}
    for path, default in _DEFAULTS.items():
        if not any(path[:length] in wrong for length in range(1, len(path) + 1)):
            section = values
            for part in path[:-1]:
                section = section.get(part) or {}
            result[dotted(path)] = section.get(path[-1], default)
    return result


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # SafeDumper quotes what YAML 1.1 would misread, such as on; quoted too is what only our reader takes for a number.
    style = None if isinstance(plain_scalar(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    tuple, lambda dumper, items: dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=True)
)


def dump_config(config: Config) -> str:
    """Return YAML with every key, in the order of the documentation, that loads back to an equal config.

    `output.run_dir` is always null, so that a run repeated from its own config gets a directory of its own.
    """
    values = config.model_dump()
    values["output"]["run_dir"] = None
    return yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


def config_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a config, for editors; what only keys together break is not in it."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
