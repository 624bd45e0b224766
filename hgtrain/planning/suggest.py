"""A first config for a dataset.

Every choice is made from what is in the file and the device, with its reason beside it.
"""

import json
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hgtrain.config.schema import BackboneConfig, Config, DataConfig, ModelConfig
from hgtrain.config.yaml import plain_scalar
from hgtrain.coords import padded_length, resized_length
from hgtrain.data.builtin_datasets import BUILTIN
from hgtrain.data.dataset import PoseDataset, skeleton_of
from hgtrain.data.selection import labels_of_frames, select_frames
from hgtrain.planning.input_spec import animal_px
from hgtrain.planning.memory import Device
from hgtrain.skeleton import Skeleton, partners_by_name

LONGEST_SIDE_PX = {"CPU": 384, "GPU": 1024}
SMALLEST_ANIMAL_PX = 48
SCALES = (1.0, 0.5, 0.25, 0.125)
FEW_FRAMES = 200
SAME_DIRECTION = 0.8
"""From which mean length on all animals count as facing one way.

It is that of a keypoint's direction from the animal's middle.
"""

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

BATCH_SIZES = (8, 4, 2, 1)


class DatasetStats(NamedTuple):
    """What a dataset looks like.

    Attributes:
        frames: How many.
        image_shape: `(H, W, C)`.
        skeleton: Of the dataset.
        animal_px: Size of the animals, in pixels of the images.
        spread: Of the animals' size, 10th to 90th percentile, as a part of the median.
        faces_one_way: Whether the animals all face the same way.
        has_partners: Whether left and right keypoints have partners, as far as names tell all.
        flip: How a mirrored image still looks like one of them: none, horizontal, vertical.
        annotated_only: Whether only annotated frames count.
    """

    frames: int
    image_shape: tuple[int, int, int]
    skeleton: Skeleton
    animal_px: float
    spread: float
    faces_one_way: bool
    has_partners: bool
    flip: str
    annotated_only: bool


def dataset_stats(dataset: PoseDataset, annotated_only: bool) -> DatasetStats:
    """Return what matters for a config.

    Raises:
        DatasetError: No frame of the dataset can be used.
    """
    frames = select_frames(dataset).frames
    points, visibility = labels_of_frames(dataset, frames)
    located = np.where((visibility > 0)[..., None], points, np.nan)[:, 0]
    longest = animal_px(dataset) or float(max(dataset.image_shape[:2])) / 4
    faces_one_way, symmetries = _faces_one_way(located), dataset.symmetries
    lacks_partners = bool(partners_by_name(dataset.keypoint_names, symmetries))
    return DatasetStats(
        frames=len(frames),
        image_shape=dataset.image_shape,
        skeleton=skeleton_of(dataset),
        animal_px=longest,
        spread=_spread(located),
        faces_one_way=faces_one_way,
        has_partners=bool(symmetries) and not lacks_partners,
        flip="none" if lacks_partners else _flip(located, symmetries, faces_one_way),
        annotated_only=annotated_only,
    )


def _spread(points: np.ndarray) -> float:
    several = points[np.isfinite(points).all(-1).sum(-1) > 1]
    if not len(several):
        return 1.0
    sides = (np.nanmax(several, axis=1) - np.nanmin(several, axis=1)).max(-1)
    low, middle, high = np.percentile(sides, (10, 50, 90))
    return float((high - low) / max(middle, 1.0))


def _faces_one_way(points: np.ndarray) -> bool:
    several = points[np.isfinite(points).all(-1).sum(-1) > 1]
    if len(several) < 2:
        return False
    away = several - np.nanmean(several, axis=1, keepdims=True)
    means = _mean_directions(away)
    return bool(len(means)) and bool(np.linalg.norm(means, axis=-1).max() > SAME_DIRECTION)


def _mean_directions(vectors: np.ndarray) -> np.ndarray:
    """Return the mean of unit vectors over frames, `(n, K, 2)` to `(k, 2)`.

    Those k of the K that are known in two frames at least.
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    directions = np.where(length > 0, vectors / np.maximum(length, 1e-6), np.nan)
    known = np.isfinite(directions).all(-1).sum(0) > 1
    return np.nanmean(directions[:, known], axis=0) if known.any() else np.empty((0, 2))


def _flip(points: np.ndarray, symmetries: Sequence[tuple[int, int]], faces_one_way: bool) -> str:
    """Return the flip that mirrors animals to what they look like themselves.

    Where they face all ways, any does. Where they face one way it is the one that exchanges left
    and right; from the side these lie over one another, and no flip keeps feet down and the head
    where it is.

    Args:
        points: `(n, K, 2)`, NaN where missing.
        symmetries: Left/right partners.
        faces_one_way: Whether the animals all face the same way.
    """
    if not symmetries:
        return "none"
    if not faces_one_way:
        return "horizontal"
    left, right = np.array(symmetries).T
    means = _mean_directions(points[:, right] - points[:, left])
    if not len(means) or np.median(np.linalg.norm(means, axis=-1)) < SAME_DIRECTION:
        return "none"
    across = np.abs(means).mean(0)
    return "horizontal" if across[0] > across[1] else "vertical"


class Choice(NamedTuple):
    """The network and what it sees: strides and sizes in px of its input."""

    input_scale: float
    stride: int
    max_stride: int
    sigma_px: float
    field_px: int


def choose(looked: DatasetStats, kind: str) -> Choice:
    """Return scale, strides and sigma for a dataset on a device of a kind, CPU or GPU."""
    longest = max(looked.image_shape[:2])
    small_enough = [scale for scale in SCALES if longest * scale <= LONGEST_SIDE_PX[kind]] or [
        SCALES[-1]
    ]
    large_enough = [
        scale for scale in SCALES if looked.animal_px * scale >= SMALLEST_ANIMAL_PX
    ] or [1.0]
    scale = max(small_enough[0], large_enough[-1])
    animal = looked.animal_px * scale
    sigma_px = float(np.clip(round(0.08 * animal) / 2, 2.5, max(5.0, round(0.04 * animal) / 2)))
    stride = 4 if sigma_px >= 3.5 else 2
    sides = [resized_length(side, scale) for side in looked.image_shape[:2]]
    fitting = [
        s
        for s in MAX_STRIDES
        if s == MAX_STRIDES[0] or padded_length(min(sides), s) < 1.5 * min(sides)
    ]
    seeing = [s for s in fitting if field_after_first_stack(stride, s) >= FIELD_PER_ANIMAL * animal]
    max_stride = seeing[0] if seeing else fitting[-1]
    return Choice(scale, stride, max_stride, sigma_px, field_after_first_stack(stride, max_stride))


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


def as_config(choice: Choice, size: Size) -> Config:
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
    return Config(data=data, model=ModelConfig(backbone=backbone))


class Proposal(NamedTuple):
    """What is to be written down.

    Attributes:
        data: `data.train` as the config is to name it.
        looked: What the dataset looks like.
        choice: The network and what it sees.
        size: How wide the network is.
        batch_size: Images of a step.
        device: To train on.
        kind: Of the device, CPU or GPU.
    """

    data: str
    looked: DatasetStats
    choice: Choice
    size: Size
    batch_size: int
    device: Device
    kind: str


def config_text(proposal: Proposal) -> str:
    """Return the config in YAML, with the reason for each choice beside it."""
    lines = [line if not reason else f"{line:<34}# {reason}" for line, reason in _lines(proposal)]
    return "\n".join(lines) + "\n"


def _lines(proposal: Proposal) -> Iterator[tuple[str, str]]:
    looked, choice = proposal.looked, proposal.choice
    height, width, channels = looked.image_shape
    yield (
        f"# For {looked.frames} frames of {height}x{width}x{channels} with {len(looked.skeleton.keypoint_names)} "
        "keypoints.",
        "",
    )
    yield "data:", ""
    yield f"  train: {proposal.data}", ""
    if not looked.annotated_only:
        yield (
            "  annotated_only: false",
            "the file marks every keypoint as not annotated: look at some before you trust it",
        )
    fraction = 0.2 if looked.frames < FEW_FRAMES else 0.1
    yield f"  validation: {fraction}", f"{max(1, round(fraction * looked.frames))} frames"
    yield f"  input_scale: {choice.input_scale:g}", _scale_reason(proposal)
    yield from _augmentation_lines(looked, proposal.kind)
    yield from _model_lines(proposal)
    yield "training:", ""
    memory = f"{proposal.device.memory_bytes / 2**30:.0f} GiB"
    yield (
        f"  batch_size: {proposal.batch_size}",
        f"fits the memory of this {proposal.kind} ({memory})",
    )
    epochs = 16 if proposal.kind == "CPU" else 50
    yield f"  epochs: {epochs}", "more is better: double it until the error stays the same"
    yield "  steps_per_epoch: 200", ""
    rate = "8e-3" if proposal.size == SMALL else "2e-3"
    yield f"  learning_rate: {rate}", ""


def _scale_reason(proposal: Proposal) -> str:
    scale = proposal.choice.input_scale
    animal = f"the animals are {proposal.looked.animal_px:.0f} px long"
    if scale == 1:
        return animal
    enough = f"{proposal.looked.animal_px * scale:.0f} px are enough"
    return f"{animal}, {enough} and {1 / scale**2:.0f} times as fast"


def _augmentation_lines(looked: DatasetStats, kind: str) -> Iterator[tuple[str, str]]:
    yield "augmentation:", ""
    if looked.faces_one_way:
        yield "  rotation_deg: [-30, 30]", "the animals all face one way"
    else:
        yield "  rotation_deg: [-180, 180]", "the animals face all ways"
    scale, reason = (
        ("[0.9, 1.1]", "they differ in size")
        if looked.spread > 0.25
        else ("null", "they are of one size")
    )
    yield f"  scale: {scale}", reason
    shift = max(2, round(0.05 * max(looked.image_shape[:2])))
    yield f"  translation_px: [-{shift}, {shift}]", ""
    if kind == "CPU":
        yield "  brightness: null", "steps are few, and the camera stays the same"
        yield "  contrast: null", ""
    yield f"  flip: {looked.flip}", _flip_reason(looked)


def _flip_reason(looked: DatasetStats) -> str:
    if not looked.has_partners:
        return "the file names no left/right partners, or not all; hgtrain convert --symmetry adds them"
    if looked.flip == "none":
        return "a mirrored animal would face another way"
    return "left and right keypoints know their partners"


def _model_lines(proposal: Proposal) -> Iterator[tuple[str, str]]:
    choice, size = proposal.choice, proposal.size
    yield "model:", ""
    yield "  backbone:", ""
    yield f"    stem_stride: {choice.stride}", ""
    animal = proposal.looked.animal_px * choice.input_scale
    yield (
        f"    max_stride: {choice.max_stride}",
        f"a stack sees {choice.field_px} px, an animal is {animal:.0f} px",
    )
    yield f"    output_stride: {choice.stride}", ""
    yield f"    stem_filters: {size.stem_filters}", f"for a {proposal.kind}"
    yield f"    filters: {size.filters}", ""
    yield f"    filter_increase: {size.filter_increase}", ""
    yield f"    stacks: {size.stacks}", ""
    yield "  head:", ""
    yield (
        f"    sigma_px: {choice.sigma_px:g}",
        "of the target's Gaussian, in px of the network's input",
    )


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
