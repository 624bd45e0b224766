"""How large crops have to be: against drawn animals and counting by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hgtrain.data.crop_size import centroids, crop_size_px, share_cut_off

NAN = float("nan")


def cross(radius: float, centre: tuple[float, float] = (100.0, 80.0)) -> np.ndarray:
    """Return an animal of five keypoints, the first in the middle, `(5, 2)`."""
    ways = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    return (centre + radius * ways).astype(np.float32)


def animals(*each: np.ndarray) -> np.ndarray:
    """Return a dataset's points with one frame an animal."""
    return np.stack(each)[:, None]


def is_whole(points: np.ndarray, anchor: int | None, size: int) -> bool:
    """Whether all labelled points of an animal `(K, 2)` lie on pixels of its crop."""
    corner = np.floor(centroids(points, anchor) - (size - 1) / 2 + 0.5)
    pixels = np.floor(points[~np.isnan(points[:, 0])] - corner + 0.5)
    return bool(((pixels >= 0) & (pixels < size)).all())


@pytest.mark.parametrize(
    ("radius", "multiple", "scale", "expected"),
    [
        # 2 * 10 + 1 = 21 px.
        (10.0, 1, 1.0, 21),
        (10.0, 8, 1.0, 24),
        (10.0, 32, 1.0, 32),
        # 2 * 15 * 1.1 + 1 = 34 px.
        (15.0, 1, 1.1, 34),
        (15.5, 32, 1.0, 32),
        (15.6, 32, 1.0, 64),
    ],
)
def test_the_size_is_the_reach_on_both_sides_up_to_the_multiple(
    radius: float, multiple: int, scale: float, expected: int
) -> None:
    assert crop_size_px(animals(cross(radius)), 0, multiple, scale) == expected


def test_an_anchor_that_is_not_in_the_middle_needs_a_larger_crop() -> None:
    points = animals(cross(10.0))
    assert crop_size_px(points, None, 1) == 21
    assert crop_size_px(points, 1, 1) == 41


def test_the_size_holds_an_animal_that_is_turned() -> None:
    bar = np.array([[0.0, 0.0], [30.0, 40.0]], np.float32)
    size = crop_size_px(animals(bar), None, 1)
    assert size == 51
    assert is_whole(np.array([[0.0, 0.0], [50.0, 0.0]]), None, size)


def test_one_in_a_thousand_animals_does_not_set_the_size() -> None:
    points = animals(*[cross(10.0)] * 999, cross(500.0))
    assert crop_size_px(points, 0, 1) == 21


def test_one_in_a_hundred_animals_sets_the_size() -> None:
    points = animals(*[cross(10.0)] * 99, cross(20.0))
    # The 99.5th percentile of a hundred lies between the two largest, half of the way from the
    # one below: 10 + 0.505 * 10 px; twice that and 1 is 31.1.
    assert crop_size_px(points, 0, 1) == 32


def test_animals_without_points_and_missing_points_do_not_count() -> None:
    points = animals(cross(10.0), np.full((5, 2), NAN), cross(10.0))
    points[2, 0, 1] = NAN
    assert crop_size_px(points, 0, 1) == 21


def test_the_smallest_size_is_the_multiple() -> None:
    assert crop_size_px(animals(np.full((5, 2), NAN)), None, 16) == 16
    assert crop_size_px(np.zeros((0, 2, 5, 2)), None, 16) == 16


@settings(max_examples=60)
@given(st.integers(0, 10**6), st.sampled_from([None, 0, 2]), st.sampled_from([1, 8]))
def test_at_most_one_animal_in_two_hundred_is_cut_by_the_size(
    seed: int, anchor: int | None, multiple: int
) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(0, 15, (40, 5, 4, 2)) + rng.uniform(0, 400, (40, 5, 1, 2))
    points[rng.random(points.shape[:-1]) < 0.2] = NAN
    size = crop_size_px(points, anchor, multiple)
    each = [animal for animal in points.reshape(-1, 4, 2) if not np.isnan(animal).all()]
    # The percentile lies between two animals: the upper one may be cut.
    assert sum(not is_whole(animal, anchor, size) for animal in each) <= 0.005 * len(each) + 1


def test_the_share_cut_off_counts_labelled_keypoints_beyond_the_crop() -> None:
    points = animals(cross(10.0), cross(12.0))
    points[1, 0, 4] = NAN
    # 21 px around (100, 80) are those from 90 to 110 and 70 to 90: three of nine lie outside.
    assert share_cut_off(points, 0, 21) == pytest.approx(3 / 9)
    assert share_cut_off(points, 0, 25) == 0


def test_a_keypoint_in_a_border_pixel_of_the_crop_is_not_cut_off() -> None:
    points = animals(np.array([[50.0, 50.0], [54.4, 50.0], [54.6, 50.0], [50.0, 45.6]], np.float32))
    assert share_cut_off(points, 0, 9) == 0.25


def test_of_no_keypoints_none_is_cut_off() -> None:
    assert share_cut_off(animals(np.full((5, 2), NAN)), None, 8) == 0


@pytest.mark.parametrize("anchor", [None, 0])
def test_no_more_is_cut_off_than_the_percentile_leaves(anchor: int | None) -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(0, 15, (400, 1, 6, 2)) + rng.uniform(0, 400, (400, 1, 1, 2))
    size = crop_size_px(points, anchor, 1)
    assert share_cut_off(points, anchor, size) <= 3 / (400 * 6)
    assert share_cut_off(points, anchor, size // 2) > 0.05
