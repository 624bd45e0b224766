"""Backbones by name: from an image to the features of each stack."""

from collections.abc import Callable
from typing import Any, Protocol

from keras import KerasTensor

from hgtrain.model.hourglass import Hourglass


class Backbone(Protocol):
    """A network without heads, of stock Keras layers with flat, explicit names."""

    def make_backbone(self, x: KerasTensor) -> list[KerasTensor]:
        """Return the features of every stack, first to last.

        Args:
            x: Images `(B, H, W, C)` float32 in 0..1; H and W are multiples of `max_stride`.

        Returns:
            `(B, H / output_stride, W / output_stride, C)` each.
        """


BACKBONES: dict[str, Callable[[Any], Backbone]] = {"hourglass": Hourglass.from_config}
"""By `model.backbone.type`: what makes a backbone of its section."""


def backbone_of(section: Any) -> Backbone:
    """Return the backbone of a `model.backbone` section.

    Raises:
        ValueError: Its strides do not go together.
    """
    return BACKBONES[section.type](section)
