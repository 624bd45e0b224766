from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from hgtrain.config.schema import HeadConfig
from hgtrain.coords import original_points, padded_length, resized_length, resized_points
from hgtrain.heads import make_head
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.heads.targets.confidence_maps import confidence_maps
from hgtrain.skeleton import unnamed_skeleton

NAN = float("nan")


def maps_of(points: object, height: int, width: int, stride: int, sigma_px: float) -> np.ndarray:
    return confidence_maps(tf.constant(points, tf.float32), height, width, stride, sigma_px).numpy()


@pytest.mark.parametrize("case", range(3))
def test_maps_equal_the_reference(conformance: Path, case: int) -> None:
    figures = np.load(conformance / "targets.npz")
    height, width, stride, sigma_px = figures[f"{case}_meta"]
    points = figures[f"{case}_points"][:1]
    maps = maps_of(points, int(height), int(width), int(stride), float(sigma_px))
    np.testing.assert_allclose(maps[0], figures[f"{case}_single"], atol=1e-5)


def test_values_are_those_of_a_gaussian_in_pixels() -> None:
    # Cell (1, 2) sits at pixel (x, y) = (8, 4); its neighbours 4 px away, one sigma.
    maps = maps_of([[[8, 4]]], 12, 20, 4, 4.0)[0, :, :, 0]
    one, two = np.exp(-0.5), np.exp(-2.0)
    expected = np.outer([one, 1, one], [two, one, 1, one, two])
    np.testing.assert_allclose(maps, expected, rtol=1e-6)


def test_shape_is_rows_columns_keypoints() -> None:
    assert maps_of(np.zeros((2, 3, 2)), 32, 48, 8, 5.0).shape == (2, 4, 6, 3)
    assert maps_of(np.zeros((0, 3, 2)), 32, 48, 8, 5.0).shape == (0, 4, 6, 3)


@pytest.mark.parametrize("point", [[NAN, NAN], [NAN, 4.0], [4.0, NAN]])
def test_a_missing_keypoint_gives_a_map_of_zeros(point: list[float]) -> None:
    maps = maps_of([[point, [4, 4]]], 16, 16, 4, 5.0)
    assert not maps[..., 0].any()
    assert maps[0, 1, 1, 1] == 1


def test_a_keypoint_far_outside_gives_finite_values() -> None:
    maps = maps_of([[[1e30, -1e30], [-np.inf, np.inf]]], 16, 16, 4, 5.0)
    np.testing.assert_array_equal(maps, 0)


def test_table_names_the_head_of_the_config() -> None:
    head = make_head(HeadConfig(sigma_px=5.0), unnamed_skeleton(1), 4)
    points = tf.constant([[[10.0, 7.0]]])
    maps, weights = head.targets(points[:, None], tf.ones((1, 1, 1)), 16, 24)["confmaps"]
    np.testing.assert_array_equal(maps, confidence_maps(points, 16, 24, 4, 5.0))
    assert weights.numpy().tolist() == [[1.0]]


@st.composite
def scenes(draw: st.DrawFn) -> tuple[int, int, int, int, float, float, list[list[float]]]:
    """Image sides of three cells or more, odd and unequal ones, with points up to their very
    edges."""
    stride, scale = draw(st.sampled_from([1, 2, 4, 8, 16])), draw(st.sampled_from([0.5, 1.0, 1.5]))
    multiple = stride * draw(st.sampled_from([1, 2, 4]))
    smallest = int(3 * stride / scale) + 1
    height, width = (draw(st.integers(smallest, smallest + 60)) for _ in range(2))
    sigma_px = draw(
        st.sampled_from([sigma for sigma in (1.5, 3.0, 5.0, 8.0, 12.0) if sigma * 3.5 >= stride])
    )
    along = [
        st.one_of(st.floats(-0.5, side - 0.5), st.sampled_from([-0.5, side - 0.5]))
        for side in (width, height)
    ]
    points = draw(st.lists(st.tuples(*along).map(list), min_size=1, max_size=4))
    return height, width, stride, multiple, scale, sigma_px, points


@settings(max_examples=150)
@given(scenes())
def test_decoding_gives_the_points_back(scene: tuple) -> None:
    height, width, stride, multiple, scale, sigma_px, points = scene
    padded = (padded_length(resized_length(side, scale), multiple) for side in (height, width))
    at = resized_points(np.array([points], np.float32), scale)
    maps = confidence_maps(tf.constant(at), *padded, stride, sigma_px)
    head = SingleInstance(len(points), stride, sigma_px)
    decoded = head.decode({"confmaps": maps}).points
    np.testing.assert_allclose(original_points(decoded, scale)[0, 0], points, atol=0.02)
