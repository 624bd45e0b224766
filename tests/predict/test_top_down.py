"""Two networks in one graph: the points of the animals are those of the image."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers

from hgtrain.heads.centered_instance import CenteredInstance
from hgtrain.heads.centroid import Centroid
from hgtrain.heads.decoding.duplicates import duplicate_animals
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.poses import centroids
from hgtrain.predict.predictor import Predictor
from hgtrain.predict.top_down import TopDownPredictor

NAN = float("nan")


def bright(channel: int, stride: int, keypoints: int = 1) -> keras.Model:
    """Return a network whose map is how bright a channel of the image is, for every keypoint."""
    image = keras.Input((None, None, 3))
    cells = layers.AveragePooling2D(1, stride)(layers.Rescaling(1 / 255)(image))
    maps = layers.Conv2D(keypoints, 1, use_bias=False)
    model = keras.Model(image, maps(cells))
    kernel = np.zeros((1, 1, 3, keypoints), np.float32)
    for keypoint in range(keypoints):
        kernel[0, 0, channel + keypoint, keypoint] = 1
    maps.set_weights([kernel])
    return model


def drawn(points: np.ndarray, size: tuple[int, int], sigma_px: float) -> np.ndarray:
    """Return images: red at the animals' centroids, green and blue at their two keypoints."""
    y, x = np.mgrid[: size[0], : size[1]]

    def dots(at: np.ndarray) -> np.ndarray:
        squared = (x - at[..., 0, None, None]) ** 2 + (y - at[..., 1, None, None]) ** 2
        return np.nan_to_num(np.exp(-squared / (2 * sigma_px**2))).max(1)

    middles = centroids(points, None)
    channels = [dots(middles), dots(points[:, :, 0]), dots(points[:, :, 1])]
    return np.round(255 * np.stack(channels, -1)).astype(np.uint8)


def predictor_of(scale: float, stride: int = 2, **finder: object) -> TopDownPredictor:
    sigma_px = 5.0 * scale
    head = Centroid(stride, sigma_px, max_instances=4, **finder)
    find = Predictor(bright(0, stride), head, Preprocessing(3, scale, 16), batch_size=3)
    centered = CenteredInstance(2, stride, 5.0, crop_size_px=48)
    keypoints = Predictor(bright(1, stride, 2), centered, Preprocessing(3, 1.0, 16), batch_size=3)
    return TopDownPredictor(find, keypoints)


# Two animals; one beside the border and one at odd places; none.
POINTS = np.array(
    [
        [[[30.3, 22.7], [44.1, 30.2]], [[80.4, 60.9], [92.0, 71.5]]],
        [[[2.2, 61.4], [11.7, 52.1]], [[70.6, 20.2], [61.1, 33.3]]],
        [[[NAN, NAN]] * 2] * 2,
    ]
)


@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("size", [(84, 110), (81, 107)])
def test_animals_are_found_where_they_are(scale: float, size: tuple[int, int]) -> None:
    found = predictor_of(scale)(drawn(POINTS, size, 5.0))
    assert found.points.shape == (3, 4, 2, 2)
    for frame, animals in enumerate(POINTS):
        there = animals[np.isfinite(animals).all((-1, -2))]
        present = np.isfinite(found.scores[frame])
        assert present.sum() == len(there)
        assert (present == np.isfinite(found.points[frame]).all((-1, -2))).all()
        for animal in there:
            away = np.abs(found.points[frame][present] - animal).max((1, 2))
            assert away.min() < 0.05
    assert (np.diff(np.nan_to_num(found.scores, nan=-1)) <= 0).all()


def test_an_animal_that_is_found_twice_is_there_once() -> None:
    images = drawn(POINTS, (84, 110), 5.0)
    # A second hill of the first animal's centroid, 14 px beside it.
    y, x = np.mgrid[:84, :110]
    second = np.exp(-((x - 23.2) ** 2 + (y - 26.5) ** 2) / 50)
    images[0, ..., 0] = np.maximum(images[0, ..., 0], (200 * second).astype(np.uint8))
    places = predictor_of(1.0)._centroids(images).scores[0]
    assert np.isfinite(places).sum() == 3
    found = predictor_of(1.0)(images)
    assert np.isfinite(found.scores[0]).sum() == 2


def test_two_animals_are_no_duplicates_unless_they_lie_on_each_other() -> None:
    points = np.array([[[[0, 0], [40, 0]], [[1, 1], [41, 1]], [[0, 9], [40, 9]], [[NAN] * 2] * 2]])
    scores = np.array([[0.5, 0.9, 0.7, NAN]])
    twice = duplicate_animals(tf.constant(points, tf.float32), tf.constant(scores, tf.float32))
    assert twice.numpy().tolist() == [[True, False, False, False]]


def test_no_images_give_no_animals() -> None:
    found = predictor_of(1.0)(np.zeros((0, 84, 110, 3), np.uint8))
    assert found.points.shape == (0, 4, 2, 2)


def test_a_network_that_sees_crops_says_that_it_needs_to_know_where() -> None:
    head = CenteredInstance(2, 2, 5.0, crop_size_px=48)
    alone = Predictor(bright(1, 2, 2), head, Preprocessing(3, 1.0, 16))
    with pytest.raises(ValueError, match="centroids must be given"):
        alone(np.zeros((1, 64, 64, 3), np.uint8))


@pytest.mark.parametrize("case", range(3))
def test_the_reference_s_top_down_without_its_half_pixel(conformance: Path, case: int) -> None:
    """SLEAP is off by (-0.5, -0.5) px throughout; the networks hand on the drawn image."""
    figures = np.load(conformance / "multi" / "topdown.npz")
    height, width, size, sigma = figures[f"{case}_meta"]
    true = figures[f"{case}_true"].reshape(1, -1, 1, 2)
    y, x = np.mgrid[: int(height), : int(width)]
    squared = (x - true[0, :, 0, 0, None, None]) ** 2 + (y - true[0, :, 0, 1, None, None]) ** 2
    image = np.exp(-squared / (2 * sigma**2)).max(0)[None, ..., None].astype(np.float32)
    head = CenteredInstance(1, 1, float(sigma), crop_size_px=int(size))
    handed_on = keras.Input((None, None, 1))
    network = keras.Model(handed_on, layers.Rescaling(1 / 255)(handed_on))
    predictor = Predictor(network, head, Preprocessing(1, 1.0, 1))
    images = np.round(255 * image).astype(np.uint8)
    middles = figures[f"{case}_centroids"][None].astype(np.float32)
    found = predictor(images, middles)
    np.testing.assert_allclose(found.points[:, :, 0], true[:, :, 0], atol=0.05)
