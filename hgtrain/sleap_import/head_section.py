"""The head of SLEAP's training_config.json as the section `model.head` of an hgtrain config."""

import math
from typing import Any, NamedTuple

from hgtrain.config.choices import HEAD_TYPES
from hgtrain.config.head import HeadConfig
from hgtrain.errors import RunError

# SLEAP calls the kinds of heads as hgtrain does; these two keys hold the maps and the fields of
# several animals, and other kinds have one section without a key.
MAPS, FIELDS = "confmaps", "pafs"


class SleapHead(NamedTuple):
    """What a training folder says of the head.

    Attributes:
        values: The section `model.head`.
        part_names: Keypoints in the order of the outputs; None for all of the skeleton.
        edges: Pairs of names in the order of the fields; None for all of the skeleton.
    """

    values: dict[str, Any]
    part_names: list[str] | None
    edges: list[list[str]] | None


def read_head(
    heads: dict[str, Any], cropping: dict[str, Any], output_stride: int, where: str
) -> SleapHead:
    """Return what the section `model.heads` says.

    Args:
        heads: The section.
        cropping: The section `data.instance_cropping`.
        output_stride: Of the backbone.
        where: The section's file and key, for messages.

    Raises:
        RunError: It is of another kind, or its outputs are not of the backbone's stride.
    """
    kind, section = only_choice(heads, HEAD_TYPES, where)
    parts = {f".{key}": section[key] for key in (MAPS, FIELDS) if key in section} or {"": section}
    for key, part in parts.items():
        if int(part["output_stride"]) != output_stride:
            raise RunError(
                f"{where}.{kind}{key}.output_stride is {part['output_stride']}, expected "
                f"{output_stride}, that of model.backbone.hourglass: hgtrain has one stride for "
                "all outputs"
            )
    maps, fields = section.get(MAPS, section), section.get(FIELDS)
    values = {
        "type": kind,
        # SLEAP multiplies its sigma by the stride before it draws the Gaussian.
        "sigma_px": float(maps["sigma"]) * int(maps["output_stride"]),
        "loss_weight": float(maps.get("loss_weight", 1.0)),
        "offsets": bool(maps.get("offset_refinement")),
    }
    if fields is not None:
        values["paf_width_px"] = half_width_px(float(fields["sigma"]))
        values["paf_loss_weight"] = float(fields.get("loss_weight", 1.0))
    own = HeadConfig.keys_of_type(kind)
    if "anchor" in own:
        # The heads have a key for it too, but SLEAP trains by this one.
        values["anchor"] = cropping.get("center_on_part")
    if "crop_size_px" in own:
        values["crop_size_px"] = cropping.get("crop_size")
    return SleapHead(values, maps.get("part_names"), (fields or {}).get("edges"))


def half_width_px(sigma: float) -> float:
    """Return how far from an edge SLEAP's field is a half, in px of the network's input.

    At d px it is exp(-d ** 4 / (2 sigma ** 2)): a squared distance is squared again, so that sigma
    is in square pixels. It is not multiplied by the stride.
    """
    return (2 * math.log(2) * sigma**2) ** 0.25


def only_choice(
    choices: dict[str, Any], known: tuple[str, ...], where: str
) -> tuple[str, dict[str, Any]]:
    """Return the name and the section of the one choice that is made.

    Raises:
        RunError: None or several are made, or another than those known.
    """
    made = [name for name, section in choices.items() if section is not None]
    if len(made) != 1 or made[0] not in known:
        raise RunError(
            f"{where} is {', '.join(made) or 'empty'}, expected {', '.join(known[:-1])}"
            f"{' or ' if known[:-1] else ''}{known[-1]}: hgtrain imports no other yet"
        )
    return made[0], choices[made[0]]
