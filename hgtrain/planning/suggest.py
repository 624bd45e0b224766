"""A first config for a dataset.

Every choice is made from what is in the file and the device, with its reason beside it.
"""

import json
import math
import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain.config.head import SINGLE_INSTANCE, HeadConfig
from hgtrain.config.schema import BackboneConfig, Config, DataConfig, ModelConfig
from hgtrain.config.yaml import plain_scalar
from hgtrain.coords import padded_length, resized_length
from hgtrain.data.builtin_datasets import BUILTIN
from hgtrain.planning.dataset_stats import DatasetStats
from hgtrain.planning.head_from_labels import SPARE_INSTANCES
from hgtrain.planning.memory import Device

LONGEST_SIDE_PX = {"CPU": 384, "GPU": 1024}
SMALLEST_ANIMAL_PX = 48
SCALES = (1.0, 0.5, 0.25, 0.125)
COARSE_SCALES, COARSE_ANIMAL_PX = (0.25, 0.5), 24
"""To say where animals are, and not where their keypoints are, that much is enough."""

PAF_WIDTH_FRACTION = 0.04
"""Half width of the fields, part of the animals' length: as SLEAP's for its flies.

Of 141 flies of `builtin:fly-groups` hardly one is missed after 600 steps, but there are 2 and 7 too
many at 4% (two seeds), 8 and 17 at 6%, 49 at 9%; at 3% the OKS falls from 0.40 to 0.28.
"""

SAME_SIZE_SPREAD = 0.25
LARGEST_ANIMAL_SCALE = 1.1
"""Of augmentation, where the animals' size is spread more widely."""
MAX_STRIDES = (16, 32, 64, 128)
FIELD_PER_ANIMAL = 1.5


class Size(NamedTuple):
    """How wide the network is, and how often it is repeated.

    Attributes:
        stem_filters: Channels of the stem's first convolution.
        filters: Channels of the first downsampling block.
        filter_increase: How many more each further downsampling block has.
        stacks: Repetitions.
    """

    stem_filters: int
    filters: int
    filter_increase: int
    stacks: int


SMALL, MEDIUM, LARGE = Size(16, 32, 32, 1), Size(32, 64, 32, 2), Size(64, 128, 64, 2)
SIZES = {"CPU": (SMALL,), "GPU": (LARGE, MEDIUM, SMALL)}
"""What is tried, largest first: on a CPU more than the small one takes hours."""

COARSE_SIZES = (SMALL,)
FILTERS_STEP = 16
MIN_KEYPOINTS_FRACTION = 0.25
PAF_LOSS_WEIGHT = 0.1
"""On builtin:fly-groups OKS mAP was 0.65 at 1, 0.73 at 0.3 and 0.74 at 0.1 after 1,200 steps."""

BATCH_SIZES = (8, 4, 2, 1)


STEPS_PER_EPOCH = 200
EPOCHS = {"CPU": 16, "GPU": 50}
"""Of a first training, where they fit into the time."""

MOST_EPOCHS = 100
"""Of a training whose time was chosen."""

MINUTES = {"CPU": 30.0, "GPU": 60.0}
USED_OF_TIME = 0.85
"""The part of the time that steps may have: there are validation and the evaluation too."""

FLOPS_PER_S = {"CPU": 4e10, "GPU": 5e12}
"""Of a core, and of a GPU, as steps of small networks reach them, roughly."""

SHORTEST_STEP_S = {"CPU": 0.01, "GPU": 0.015}
PASSES = 3
"""Forward once, and back, which costs twice as much."""


class Duration(NamedTuple):
    """How long a training may take, and how long it will.

    Attributes:
        minutes: It may take at most.
        step_s: Seconds of a step.
        epochs: Of `STEPS_PER_EPOCH` steps that fit, one at least.
        is_measured: Whether a step was measured here; otherwise it is estimated.
    """

    minutes: float
    step_s: float
    epochs: int
    is_measured: bool

    @property
    def expected_minutes(self) -> float:
        """Return how long it will take, with all that is not steps."""
        steps = self.epochs * STEPS_PER_EPOCH
        return min(self.minutes, steps * self.step_s / 60 / USED_OF_TIME)


def duration(kind: str, step_s: float, minutes: float | None, is_measured: bool) -> Duration:
    """Return how long to train.

    Args:
        kind: Of the device, CPU or GPU.
        step_s: Seconds of a step.
        minutes: That training may take; None for the kind's own, of which no more is used than a
            first training needs.
        is_measured: Whether `step_s` was measured.
    """
    given = MINUTES[kind] if minutes is None else minutes
    fitting = int(USED_OF_TIME * 60 * given / (STEPS_PER_EPOCH * step_s))
    most = EPOCHS[kind] if minutes is None else MOST_EPOCHS
    return Duration(given, step_s, max(1, min(fitting, most)), is_measured)


def estimated_step_s(flops_per_image: float, batch_size: int, kind: str, cores: int) -> float:
    """Return roughly how long a training step takes, in seconds.

    Args:
        flops_per_image: Forward.
        batch_size: Images of a step.
        kind: Of the device, CPU or GPU.
        cores: Of the CPU; a GPU counts as one.
    """
    flops_per_s = FLOPS_PER_S[kind] * (cores if kind == "CPU" else 1)
    return max(SHORTEST_STEP_S[kind], PASSES * flops_per_image * batch_size / flops_per_s)


class Choice(NamedTuple):
    """The network and what it sees: strides and sizes in px of its input."""

    input_scale: float
    stride: int
    max_stride: int
    sigma_px: float
    field_px: int


def choose(stats: DatasetStats, kind: str) -> Choice:
    """Return scale, strides and sigma for a dataset on a device of a kind, CPU or GPU."""
    scale = _input_scale(stats, kind)
    animal = stats.animal_px * scale
    sigma_px = float(np.clip(round(0.08 * animal) / 2, 2.5, max(5.0, round(0.04 * animal) / 2)))
    stride = 4 if sigma_px >= 3.5 else 2
    sides = [resized_length(side, scale) for side in _seen_sides(stats)]
    fitting = [
        s
        for s in MAX_STRIDES
        if s == MAX_STRIDES[0] or padded_length(min(sides), s) < 1.5 * min(sides)
    ]
    seeing = [s for s in fitting if field_after_first_stack(stride, s) >= FIELD_PER_ANIMAL * animal]
    max_stride = seeing[0] if seeing else fitting[-1]
    return Choice(scale, stride, max_stride, sigma_px, field_after_first_stack(stride, max_stride))


def _input_scale(stats: DatasetStats, kind: str) -> float:
    if stats.head.finds_centroids:
        enough = [s for s in COARSE_SCALES if stats.animal_px * s >= COARSE_ANIMAL_PX]
        return enough[0] if enough else COARSE_SCALES[-1]
    longest = max(_seen_sides(stats))
    small_enough = [scale for scale in SCALES if longest * scale <= LONGEST_SIDE_PX[kind]] or [
        SCALES[-1]
    ]
    large_enough = [scale for scale in SCALES if stats.animal_px * scale >= SMALLEST_ANIMAL_PX] or [
        1.0
    ]
    return max(small_enough[0], large_enough[-1])


def _seen_sides(stats: DatasetStats) -> tuple[int, int]:
    """Return height and width of what the network sees, px of the dataset's images."""
    height, width, _ = stats.image_shape
    return (stats.crowd.crop_px,) * 2 if stats.head.sees_crops else (height, width)


def head_section(stats: DatasetStats, choice: Choice) -> HeadConfig:
    """Return the section of the head with the keys that are to be written down."""
    keys, crowd = stats.head.own_keys, stats.crowd
    values: dict[str, Any] = {"type": stats.head.type, "sigma_px": choice.sigma_px}
    if "paf_width_px" in keys and stats.skeleton.edges:
        width = PAF_WIDTH_FRACTION * stats.animal_px * choice.input_scale
        values["paf_width_px"] = float(max(choice.stride, round(2 * width) / 2))
        values["paf_loss_weight"] = PAF_LOSS_WEIGHT
        values["min_keypoints"] = min_keypoints(stats)
    if "max_instances" in keys:
        values["max_instances"] = crowd.most + SPARE_INSTANCES
    if "anchor" in keys:
        values["anchor"] = crowd.anchor
    if "crop_size_px" in keys:
        # n pixels span n - 1 from centre to centre.
        span = (crowd.crop_px - 1) * choice.input_scale * largest_scale(stats)
        side = math.ceil(span + 1)
        values["crop_size_px"] = padded_length(side, choice.max_stride)
    return HeadConfig.model_validate(values)


def min_keypoints(stats: DatasetStats) -> int:
    """Return how many keypoints make an animal: a quarter, or what nearly all labelled have."""
    quarter = round(MIN_KEYPOINTS_FRACTION * len(stats.skeleton.keypoint_names))
    return max(1, min(quarter, stats.crowd.fewest_keypoints))


def largest_scale(stats: DatasetStats) -> float:
    """Return the factor by which augmentation enlarges animals at most."""
    return LARGEST_ANIMAL_SCALE if stats.spread > SAME_SIZE_SPREAD else 1.0


def sizes(stats: DatasetStats, kind: str) -> tuple[Size, ...]:
    """Return how wide a network may be on a kind of device, largest first.

    Outputs are linear in the features they are made of: with fewer features than outputs some
    keypoints were never learnt (19 keypoints and 18 edges from 32 features: three of them).
    """
    if stats.head.finds_centroids:
        return COARSE_SIZES
    if "paf_width_px" not in stats.head.own_keys:
        return SIZES[kind]
    outputs = len(stats.skeleton.keypoint_names) + 2 * len(stats.skeleton.edges)
    least = padded_length(outputs, FILTERS_STEP)
    return tuple(
        size if size.filters >= least else size._replace(filters=least, filter_increase=least // 4)
        for size in SIZES[kind]
    )


def field_after_first_stack(stem_stride: int, max_stride: int) -> int:
    """Return the receptive field in px after one stack that ends at the stem's stride, 2 or 4.

    It is the recurrence of `receptive_field`: the stem, then on the way down a pooling of 2 and a
    convolution of 3 for each level, and on the way up a convolution for each level.
    """
    field = 21 if stem_stride == 4 else 14
    stride = stem_stride
    while stride < max_stride:
        field += stride + 2 * 2 * stride
        stride *= 2
    while stride > stem_stride:
        field += 2 * stride
        stride //= 2
    return field


def as_config(choice: Choice, size: Size, head: HeadConfig = SINGLE_INSTANCE) -> Config:
    """Return the config of a network of this size, for its memory.

    It names a dataset that is not there.
    """
    strides = {
        "stem_stride": choice.stride,
        "max_stride": choice.max_stride,
        "output_stride": choice.stride,
    }
    backbone = BackboneConfig.model_validate(strides | size._asdict())
    data = DataConfig(train="none.h5", input_scale=choice.input_scale)
    return Config(data=data, model=ModelConfig(backbone=backbone, head=head))


class Proposal(NamedTuple):
    """What is to be written down.

    Attributes:
        data: `data.train` as the config is to name it.
        stats: What the dataset looks like.
        choice: The network and what it sees.
        head: The section of the head, as `head_section` gives it.
        size: How wide the network is.
        batch_size: Images of a step.
        device: To train on.
        kind: Of the device, CPU or GPU.
        duration: How long to train.
        introduction: Lines of comment, above all others.
    """

    data: str
    stats: DatasetStats
    choice: Choice
    head: HeadConfig
    size: Size
    batch_size: int
    device: Device
    kind: str
    duration: Duration
    introduction: tuple[str, ...] = ()


def data_name(data: str, config: Path) -> str:
    """Return how a config file is to name a dataset.

    The name is relative to the config's folder where the dataset lies below it.
    """
    if data.startswith(BUILTIN):
        return data
    path, folder = Path(data).absolute(), config.absolute().parent
    name = os.path.relpath(path, folder) if path.is_relative_to(folder) else str(path)
    # Or it would be somebody's home.
    name = f"./{name}" if name.startswith("~") else name
    # In quotes, as JSON has them, where YAML could take it for something else.
    is_plain = re.fullmatch(r"[A-Za-z/][\w./-]*", name) and plain_scalar(name) == name
    return name if is_plain else json.dumps(name, ensure_ascii=False)
