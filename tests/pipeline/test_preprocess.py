import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from hgtrain.coords import resized_length, resized_points
from hgtrain.pipeline.preprocess import pad, resize, to_channels

SETTINGS = settings(max_examples=40)


def random_images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def dot(point: tuple[float, float], height: int, width: int, sigma_px: float) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    squared = (x - point[0]) ** 2 + (y - point[1]) ** 2
    return np.round(250 * np.exp(-squared / (2 * sigma_px**2))).astype(np.uint8)[None, :, :, None]


def centroid(image: np.ndarray) -> np.ndarray:
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(image * x).sum(), (image * y).sum()]) / image.sum()


@SETTINGS
@given(
    st.sampled_from([0.5, 1.5, 0.37, 0.9, 2.0]),
    st.integers(60, 90),
    st.integers(60, 90),
    st.tuples(st.floats(0.4, 0.6), st.floats(0.4, 0.6)),
)
def test_a_dot_moves_as_resized_points_says(
    scale: float, height: int, width: int, at: tuple[float, float]
) -> None:
    point = (at[0] * width, at[1] * height)
    resized = (
        resize(tf.constant(dot(point, height, width, 4.0)), scale).numpy()[0, :, :, 0].astype(float)
    )
    np.testing.assert_allclose(centroid(resized), resized_points(np.array(point), scale), atol=0.05)


@SETTINGS
@given(st.floats(0.1, 3), st.integers(1, 70), st.integers(1, 70), st.integers(0, 255))
def test_a_constant_image_stays_constant(scale: float, height: int, width: int, value: int) -> None:
    resized = resize(tf.fill((1, height, width, 1), tf.constant(value, tf.uint8)), scale)
    assert resized.shape == (1, resized_length(height, scale), resized_length(width, scale), 1)
    assert (resized.numpy() == value).all()


def dynamic(scale: float) -> tf.types.experimental.PolymorphicFunction:
    signature = [tf.TensorSpec((None, None, None, 1), tf.uint8)]
    return tf.function(lambda images: resize(images, scale), input_signature=signature)


# 97 x 0.33 = 32.01 and 473 x 0.37 = 175.01 lie where single and double precision round to different
# sides.
@pytest.mark.parametrize("scale", [0.5, 1.5, 0.37, 0.33, 1 / 3])
def test_images_of_any_size_are_resized_as_those_of_a_known_one(scale: float) -> None:
    compiled = dynamic(scale)
    for height, width in ((97, 40), (473, 3), (1, 1), (33, 65)):
        images = random_images(2, height, width, 1)
        np.testing.assert_array_equal(compiled(images), resize(tf.constant(images), scale))


def test_half_size_is_the_triangular_filter_by_hand() -> None:
    # Pixel 1 lies at 2.5: pixels 1..4 at distances 1.5, .5, .5, 1.5 weigh .25, .75, .75, .25 of 2;
    # at the border pixel 0 at 0.5 has 0, 1, 2 with .75, .75, .25 of 1.75.
    row = np.array([[80, 40, 0, 200, 120, 160]], np.uint8)
    first, second = (80 * 0.75 + 40 * 0.75) / 1.75, (40 * 0.25 + 200 * 0.75 + 120 * 0.25) / 2
    third = (200 * 0.25 + 120 * 0.75 + 160 * 0.75) / 1.75
    resized = resize(tf.constant(row[None, :, :, None]), 0.5)
    np.testing.assert_array_equal(resized[0, 0, :, 0], np.round([first, second, third]))


def test_double_size_interpolates_at_quarters() -> None:
    # New pixels lie at -0.25 (the border), 0.25, 0.75, 1.25 (the border).
    row = np.array([[0, 100]], np.uint8)
    np.testing.assert_array_equal(
        resize(tf.constant(row[None, :, :, None]), 2.0)[0, 0, :, 0], [0, 25, 75, 100]
    )


def test_scale_one_changes_nothing() -> None:
    images = random_images(2, 5, 7, 3)
    np.testing.assert_array_equal(resize(tf.constant(images), 1.0), images)


def test_channels_are_resized_each_for_itself() -> None:
    images = random_images(2, 9, 14, 3)
    apart = [resize(tf.constant(images[..., c : c + 1]), 0.6) for c in range(3)]
    np.testing.assert_array_equal(resize(tf.constant(images), 0.6), tf.concat(apart, axis=-1))


def test_colour_becomes_its_luminance() -> None:
    images = np.array(
        [[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [10, 20, 30]]]], np.uint8
    )
    # .299 * 255 = 76.2, .587 * 255 = 149.7, .114 * 255 = 29.1; 2.99 + 11.74 + 3.42 = 18.15.
    assert to_channels(tf.constant(images), 1).numpy().ravel().tolist() == [76, 150, 29, 255, 18]


def test_grey_is_repeated() -> None:
    images = to_channels(tf.constant([[[[7], [9]]]], tf.uint8), 3)
    assert images.numpy().tolist() == [[[[7, 7, 7], [9, 9, 9]]]]


@pytest.mark.parametrize("channels", [1, 3])
def test_the_right_number_of_channels_stays(channels: int) -> None:
    images = tf.constant(random_images(1, 2, 3, channels))
    assert to_channels(images, channels) is images


def test_padding_is_zeros_at_the_right_and_the_bottom() -> None:
    images = random_images(2, 17, 32, 3)
    padded = pad(tf.constant(images), 16)
    assert padded.shape == (2, 32, 32, 3)
    assert padded.dtype == tf.uint8
    np.testing.assert_array_equal(padded[:, :17, :32], images)
    assert not padded[:, 17:].numpy().any()


@pytest.mark.parametrize("size", [(1, 1), (16, 48), (17, 15), (64, 63)])
def test_images_of_any_size_are_padded_as_those_of_a_known_one(size: tuple[int, int]) -> None:
    compiled = tf.function(
        lambda images: pad(images, 16),
        input_signature=[tf.TensorSpec((None, None, None, 1), tf.uint8)],
    )
    images = random_images(1, *size, 1)
    np.testing.assert_array_equal(compiled(images), pad(tf.constant(images), 16))


def test_an_empty_batch_stays_empty() -> None:
    empty = tf.zeros((0, 10, 20, 3), tf.uint8)
    assert pad(resize(to_channels(empty, 1), 0.5), 16).shape == (0, 16, 16, 1)
