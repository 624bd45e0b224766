"""What `summarize` says of the papers' networks and of re-injection, worked out by hand."""

from typing import Any

import pytest
from networks import spec_of

from hgtrain.config.schema import BackboneConfig, Config, DataConfig, ModelConfig
from hgtrain.planning.memory import Device
from hgtrain.planning.summary import summarize
from hgtrain.planning.summary_table import summary_text

KEYPOINTS = 3
# Of a grey image of 32x32 px: stem at 16x16 and 8x8, stack at 8x8 and 4x4.
FINE, MIDDLE, COARSE = 256, 64, 16
STEM = 49 * 1 * 2 * FINE
PLAIN_STEM = STEM + 9 * (2 * 4 * FINE + 4 * 4 * MIDDLE + 4 * 8 * MIDDLE)
# Down, bottom, up; skip, two behind; head.
PLAIN_STACK = 9 * (8 * 12 + 12 * 12 + 12 * 8) * COARSE + 9 * 3 * 8 * 8 * MIDDLE + 8 * 3 * MIDDLE
REINJECTION = (8 * 8 + KEYPOINTS * 8) * MIDDLE


def block(inputs: int, outputs: int) -> int:
    """Multiplications for each cell of a residual block."""
    half = outputs // 2
    match = inputs * outputs if inputs != outputs else 0
    return inputs * half + 9 * half * half + half * outputs + match


BLOCK_STEM = STEM + block(2, 4) * FINE + (block(4, 4) + block(4, 8)) * MIDDLE
BLOCK_STACK = 3 * block(8, 8) * COARSE + (2 * block(8, 8) + 8 * 8 + 8 * KEYPOINTS) * MIDDLE
# The stem's first convolution has 4 filters here, its second 8.
CHAINED_STEM = 49 * 4 * FINE + 9 * 4 * 8 * FINE + 9 * 8 * 8 * MIDDLE
CHAINED_STACK = 9 * 8 * 8 * (2 * COARSE + MIDDLE) + 8 * KEYPOINTS * MIDDLE
HOURGLASS: dict[str, Any] = {"stem_filters": 4, "filter_increase": 0}


def summary_of(stacks: int, **backbone: Any) -> dict[str, Any]:
    section = BackboneConfig(filters=8, max_stride=8, stacks=stacks, **backbone)
    config = Config(data=DataConfig(train="none.h5"), model=ModelConfig(backbone=section))
    return summarize(spec_of(config, (32, 32, 1), KEYPOINTS), Device("CPU", 2**33))


@pytest.mark.parametrize("stacks", [1, 3])
@pytest.mark.parametrize(
    ("backbone", "stem", "stack"),
    [
        ({"type": "associative_embedding", "filter_increase": 4}, PLAIN_STEM, PLAIN_STACK),
        ({"type": "residual_hourglass"}, BLOCK_STEM, BLOCK_STACK),
        (HOURGLASS | {"reinject": True}, CHAINED_STEM, CHAINED_STACK),
    ],
    ids=["associative embedding", "residual hourglass", "hourglass"],
)
def test_flops_are_those_of_the_stem_the_stacks_and_what_lies_between(
    backbone: dict[str, Any], stem: int, stack: int, stacks: int
) -> None:
    macs = stem + stacks * stack + (stacks - 1) * REINJECTION
    assert summary_of(stacks, **backbone)["flops_per_image"] == 2 * macs


def test_a_stack_that_something_is_added_to_sees_as_far_as_a_chained_one() -> None:
    chained, reinjected = (
        summary_of(3, reinject=reinject, **HOURGLASS) for reinject in (False, True)
    )
    assert chained["receptive_field_px"] == reinjected["receptive_field_px"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        # Stem 7, 11, pooling 13, 21, 29; pooling 33, down 49, bottom 65, up 81, two behind 97.
        # Again 4 for the pooling, 3 of 16, 2 of 8.
        ("associative_embedding", [97, 165]),
        # A block sees as far as a convolution; behind there is only one of them.
        ("residual_hourglass", [89, 149]),
    ],
)
def test_the_receptive_field_is_that_of_the_convolutions_on_the_longest_way(
    kind: str, fields: list[int]
) -> None:
    assert summary_of(2, type=kind)["receptive_field_px"] == fields


def test_the_table_has_what_goes_into_the_next_stack_as_a_group_of_its_own() -> None:
    text = summary_text(summary_of(2, type="residual_hourglass"))
    groups = [line for line in text.splitlines() if line.endswith(":")]
    assert groups == ["stem:", "stack0:", "head:", "reinject0:", "stack1:", "head:"]
