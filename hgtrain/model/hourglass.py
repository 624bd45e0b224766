"""The stacked hourglass backbone."""

from dataclasses import dataclass
from typing import Literal, Protocol

from keras import KerasTensor

from hgtrain.model.blocks import DownsamplingBlock, StemBlock, UpsamplingBlock, require_positive
from hgtrain.model.stacking import (
    OutputsOf,
    check_sides,
    levels_between,
    make_stacks,
    no_outputs,
)


class HourglassConfig(Protocol):
    """What `Hourglass.from_config` reads.

    Strides are in pixels of the network's input, and powers of two.
    """

    # Read-only, so that frozen sections and narrower types fulfil it.
    @property
    def stem_stride(self) -> int: ...  # noqa: D102
    @property
    def max_stride(self) -> int: ...  # noqa: D102
    @property
    def output_stride(self) -> int: ...  # noqa: D102
    @property
    def stem_filters(self) -> int: ...  # noqa: D102
    @property
    def filters(self) -> int: ...  # noqa: D102
    @property
    def filter_increase(self) -> int: ...  # noqa: D102
    @property
    def stacks(self) -> int: ...  # noqa: D102
    @property
    def interp_method(self) -> Literal["nearest", "bilinear"]: ...  # noqa: D102


@dataclass(frozen=True)
class Hourglass:
    """Encoder and decoder, repeated: x_in -> stem -> (encoder_stack -> decoder_stack) x stacks.

    Attributes:
        down_blocks: Steps down in every stack.
        up_blocks: Steps up in every stack; as many as down when there is more than one stack.
        stem_filters: Channels of the stem's first convolution.
        stem_stride: 1, 2 or 4.
        filters: Channels of the first downsampling block.
        filter_increase: How many more each further downsampling block has; an upsampling block has
            as many as the downsampling block whose input has its output's stride.
        interp_method: "nearest" or "bilinear".
        stacks: Repetitions, 1 or more; the output of each can be supervised.
        reinject: Whether a stack's features and outputs are added to its input, as in the papers,
            and make the next one's; the reference takes the features alone.

    Raises:
        ValueError: An attribute cannot be used; the message names it and its value.
    """

    down_blocks: int = 4
    up_blocks: int = 4
    stem_filters: int = 128
    stem_stride: int = 4
    filters: int = 256
    filter_increase: int = 128
    interp_method: Literal["nearest", "bilinear"] = "nearest"
    stacks: int = 3
    reinject: bool = False

    def __post_init__(self) -> None:
        require_positive(self, "down_blocks", "stem_filters", "filters", "stacks")
        if not 0 <= self.up_blocks <= self.down_blocks:
            raise ValueError(
                f"Hourglass.up_blocks must be from 0 to down_blocks ({self.down_blocks}), got "
                f"{self.up_blocks}"
            )
        if self.stacks > 1 and self.up_blocks != self.down_blocks:
            raise ValueError(
                f"Hourglass.up_blocks must equal down_blocks ({self.down_blocks}) with "
                f"{self.stacks} stacks, "
                f"got {self.up_blocks}"
            )
        if self.filter_increase < 0:
            raise ValueError(
                f"Hourglass.filter_increase must be 0 or more, got {self.filter_increase}"
            )

    @classmethod
    def from_config(cls, config: HourglassConfig) -> "Hourglass":
        """Return the hourglass of a `model.backbone` section.

        Raises:
            ValueError: Strides are not powers of two or not in the order stem, output, maximum.
        """
        down_blocks, up_blocks = levels_between(
            config.stem_stride, config.output_stride, config.max_stride
        )
        return cls(
            down_blocks=down_blocks,
            up_blocks=up_blocks,
            stem_filters=config.stem_filters,
            stem_stride=config.stem_stride,
            filters=config.filters,
            filter_increase=config.filter_increase,
            interp_method=config.interp_method,
            stacks=config.stacks,
            # The reference's own config has no such key.
            reinject=getattr(config, "reinject", False),
        )

    @property
    def maximum_stride(self) -> int:
        """Return the stride of the deepest features, in px; image sides must be multiples of it."""
        return self.stem_stride * 2**self.down_blocks

    @property
    def output_stride(self) -> int:
        """Return the stride of the outputs, in pixels."""
        return self.maximum_stride // 2**self.up_blocks

    @property
    def stem_stack(self) -> list[StemBlock]:
        """Return the blocks before the stacks."""
        return [
            StemBlock(
                pooling_stride=self.stem_stride,
                filters=self.stem_filters,
                output_filters=self.filters,
            )
        ]

    @property
    def encoder_stack(self) -> list[DownsamplingBlock]:
        """Return the downsampling blocks of one stack, finest first."""
        return [
            DownsamplingBlock(filters=self._filters_at(level)) for level in range(self.down_blocks)
        ]

    @property
    def decoder_stack(self) -> list[UpsamplingBlock]:
        """Return the upsampling blocks of one stack, coarsest first."""
        levels = range(self.down_blocks - 1, self.down_blocks - 1 - self.up_blocks, -1)
        return [
            UpsamplingBlock(filters=self._filters_at(level), interp_method=self.interp_method)
            for level in levels
        ]

    def _filters_at(self, level: int) -> int:
        return self.filters + self.filter_increase * level

    def make_backbone(
        self, x: KerasTensor, outputs_of: OutputsOf | None = None
    ) -> list[KerasTensor]:
        """Return the output of every stack, first to last.

        Args:
            x: `(B, H, W, C)` with H and W None or multiples of `maximum_stride`.
            outputs_of: Lays a head on a stack, for what goes into the next one with `reinject`;
                None: features alone do.

        Returns:
            `(B, H / output_stride, W / output_stride, filters)` for each stack.

        Raises:
            ValueError: For other sizes.
        """
        check_sides(x, self.maximum_stride)
        for i, block in enumerate(self.stem_stack):
            x = block.make_block(x, prefix=f"stem{i}")
        stem = x

        def make_stack(x: KerasTensor, prefix: str) -> KerasTensor:
            # Chained, the finest skip connection is the stem's output in every stack, not the
            # stack's own input: the reference is built so, and weights trained with it give other
            # maps otherwise. With re-injection the stem's output is part of each stack's input.
            return self._make_stack(x, x if self.reinject else stem, prefix)

        injected = (outputs_of or no_outputs) if self.reinject else None
        return make_stacks(x, self.stacks, make_stack, injected)

    def _make_stack(self, x: KerasTensor, finest_skip: KerasTensor, prefix: str) -> KerasTensor:
        skips = [finest_skip]
        for i, down in enumerate(self.encoder_stack):
            x = down.make_block(x, prefix=f"{prefix}_enc{i}")
            skips.append(x)
        skips.pop()
        stride = self.maximum_stride
        for i, up in enumerate(self.decoder_stack):
            x = up.make_block(
                x, current_stride=stride, skip_source=skips.pop(), prefix=f"{prefix}_dec{i}"
            )
            stride //= up.upsampling_stride
        return x
