from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.heads.targets.confidence_maps import confidence_maps, multi_confidence_maps
from hgtrain.heads.targets.part_affinity import part_affinity_fields

NAN = float("nan")
CASES = ["inside", "border", "nan", "odd_size", "empty", "overlap", "degenerate"]


def fields_of(points: object, edges: object, size: tuple[int, int], width_px: float) -> np.ndarray:
    """Return the fields of one frame's animals at stride 1."""
    return part_affinity_fields(tf.constant([points], tf.float32), edges, *size, 1, width_px)[0]


def drawn(figures: np.lib.npyio.NpzFile, case: int, kind: str) -> tf.Tensor:
    """Return the animals that the reference drew: it leaves some out that are in the image."""
    return tf.constant(figures[f"{case}_points"][figures[f"{case}_kept_{kind}"]][None], tf.float32)


@pytest.mark.parametrize("name", CASES)
def test_fields_equal_the_reference(conformance: Path, name: str) -> None:
    figures = np.load(conformance / "multi" / "multi_targets.npz")
    case = figures["kinds"].tolist().index(name)
    height, width, _, _, stride, sigma = figures[f"{case}_meta"].tolist()
    edges = figures[f"{case}_edges"].tolist()
    # Where exp(-d ** 4 / (2 sigma ** 2)) is a half.
    width_px = (2 * np.log(2) * sigma**2) ** 0.25
    fields = part_affinity_fields(
        drawn(figures, case, "pafs"), edges, int(height), int(width), int(stride), width_px
    )
    expected = figures[f"{case}_pafs"]
    assert fields.shape == (1, *expected.shape[:2], 2 * len(edges))
    np.testing.assert_allclose(np.reshape(fields[0], expected.shape), expected, atol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_maps_equal_the_reference(conformance: Path, name: str) -> None:
    figures = np.load(conformance / "multi" / "multi_targets.npz")
    case = figures["kinds"].tolist().index(name)
    height, width, stride, sigma_px, _, _ = figures[f"{case}_meta"].tolist()
    maps = multi_confidence_maps(
        drawn(figures, case, "confmaps"), int(height), int(width), int(stride), sigma_px
    )
    np.testing.assert_allclose(maps[0], figures[f"{case}_multi"], atol=1e-5)


def test_a_horizontal_edge_gives_a_band_of_its_direction() -> None:
    fields = fields_of([[[8, 6], [2, 6]]], [(0, 1)], (13, 11), 3.0)
    assert fields.shape == (13, 11, 2)
    np.testing.assert_array_equal(fields[..., 1], 0)
    # On the edge 1, at the width a half, at twice the width 2 ** -16.
    np.testing.assert_allclose(fields[:, 5, 0][6:13:3], [-1, -0.5, -(2.0**-16)], atol=1e-6)
    # Beyond its ends the distance is that to the end: 2 px from (8, 6), and 3, 4.
    np.testing.assert_allclose(fields[6, 10, 0], -(2 ** -((2 / 3) ** 4)), rtol=1e-5)
    np.testing.assert_allclose(fields[10, 10, 0], -(2 ** -((20**0.5 / 3) ** 4)), rtol=1e-5)


def test_channels_are_x_and_y_of_edge_after_edge() -> None:
    fields = fields_of([[[2, 2], [10, 2], [2, 10]]], [(0, 1), (0, 2), (2, 1)], (12, 12), 1.5)
    np.testing.assert_allclose(fields[2, 6, :2], [1, 0], atol=1e-6)
    np.testing.assert_allclose(fields[6, 2, 2:4], [0, 1], atol=1e-6)
    np.testing.assert_allclose(fields[6, 6, 4:], [0.5**0.5, -(0.5**0.5)], atol=1e-6)


def test_animals_are_summed() -> None:
    one, two = [[2.0, 6.0], [10.0, 6.0]], [[6.0, 1.0], [6.0, 11.0]]
    apart = [fields_of([animal], [(0, 1)], (12, 12), 2.0) for animal in (one, two)]
    both = fields_of([one, two], [(0, 1)], (12, 12), 2.0)
    np.testing.assert_allclose(both, apart[0] + apart[1], atol=1e-6)
    np.testing.assert_allclose(both[6, 6], [1, 1], atol=1e-6)


@pytest.mark.parametrize(
    "animal",
    [
        [[4, 4], [4, 4]],
        [[4, 4], [NAN, NAN]],
        [[NAN, 4], [8, 8]],
        [[NAN, NAN], [NAN, NAN]],
        [[1e30, -1e30], [4, 4]],
        [[np.inf, 4], [4, 4]],
    ],
)
def test_an_edge_without_length_or_end_gives_zeros_and_spoils_no_other(animal: list) -> None:
    other = [[2.0, 6.0], [10.0, 6.0]]
    alone = fields_of([other], [(0, 1)], (12, 12), 2.0)
    np.testing.assert_array_equal(fields_of([animal], [(0, 1)], (12, 12), 2.0), 0)
    np.testing.assert_array_equal(fields_of([animal, other], [(0, 1)], (12, 12), 2.0), alone)


@pytest.mark.parametrize("x", [0.0, 15.0, 14.5])
def test_animals_at_the_border_are_drawn(x: float) -> None:
    # The reference drops an animal whose points are all on column 0 or beyond the last cell.
    points = tf.constant([[[[x, 4], [x, 12]]]], tf.float32)
    fields = part_affinity_fields(points, [(0, 1)], 16, 16, 4, 6.0)
    column = round(x / 4 - 1e-3)
    distance = abs(min(4 * column, 12) - x)
    np.testing.assert_allclose(fields[0, 2, min(column, 3), 1], 2 ** -((distance / 6) ** 4))
    maps = multi_confidence_maps(points, 16, 16, 4, 6.0)
    np.testing.assert_allclose(maps[0, 1, min(column, 3), 0], np.exp(-(distance**2) / 72))


@pytest.mark.parametrize("shape", [(0, 2, 3, 2), (2, 0, 3, 2), (2, 2, 3, 2)])
def test_no_frames_no_animals_and_no_points_give_zeros(shape: tuple[int, ...]) -> None:
    points = tf.fill(shape, NAN)
    fields = part_affinity_fields(points, [(0, 1)], 8, 12, 4, 5.0)
    maps = multi_confidence_maps(points, 8, 12, 4, 5.0)
    assert (fields.shape, maps.shape) == ((shape[0], 2, 3, 2), (shape[0], 2, 3, 3))
    assert not np.any(fields)
    assert not np.any(maps)


def test_a_skeleton_without_edges_has_no_fields() -> None:
    assert part_affinity_fields(tf.zeros((2, 1, 1, 2)), [], 8, 12, 4, 5.0).shape == (2, 2, 3, 0)


def test_each_frame_has_its_own_animals_in_a_compiled_graph_too() -> None:
    points = np.random.default_rng(0).uniform(0, 30, (3, 4, 5, 2)).astype(np.float32)
    points[1, 1:] = NAN
    points[2, 0, 2] = NAN
    edges = [(0, 1), (1, 2), (2, 3), (0, 4)]
    fields, maps = (
        tf.function(draw, jit_compile=True)(points)
        for draw in (
            lambda points: part_affinity_fields(points, edges, 32, 24, 4, 5.0),
            lambda points: multi_confidence_maps(points, 32, 24, 4, 5.0),
        )
    )
    for frame, animals in enumerate(points):
        alone = [part_affinity_fields(each[None, None], edges, 32, 24, 4, 5.0) for each in animals]
        np.testing.assert_allclose(fields[frame], np.sum(alone, axis=0)[0], atol=1e-5)
        alone = [confidence_maps(each[None], 32, 24, 4, 5.0) for each in animals]
        np.testing.assert_allclose(maps[frame], np.max(alone, axis=0)[0], atol=1e-6)
