"""What a network predicts: layers, targets, losses and decoding of one kind of head each."""

from collections.abc import Callable
from typing import Any

from hgtrain.heads.base import Head, Outputs, Target, by_stack
from hgtrain.heads.centered_instance import CenteredInstance
from hgtrain.heads.centroid import Centroid
from hgtrain.heads.multi_instance import MultiInstance
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.skeleton import Skeleton

__all__ = ["HEADS", "Head", "Outputs", "Target", "by_stack", "make_head"]

HEADS: dict[str, Callable[..., Head]] = {
    "single_instance": SingleInstance.of_skeleton,
    "multi_instance": MultiInstance.of_skeleton,
    "centroid": Centroid.of_skeleton,
    "centered_instance": CenteredInstance.of_skeleton,
}
"""By `model.head.type`: what makes a head.

It takes the dataset's skeleton, the stride, whether labels are complete, and the head's own keys.
"""


def make_head(section: Any, skeleton: Skeleton, stride: int, complete: bool = True) -> Head:
    """Return the head of a `model.head` section.

    Args:
        section: Its keys besides `type` are the head's own.
        skeleton: Of the dataset.
        stride: Of the backbone's features.
        complete: Whether every animal of a labelled frame is labelled; matters to targets alone.
    """
    keys = section.model_dump(exclude={"type"})
    return HEADS[section.type](skeleton, stride, complete, **keys)
