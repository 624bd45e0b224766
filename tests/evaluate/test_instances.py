import json
import math

import numpy as np
import pytest

from hgtrain.evaluate.instances import poses_metrics
from hgtrain.evaluate.keypoint_errors import extra_metrics
from hgtrain.evaluate.metrics import pose_metrics
from hgtrain.poses import Poses

NAN = np.nan
NAMES = ("nose", "hip", "tail")
ANIMAL = np.array([[0, 0], [40, 0], [100, 100]], float)
"""Its bounding box has 10,000 px^2: a keypoint at d px has the similarity exp(-d^2 / 50)."""

MISSING = np.full((3, 2), NAN)


def moved(points, x, y):
    return points + np.array([x, y])


def metrics_of(truth, visibility, found, groups=None, several=True):
    metrics = poses_metrics(
        np.array(truth, np.float32),
        np.array(visibility, np.uint8),
        Poses(*(np.array(array, np.float32) for array in found)),
        NAMES,
        groups,
        several,
    )
    json.dumps(metrics, allow_nan=False)
    return metrics


@pytest.fixture(scope="module")
def frames():
    """Three frames of up to two animals.

    The first has both found, one without its tail and one with a hip 10 px off, and a stray; in the
    second one is missed and one 3, 4 px off; nothing is labelled in the third, where one is found.
    """
    other = ANIMAL + 300
    truth = [[ANIMAL, other], [ANIMAL, other], [MISSING, MISSING]]
    visibility = [[[2, 2, 2], [2, 1, 2]], [[2, 2, 2], [2, 2, 2]], [[0] * 3, [0] * 3]]
    tailless = np.concatenate([ANIMAL[:2], [[NAN, NAN]]])
    points = [
        [other + np.array([[0, 0], [10, 0], [0, 0]]), tailless, ANIMAL + 900],
        [MISSING, moved(ANIMAL, 3, 4), MISSING],
        [ANIMAL, MISSING, MISSING],
    ]
    confidence = [
        [[0.9, 0.1, 0.9], [0.8, 0.8, 0], [0.9, 0.9, 0.9]],
        [[NAN] * 3, [0.7, 0.7, 0.7], [NAN] * 3],
        [[0.5] * 3, [NAN] * 3, [NAN] * 3],
    ]
    scores = [[0.9, 0.8, 0.3], [NAN, 0.7, NAN], [0.2, NAN, NAN]]
    return truth, visibility, (points, confidence, scores)


@pytest.fixture(scope="module")
def metrics(frames):
    return metrics_of(*frames, groups=np.array(["a", "b", "b"]))


def test_animals_are_counted(metrics):
    assert metrics["instances"] == {
        "labelled": 4,
        "predicted": 5,
        "matched": 3,
        "missed": 1,
        "extra": 2,
    }
    assert (metrics["frames"], metrics["keypoints"]) == (3, 12)


def test_errors_are_over_matched_pairs(metrics):
    # 0, 0; 0, 10, 0; 5, 5, 5
    assert metrics["error_px"]["mean"] == pytest.approx(25 / 8)
    assert metrics["error_px"]["median"] == 2.5
    assert metrics["rmse_px"] == pytest.approx(math.sqrt(175 / 8))
    assert metrics["per_keypoint"] == [
        {"name": "nose", "count": 3, "mean": pytest.approx(5 / 3), "median": 0.0},
        {"name": "hip", "count": 3, "mean": 5.0, "median": 5.0},
        {"name": "tail", "count": 2, "mean": 2.5, "median": 2.5},
    ]


def test_pck_is_over_all_labelled_keypoints(metrics):
    assert metrics["pck"] == {
        "1": pytest.approx(4 / 12),
        "2": pytest.approx(4 / 12),
        "5": pytest.approx(7 / 12),
        "10": pytest.approx(8 / 12),
    }
    assert metrics["pck_of_size"]["0.05"] == pytest.approx(7 / 12)


def test_oks_is_the_mean_over_labelled_animals_with_none_for_a_missed_one(metrics):
    found = [2 / 3, (2 + math.exp(-2)) / 3, math.exp(-0.5), 0]
    assert metrics["oks"] == pytest.approx(sum(found) / 4, abs=1e-6)


def test_visibility_is_over_matched_pairs(metrics):
    # Of nine keypoints one is not predicted and one has a low confidence; none is absent.
    assert metrics["visibility"] == {"precision": 1.0, "recall": pytest.approx(7 / 9)}


def test_average_precision_and_recall_are_cocos(metrics):
    # By falling score: OKS .7118, .6667, .6065, then two on nothing. Recall at .50, .55 and .60 is
    # 3/4 (76 of 101 levels), at .65 2/4 (51), at .70 1/4 (26), beyond 0, at precision 1.
    assert metrics["oks_map"] == pytest.approx((3 * 76 + 51 + 26) / 101 / 10)
    assert metrics["oks_mar"] == pytest.approx((3 * 0.75 + 0.5 + 0.25) / 10)


def test_calibration_and_groups_are_over_matched_pairs(metrics):
    assert sum(part["count"] for part in metrics["calibration"]["bins"]) == 8
    assert metrics["per_group"] == [
        {"name": "a", "frames": 1, "count": 5, "mean": 2.0, "median": 0.0},
        {"name": "b", "frames": 2, "count": 3, "mean": 5.0, "median": 5.0},
    ]


def test_animals_that_are_not_mixed_are_pure(metrics):
    assert metrics["group_purity"] == 1.0


def test_the_keys_of_one_animal_come_first(metrics):
    one = metrics_of([[ANIMAL]], [[[2] * 3]], ([[ANIMAL]], [[[0.5] * 3]], [[0.5]]), several=False)
    assert list(metrics) == [*one, "instances", "group_purity"]


def test_an_absent_keypoint_of_a_matched_animal_counts_against_precision():
    truth = np.where([[True], [True], [False]], ANIMAL, NAN)
    found = [[ANIMAL]], [[[0.9, 0.1, 0.9]]], [[0.5]]
    metrics = metrics_of([[truth]], [[[2, 2, 2]]], found)
    assert metrics["visibility"] == {"precision": 0.5, "recall": 0.5}
    assert metrics["keypoints"] == 2


def test_an_animal_that_is_absent_altogether_does_not_count():
    metrics = metrics_of([[MISSING]], [[[2] * 3]], ([[ANIMAL]], [[[0.9] * 3]], [[0.5]]))
    assert metrics["instances"] == {
        "labelled": 0,
        "predicted": 1,
        "matched": 0,
        "missed": 0,
        "extra": 1,
    }
    assert metrics["visibility"] == {"precision": None, "recall": None}
    assert metrics["oks_map"] is None


def test_duplicates_are_extra():
    found = [[moved(ANIMAL, 0, 3), moved(ANIMAL, 0, 1)]], [[[0.9] * 3] * 2], [[0.9, 0.8]]
    metrics = metrics_of([[ANIMAL]], [[[2] * 3]], found)
    assert metrics["instances"]["matched"] == metrics["instances"]["extra"] == 1
    assert metrics["error_px"]["mean"] == 1.0


UNDEFINED = {"mean": None, "median": None, "p75": None, "p90": None, "p95": None, "p99": None}


@pytest.mark.parametrize("labelled", [0, 2])
@pytest.mark.parametrize("predicted", [0, 2])
@pytest.mark.parametrize("count", [0, 2])
def test_without_animals_nothing_is_defined(count, labelled, predicted):
    metrics = metrics_of(
        np.full((count, labelled, 3, 2), NAN),
        np.zeros((count, labelled, 3)),
        (
            np.full((count, predicted, 3, 2), NAN),
            np.full((count, predicted, 3), NAN),
            np.full((count, predicted), NAN),
        ),
    )
    assert metrics["frames"] == count
    assert metrics["error_px"] == UNDEFINED
    assert [metrics[key] for key in ("oks", "oks_map", "oks_mar", "rmse_px", "group_purity")] == [
        None
    ] * 5
    assert set(metrics["instances"].values()) == {0}


def test_animals_that_are_all_missed_score_nothing():
    metrics = metrics_of(
        [[ANIMAL]], [[[2] * 3]], (NAN * np.ones((1, 1, 3, 2)), [[[NAN] * 3]], [[NAN]])
    )
    assert metrics["error_px"] == UNDEFINED
    assert (metrics["pck"]["10"], metrics["oks"], metrics["oks_map"]) == (0.0, 0.0, 0.0)
    assert metrics["instances"]["missed"] == 1
    assert metrics["visibility"] == {"precision": None, "recall": None}


@pytest.fixture(scope="module")
def one_animal():
    rng = np.random.default_rng(0)
    truth = rng.uniform(0, 200, (40, 1, 3, 2)).astype(np.float32)
    found = (truth + rng.normal(0, 2, truth.shape)).astype(np.float32)
    truth[3, 0, 1], found[5, 0, 2], found[6] = NAN, NAN, NAN
    confidence = rng.random((40, 1, 3), np.float32)
    visibility = rng.integers(0, 3, (40, 1, 3))
    return truth, visibility, Poses(found, confidence, confidence.mean(-1))


def test_one_animal_has_the_metrics_of_one_animal(one_animal):
    truth, visibility, found = one_animal
    groups = np.repeat(["a", "b"], 20)
    rows = truth[:, 0], visibility[:, 0], found.points[:, 0], found.confidence[:, 0]
    assert poses_metrics(truth, visibility, found, NAMES, groups) == pose_metrics(
        *rows, NAMES
    ) | extra_metrics(*rows, groups)


def test_one_animal_is_measured_however_far_it_is():
    found = [[ANIMAL + 600]], [[[0.9] * 3]], [[0.5]]
    one = metrics_of([[ANIMAL]], [[[2] * 3]], found, several=False)
    assert one["error_px"]["mean"] == pytest.approx(600 * math.sqrt(2))
    assert metrics_of([[ANIMAL]], [[[2] * 3]], found)["error_px"]["mean"] is None


def test_one_animal_a_frame_that_is_found_has_the_same_figures_as_several(one_animal):
    truth, visibility, found = one_animal
    single = poses_metrics(truth, visibility, found, NAMES)
    several = poses_metrics(truth, visibility, found, NAMES, several=True)
    same = ("frames", "keypoints", "error_px", "rmse_px", "pck", "oks", "per_keypoint")
    assert {key: several[key] for key in same} == {key: single[key] for key in same}
