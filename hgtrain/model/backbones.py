"""Backbones by name: from an image to the features of each stack."""

from collections.abc import Callable
from typing import Any, Protocol

from keras import KerasTensor

from hgtrain.model.associative_embedding import AssociativeEmbedding
from hgtrain.model.hourglass import Hourglass
from hgtrain.model.residual_hourglass import ResidualHourglass
from hgtrain.model.stacking import OutputsOf


class Backbone(Protocol):
    """A network without heads, of stock Keras layers with flat, explicit names."""

    @property
    def stacks(self) -> int:
        """How many features `make_backbone` gives."""

    def make_backbone(
        self, x: KerasTensor, outputs_of: OutputsOf | None = None
    ) -> list[KerasTensor]:
        """Return the features of every stack, first to last.

        Args:
            x: Images `(B, H, W, C)` float32 in 0..1; H and W are multiples of `max_stride`.
            outputs_of: Lays a head on a stack. A backbone that takes outputs into the next stack
                calls it, once a stack and not for the last; others do not.

        Returns:
            `(B, H / output_stride, W / output_stride, C)` each.
        """


BACKBONES: dict[str, Callable[[Any], Backbone]] = {
    "hourglass": Hourglass.from_config,
    "associative_embedding": AssociativeEmbedding.from_config,
    "residual_hourglass": ResidualHourglass.from_config,
}
"""By `model.backbone.type`: what makes a backbone of its section."""


def backbone_of(section: Any) -> Backbone:
    """Return the backbone of a `model.backbone` section.

    Raises:
        ValueError: Its strides do not go together.
    """
    return BACKBONES[section.type](section)
