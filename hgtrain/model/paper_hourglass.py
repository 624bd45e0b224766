"""What the two papers' networks have in common; they differ in what stands at each place.

Newell, Yang and Deng 2016 (arXiv:1603.06937) and Newell, Huang and Deng 2017 (arXiv:1611.05424),
as their authors' code has them. A stem to the stride of the stacks; in each stack a step down and
up for every level, with a skip connection of its own, and a place at the bottom; then the end of
the stack, whose features the head sees.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, Self

from keras import KerasTensor, layers

from hgtrain.model.blocks import max_pool, require_positive
from hgtrain.model.stacking import (
    OutputsOf,
    check_sides,
    levels_between,
    make_stacks,
    no_outputs,
)


@dataclass(frozen=True)
class PaperHourglass(ABC):
    """Hourglasses in a row, features and outputs of each re-injected into the next.

    Attributes:
        down_blocks: Steps down in every stack, and as many up.
        stem_stride: 1, 2 or 4: 2 is the stride of the stem's pooling, 4 that of its first
            convolution too.
        filters: Channels of a stack's input and its features; the stem's first layers have a
            quarter and a half.
        stacks: How many hourglasses.
        interp_method: "nearest", as in the papers, or "bilinear".

    Raises:
        ValueError: An attribute cannot be used; the message names it and its value.
    """

    down_blocks: int = 4
    stem_stride: int = 4
    filters: int = 256
    stacks: int = 8
    interp_method: Literal["nearest", "bilinear"] = "nearest"

    def __post_init__(self) -> None:
        require_positive(self, "down_blocks", "filters", "stacks")
        name = type(self).__name__
        if self.stem_stride not in (1, 2, 4):
            raise ValueError(f"{name}.stem_stride must be 1, 2 or 4, got {self.stem_stride}")
        if self.filters % 4:
            raise ValueError(f"{name}.filters must be a multiple of 4, got {self.filters}")

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Return the network of a `model.backbone` section.

        Raises:
            ValueError: Its strides are not powers of two or do not go together.
        """
        down, up = levels_between(config.stem_stride, config.output_stride, config.max_stride)
        if up != down:
            raise ValueError(
                f"output_stride must equal stem_stride ({config.stem_stride}), got "
                f"{config.output_stride}"
            )
        return cls(
            down_blocks=down,
            stem_stride=config.stem_stride,
            filters=config.filters,
            stacks=config.stacks,
            interp_method=config.interp_method,
            **cls._own_attributes(config),
        )

    @classmethod
    def _own_attributes(cls, config: Any) -> dict[str, Any]:
        """Return what the section says of attributes that the other network lacks."""
        return {}

    @property
    def maximum_stride(self) -> int:
        """Return the stride of the deepest features, in px; image sides must be multiples of it."""
        return self.stem_stride * 2**self.down_blocks

    def make_backbone(
        self, x: KerasTensor, outputs_of: OutputsOf | None = None
    ) -> list[KerasTensor]:
        """Return the features of every stack, first to last.

        Args:
            x: `(B, H, W, C)` with H and W None or multiples of `maximum_stride`.
            outputs_of: Lays a head on a stack, for what goes into the next one; None: features
                alone do.

        Returns:
            `(B, H / stem_stride, W / stem_stride, filters)` for each stack.

        Raises:
            ValueError: For other sizes.
        """
        check_sides(x, self.maximum_stride)
        x = self._stem(x)
        return make_stacks(x, self.stacks, self._stack, outputs_of or no_outputs)

    def _stem(self, x: KerasTensor) -> KerasTensor:
        first = 2 if self.stem_stride == 4 else 1
        x = self._first(x, self.filters // 4, first, "stem0_conv7x7")
        x = self._place(x, self.filters // 2, "stem0_block0")
        x = max_pool(x, self.stem_stride // first, name="stem0_block0_pool")
        x = self._place(x, self.filters // 2, "stem0_block1")
        return self._place(x, self.filters, "stem0_block2")

    def _stack(self, x: KerasTensor, prefix: str) -> KerasTensor:
        skips = []
        for level in range(self.down_blocks):
            skips.append(x)
            x = max_pool(x, 2, name=f"{prefix}_enc{level}_pool")
            x = self._place(x, self._filters_at(level + 1), f"{prefix}_enc{level}")
        x = self._place(x, self._filters_at(self.down_blocks), f"{prefix}_bottom")
        for step, level in enumerate(reversed(range(self.down_blocks))):
            name = f"{prefix}_dec{step}"
            x = self._place(x, self._filters_at(level), name)
            x = layers.UpSampling2D(
                2, interpolation=self.interp_method, name=f"{name}_{self.interp_method}"
            )(x)
            skip = self._place(skips.pop(), self._filters_at(level), f"{name}_skip")
            x = layers.Add(name=f"{name}_sum")([skip, x])
        return self._end(x, f"{prefix}_end")

    def _filters_at(self, level: int) -> int:
        """Return the channels that many steps down."""
        return self.filters

    @abstractmethod
    def _first(self, x: KerasTensor, filters: int, stride: int, prefix: str) -> KerasTensor:
        """Return `x` after the stem's first convolution, 7x7."""

    @abstractmethod
    def _place(self, x: KerasTensor, filters: int, prefix: str) -> KerasTensor:
        """Return `x` after what stands at one place of the network."""

    @abstractmethod
    def _end(self, x: KerasTensor, prefix: str) -> KerasTensor:
        """Return a stack's features: `x` after the layers behind the hourglass."""
