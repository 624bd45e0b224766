"""A proposed config as text, with the reason for each choice beside it."""

import json
import re
from collections.abc import Iterator

from hgtrain.config.choices import HEAD_PURPOSES
from hgtrain.config.yaml import plain_scalar
from hgtrain.data.crop_size import WHOLE_PERCENTILE
from hgtrain.planning.dataset_stats import DatasetStats
from hgtrain.planning.head_from_labels import SPARE_INSTANCES
from hgtrain.planning.suggest import (
    LARGEST_ANIMAL_SCALE,
    PAF_WIDTH_FRACTION,
    SMALL,
    STEPS_PER_EPOCH,
    Proposal,
    largest_scale,
)

FEW_FRAMES = 200


def config_text(proposal: Proposal) -> str:
    """Return the config in YAML, with the reason for each choice beside it."""
    lines = [f"# {line}" for line in proposal.introduction]
    lines += [line if not reason else f"{line:<34}# {reason}" for line, reason in _lines(proposal)]
    return "\n".join(lines) + "\n"


def _lines(proposal: Proposal) -> Iterator[tuple[str, str]]:
    stats, choice = proposal.stats, proposal.choice
    height, width, channels = stats.image_shape
    is_crowd = stats.head.several_animals and stats.crowd.most > 1
    several = f" and {stats.crowd.most} animals at most" if is_crowd else ""
    yield (
        f"# For {stats.frames} frames of {height}x{width}x{channels} with "
        f"{len(stats.skeleton.keypoint_names)} keypoints{several}.",
        "",
    )
    yield "data:", ""
    yield f"  train: {proposal.data}", ""
    if not stats.annotated_only:
        yield (
            "  annotated_only: false",
            "the file marks every keypoint as not annotated: look at some before you trust it",
        )
    fraction = 0.2 if stats.frames < FEW_FRAMES else 0.1
    yield f"  validation: {fraction}", f"{max(1, round(fraction * stats.frames))} frames"
    yield f"  input_scale: {choice.input_scale:g}", _scale_reason(proposal)
    yield from _augmentation_lines(proposal)
    yield from _model_lines(proposal)
    yield "training:", ""
    memory = f"{proposal.device.memory_bytes / 2**30:.0f} GiB"
    yield (
        f"  batch_size: {proposal.batch_size}",
        f"fits the memory of this {proposal.kind} ({memory})",
    )
    yield from _duration_lines(proposal)
    rate = "8e-3" if proposal.size == SMALL else "2e-3"
    yield f"  learning_rate: {rate}", ""


def _duration_lines(proposal: Proposal) -> Iterator[tuple[str, str]]:
    planned = proposal.duration
    how = "measured" if planned.is_measured else "an estimate, which --minutes measures"
    yield (
        f"  epochs: {planned.epochs}",
        f"about {_minutes(planned.expected_minutes)} on this {proposal.kind} "
        f"({1000 * planned.step_s:.0f} ms a step, {how}); more is better",
    )
    yield f"  steps_per_epoch: {STEPS_PER_EPOCH}", ""
    yield f"  max_minutes: {planned.minutes:g}", "where steps take longer, fewer of them are done"


def _minutes(minutes: float) -> str:
    """Return a time as people say it: 40 seconds, 12 minutes."""
    if minutes < 1:
        return f"{max(10, round(6 * minutes) * 10)} seconds"
    return "1 minute" if round(minutes) == 1 else f"{minutes:.0f} minutes"


def _scale_reason(proposal: Proposal) -> str:
    scale = proposal.choice.input_scale
    animal = f"the animals are {proposal.stats.animal_px:.0f} px long"
    if scale == 1:
        return animal
    enough = f"{proposal.stats.animal_px * scale:.0f} px are enough"
    return f"{animal}, {enough} and {1 / scale**2:.0f} times as fast"


def _augmentation_lines(proposal: Proposal) -> Iterator[tuple[str, str]]:
    stats, kind = proposal.stats, proposal.kind
    yield "augmentation:", ""
    if stats.faces_one_way:
        yield "  rotation_deg: [-30, 30]", "the animals all face one way"
    else:
        yield "  rotation_deg: [-180, 180]", "the animals face all ways"
    scale, reason = (
        (f"[0.9, {LARGEST_ANIMAL_SCALE}]", "they differ in size")
        if largest_scale(stats) > 1
        else ("null", "they are of one size")
    )
    yield f"  scale: {scale}", reason
    if stats.head.sees_crops:
        yield "  translation_px: null", "centroid_jitter moves the crops"
    else:
        # In px of the network's input; of one animal it is left as it was.
        factor = proposal.choice.input_scale if stats.head.several_animals else 1
        shift = max(2, round(0.05 * max(stats.image_shape[:2]) * factor))
        yield f"  translation_px: [-{shift}, {shift}]", ""
    if kind == "CPU":
        yield "  brightness: null", "steps are few, and the camera stays the same"
        yield "  contrast: null", ""
    yield f"  flip: {stats.flip}", _flip_reason(stats)


def _flip_reason(stats: DatasetStats) -> str:
    if not stats.has_partners:
        return (
            "the file names no left/right partners, or not all; hgtrain convert --symmetry adds "
            "them"
        )
    if stats.flip == "none":
        return "a mirrored animal would face another way"
    return "left and right keypoints know their partners"


def _model_lines(proposal: Proposal) -> Iterator[tuple[str, str]]:
    choice, size = proposal.choice, proposal.size
    yield "model:", ""
    yield "  backbone:", ""
    yield f"    stem_stride: {choice.stride}", ""
    animal = proposal.stats.animal_px * choice.input_scale
    yield (
        f"    max_stride: {choice.max_stride}",
        f"a stack sees {choice.field_px} px, an animal is {animal:.0f} px",
    )
    cell = choice.stride / choice.input_scale
    yield f"    output_stride: {choice.stride}", f"a cell is {cell:g} px of your images"
    yield f"    stem_filters: {size.stem_filters}", f"for a {proposal.kind}"
    yield f"    filters: {size.filters}", _filters_reason(proposal)
    yield f"    filter_increase: {size.filter_increase}", ""
    yield f"    stacks: {size.stacks}", ""
    yield "  head:", ""
    yield from _head_lines(proposal)


def _filters_reason(proposal: Proposal) -> str:
    if "paf_width_px" not in proposal.head.own_keys:
        return ""
    skeleton = proposal.stats.skeleton
    keypoints, edges = len(skeleton.keypoint_names), len(skeleton.edges)
    return f"at least as many as outputs: {keypoints} maps and {2 * edges} of fields"


def _head_lines(proposal: Proposal) -> Iterator[tuple[str, str]]:
    head, choice, crowd = proposal.head, proposal.choice, proposal.stats.crowd
    if head.several_animals:
        yield f"    type: {head.type}", _type_reason(proposal)
    yield (
        f"    sigma_px: {choice.sigma_px:g}",
        "of the target's Gaussian, in px of the network's input",
    )
    written = head.model_fields_set
    if "paf_width_px" in written:
        yield (
            f"    paf_width_px: {head.paf_width_px:g}",
            f"half width of the fields: {PAF_WIDTH_FRACTION:.0%} of an animal's length, a cell at "
            "least",
        )
    if "paf_loss_weight" in written:
        yield (
            f"    paf_loss_weight: {head.paf_loss_weight:g}",
            "fields are learnt sooner than maps, and need to be less exact",
        )
    if "min_keypoints" in written:
        yield f"    min_keypoints: {head.min_keypoints}", "fewer are a piece of an animal"
    if "max_instances" in written:
        yield (
            f"    max_instances: {head.max_instances}",
            f"{crowd.most} in a labelled frame at most, and {SPARE_INSTANCES} more",
        )
    if "anchor" in written:
        yield (
            f"    anchor: {'null' if head.anchor is None else _name(head.anchor)}",
            "the middle of the bounding box: no root of the edges is labelled in nearly all animals"
            if head.anchor is None
            else "the root of the skeleton's edges, labelled in nearly all animals",
        )
    if "crop_size_px" in written:
        yield (
            f"    crop_size_px: {head.crop_size_px}",
            f"holds {WHOLE_PERCENTILE:g}% of the animals whole, however turned, in px of the "
            "network's input",
        )


def _type_reason(proposal: Proposal) -> str:
    stats, purpose = proposal.stats, HEAD_PURPOSES[proposal.head.type]
    if stats.head.finds_centroids or stats.head.sees_crops or not stats.crowd.frames:
        return purpose
    return f"{stats.crowd.frames} frames have several animals; {purpose}"


def _name(name: str) -> str:
    """Return a name as YAML takes it for a text."""
    is_plain = re.fullmatch(r"[A-Za-z][\w.-]*", name) and plain_scalar(name) == name
    return name if is_plain else json.dumps(name, ensure_ascii=False)
