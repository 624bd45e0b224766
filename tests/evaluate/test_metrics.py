import json
import math
from pathlib import Path

import numpy as np
import pytest

from hgtrain.evaluate.metrics import object_keypoint_similarity, pose_metrics

NAN = float("nan")
NAMES = ("head", "tail")


def metrics_of(truth: object, visibility: object, predicted: object, confidence: object) -> dict:
    arrays = [np.array(truth, np.float32), np.array(visibility, np.uint8)]
    arrays += [np.array(predicted, np.float32), np.array(confidence, np.float32)]
    metrics = pose_metrics(*arrays, NAMES)
    json.dumps(metrics, allow_nan=False)
    return metrics


@pytest.fixture(scope="module")
def small() -> dict:
    """Three frames of two keypoints: errors 5 and 0; 10 and one not labelled.

    One without prediction and one absent.
    """
    truth = [[[10, 10], [50, 50]], [[20, 20], [1, 1]], [[30, 30], [NAN, NAN]]]
    visibility = [[2, 1], [2, 0], [2, 2]]
    predicted = [[[13, 14], [50, 50]], [[20, 10], [9, 9]], [[NAN, NAN], [40, 40]]]
    confidence = [[0.9, 0.1], [0.3, 0.9], [0.0, 0.8]]
    return metrics_of(truth, visibility, predicted, confidence)


def test_counts_are_of_frames_and_keypoints_labelled_with_a_position(small: dict) -> None:
    assert (small["frames"], small["keypoints"]) == (3, 4)


def test_errors_are_those_of_the_keypoints_located(small: dict) -> None:
    # Errors 0, 5, 10: percentile p is 10 p / 100 by linear interpolation.
    expected = {"mean": 5, "median": 5, "p75": 7.5, "p90": 9, "p95": 9.5, "p99": 9.9}
    assert small["error_px"] == pytest.approx(expected)
    assert small["rmse_px"] == pytest.approx(math.sqrt(125 / 3))


def test_a_keypoint_not_located_counts_against_pck(small: dict) -> None:
    assert small["pck"] == {"1": 0.25, "2": 0.25, "5": 0.5, "10": 0.75}


def test_precision_and_recall_are_of_what_is_judged(small: dict) -> None:
    # Present by confidence among the five judged: two that have a position and the absent one;
    # labelled: four.
    assert small["visibility"] == {"precision": pytest.approx(2 / 3), "recall": 0.5}


def test_keypoints_are_named_each_with_its_errors(small: dict) -> None:
    assert small["per_keypoint"] == [
        {"name": "head", "count": 2, "mean": 7.5, "median": 7.5},
        {"name": "tail", "count": 1, "mean": 0.0, "median": 0.0},
    ]


def test_oks_is_the_mean_over_frames(small: dict) -> None:
    # Frame 0: area 40 * 40, exp(-25 / (2 * .05^2 * 1600)) = exp(-3.125), and 1. Frame 1: one point,
    # area 1,
    # exp(-100 / .005) = 0. Frame 2: nothing predicted, 0.
    assert small["oks"] == pytest.approx(((math.exp(-3.125) + 1) / 2 + 0 + 0) / 3, abs=1e-6)


def test_oks_equals_the_reference(conformance: Path) -> None:
    figures = np.load(conformance / "oks.npz")
    truth = figures["gt"]
    found = object_keypoint_similarity(
        truth, np.full(truth.shape[:2], 2), figures["pr"], stddev=float(figures["stddev"])
    )
    np.testing.assert_allclose(found, figures["oks"], atol=1e-4)


UNDEFINED = {
    "error_px": dict.fromkeys(("mean", "median", "p75", "p90", "p95", "p99")),
    "rmse_px": None,
    "per_keypoint": [{"name": name, "count": 0, "mean": None, "median": None} for name in NAMES],
}


def test_no_frames_leave_everything_undefined() -> None:
    metrics = metrics_of(
        np.empty((0, 2, 2)), np.empty((0, 2)), np.empty((0, 2, 2)), np.empty((0, 2))
    )
    nothing = {
        "frames": 0,
        "keypoints": 0,
        "oks": None,
        "pck": dict.fromkeys(("1", "2", "5", "10")),
    }
    assert metrics == UNDEFINED | nothing | {"visibility": {"precision": None, "recall": None}}


def test_no_labels_leave_everything_undefined_but_the_number_of_frames() -> None:
    metrics = metrics_of(
        np.zeros((2, 2, 2)), np.zeros((2, 2)), np.zeros((2, 2, 2)), np.ones((2, 2))
    )
    nothing = {
        "frames": 2,
        "keypoints": 0,
        "oks": None,
        "pck": dict.fromkeys(("1", "2", "5", "10")),
    }
    assert metrics == UNDEFINED | nothing | {"visibility": {"precision": None, "recall": None}}


def test_nothing_predicted_scores_nothing() -> None:
    metrics = metrics_of(
        np.zeros((2, 2, 2)), np.full((2, 2), 2), np.full((2, 2, 2), NAN), np.full((2, 2), NAN)
    )
    scores = {
        "frames": 2,
        "keypoints": 4,
        "oks": 0.0,
        "pck": dict.fromkeys(("1", "2", "5", "10"), 0.0),
    }
    assert metrics == UNDEFINED | scores | {"visibility": {"precision": None, "recall": 0.0}}


def test_all_absent_is_judged_by_precision_alone() -> None:
    metrics = metrics_of(
        np.full((1, 2, 2), NAN), np.full((1, 2), 2), np.zeros((1, 2, 2)), [[0.9, 0.1]]
    )
    assert metrics["visibility"] == {"precision": 0.0, "recall": None}
    assert (metrics["keypoints"], metrics["oks"], metrics["rmse_px"]) == (0, None, None)


def test_hidden_keypoints_count_like_visible_ones() -> None:
    truth, predicted, confidence = np.zeros((1, 2, 2)), [[[3, 4], [0, 0]]], [[0.5, 0.5]]
    assert metrics_of(truth, [[1, 1]], predicted, confidence) == metrics_of(
        truth, [[2, 2]], predicted, confidence
    )


def test_half_a_position_is_none() -> None:
    metrics = metrics_of([[[NAN, 1], [1, 1]]], [[2, 2]], [[[1, 1], [1, NAN]]], [[1, 1]])
    assert (metrics["keypoints"], metrics["rmse_px"], metrics["pck"]["10"]) == (1, None, 0.0)


@pytest.mark.parametrize("points", [[[5, 5], [5, 5]], [[5, 5], [9, 5]], [[5, 5], [NAN, NAN]]])
def test_points_without_an_area_can_still_be_matched(points: list) -> None:
    truth = np.array([points], np.float32)
    assert object_keypoint_similarity(truth, np.full((1, 2), 2), truth).tolist() == [1.0]


def test_oks_of_a_degenerate_area_is_that_of_one_square_pixel() -> None:
    found = object_keypoint_similarity(
        np.zeros((1, 1, 2)), np.ones((1, 1)), np.array([[[0.06, 0.08]]])
    )
    assert found.tolist() == pytest.approx([math.exp(-0.01 / (2 * 0.0025))])


def test_what_is_not_labelled_is_no_part_of_the_area() -> None:
    truth = np.array([[[0, 0], [10, 10], [900, 900]]], np.float32)
    predicted = truth + np.array([0, 1], np.float32)
    found = object_keypoint_similarity(truth, np.array([[2, 2, 0]]), predicted)
    assert found.tolist() == pytest.approx([math.exp(-1 / (2 * 0.0025 * 100))])


def test_infinite_and_huge_predictions_stay_json() -> None:
    metrics = metrics_of(
        np.zeros((1, 2, 2)), [[2, 2]], [[[math.inf, 0], [3e38, -3e38]]], [[1, math.inf]]
    )
    assert metrics["pck"]["10"] == 0.0
    assert metrics["oks"] == 0.0


def test_an_error_at_a_threshold_is_within_it() -> None:
    metrics = metrics_of(np.zeros((1, 2, 2)), [[2, 2]], [[[2, 0], [0, 5]]], [[1, 1]])
    assert metrics["pck"] == {"1": 0.0, "2": 0.5, "5": 1.0, "10": 1.0}
