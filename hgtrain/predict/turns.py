"""Over which turned and mirrored images a prediction is averaged."""

import difflib
from collections.abc import Sequence
from itertools import product

from hgtrain.coords import Turn

AVERAGES = ("flips", "rotations")
"""Flips as in training, left to right where there were none; rotations by quarters."""

ROTATIONS = (
    Turn(),
    Turn(transposes=True, mirrors_x=True),
    Turn(mirrors_x=True, mirrors_y=True),
    Turn(transposes=True, mirrors_y=True),
)
FLIPS = {
    "none": (Turn(), Turn(mirrors_x=True)),
    "horizontal": (Turn(), Turn(mirrors_x=True)),
    "vertical": (Turn(), Turn(mirrors_y=True)),
    "both": tuple(Turn(False, *sides) for sides in product((False, True), repeat=2)),
}
"""By `augmentation.flip`, the image itself first."""

ALL = tuple(Turn(*turn) for turn in product((False, True), repeat=3))


def read_averages(text: str) -> tuple[str, ...]:
    """Return what a text such as `flips,rotations` names, each once.

    Raises:
        ValueError: It names something else, or nothing.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in AVERAGES:
            nearest = difflib.get_close_matches(name, AVERAGES, n=1)
            hint = f" (did you mean {nearest[0]}?)" if nearest else ""
            raise ValueError(f"must be flips, rotations or flips,rotations, got {text!r}{hint}")
    return names


def turns_of(averages: Sequence[str], flip: str) -> tuple[Turn, ...]:
    """Return the turns that are averaged over, the image as it is first.

    Args:
        averages: Of `AVERAGES`.
        flip: `augmentation.flip` of the training.
    """
    if "rotations" not in averages:
        return FLIPS[flip] if "flips" in averages else ROTATIONS[:1]
    # A rotation of a mirrored image is an image mirrored along some axis, whichever it was.
    return ALL if "flips" in averages else ROTATIONS
