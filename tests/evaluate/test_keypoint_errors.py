import numpy as np
import pytest

from hgtrain.evaluate.calibration import calibration
from hgtrain.evaluate.keypoint_errors import extra_metrics, keypoint_errors, pck_of_size
from hgtrain.evaluate.matching import FrameMatch, average_precision_and_recall

NAN = np.nan


def animal(*points):
    return np.array([points], np.float32)


def match(similarity, *scores):
    return FrameMatch(np.array(similarity, float).reshape(len(scores), -1), np.array(scores, float))


def test_size_is_the_longer_side_of_the_labelled_points():
    truth = animal((0, 0), (100, 20))
    errors = keypoint_errors(
        truth, np.full((1, 2), 2), truth + np.array([[0, 4], [0, 12]], np.float32)
    )
    assert pck_of_size(errors, truth) == {"0.05": 0.5, "0.1": 0.5, "0.2": 1.0}


def test_an_animal_of_one_point_is_a_pixel_large():
    truth = animal((5, 5))
    errors = keypoint_errors(truth, np.full((1, 1), 2), truth + np.float32(0.1))
    assert pck_of_size(errors, truth) == {"0.05": 0.0, "0.1": 0.0, "0.2": 1.0}


def test_a_point_that_is_not_predicted_is_not_within_any_size():
    truth = animal((0, 0), (100, 0))
    errors = keypoint_errors(truth, np.full((1, 2), 2), animal((0, 0), (NAN, NAN)))
    assert pck_of_size(errors, truth)["0.2"] == 0.5


def test_perfect_matches_have_precision_and_recall_of_one():
    assert average_precision_and_recall([match([1.0], 0.9), match([1.0], 0.2)]) == (1.0, 1.0)


def test_an_oks_counts_at_the_thresholds_it_reaches():
    # 0.50, 0.55, 0.60 of ten thresholds
    precision, recall = average_precision_and_recall([match([0.62], 0.9)])
    assert precision == pytest.approx(0.3)
    assert recall == pytest.approx(0.3)


def test_an_unmatched_prediction_of_higher_score_halves_precision():
    frames = [match([1.0], 0.3), FrameMatch(np.empty((1, 0)), np.array([0.9]))]
    precision, recall = average_precision_and_recall(frames)
    assert precision == pytest.approx(0.5)
    assert recall == 1.0


def test_an_unmatched_prediction_of_lower_score_costs_nothing():
    frames = [match([1.0], 0.9), FrameMatch(np.empty((1, 0)), np.array([0.3]))]
    assert average_precision_and_recall(frames) == (1.0, 1.0)


def test_an_animal_that_is_not_found_costs_recall():
    precision, recall = average_precision_and_recall(
        [match([1.0], 0.9), FrameMatch(np.empty((0, 1)), np.empty(0))]
    )
    # recall levels 0.00 to 0.50 of 101 are reached
    assert precision == pytest.approx(51 / 101)
    assert recall == 0.5


def test_an_animal_is_matched_once():
    # At 0.95 only the less sure of the two reaches it: one of two is right.
    precision, recall = average_precision_and_recall([match([[0.9], [0.95]], 0.9, 0.8)])
    assert recall == 1.0
    assert precision == pytest.approx((9 * 1.0 + 0.5) / 10)


def test_the_surer_prediction_chooses_first():
    frames = [match([[0.9, 0.6], [0.9, 0.1]], 0.9, 0.8)]
    # The first takes animal 0 at thresholds up to 0.90; the second finds none.
    _, recall = average_precision_and_recall(frames)
    assert recall == pytest.approx(0.9 * 0.5)


def test_without_labelled_animals_there_is_no_precision():
    assert average_precision_and_recall([FrameMatch(np.empty((1, 0)), np.array([0.5]))]) == (
        None,
        None,
    )


def test_without_predictions_precision_and_recall_are_zero():
    assert average_precision_and_recall([FrameMatch(np.empty((0, 1)), np.empty(0))]) == (0.0, 0.0)


def test_confidence_that_falls_with_the_error_correlates_fully():
    found = calibration(np.array([1.0, 2.0, 8.0]), np.array([0.9, 0.5, 0.1]))
    assert found["rank_correlation"] == pytest.approx(1.0)


def test_confidence_that_rises_with_the_error_correlates_negatively():
    assert calibration(np.array([1.0, 2.0]), np.array([0.1, 0.5]))[
        "rank_correlation"
    ] == pytest.approx(-1.0)


def test_equal_confidence_has_no_correlation():
    assert calibration(np.array([1.0, 2.0]), np.array([0.5, 0.5]))["rank_correlation"] is None


def test_bins_are_tenths_by_rising_confidence():
    bins = calibration(np.arange(20.0)[::-1], np.arange(20) / 20)["bins"]
    assert len(bins) == 10
    assert bins[0] == {"confidence": pytest.approx(0.025), "count": 2, "mean": 18.5, "median": 18.5}


def test_groups_are_measured_on_their_own():
    truth = np.zeros((3, 1, 2), np.float32)
    predicted = np.array([[[1, 0]], [[3, 0]], [[7, 0]]], np.float32)
    found = extra_metrics(
        truth, np.full((3, 1), 2), predicted, np.ones((3, 1)), np.array(["a", "a", "b"])
    )
    assert found["per_group"] == [
        {"name": "a", "frames": 2, "count": 2, "mean": 2.0, "median": 2.0},
        {"name": "b", "frames": 1, "count": 1, "mean": 7.0, "median": 7.0},
    ]


@pytest.mark.parametrize("frames", [0, 2])
def test_all_hidden_or_no_frames_have_no_figures(frames):
    truth = np.full((frames, 2, 2), NAN, np.float32)
    predicted, confidence = np.zeros((frames, 2, 2), np.float32), np.zeros((frames, 2))
    found = extra_metrics(truth, np.zeros((frames, 2)), predicted, confidence, None)
    assert found["oks_map"] is None
    assert found["pck_of_size"] == {"0.05": None, "0.1": None, "0.2": None}
    assert found["calibration"] == {"rank_correlation": None, "bins": []}


def test_nothing_predicted_counts_against_all():
    truth = np.zeros((2, 2, 2), np.float32)
    predicted = np.full((2, 2, 2), NAN, np.float32)
    found = extra_metrics(truth, np.full((2, 2), 2), predicted, np.zeros((2, 2)), None)
    assert found["oks_map"] == 0.0
    assert found["pck_of_size"]["0.2"] == 0.0
