"""How near decoded points are to those that maps were drawn of, in cells."""

from collections.abc import Callable

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.heads.decoding.peaks import (
    DECODERS,
    global_peaks,
    local_maxima,
    local_peaks,
    refinement_radius,
)

HEIGHT, WIDTH, COUNT = 48, 64, 200
STRIDE = 4
Decoder = Callable[[tf.Tensor, int], tf.Tensor]


def highest_local_maximum(maps: tf.Tensor, radius: int) -> tf.Tensor:
    return local_maxima(maps, 1, 0.3, radius).points[:, :, 0]


UNBIASED: dict[str, Decoder] = {
    "one animal": lambda maps, radius: global_peaks(maps, radius)[0],
    "several": highest_local_maximum,
}


def drawn(sigma: float, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points `(1, COUNT, 2)` all over the image, and their maps `(1, H, W, COUNT)`."""
    points = random.uniform([-0.4, -0.4], [WIDTH - 0.6, HEIGHT - 0.6], (1, COUNT, 2))
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    x, y = points[:, None, None, :, 0], points[:, None, None, :, 1]
    squared = (columns[..., None] - x) ** 2 + (rows[..., None] - y) ** 2
    return points, np.exp(-squared / (2 * sigma**2))


def errors(found: tf.Tensor, points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(found.numpy() - points, axis=-1)


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("decode", UNBIASED.values(), ids=UNBIASED)
def test_of_a_perfect_map_a_point_is_found_to_a_200th_of_a_cell(
    decode: Decoder, sigma: float
) -> None:
    points, maps = drawn(sigma, np.random.default_rng(0))
    radius = refinement_radius(sigma * STRIDE, STRIDE)
    assert errors(decode(tf.constant(maps, tf.float32), radius), points).max() <= 0.005


@pytest.mark.parametrize("sigma", [1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0])
@pytest.mark.parametrize("decode", UNBIASED.values(), ids=UNBIASED)
def test_of_a_noisy_map_a_point_is_found_better_than_a_quarter_cell_from_the_highest(
    decode: Decoder, sigma: float
) -> None:
    random = np.random.default_rng(1)
    points, maps = drawn(sigma, random)
    noisy = tf.constant(maps + random.normal(0, 0.02, maps.shape), tf.float32)
    radius = refinement_radius(sigma * STRIDE, STRIDE)
    found = errors(decode(noisy, radius), points)
    quarter = errors(local_peaks(noisy)[0], points)
    assert found.mean() < quarter.mean() / 2
    assert np.median(found) < np.median(quarter) / 2


def test_a_highest_cell_alone_is_further_off_than_what_is_asked_of_the_refinement() -> None:
    # Else the tests above would prove nothing. So far is a point in a square from its middle on
    # average: (sqrt(2) + ln(1 + sqrt(2))) / 6.
    points, maps = drawn(2.5, np.random.default_rng(0))
    found = errors(DECODERS["none"](tf.constant(maps, tf.float32), 3)[0], points)
    assert found.mean() == pytest.approx(0.3826, abs=0.03)
