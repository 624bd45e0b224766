"""Random changes of a batch, inside the compiled graph.

One fused affine changes images and points, then the intensity is changed. Every draw is a number in
0..1 handed in, so a batch is a function of (seed, step) whatever the number of devices.
"""

import math
from typing import TYPE_CHECKING

import tensorflow as tf

from hgtrain.coords import Crop

if TYPE_CHECKING:
    from hgtrain.config.schema import AugmentationConfig

DRAWS = (
    "rotation",
    "scale",
    "x",
    "y",
    "flip_horizontal",
    "flip_vertical",
    "brightness",
    "contrast",
    "gamma",
    "blur",
)


def draw(seed: int, step: tf.Tensor, batch_size: int) -> tf.Tensor:
    """Return the random numbers of one step, which depend on (seed, step) alone.

    Returns:
        `(batch_size, len(DRAWS))` float32 in 0..1.
    """
    seeds = tf.stack([tf.constant(seed, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform((batch_size, len(DRAWS)), seeds)


def draw_jitter(seed: int, step: tf.Tensor, batch_size: int, crop: Crop) -> tf.Tensor:
    """Return how far the crops of a step lie beside their animals, `(batch_size, 2)` px."""
    # Not a column of `draw`, whose numbers for whole images would be others with it.
    seeds = tf.stack([tf.constant(~seed, tf.int64), tf.cast(step, tf.int64)])
    return crop.jitter * crop.size_px * tf.random.stateless_normal((batch_size, 2), seeds)


def augment_geometry(
    images: tf.Tensor,
    points: tf.Tensor,
    weights: tf.Tensor,
    draws: tf.Tensor,
    config: "AugmentationConfig",
    symmetries: tuple[tuple[int, int], ...],
    cropping: tuple[Crop, tf.Tensor] | None = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Flip images and points and put them through an affine, which may end in a crop.

    A keypoint that lies outside its image before or after weighs nothing; one that is marked absent
    (NaN with a weight) keeps its weight. Rotation, scale and flip are about the centre of the
    image.

    Args:
        images: `(B, H, W, C)` uint8.
        points: `(B, I, K, 2)` in pixels, NaN where missing.
        weights: `(B, I, K)`.
        draws: As `draw` gives them.
        config: Which changes, and how large.
        symmetries: Left/right partners, which a mirrored image swaps.
        cropping: The crop around the only animal (I is 1) and how far it lies beside it,
            `(B, 2)` px; None for the whole image. It is cut by the same affine, so that what lies
            around the crop turns into it and each pixel is interpolated once.

    Returns:
        Images `(B, H, W, C)` float32 0..255, of the crop's size where there is one, points
        `(B, I, K, 2)` and weights `(B, I, K)`.
    """
    height, width = images.shape[1], images.shape[2]
    weights = weights * _inside(points, height, width)
    matrix, mirrored = _linear_part(draws, config)
    shift = tf.stack(
        [_uniform(draws, name, config.translation_px, 0.0) for name in ("x", "y")], axis=1
    )
    centre = tf.constant([(width - 1) / 2, (height - 1) / 2])
    # As one axis: animals and keypoints are moved alike.
    flat = tf.reshape(points - centre, (-1, points.shape[1] * points.shape[2], 2))
    moved = tf.einsum("bij,bkj->bki", matrix, flat) + (centre + shift)[:, None, :]
    points = tf.reshape(moved, tf.shape(points))
    if symmetries:
        partners = _partners(symmetries, points.shape[2])
        mirrored = mirrored[:, None, None]
        points = tf.where(mirrored[..., None], tf.gather(points, partners, axis=2), points)
        weights = tf.where(mirrored, tf.gather(weights, partners, axis=2), weights)
    if cropping is not None:
        crop, beside = cropping
        labelled = tf.where(weights[..., None] > 0, points, math.nan)
        corner = crop.corners(crop.centroids(labelled[:, 0]) + beside)
        points, shift = points - corner[:, None, None], shift - corner
        height = width = crop.size_px
    target = centre + shift
    images = _warp(
        tf.cast(images, tf.float32), matrix, (centre, target), (height, width), config.fill
    )
    return images, points, weights * _inside(points, height, width)


def _inside(points: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Return 0 for points outside the image and 1 for all others, missing ones too.

    Returns:
        `(B, I, K)` float32.
    """
    x, y = points[..., 0], points[..., 1]
    outside = (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)
    return tf.where(outside, 0.0, 1.0)


def _uniform(
    draws: tf.Tensor, name: str, bounds: tuple[float, float] | None, off: float
) -> tf.Tensor:
    if bounds is None:
        return tf.fill((tf.shape(draws)[0],), off)
    low, high = bounds
    return low + (high - low) * draws[:, DRAWS.index(name)]


def _linear_part(draws: tf.Tensor, config: "AugmentationConfig") -> tuple[tf.Tensor, tf.Tensor]:
    """Return flip, rotation and scale as matrices, and which images are mirrored.

    Returns:
        The matrices `(B, 2, 2)`, and `(B,)` bool.
    """
    angle = _uniform(draws, "rotation", config.rotation_deg, 0.0) * (3.141592653589793 / 180)
    scale = _uniform(draws, "scale", config.scale, 1.0)
    flips = [
        (draws[:, DRAWS.index(f"flip_{axis}")] < 0.5) & (config.flip in (axis, "both"))
        for axis in ("horizontal", "vertical")
    ]
    sign_x, sign_y = (tf.where(flip, -1.0, 1.0) for flip in flips)
    cos, sin = scale * tf.cos(angle), scale * tf.sin(angle)
    matrix = tf.stack([cos * sign_x, -sin * sign_y, sin * sign_x, cos * sign_y], axis=1)
    # Both flips together are a rotation by 180 degrees: left stays left.
    return tf.reshape(matrix, (-1, 2, 2)), tf.math.logical_xor(*flips)


def _partners(symmetries: tuple[tuple[int, int], ...], keypoints: int) -> list[int]:
    partners = list(range(keypoints))
    for left, right in symmetries:
        partners[left], partners[right] = right, left
    return partners


def _warp(
    images: tf.Tensor,
    matrix: tf.Tensor,
    centres: tuple[tf.Tensor, tf.Tensor],
    size: tuple[int, int],
    fill: str,
) -> tf.Tensor:
    """Return images of a size, sampled once, bilinearly, at the places their pixels come from.

    The matrix is about a centre `(2,)`, which comes to lie at another place `(B, 2)`.
    """
    centre, target = centres
    back = tf.linalg.inv(matrix)
    origin = centre - tf.einsum("bij,bj->bi", back, target)
    zeros = tf.zeros((tf.shape(images)[0], 2))
    transforms = tf.concat([back[:, 0], origin[:, :1], back[:, 1], origin[:, 1:], zeros], axis=1)
    warped = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=transforms,
        output_shape=tf.constant(size),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode=fill.upper(),
    )
    return tf.ensure_shape(warped, (images.shape[0], *size, images.shape[3]))


def augment_intensity(
    images: tf.Tensor,
    draws: tf.Tensor,
    config: "AugmentationConfig",
    seed: int,
    examples: tf.Tensor,
) -> tf.Tensor:
    """Return images after blur, contrast, brightness, gamma and noise, in this order.

    Brightness is added and noise drawn in units of images in 0..1; contrast is a factor about the
    image's mean.

    Args:
        images: `(B, H, W, C)` 0..255.
        draws: As `draw` gives them.
        config: Which changes, and how large.
        seed: Of the noise.
        examples: `(B,)` int64, the running number of each example in the training, which with
            `seed` gives its noise.

    Returns:
        `(B, H, W, C)` float32 0..255.
    """
    images = images / 255
    if config.blur_sigma_px is not None:
        images = _blur(
            images, _uniform(draws, "blur", config.blur_sigma_px, 0.0), config.blur_sigma_px[1]
        )
    if config.contrast is not None:
        mean = tf.reduce_mean(images, axis=(1, 2), keepdims=True)
        images = mean + (images - mean) * _per_image(
            _uniform(draws, "contrast", config.contrast, 1.0)
        )
    if config.brightness is not None:
        images += _per_image(_uniform(draws, "brightness", config.brightness, 0.0))
    images = tf.clip_by_value(images, 0, 1)
    if config.gamma is not None:
        images = tf.pow(images, _per_image(_uniform(draws, "gamma", config.gamma, 1.0)))
    if config.noise_std:
        seeds = tf.stack(
            [tf.fill(tf.shape(examples), tf.constant(seed, tf.int64)), examples], axis=1
        )
        shape = images.shape[1:]
        noise = tf.map_fn(
            lambda s: tf.random.stateless_normal(shape, s), seeds, fn_output_signature=tf.float32
        )
        images = tf.clip_by_value(images + config.noise_std * noise, 0, 1)
    return images * 255


def _per_image(values: tf.Tensor) -> tf.Tensor:
    return values[:, None, None, None]


def _blur(images: tf.Tensor, sigma_px: tf.Tensor, largest_sigma_px: float) -> tf.Tensor:
    """Return the images after a Gaussian blur along both axes.

    Each has a width of its own, zero included.
    """
    radius = int(3 * largest_sigma_px) + 1
    offsets = tf.range(-radius, radius + 1, dtype=tf.float32)
    kernel = tf.exp(-tf.square(offsets) / (2 * tf.square(tf.maximum(sigma_px, 1e-3))[:, None]))
    kernel /= tf.reduce_sum(kernel, axis=1, keepdims=True)
    for axis in (1, 2):
        length = images.shape[axis]
        shifted = [
            tf.gather(images, _mirrored(range(i - radius, i - radius + length), length), axis=axis)
            * _per_image(kernel[:, i])
            for i in range(2 * radius + 1)
        ]
        images = tf.add_n(shifted)
    return images


def _mirrored(indices: range, length: int) -> list[int]:
    """Return indices into an axis that goes on as its own mirror image on both sides.

    They may lie outside it however far.
    """
    return [min(i % (2 * length), 2 * length - 1 - i % (2 * length)) for i in indices]
