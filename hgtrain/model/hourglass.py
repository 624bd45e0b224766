"""The stacked hourglass backbone."""

from dataclasses import dataclass
from typing import Literal, Protocol

from keras import KerasTensor

from hgtrain.model.blocks import DownsamplingBlock, StemBlock, UpsamplingBlock, require_positive


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
        stem, output, maximum = config.stem_stride, config.output_stride, config.max_stride
        for name, stride in (
            ("stem_stride", stem),
            ("output_stride", output),
            ("max_stride", maximum),
        ):
            if stride < 1 or stride & (stride - 1):
                raise ValueError(f"{name} must be a power of two, got {stride}")
        if not stem <= output <= maximum:
            raise ValueError(
                f"strides must be stem <= output <= max, got {stem}, {output}, {maximum}"
            )
        return cls(
            # Powers of two: the difference of the exponents is the number of halvings between two
            # strides.
            down_blocks=maximum.bit_length() - stem.bit_length(),
            up_blocks=maximum.bit_length() - output.bit_length(),
            stem_filters=config.stem_filters,
            stem_stride=stem,
            filters=config.filters,
            filter_increase=config.filter_increase,
            interp_method=config.interp_method,
            stacks=config.stacks,
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

    def make_backbone(self, x: KerasTensor) -> list[KerasTensor]:
        """Return the output of every stack, first to last.

        Args:
            x: `(B, H, W, C)` with H and W None or multiples of `maximum_stride`.

        Returns:
            `(B, H / output_stride, W / output_stride, filters)` for each stack.

        Raises:
            ValueError: For other sizes.
        """
        for side in x.shape[1:3]:
            if side is not None and side % self.maximum_stride:
                raise ValueError(
                    f"the image is {x.shape[1]} x {x.shape[2]}, its sides must be multiples of "
                    f"{self.maximum_stride}"
                )
        for i, block in enumerate(self.stem_stack):
            x = block.make_block(x, prefix=f"stem{i}")
        stem = x
        outputs = []
        for s in range(self.stacks):
            x = self._make_stack(x, stem, prefix=f"stack{s}")
            outputs.append(x)
        return outputs

    def _make_stack(self, x: KerasTensor, stem: KerasTensor, prefix: str) -> KerasTensor:
        # The finest skip connection is the stem's output in every stack, not the stack's own input:
        # the reference is built so, and weights trained with it give other maps otherwise.
        skips = [stem]
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
