"""The building blocks of the hourglass: convolution, stem, downsampling, upsampling.

Newell, Yang and Deng 2016 (arXiv:1603.06937) with the plain convolutions of Newell, Huang and Deng
2017 (Associative Embedding, arXiv:1611.05424). Attributes, defaults and layer names are those of
`sleap.nn.architectures.hourglass`, so that weights trained there fit by name.
"""

from dataclasses import dataclass
from typing import Literal

from keras import KerasTensor, layers

# With Keras's own 0.99 the statistics lag hundreds of steps behind, and validation is worse than
# training by a factor.
BATCH_NORM_MOMENTUM = 0.9


def conv(
    x: KerasTensor, filters: int, kernel_size: int = 3, stride: int = 1, prefix: str = "conv"
) -> KerasTensor:
    """Return `x` after convolution, ReLU and batch normalisation, in this order.

    Args:
        x: `(B, H, W, C)`.
        filters: Channels of the result.
        kernel_size: Side of the kernel, in cells.
        stride: Of the convolution.
        prefix: The layers are named `<prefix>_conv` and `<prefix>_bn`.

    Returns:
        `(B, ceil(H / stride), ceil(W / stride), filters)`.
    """
    x = layers.Conv2D(
        filters,
        kernel_size,
        strides=stride,
        padding="same",
        activation="relu",
        name=f"{prefix}_conv",
    )(x)
    return layers.BatchNormalization(momentum=BATCH_NORM_MOMENTUM, name=f"{prefix}_bn")(x)


def max_pool(x: KerasTensor, stride: int, name: str) -> KerasTensor:
    """Return the maximum over windows of `stride` pixels, and of 2 at least.

    With stride 1 the reference pools 2 by 2 too.
    """
    return layers.MaxPooling2D(pool_size=max(2, stride), strides=stride, padding="same", name=name)(
        x
    )


@dataclass(frozen=True)
class StemBlock:
    """Reduces the image to the resolution of the stacks; not repeated with them.

    Conv(7x7, filters) -> Conv(3x3, 2 * filters) -> MaxPool(2x2) -> Conv(3x3, output_filters).

    Attributes:
        pool: False leaves every stride at 1 and the pooling out.
        pooling_stride: 1, 2 or 4. With 2 the pooling has a stride of 2, with 4 the first
            convolution has one as well. With 1 the pooling layer stays, with a stride of 1.
        filters: Channels of the first convolution.
        output_filters: Channels of the result.

    Raises:
        ValueError: For another stride or a number of filters below 1.
    """

    pool: bool = True
    pooling_stride: int = 4
    filters: int = 128
    output_filters: int = 256

    def __post_init__(self) -> None:
        if self.pooling_stride not in (1, 2, 4):
            raise ValueError(
                f"StemBlock.pooling_stride must be 1, 2 or 4, got {self.pooling_stride}"
            )
        require_positive(self, "filters", "output_filters")

    @property
    def first_conv_stride(self) -> int:
        """Return the stride of the first convolution."""
        return 2 if self.pool and self.pooling_stride == 4 else 1

    def make_block(self, x_in: KerasTensor, prefix: str = "stem") -> KerasTensor:
        """Return `x_in` `(B, H, W, C)` after the stem; every layer's name starts with `prefix`."""
        x = conv(
            x_in,
            self.filters,
            kernel_size=7,
            stride=self.first_conv_stride,
            prefix=f"{prefix}_conv7x7",
        )
        x = conv(x, 2 * self.filters, prefix=f"{prefix}_conv3x3")
        if self.pool:
            x = max_pool(x, self.pooling_stride // self.first_conv_stride, name=f"{prefix}_pool")
        return conv(x, self.output_filters, prefix=f"{prefix}_conv3x3_out")


@dataclass(frozen=True)
class DownsamplingBlock:
    """One step down: MaxPool -> Conv(3x3, filters).

    Attributes:
        pool: False leaves the pooling out and the resolution as it is.
        pooling_stride: Stride of the pooling, 1 or more.
        filters: Channels of the result.

    Raises:
        ValueError: For a number below 1.
    """

    pool: bool = True
    pooling_stride: int = 2
    filters: int = 256

    def __post_init__(self) -> None:
        require_positive(self, "pooling_stride", "filters")

    def make_block(self, x_in: KerasTensor, prefix: str = "downsample") -> KerasTensor:
        """Return `x_in` `(B, H, W, C)` after the block; every layer's name starts with `prefix`."""
        x = max_pool(x_in, self.pooling_stride, name=f"{prefix}_pool") if self.pool else x_in
        return conv(x, self.filters, prefix=f"{prefix}_conv")


@dataclass(frozen=True)
class UpsamplingBlock:
    """One step up: Conv(3x3) -> upsample, plus Conv(3x3) of the skip connection.

    Attributes:
        upsampling_stride: Factor of the upsampling, 1 or more.
        filters: Channels of the result.
        interp_method: "nearest" or "bilinear".

    Raises:
        ValueError: For another method or a number below 1.
    """

    upsampling_stride: int = 2
    filters: int = 256
    interp_method: Literal["nearest", "bilinear"] = "bilinear"

    def __post_init__(self) -> None:
        require_positive(self, "upsampling_stride", "filters")
        if self.interp_method not in ("nearest", "bilinear"):
            raise ValueError(
                'UpsamplingBlock.interp_method must be "nearest" or "bilinear", '
                f"got {self.interp_method!r}"
            )

    def make_block(
        self,
        x: KerasTensor,
        current_stride: int | None = None,
        skip_source: KerasTensor | None = None,
        prefix: str = "upsample",
    ) -> KerasTensor:
        """Return `x` upsampled, plus the skip connection.

        Args:
            x: `(B, H, W, C)`.
            current_stride: Stride of `x` in the image, for the error message only.
            skip_source: `(B, H * stride, W * stride, any)`; None leaves the skip branch out.
            prefix: Of the layers' names.

        Returns:
            `(B, stride * H, stride * W, filters)`.

        Raises:
            ValueError: The skip source has another size.
        """
        x = conv(x, self.filters, prefix=f"{prefix}_conv")
        x = layers.UpSampling2D(
            self.upsampling_stride,
            interpolation=self.interp_method,
            name=f"{prefix}_{self.interp_method}",
        )(x)
        if skip_source is None:
            return x
        if x.shape[1:3] != skip_source.shape[1:3]:
            at = "" if current_stride is None else f" at stride {current_stride}"
            raise ValueError(
                f"{prefix}{at}: the skip connection is {skip_source.shape[1:3]}, the upsampled "
                f"input {x.shape[1:3]}; "
                "pad the image to a multiple of the maximum stride"
            )
        skip = conv(skip_source, self.filters, prefix=f"{prefix}_skip")
        return layers.Add(name=f"{prefix}_skip_add")([x, skip])


def require_positive(block: object, *attributes: str) -> None:
    """Raise ValueError for the first attribute of `block` that is not a whole number from 1 on."""
    for attribute in attributes:
        value = getattr(block, attribute)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise ValueError(
                f"{type(block).__name__}.{attribute} must be a whole number of 1 or more, got "
                f"{value!r}"
            )
