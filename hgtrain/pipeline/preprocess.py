"""From images as the file holds them to images as the network takes them.

This sets channels, size and padding.
"""

from typing import TYPE_CHECKING, Any, NamedTuple

import tensorflow as tf

from hgtrain.coords import (
    NEGLIGIBLE_PX,
    original_points,
    padded_length,
    resized_length,
    resized_points,
)

if TYPE_CHECKING:
    from hgtrain.config.schema import DataConfig

# ITU-R BT.601, as in every image library's conversion to grey.
LUMINANCE = (0.299, 0.587, 0.114)


class Preprocessing(NamedTuple):
    """What lies between the dataset's images and a network.

    Attributes:
        channels: Of the network's input.
        input_scale: Factor by which images are resized.
        multiple: Of which the padded sides are, in px.
    """

    channels: int
    input_scale: float
    multiple: int

    def __call__(self, images: tf.Tensor) -> tf.Tensor:
        """Return images `(B, H, W, C)` uint8 as the network takes them, float32 0..255."""
        prepared = resize(to_channels(images, self.channels), self.input_scale)
        # In float already here: runtimes for phones pad no unsigned bytes.
        return pad(tf.cast(prepared, tf.float32), self.multiple)

    def size(self, images: tf.Tensor) -> tuple[int | tf.Tensor, int | tf.Tensor]:
        """Return height and width of images `(B, H, W, C)` in the network's input, unpadded, px."""
        height, width = _sizes(images)[1:3]
        return _resized(height, self.input_scale), _resized(width, self.input_scale)

    def resized_points(self, points: tf.Tensor) -> tf.Tensor:
        """Return points of the dataset's images, `(..., 2)` px, in px of the network's input."""
        return resized_points(points, self.input_scale)

    def original_points(self, points: tf.Tensor) -> tf.Tensor:
        """Return points of the network's input, `(..., 2)` px, in px of the dataset's images."""
        return original_points(points, self.input_scale)


def preprocessing_of(
    data: "DataConfig", max_stride: int, image_shape: tuple[int, int, int]
) -> Preprocessing:
    """Return what a `data` section makes of images `(H, W, C)` for a network of this stride."""
    return Preprocessing(data.channels or image_shape[2], data.input_scale, max_stride)


def to_channels(images: tf.Tensor, channels: int) -> tf.Tensor:
    """Return images `(B, H, W, C)` uint8 with 1 or 3 channels.

    Grey is repeated, and colour becomes its luminance.
    """
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        # Not repeated, after which TensorFlow Lite's converter knows the number of channels no
        # more.
        return tf.concat([images] * 3, axis=-1)
    grey = tf.tensordot(tf.cast(images, tf.float32), tf.constant(LUMINANCE), axes=1)[..., None]
    return _rounded(grey)


def resize(images: tf.Tensor, scale: float) -> tf.Tensor:
    """Return images `(B, H, W, C)` uint8 resized by exactly `scale`, as uint8.

    The result is antialiased and half-pixel-correct. It is computed as two products with small
    matrices, so that any runtime an exported model may meet has the operations.
    """
    if scale == 1:
        return images
    _, height, width, channels = _sizes(images)
    rows, columns = _resampling(height, scale), _resampling(width, scale)
    # Not as einsum: TensorFlow Lite's converter loses the sizes of what it makes of that. Nor as a
    # product for each
    # image: of no images at all it makes none.
    resized = tf.reshape(tf.transpose(tf.cast(images, tf.float32), (0, 3, 2, 1)), (-1, height))
    resized = tf.reshape(
        tf.matmul(resized, rows, transpose_b=True), (-1, channels, width, tf.shape(rows)[0])
    )
    resized = tf.reshape(tf.transpose(resized, (0, 1, 3, 2)), (-1, width))
    resized = tf.matmul(resized, columns, transpose_b=True)
    resized = tf.reshape(resized, (-1, channels, tf.shape(rows)[0], tf.shape(columns)[0]))
    return _rounded(tf.transpose(resized, (0, 2, 3, 1)))


def _sizes(images: tf.Tensor) -> list[Any]:
    """Return the sizes of the axes, as numbers where they are known."""
    known, now = images.shape, tf.shape(images)
    return [now[axis] if known[axis] is None else known[axis] for axis in range(4)]


def _rounded(values: tf.Tensor) -> tf.Tensor:
    """Return values as uint8; those halfway go up."""
    # Halves are frequent, as at scale 1.5. With a margin, rounding errors that differ from one
    # runtime to the next, and from a known size to an unknown one, do not decide between two grey
    # levels.
    return tf.cast(tf.clip_by_value(tf.floor(values + 0.5005), 0, 255), tf.uint8)


def _resized(length: int | tf.Tensor, scale: float) -> int | tf.Tensor:
    """Return the length of a side in the network's input, a number where that of the image is."""
    if scale == 1:
        return length
    if isinstance(length, int):
        return resized_length(length, scale)
    content = tf.cast(length, tf.float32) * scale
    return tf.maximum(1, tf.cast(tf.math.ceil(content - NEGLIGIBLE_PX), tf.int32))


def _resampling(length: int | tf.Tensor, scale: float) -> tf.Tensor:
    """Return the matrix `(resized, length)` of a triangular filter.

    The filter is as wide as the coarser of the two grids.
    """
    resized = _resized(length, scale)
    # Not divided by the scale: in a graph a division may become this product, which gives other
    # last digits.
    at = (tf.cast(tf.range(resized), tf.float32) + 0.5) * (1 / scale) - 0.5
    # The last pixel may lie a little beyond the image: it takes the colour of the border.
    at = tf.clip_by_value(at, 0, tf.cast(length - 1, tf.float32))
    distance = tf.abs(at[:, None] - tf.cast(tf.range(length), tf.float32)[None, :])
    weights = tf.maximum(0.0, 1 - distance * min(1.0, scale))
    return weights / tf.reduce_sum(weights, axis=1, keepdims=True)


def pad(images: tf.Tensor, multiple: int) -> tf.Tensor:
    """Return images `(B, H, W, C)` with zeros on the right and at the bottom.

    Their sides become multiples of `multiple`.
    """
    shape = tf.shape(images)
    # Without negative numbers, whose remainder is another in exported models' runtimes.
    bottom, right = (multiple - 1 - (side - 1) % multiple for side in (shape[1], shape[2]))
    padded = tf.pad(images, [[0, 0], [0, bottom], [0, right], [0, 0]])
    height, width = (
        None if side is None else padded_length(side, multiple) for side in images.shape[1:3]
    )
    padded.set_shape([images.shape[0], height, width, images.shape[3]])
    return padded
