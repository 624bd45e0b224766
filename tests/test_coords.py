import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgtrain.coords import (
    cells_to_pixels,
    crop_corners,
    original_points,
    padded_length,
    resized_length,
    resized_points,
)

SETTINGS = settings(max_examples=60)
SCALES = st.floats(0.05, 4)


@pytest.mark.parametrize(
    ("point", "scale", "expected"),
    [
        (-0.5, 0.5, -0.5),  # the image's edge stays its edge
        (0.0, 0.5, -0.25),  # centre of the first pixel: a quarter into the first large pixel
        (0.5, 0.5, 0.0),  # between two pixels that become one
        (9.5, 1.5, 14.5),  # the right edge of 10 pixels becomes that of 15
        (4.0, 1.0, 4.0),
    ],
)
def test_resized_points_are_half_pixel_correct(point: float, scale: float, expected: float) -> None:
    assert resized_points(point, scale) == pytest.approx(expected)


@SETTINGS
@given(st.floats(-1e4, 1e4), SCALES)
def test_original_points_invert_resized_points(point: float, scale: float) -> None:
    assert original_points(resized_points(point, scale), scale) == pytest.approx(point, abs=1e-6)


def test_missing_points_stay_missing() -> None:
    points = np.array([[math.nan, math.nan], [1.0, 2.0]])
    for function in (resized_points, original_points):
        assert np.isnan(function(points, 0.5)).tolist() == [[True, True], [False, False]]
    assert math.isnan(cells_to_pixels(math.nan, 4))


@pytest.mark.parametrize(
    ("length", "scale", "expected"),
    [
        (100, 1.0, 100),
        (100, 0.37, 37),
        (101, 0.5, 51),
        (300, 1 / 3, 100),
        (7, 1.5, 11),
        (3, 0.1, 1),
        (1, 0.001, 1),
    ],
)
def test_resized_length_holds_the_whole_image(length: int, scale: float, expected: int) -> None:
    assert resized_length(length, scale) == expected


@SETTINGS
@given(st.integers(1, 5000), SCALES)
def test_resized_length_is_within_a_pixel_of_the_content(length: int, scale: float) -> None:
    assert (
        -0.0101 <= resized_length(length, scale) - length * scale < 1
        or resized_length(length, scale) == 1
    )


@pytest.mark.parametrize(
    ("length", "multiple", "expected"),
    [(64, 16, 64), (65, 16, 80), (1, 64, 64), (63, 1, 63), (192, 64, 192)],
)
def test_padded_length_is_the_next_multiple(length: int, multiple: int, expected: int) -> None:
    assert padded_length(length, multiple) == expected


def test_cell_i_sits_at_pixel_i_times_stride() -> None:
    assert cells_to_pixels(2.5, 4) == 10.0
    np.testing.assert_array_equal(cells_to_pixels(np.array([0.0, 3.0]), 8), [0.0, 24.0])


@pytest.mark.parametrize(
    ("centroid", "size", "corner"),
    [(20.0, 15, 13.0), (20.5, 16, 13.0), (20.0, 16, 13.0), (0.0, 8, -3.0), (-7.2, 1, -7.0)],
)
def test_a_crop_begins_at_a_whole_pixel(centroid: float, size: int, corner: float) -> None:
    assert crop_corners(centroid, size) == corner
    np.testing.assert_array_equal(
        crop_corners(np.array([centroid, np.nan], np.float32), size), [corner, np.nan]
    )
