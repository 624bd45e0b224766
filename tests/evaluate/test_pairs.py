import numpy as np
import pytest

from hgtrain.evaluate.pairs import group_purity, in_place_of_labels, pair_animals
from hgtrain.poses import Poses

NAN = np.nan
ANIMAL = np.array([[0, 0], [30, 0], [60, 0], [100, 40]], float)
"""Its longer side is 100 px, so its reach 50."""

MISSING = np.full((4, 2), NAN)


def moved(points, x, y):
    return points + np.array([x, y])


def frame(*animals):
    return np.stack(animals)[None].astype(float)


def pairs_of(truth, predicted):
    return pair_animals(truth, np.where(np.isfinite(truth).all(-1), 2, 0), predicted)[0].tolist()


def purity_of(truth, predicted):
    return group_purity(truth, np.where(np.isfinite(truth).all(-1), 2, 0), predicted)


def test_animals_are_matched_whatever_their_order():
    truth = frame(ANIMAL, ANIMAL + 200, ANIMAL + 400)
    assert pairs_of(truth, frame(ANIMAL + 402, ANIMAL + 3, ANIMAL + 198)) == [1, 2, 0]


def test_a_mediocre_prediction_is_still_the_animal():
    # OKS at COCO's sigma .025 is exp(-20^2 / (2 * .05^2 * 4000)) = 2e-9.
    assert pairs_of(frame(ANIMAL), frame(moved(ANIMAL, 0, 20))) == [0]


def test_an_animal_with_half_of_its_points_far_off_is_still_the_animal():
    bad = ANIMAL.copy()
    bad[2:] += 300
    assert pairs_of(frame(ANIMAL), frame(bad)) == [0]
    bad[1:] += 300
    assert pairs_of(frame(ANIMAL), frame(bad)) == [-1]


def test_a_stray_is_no_animal():
    assert pairs_of(frame(ANIMAL), frame(moved(ANIMAL, 0, 50))) == [0]
    assert pairs_of(frame(ANIMAL), frame(moved(ANIMAL, 0, 50.1))) == [-1]


def test_the_closest_of_two_predictions_is_matched():
    assert pairs_of(frame(ANIMAL), frame(moved(ANIMAL, 0, 9), moved(ANIMAL, 0, 8))) == [1]


def test_a_prediction_is_matched_once_with_the_closest():
    truth = frame(ANIMAL, moved(ANIMAL, 0, 30))
    assert pairs_of(truth, frame(moved(ANIMAL, 0, 20))) == [-1, 0]


def test_a_second_prediction_takes_the_animal_that_is_left():
    # Both are closer to the second animal; the closest pair is matched first.
    truth = frame(ANIMAL, moved(ANIMAL, 0, 30))
    assert pairs_of(truth, frame(moved(ANIMAL, 0, 20), moved(ANIMAL, 0, 29))) == [0, 1]


def test_a_whole_animal_goes_before_a_part_that_is_closer():
    part = np.where([[True], [False], [False], [False]], ANIMAL, NAN)
    assert pairs_of(frame(ANIMAL), frame(part, moved(ANIMAL, 0, 5))) == [1]
    assert pairs_of(frame(ANIMAL), frame(part, MISSING)) == [0]


def test_only_points_that_both_have_are_compared():
    truth = np.where([[True], [True], [False], [True]], ANIMAL, NAN)
    predicted = ANIMAL + np.array([[0, 0], [0, 70], [0, 900], [0, 50]])
    # Two of the three that are shared are within reach, of the four it would be half.
    assert pairs_of(frame(truth), frame(predicted)) == [0]
    only_the_other = np.where([[False], [False], [True], [False]], ANIMAL, NAN)
    assert pairs_of(frame(truth), frame(only_the_other)) == [-1]


def test_an_animal_of_one_labelled_point_reaches_ten_pixels():
    truth = frame(np.where([[True], [False], [False], [False]], ANIMAL, NAN))
    assert pairs_of(truth, frame(moved(ANIMAL, 6, 8))) == [0]
    assert pairs_of(truth, frame(moved(ANIMAL, 6, 8.1))) == [-1]


def test_what_is_not_labelled_is_no_animal_and_of_no_size():
    truth = frame(ANIMAL, np.concatenate([ANIMAL[:3] + 200, [[900.0, 900.0]]]))
    visibility = np.array([[[0] * 4, [2, 1, 2, 0]]])
    # The second is 60 px long, so its reach 30.
    assert pair_animals(truth, visibility, frame(ANIMAL, moved(ANIMAL, 200, 230))).tolist() == [
        [-1, 1]
    ]
    assert pair_animals(truth, visibility, frame(ANIMAL, moved(ANIMAL, 200, 231))).tolist() == [
        [-1, -1]
    ]


@pytest.mark.parametrize("shape", [(0, 2, 3), (2, 0, 3), (2, 2, 0), (2, 0, 0)])
def test_nothing_is_matched_with_nothing(shape):
    frames, labelled, predicted = shape
    truth, found = np.zeros((frames, labelled, 4, 2)), np.zeros((frames, predicted, 4, 2))
    visibility = np.zeros((frames, labelled, 4))
    assert pair_animals(truth, visibility, found).tolist() == [[-1] * labelled] * frames
    assert group_purity(truth, visibility, found) is None


def test_labelled_animals_without_any_prediction_are_missed():
    assert pairs_of(frame(ANIMAL, ANIMAL + 200), np.zeros((1, 0, 4, 2))) == [-1, -1]
    assert pairs_of(frame(ANIMAL), frame(MISSING, MISSING)) == [-1]


def test_infinite_and_huge_points_match_nothing():
    assert pairs_of(frame(ANIMAL), frame(np.full((4, 2), np.inf), np.full((4, 2), 3e38))) == [-1]


def test_predictions_are_put_where_their_labels_are():
    found = Poses(
        np.arange(12, dtype=np.float32).reshape(2, 3, 1, 2),
        np.arange(6, dtype=np.float32).reshape(2, 3, 1),
        np.arange(6, dtype=np.float32).reshape(2, 3),
    )
    placed = in_place_of_labels(found, np.array([[2, -1], [-1, 0]]))
    np.testing.assert_array_equal(
        placed.points, [[[[4, 5]], [[NAN, NAN]]], [[[NAN, NAN]], [[6, 7]]]]
    )
    np.testing.assert_array_equal(placed.confidence, [[[2], [NAN]], [[NAN], [3]]])
    np.testing.assert_array_equal(placed.scores, [[2, NAN], [NAN, 3]])
    assert placed.points.dtype == np.float32


def test_animals_with_points_of_their_own_are_pure():
    truth = frame(ANIMAL, moved(ANIMAL, 0, 120))
    assert purity_of(truth, frame(moved(ANIMAL, 0, 125), ANIMAL + 5)) == 1.0


def test_purity_is_the_share_of_the_animal_with_most_points():
    other = moved(ANIMAL, 0, 120)
    mixed = np.concatenate([ANIMAL[:3], other[3:]])
    # 3/4 and 4/4
    assert purity_of(frame(ANIMAL, other), frame(mixed, other)) == pytest.approx(0.875)


def test_points_on_no_animal_are_not_judged():
    other = moved(ANIMAL, 0, 120)
    mixed = np.concatenate([ANIMAL[:2], other[2:3], [[900, 900]]])
    assert purity_of(frame(ANIMAL, other), frame(mixed)) == pytest.approx(2 / 3)
    assert purity_of(frame(ANIMAL, other), frame(ANIMAL + 900)) is None


def test_one_point_alone_is_not_judged():
    lone = np.where([[True], [False], [False], [False]], ANIMAL, NAN)
    assert purity_of(frame(ANIMAL), frame(lone)) is None
    assert purity_of(frame(ANIMAL), frame(lone, ANIMAL)) == 1.0


def test_a_point_that_may_be_of_an_animal_without_this_label_is_not_judged():
    # The second keypoint of the lower animal is not labelled. It is predicted where it is, which is
    # within reach of the upper animal's.
    lower = moved(ANIMAL, 0, 40)
    without = np.array([[True], [False], [True], [True]])
    truth = frame(ANIMAL, np.where(without, lower, NAN))
    assert purity_of(truth, frame(lower)) == 1.0
    # Far from the animal without this label it can only be the other's.
    far = moved(ANIMAL, 0, 400)
    mixed = np.where(without, far, ANIMAL)
    assert purity_of(frame(ANIMAL, np.where(without, far, NAN)), frame(mixed)) == 0.75


def test_purity_is_the_mean_over_frames_with_labels():
    other = moved(ANIMAL, 0, 120)
    half = np.concatenate([ANIMAL[:2], other[2:]])
    truth = np.concatenate([frame(ANIMAL, other), frame(MISSING, MISSING)])
    predicted = np.concatenate([frame(ANIMAL, half), frame(half, half)])
    assert purity_of(truth, predicted) == pytest.approx(0.75)
