"""The original stacked hourglass, of residual blocks.

Newell, Yang and Deng 2016 (arXiv:1603.06937).
"""

from dataclasses import dataclass

from keras import KerasTensor, layers

from hgtrain.model.blocks import BATCH_NORM_MOMENTUM
from hgtrain.model.paper_hourglass import PaperHourglass


def normalised(x: KerasTensor, prefix: str, number: int | str = "") -> KerasTensor:
    """Return `x` after batch normalisation and ReLU."""
    x = layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{prefix}_bn{number}")(x)
    return layers.ReLU(name=f"{prefix}_relu{number}")(x)


def normalised_conv(
    x: KerasTensor, filters: int, kernel_size: int, prefix: str, stride: int = 1
) -> KerasTensor:
    """Return `x` after convolution, batch normalisation and ReLU, in this order."""
    x = layers.Conv2D(filters, kernel_size, strides=stride, padding="same", name=f"{prefix}_conv")(
        x
    )
    return normalised(x, prefix)


def residual(x: KerasTensor, filters: int, prefix: str) -> KerasTensor:
    """Return `x` plus what three convolutions make of it, each after normalisation and ReLU.

    1x1 to half of the filters, 3x3, 1x1 to all (He et al. 2016, arXiv:1603.05027). Where `x` has
    another number of channels, a 1x1 convolution of it stands for it.

    Args:
        x: `(B, H, W, C)`.
        filters: Channels of the result, an even number.
        prefix: Of the layers' names.
    """
    inner = x
    shapes = ((filters // 2, 1), (filters // 2, 3), (filters, 1))
    for number, (count, kernel_size) in enumerate(shapes, start=1):
        inner = normalised(inner, prefix, number)
        inner = layers.Conv2D(count, kernel_size, padding="same", name=f"{prefix}_conv{number}")(
            inner
        )
    if x.shape[-1] != filters:
        x = layers.Conv2D(filters, 1, name=f"{prefix}_match")(x)
    return layers.Add(name=f"{prefix}_add")([x, inner])


@dataclass(frozen=True)
class ResidualHourglass(PaperHourglass):
    """Hourglasses with a residual block at each place, of as many filters everywhere."""

    def _first(self, x: KerasTensor, filters: int, stride: int, prefix: str) -> KerasTensor:
        return normalised_conv(x, filters, 7, prefix, stride)

    def _place(self, x: KerasTensor, filters: int, prefix: str) -> KerasTensor:
        return residual(x, filters, prefix)

    def _end(self, x: KerasTensor, prefix: str) -> KerasTensor:
        x = residual(x, self.filters, f"{prefix}0")
        return normalised_conv(x, self.filters, 1, f"{prefix}1")
