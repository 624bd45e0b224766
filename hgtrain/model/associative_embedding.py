"""The network of Associative Embedding: hourglasses of plain convolutions.

Newell, Huang and Deng 2017 (arXiv:1611.05424). The reference's hourglass follows it, but normalises
after every convolution and leaves some of them out.
"""

from dataclasses import dataclass
from typing import Any

from keras import KerasTensor, layers

from hgtrain.model.paper_hourglass import PaperHourglass


def plain_conv(
    x: KerasTensor, filters: int, prefix: str, kernel_size: int = 3, stride: int = 1
) -> KerasTensor:
    """Return `x` after convolution and ReLU, in a layer named `<prefix>_conv`."""
    return layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        activation="relu",
        # From Keras's usual start each ReLU halves the variance, and without normalisation nothing
        # restores it.
        kernel_initializer="he_uniform",
        name=f"{prefix}_conv",
    )(x)


@dataclass(frozen=True)
class AssociativeEmbedding(PaperHourglass):
    """Hourglasses of plain 3x3 convolutions, and two more behind each; no normalisation.

    Attributes:
        stacks: How many hourglasses.
        filter_increase: How many more filters each step down has.

    Raises:
        ValueError: An attribute cannot be used; the message names it and its value.
    """

    stacks: int = 4
    filter_increase: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.filter_increase < 0:
            raise ValueError(
                f"AssociativeEmbedding.filter_increase must be 0 or more, got "
                f"{self.filter_increase}"
            )

    @classmethod
    def _own_attributes(cls, config: Any) -> dict[str, Any]:
        return {"filter_increase": config.filter_increase}

    def _filters_at(self, level: int) -> int:
        return self.filters + self.filter_increase * level

    def _first(self, x: KerasTensor, filters: int, stride: int, prefix: str) -> KerasTensor:
        return plain_conv(x, filters, prefix, kernel_size=7, stride=stride)

    def _place(self, x: KerasTensor, filters: int, prefix: str) -> KerasTensor:
        return plain_conv(x, filters, prefix)

    def _end(self, x: KerasTensor, prefix: str) -> KerasTensor:
        x = plain_conv(x, self.filters, f"{prefix}0")
        return plain_conv(x, self.filters, f"{prefix}1")
