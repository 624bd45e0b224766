import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from networks import predictor_with, whole_network

from hgtrain.config.schema import BackboneConfig, ModelConfig
from hgtrain.coords import resized_points
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.predict.predictor import Predictor

STRIDE = 2


def dot_finder(channels: int) -> keras.Model:
    """Return a network whose two maps are the image itself, and a tenth of it, at `STRIDE`."""
    image = keras.Input((None, None, channels))
    first = layers.Rescaling(1 / 255)(image)
    first = layers.AveragePooling2D(1, STRIDE)(first)
    first = layers.Conv2D(2, 1, use_bias=False, kernel_initializer="zeros")(first)
    model = keras.Model(image, first)
    model.layers[-1].set_weights([np.full((1, 1, channels, 2), [1 / channels, 0.1 / channels])])
    return model


def dark_finder() -> keras.Model:
    """Return a network whose map at `STRIDE` is how dark the image is; padding is darkest."""
    image = keras.Input((None, None, 1))
    return keras.Model(
        image, layers.AveragePooling2D(1, STRIDE)(layers.Rescaling(-1 / 255, 1)(image))
    )


def predictor_of(channels: int = 1, input_scale: float = 1.0, batch_size: int = 4) -> Predictor:
    return predictor_with(
        dot_finder(channels), Preprocessing(channels, input_scale, multiple=8), STRIDE, batch_size
    )


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return predictor_of()


def dots(points: object, height: int, width: int, channels: int = 1) -> np.ndarray:
    points = np.asarray(points, float)[:, None, None]
    y, x = np.mgrid[:height, :width]
    squared = (x - points[..., 0]) ** 2 + (y - points[..., 1]) ** 2
    grey = np.round(250 * np.exp(-squared / (2 * 4.0**2))).astype(np.uint8)
    return np.repeat(grey[..., None], channels, axis=-1)


def places(count: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).uniform([8, 8], [width - 9, height - 9], (count, 2))


@pytest.mark.parametrize("count", [1, 3, 4, 5, 9])
def test_any_number_of_images_is_predicted_each_for_itself(
    predictor: Predictor, count: int
) -> None:
    at = places(count, 41, 50)
    points, confidence, scores = predictor(dots(at, 41, 50))
    assert points.shape == (count, 1, 2, 2)
    assert points.dtype == confidence.dtype == scores.dtype == np.float32
    np.testing.assert_allclose(scores, confidence.mean(-1), atol=1e-6)
    points, confidence = points[:, 0], confidence[:, 0]
    np.testing.assert_allclose(points[:, 0], at, atol=0.2)
    np.testing.assert_allclose(confidence[:, 0], 0.98, atol=0.05)
    np.testing.assert_allclose(confidence[:, 1], confidence[:, 0] / 10, rtol=1e-4)


def test_no_images_give_no_points(predictor: Predictor) -> None:
    found = predictor(np.zeros((0, 41, 50, 1), np.uint8))
    assert [values.shape for values in found] == [(0, 1, 2, 2), (0, 1, 2), (0, 1)]


@pytest.mark.parametrize("size", [(24, 64), (41, 50), (63, 33)])
def test_images_of_any_size_are_predicted_in_their_own_pixels(
    predictor: Predictor, size: tuple[int, int]
) -> None:
    at = places(3, *size)
    np.testing.assert_allclose(predictor(dots(at, *size)).points[:, 0, 0], at, atol=0.2)


@pytest.mark.parametrize("input_scale", [0.5, 1.5, 0.75])
def test_points_are_of_the_image_before_it_is_resized(input_scale: float) -> None:
    at = places(3, 45, 61)
    points = predictor_of(input_scale=input_scale)(dots(at, 45, 61)).points
    np.testing.assert_allclose(points[:, 0, 0], at, atol=0.25)


@pytest.mark.parametrize(("network", "images"), [(1, 3), (3, 1), (3, 3)])
def test_channels_are_converted_to_those_of_the_network(network: int, images: int) -> None:
    at = places(2, 40, 48)
    points = predictor_of(channels=network)(dots(at, 40, 48, images)).points
    np.testing.assert_allclose(points[:, 0, 0], at, atol=0.2)


def test_a_batch_that_is_not_full_gives_the_same_as_a_full_one(predictor: Predictor) -> None:
    images = dots(places(6, 40, 48), 40, 48)
    together, alone = predictor(images), predictor(images[4:])
    for found, expected in zip(alone, together, strict=True):
        np.testing.assert_allclose(found, expected[4:], atol=1e-5)


def test_images_need_not_lie_in_one_piece(predictor: Predictor) -> None:
    images = dots(places(3, 40, 48), 40, 48)
    np.testing.assert_allclose(
        predictor(images[::-1]).points, predictor(images).points[::-1], atol=1e-4
    )


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 40, 48, 1), np.float32), r"\(2, 40, 48, 1\) float32"),
        (np.zeros((2, 40, 48, 1), np.int64), r"uint8, got \(2, 40, 48, 1\) int64"),
        (np.zeros((40, 48, 1), np.uint8), r"got \(40, 48, 1\) uint8"),
        (np.zeros((2, 40, 48, 4), np.uint8), r"got \(2, 40, 48, 4\) uint8"),
        (np.zeros((2, 40, 48), np.uint8), r"got \(2, 40, 48\) uint8"),
        ([], r"got \(0,\) float64"),
    ],
)
def test_what_is_no_batch_of_images_is_refused_with_its_value(
    predictor: Predictor, images: object, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        predictor(images)


def test_maps_are_those_of_the_padded_image(predictor: Predictor) -> None:
    maps = predictor.confmaps(tf.constant(dots([[10, 12]], 17, 30)))
    assert maps.shape == (1, 24 // STRIDE, 32 // STRIDE, 2)
    assert float(maps[0, 6, 5, 0]) == pytest.approx(250 / 255)


def test_a_point_in_the_resized_image_lies_where_coords_says() -> None:
    maps = predictor_of(input_scale=0.5).confmaps(tf.constant(dots([[20.5, 24.5]], 48, 48)))
    column, row = resized_points(np.array([20.5, 24.5]), 0.5) / STRIDE
    assert np.unravel_index(maps.numpy()[0, :, :, 0].argmax(), maps.shape[1:3]) == (row, column)


def test_bilinear_upsampling_gives_what_keras_gives_at_each_size() -> None:
    keras.utils.set_random_seed(0)
    backbone = BackboneConfig(
        stem_filters=4,
        filters=4,
        filter_increase=2,
        stacks=1,
        max_stride=8,
        interp_method="bilinear",
    )
    model = whole_network(ModelConfig(backbone=backbone), 1, 2, all_stacks=False)
    for layer in model.layers:
        layer.set_weights(
            [np.random.default_rng(0).uniform(0.1, 0.3, part.shape) for part in layer.get_weights()]
        )
    predictor = predictor_with(model, Preprocessing(1, 1.0, multiple=8), 4)
    for size in ((32, 40), (24, 24), (64, 32)):
        images = dots(places(2, *size), *size)
        compiled = tf.function(predictor.confmaps, [tf.TensorSpec((None, None, None, 1), tf.uint8)])
        np.testing.assert_allclose(compiled(images), model(images.astype(np.float32)), rtol=1e-5)
        assert np.isfinite(predictor(images).points).all()


@pytest.mark.parametrize("decoder", ["unbiased", "integral", "local", "none"])
@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_no_point_is_found_in_the_padding(decoder: str, input_scale: float) -> None:
    preprocessing = Preprocessing(1, input_scale, multiple=64)
    head = SingleInstance(1, STRIDE, sigma_px=1.1 * STRIDE)
    predictor = Predictor(dark_finder(), head, preprocessing, refinement=decoder)
    at = places(5, 41, 50)
    points, confidence, _ = predictor(255 - dots(at, 41, 50))
    np.testing.assert_allclose(points[:, 0, 0], at, atol=1.25 / input_scale)
    # The dots' centres are at most one cell's diagonal off the nearest cell's; the padding has 1.
    farthest = 2 * (STRIDE / input_scale / 2) ** 2
    assert confidence.min() >= 250 / 255 * np.exp(-farthest / (2 * 4.0**2)) - 0.03
    assert confidence.max() <= 0.985


@pytest.mark.parametrize("input_scale", [1.0, 0.3, 1.5])
def test_points_beside_the_padding_lie_within_half_a_cell_of_the_image(input_scale: float) -> None:
    preprocessing = Preprocessing(1, input_scale, multiple=64)
    predictor = predictor_with(dark_finder(), preprocessing, STRIDE)
    images = np.random.default_rng(0).integers(0, 256, (40, 13, 21, 1), dtype=np.uint8)
    # Ever darker to the right and to the bottom, towards the padding.
    images[20:] = 255 - 5 * np.add(*np.mgrid[:13, :21])[None, ..., None]
    points = predictor(images).points
    half = STRIDE / input_scale / 2
    assert points.min() >= -0.5 - half
    assert (points.reshape(-1, 2).max(0) <= (20.5 + half, 12.5 + half)).all()
    np.testing.assert_allclose(points[20:, 0, 0], [[20, 12]] * 20, atol=2 * half + 0.5)
