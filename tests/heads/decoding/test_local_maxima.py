import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from hgtrain.heads.decoding.peaks import DECODERS, Peaks, local_maxima

SIGMA = 2.5


def gaussians(*centres: tuple[float, float], sigma: float = SIGMA, size: int = 40) -> np.ndarray:
    y, x = np.mgrid[:size, :size]
    return np.max(
        [np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * sigma**2)) for a, b in centres], axis=0
    )


def peaks_of(cells: object, count: int = 4, threshold: float = 0.2, **keys: object) -> Peaks:
    """Return the peaks of one map: points `(P, 2)`, values and valid `(P,)`."""
    found = local_maxima(tf.constant(cells, tf.float32)[None, ..., None], count, threshold, **keys)
    return Peaks(*(each[0, 0].numpy() for each in found))


def cells_of(cells: object, **keys: object) -> list[list[float]]:
    found = peaks_of(cells, refinement="none", **keys)
    return found.points[found.valid].tolist()


def test_every_hill_has_its_peak_highest_first() -> None:
    cells = np.zeros((12, 16))
    cells[2, 3], cells[8, 14], cells[9, 4], cells[6, 6] = 0.5, 0.9, 0.7, 0.1
    found = peaks_of(cells, refinement="none")
    assert found.points[:3].tolist() == [[14, 8], [4, 9], [3, 2]]
    np.testing.assert_allclose(found.values, [0.9, 0.7, 0.5, 0])
    assert found.valid.tolist() == [True, True, True, False]
    # Of more than there is room for the highest are taken.
    assert cells_of(cells, count=2) == [[14, 8], [4, 9]]


@pytest.mark.parametrize("corner", [(0, 0), (0, 7), (5, 0), (5, 7), (0, 3), (2, 7)])
def test_a_peak_at_the_border_counts(corner: tuple[int, int]) -> None:
    cells = np.full((6, 8), 0.1)
    cells[corner] = 0.8
    assert cells_of(cells) == [[corner[1], corner[0]]]


@settings(max_examples=40)
@given(st.integers(0, 4), st.integers(0, 4), st.integers(1, 3), st.integers(1, 3))
def test_equal_cells_in_a_rectangle_are_one_peak(top: int, left: int, rows: int, columns: int):
    cells = np.full((7, 7), 0.1)
    cells[top : top + rows, left : left + columns] = 0.6
    assert cells_of(cells) == [[left, top]]


def test_a_flat_map_has_one_peak_if_it_is_above_the_threshold() -> None:
    assert cells_of(np.full((4, 5), 0.5)) == [[0, 0]]
    assert cells_of(np.full((4, 5), 0.2), threshold=0.25) == []


@settings(max_examples=40)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**31))
def test_peaks_are_the_cells_above_all_their_neighbours(height: int, width: int, seed: int) -> None:
    cells = np.random.default_rng(seed).permutation(height * width).reshape(height, width) + 1.0
    padded = np.pad(cells, 1, constant_values=-1)
    around = [
        padded[1 + i : 1 + i + height, 1 + j : 1 + j + width]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if (i, j) != (0, 0)
    ]
    is_peak = (cells > np.max(around, axis=0)) & (cells > 2.5)
    expected = sorted(np.argwhere(is_peak)[:, ::-1].tolist())
    assert sorted(cells_of(cells, count=25, threshold=2.5)) == expected


@settings(max_examples=30)
@given(
    st.tuples(st.floats(4, 12), st.floats(4, 35)), st.tuples(st.floats(27, 35), st.floats(4, 35))
)
def test_gaussians_are_found_where_they_are(
    one: tuple[float, float], two: tuple[float, float]
) -> None:
    found = peaks_of(gaussians(one, two), radius=6)
    assert found.valid.tolist() == [True, True, False, False]
    points = found.points[:2][np.argsort(found.points[:2, 0])]
    np.testing.assert_allclose(points, [one, two], atol=0.02)


@pytest.mark.parametrize("apart", [4, 5, 6, 8, 10, 12])
def test_a_near_animal_does_not_draw_a_peak_to_it(apart: float) -> None:
    # Over the window of a lone peak both are 1.2 cells off from 3 to 8 cells apart.
    random = np.random.default_rng(apart)
    for _ in range(20):
        angle, one = random.uniform(0, 2 * np.pi), random.uniform(15, 18, 2)
        other = one + apart * np.array([np.cos(angle), np.sin(angle)])
        found = peaks_of(gaussians(one, other), radius=6).points[:2]
        order = np.argsort(np.linalg.norm(found - one, axis=1))
        np.testing.assert_allclose(found[order], [one, other], atol=0.08)


@pytest.mark.parametrize("refinement", DECODERS)
@pytest.mark.parametrize("radius", [1, 3, 6])
def test_a_lone_peak_is_the_global_one(refinement: str, radius: int) -> None:
    y, x = np.mgrid[:12, :16]
    centres = np.random.default_rng(0).uniform([-0.5, -0.5], [15.5, 11.5], (6, 3, 1, 1, 2))
    maps = np.exp(-((x - centres[..., 0]) ** 2 + (y - centres[..., 1]) ** 2) / (2 * 1.25**2))
    maps = tf.constant(maps.transpose(0, 2, 3, 1), tf.float32)
    points, values = DECODERS[refinement](maps, radius)
    found = local_maxima(maps, 2, 0.2, radius, refinement)
    np.testing.assert_allclose(found.points[:, :, 0], points, atol=1e-5)
    np.testing.assert_array_equal(found.values[:, :, 0], values)
    assert found.valid.numpy().tolist() == [[[True, False]] * 3] * 6


@settings(max_examples=40)
@given(st.integers(1, 6), st.integers(1, 6), st.sampled_from([1, 3]), st.integers(0, 2**31))
def test_points_stay_within_a_cell_and_finite(
    height: int, width: int, radius: int, seed: int
) -> None:
    maps = np.random.default_rng(seed).normal(0, 1, (2, height, width, 3)).astype(np.float32)
    cells = local_maxima(maps, 5, 0.0, radius, "none")
    found = local_maxima(maps, 5, 0.0, radius)
    assert found.points.shape == (2, 3, 5, 2)
    assert (np.abs(found.points - cells.points) <= 1).all()
    np.testing.assert_array_equal(found.valid, cells.valid)


def test_every_map_of_a_batch_has_its_own_peaks() -> None:
    maps = np.zeros((2, 4, 5, 3), np.float32)
    maps[0, 1, 2, 0], maps[0, 3, 4, 1], maps[1, 0, 3, 1], maps[1, 2, 0, 1] = 0.9, 0.8, 0.7, 0.6
    found = local_maxima(maps, 2, 0.2, refinement="none")
    assert found.valid.numpy().sum(axis=2).tolist() == [[1, 1, 0], [0, 2, 0]]
    assert found.points[0, :2, 0].numpy().tolist() == [[2, 1], [4, 3]]
    assert found.points[1, 1].numpy().tolist() == [[3, 0], [0, 2]]


def test_what_is_no_number_is_no_peak() -> None:
    cells = np.full((5, 5), np.nan)
    assert not peaks_of(cells).valid.any()


def test_an_empty_batch_gives_no_peaks() -> None:
    assert local_maxima(tf.zeros((0, 4, 5, 3)), 2, 0.2).points.shape == (0, 3, 2, 2)
