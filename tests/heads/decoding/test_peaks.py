from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from hgtrain.heads.decoding.peaks import DECODERS, global_peaks, refinement_radius
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.pipeline.preprocess import Preprocessing


def peak_of(cells: object, radius: int = 3) -> tuple[list[float], float]:
    points, values = global_peaks(tf.constant(cells, tf.float32)[None, :, :, None], radius)
    assert points.shape == (1, 1, 2)
    assert values.shape == (1, 1)
    return points.numpy()[0, 0].tolist(), float(values[0, 0])


def test_values_equal_the_reference(conformance: Path) -> None:
    figures = np.load(conformance / "peaks.npz")
    _, values = global_peaks(tf.constant(figures["confmaps"]))
    np.testing.assert_allclose(values, figures["global_None_vals"], atol=1e-6)


def test_points_are_at_most_a_cell_from_the_highest_cell_of_the_reference(
    conformance: Path,
) -> None:
    figures = np.load(conformance / "peaks.npz")
    points, _ = global_peaks(tf.constant(figures["confmaps"]))
    cells = figures["global_None_points"]
    found = np.isfinite(cells)
    assert found.any()
    assert (np.abs(points.numpy() - cells)[found] <= 1 + 1e-4).all()


@pytest.mark.parametrize("sigma", [1.0, 2.5, 5.0])
@pytest.mark.parametrize("centre", [(7.3, 5.8), (-0.4, 11.6), (15.5, 0.0)])
def test_the_centre_of_a_gaussian_is_found_whatever_its_width(
    sigma: float, centre: tuple[float, float]
) -> None:
    y, x = np.mgrid[:12, :16]
    maps = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(peak_of(maps)[0], centre, atol=2e-3)


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (1, 5), (5, 1), (3, 3), (6, 7)])
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0, 1.0])
def test_a_flat_map_gives_its_first_cell(shape: tuple[int, int], value: float) -> None:
    assert peak_of(np.full(shape, value)) == ([0.0, 0.0], pytest.approx(value))


def test_a_map_of_negative_values_gives_its_highest_cell() -> None:
    cells = np.full((5, 6), -3.0)
    cells[2, 5] = -1.0
    assert peak_of(cells) == ([5.0, 2.0], -1.0)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_a_map_of_two_by_two_gives_its_highest_cell(row: int, column: int) -> None:
    cells = np.full((2, 2), 0.1)
    cells[row, column] = 0.8
    assert peak_of(cells) == ([column, row], pytest.approx(0.8))


def test_a_single_row_is_refined_along_x_alone() -> None:
    cells = np.exp(-((np.arange(9) - 3.25) ** 2) / 2)[None]
    assert peak_of(cells)[0] == pytest.approx([3.25, 0.0], abs=1e-4)


def test_a_plateau_of_two_cells_gives_the_place_between_them() -> None:
    cells = np.full((3, 6), 0.01)
    cells[1, 2:4] = 0.9
    assert peak_of(cells)[0] == pytest.approx([2.5, 1.0])


@pytest.mark.parametrize("line", [[0.9, 0.1, 0.8, 0.1], [0.9, 0.2, 0.1, 0.1]])
def test_a_border_cell_whose_neighbours_form_no_peak_stays_where_it_is(line: list[float]) -> None:
    # The parabola through the three outermost cells bends upwards: its vertex is a minimum.
    cells = np.tile(line, (4, 1)) * np.array([0.1, 1, 0.1, 0.05])[:, None]
    assert peak_of(cells, radius=1)[0][0] == 0.0
    assert peak_of(cells[:, ::-1], radius=1)[0][0] == 3.0
    assert peak_of(cells.T, radius=1)[0][1] == 0.0


@settings(max_examples=60)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**31))
def test_points_lie_within_a_cell_of_the_highest(height: int, width: int, seed: int) -> None:
    cells = np.random.default_rng(seed).normal(0, 1, (2, height, width, 3)).astype(np.float32)
    points, values = global_peaks(tf.constant(cells))
    flat = cells.transpose(0, 3, 1, 2).reshape(2, 3, -1)
    rows, columns = np.unravel_index(flat.argmax(-1), (height, width))
    np.testing.assert_array_equal(values, flat.max(-1))
    assert (np.abs(points.numpy() - np.stack([columns, rows], axis=-1)) <= 1).all()


def test_every_map_of_a_batch_has_its_own_peak() -> None:
    maps = np.zeros((2, 4, 5, 3), np.float32)
    cells = {
        (0, 0): (1, 2),
        (0, 1): (3, 4),
        (0, 2): (0, 0),
        (1, 0): (2, 1),
        (1, 1): (0, 3),
        (1, 2): (3, 0),
    }
    for (b, k), (row, column) in cells.items():
        maps[b, row, column, k] = 1
    points, _ = global_peaks(tf.constant(maps))
    for (b, k), (row, column) in cells.items():
        assert points[b, k].numpy().tolist() == [column, row]


def test_an_empty_batch_gives_no_points() -> None:
    points, values = global_peaks(tf.zeros((0, 4, 5, 3)))
    assert points.shape == (0, 3, 2)
    assert values.shape == (0, 3)


def test_decoded_points_are_pixels_of_the_original_image() -> None:
    maps = np.zeros((1, 5, 5, 1), np.float32)
    maps[0, 2, 3, 0] = 0.7
    decoded = SingleInstance(1, 4, 5.0).decode({"confmaps": tf.constant(maps)})
    points = Preprocessing(1, 0.5, 16).original_points(decoded.points)
    # Cell (3, 2) is pixel (12, 8) of the resized image: (12 + 0.5) / 0.5 - 0.5 = 24.5, (8 + 0.5) /
    # 0.5 - 0.5 = 16.5.
    np.testing.assert_allclose(points[0, 0, 0], [24.5, 16.5])
    np.testing.assert_allclose(decoded.confidence, [[[0.7]]])
    np.testing.assert_allclose(decoded.scores, [[0.7]])


@pytest.mark.parametrize(("value", "confidence"), [(1.4, 1.0), (-0.2, 0.0)])
def test_confidence_is_between_zero_and_one(value: float, confidence: float) -> None:
    found = SingleInstance(1, 4, 5.0).decode({"confmaps": tf.fill((1, 4, 4, 1), value)})
    assert float(found.confidence[0, 0, 0]) == confidence


@pytest.mark.parametrize(
    ("refinement", "column"), [("none", "None"), ("local", "local"), ("integral", "integral")]
)
def test_the_refinements_of_the_reference_give_its_points(
    conformance: Path, refinement: str, column: str
) -> None:
    figures = np.load(conformance / "peaks.npz")
    points, values = DECODERS[refinement](tf.constant(figures["confmaps"]), 3)
    expected = figures[f"global_{column}_points"]
    found = np.isfinite(expected)
    np.testing.assert_allclose(points.numpy()[found], expected[found], atol=1e-5)
    np.testing.assert_allclose(values, figures["global_None_vals"], atol=1e-6)


@pytest.mark.parametrize("refinement", DECODERS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (1, 6)])
def test_every_refinement_takes_maps_smaller_than_its_window(
    refinement: str, shape: tuple[int, int]
) -> None:
    maps = np.full((2, *shape, 3), 0.1, np.float32)
    maps[:, -1, -1] = 0.9
    points, values = DECODERS[refinement](tf.constant(maps), 5)
    assert values.numpy().tolist() == [[pytest.approx(0.9)] * 3] * 2
    assert (np.abs(points.numpy() - np.array(shape)[::-1] + 1) <= 1).all()


@pytest.mark.parametrize(
    ("sigma_px", "stride", "radius"),
    # 2.4 sigma in cells, rounded: 12, 6, 3, 1.5 and .75, and .38; at least 1.
    [(5.0, 1, 12), (5.0, 2, 6), (5.0, 4, 3), (5.0, 16, 1), (2.5, 16, 1), (0.1, 64, 1)],
)
def test_the_radius_follows_the_width_of_the_gaussian(
    sigma_px: float, stride: int, radius: int
) -> None:
    assert refinement_radius(sigma_px, stride) == radius


@settings(max_examples=40)
@given(st.floats(-0.4, 15.4), st.floats(-0.4, 11.4), st.integers(1, 6), st.floats(0.05, 1.5))
def test_neither_height_nor_radius_moves_the_peak(
    x: float, y: float, radius: int, height: float
) -> None:
    rows, columns = np.mgrid[:12, :16]
    maps = height * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * 1.25**2))
    np.testing.assert_allclose(peak_of(maps, radius)[0], [x, y], atol=0.01)


@settings(max_examples=40)
@given(st.integers(0, 2**31))
def test_noise_moves_a_peak_by_a_fraction_of_a_cell(seed: int) -> None:
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:12, :16]
    centre = random.uniform([0, 0], [15, 11])
    maps = 0.8 * np.exp(-((columns - centre[0]) ** 2 + (rows - centre[1]) ** 2) / (2 * 1.25**2))
    noisy = maps + random.normal(0, 0.01, maps.shape)
    error = np.abs(np.array(peak_of(noisy)[0]) - centre)
    # Beside a border half of the Gaussian is missing.
    is_inside = (centre > 3) & (centre < [12, 8])
    assert (error < np.where(is_inside, 0.1, 0.5)).all()
