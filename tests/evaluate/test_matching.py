"""COCO's keypoint evaluation of several animals a frame."""

import math

import numpy as np
import pytest

from hgtrain.evaluate.matching import (
    MAX_DETECTIONS,
    OKS_THRESHOLDS,
    FrameMatch,
    average_precision_and_recall,
    frame_matches,
    precision_at_recall,
    single_matches,
)

NAN = np.nan
SQUARE = np.array([[0, 0], [0, 100], [100, 0], [100, 100]], np.float32)
"""An animal whose bounding box has 10,000 px^2: at d px its OKS is exp(-d^2 / 50)."""

SETS = ["perfect", "noise", "missing_truth", "missing_predictions", "false_positives", "missed"]
SETS += ["absent_frames", "duplicates", "swapped_halves", "coarse", "single_point"]


def moved(points, x, y):
    return points + np.array([x, y])


def frames_of(points, frame, count):
    """Return the animals of a list by frame, `(count, most, K, 2)`, NaN where there are fewer."""
    most = np.bincount(frame, minlength=count).max()
    found = np.full((count, most, *points.shape[1:]), NAN)
    for number in range(count):
        of_frame = points[frame == number]
        found[number, : len(of_frame)] = of_frame
    return found


@pytest.fixture(scope="module")
def reference(conformance):
    return np.load(conformance / "multi/evaluation.npz")


@pytest.fixture(params=range(len(SETS)), ids=SETS)
def case(request, reference):
    """The figures of one set, and its frames as matched."""
    figures = {
        name.partition("_")[2]: reference[name]
        for name in reference.files
        if name.split("_")[0] == str(request.param)
    }
    kept = ~np.isin(figures["pr_frame"], figures["absent"])
    count = max(figures["gt_frame"].max(), figures["pr_frame"].max()) + 1
    truth = frames_of(figures["gt"], figures["gt_frame"], count)
    frame = figures["pr_frame"][kept]
    matches = frame_matches(
        truth,
        np.where(np.isfinite(truth).all(-1), 2, 0),
        frames_of(figures["pr"][kept], frame, count),
        frames_of(figures["pr_score"][kept], frame, count),
        float(figures["stddev"]),
    )
    return figures, matches


def test_the_sets_are_those_of_the_reference(reference):
    assert reference["names"].tolist() == SETS


def test_average_precision_and_recall_are_cocos(case):
    figures, matches = case
    assert average_precision_and_recall(matches) == pytest.approx(
        (figures["coco.AP"].mean(), figures["coco.AR"].mean()), abs=1e-6
    )


def test_the_mean_of_a_curve_is_cocos_average_precision(case):
    figures, matches = case
    curves = [precision_at_recall(matches, threshold) for threshold in OKS_THRESHOLDS]
    np.testing.assert_allclose(np.mean(curves, axis=1), figures["coco.AP"], atol=1e-6)


def test_every_predicted_animal_is_compared_with_every_labelled_one():
    truth = np.stack([SQUARE, SQUARE + 200])[None]
    predicted = np.stack([moved(SQUARE, 203, 204), moved(SQUARE, 0, 10), SQUARE + 900])[None]
    scores = np.array([[0.3, 0.9, 0.5]])
    (match,) = frame_matches(truth, np.full((1, 2, 4), 2), predicted, scores)
    expected = [[0, math.exp(-0.5)], [math.exp(-2), 0], [0, 0]]
    np.testing.assert_allclose(match.similarity, expected, atol=1e-12)
    assert match.scores.tolist() == [0.3, 0.9, 0.5]


def test_an_animal_without_labels_and_one_without_points_are_none():
    truth = np.stack([SQUARE, SQUARE + 200, np.full((4, 2), NAN)])[None]
    visibility = np.array([[[0] * 4, [2] * 4, [2] * 4]])
    predicted = np.stack([np.full((4, 2), NAN), SQUARE + 200])[None]
    (match,) = frame_matches(truth, visibility, predicted, np.array([[NAN, 0.5]]))
    assert match.similarity.tolist() == [[1.0]]
    assert match.scores.tolist() == [0.5]


def test_a_missing_point_is_infinitely_far():
    predicted = np.where([[True], [True], [False], [True]], SQUARE, NAN)[None, None]
    (match,) = frame_matches(SQUARE[None, None], np.full((1, 1, 4), 2), predicted, np.ones((1, 1)))
    assert match.similarity.tolist() == [[0.75]]


def test_an_animal_without_a_score_comes_last():
    truth = np.stack([SQUARE, SQUARE])[:, None]
    predicted = np.stack([SQUARE + 900, SQUARE])[:, None]
    visibility = np.full((2, 1, 4), 2)
    # The stray at the front: precision 1/2 up to recall 1/2; at the end: 1 up to recall 1/2.
    first = frame_matches(truth, visibility, predicted, np.array([[0.9], [0.1]]))
    last = frame_matches(truth, visibility, predicted, np.array([[NAN], [0.1]]))
    assert average_precision_and_recall(first)[0] == pytest.approx(51 / 101 / 2)
    assert average_precision_and_recall(last)[0] == pytest.approx(51 / 101)


def test_a_frame_that_nothing_is_labelled_in_has_false_positives():
    truth = np.stack([SQUARE, np.full((4, 2), NAN)])[:, None]
    visibility = np.array([[[2] * 4], [[0] * 4]])
    predicted = np.stack([SQUARE, SQUARE])[:, None]
    matches = frame_matches(truth, visibility, predicted, np.array([[0.1], [0.9]]))
    assert average_precision_and_recall(matches) == (pytest.approx(0.5), 1.0)


def test_of_a_frame_twenty_predictions_count():
    similarity = np.zeros((MAX_DETECTIONS + 1, 2))
    similarity[0, 0] = similarity[-1, 1] = 1.0
    falling = np.linspace(0.9, 0.1, len(similarity))
    _, recall = average_precision_and_recall([FrameMatch(similarity, falling)])
    assert recall == 0.5
    _, recall = average_precision_and_recall([FrameMatch(similarity, falling[::-1])])
    assert recall == 0.5
    _, recall = average_precision_and_recall([FrameMatch(similarity[1:], falling[1:])])
    assert recall == 0.5
    _, recall = average_precision_and_recall([FrameMatch(similarity[[0, -1]], falling[[0, -1]])])
    assert recall == 1.0


def test_a_stray_of_high_score_takes_no_animal():
    truth, visibility = SQUARE[None, None], np.full((1, 1, 4), 2)
    predicted = np.stack([SQUARE + 20, SQUARE])[None]
    matches = frame_matches(truth, visibility, predicted, np.array([[0.9, 0.1]]))
    assert average_precision_and_recall(matches) == (pytest.approx(0.5), 1.0)


def test_many_frames_are_those_of_each_alone(monkeypatch):
    rng = np.random.default_rng(0)
    truth, predicted = rng.uniform(0, 50, (7, 2, 4, 2)), rng.uniform(0, 50, (7, 3, 4, 2))
    scores, visibility = rng.random((7, 3)), np.full((7, 2, 4), 2)
    whole = frame_matches(truth, visibility, predicted, scores, stddev=0.2)
    monkeypatch.setattr("hgtrain.evaluate.matching.VALUES_AT_ONCE", 50)
    parts = frame_matches(truth, visibility, predicted, scores, stddev=0.2)
    assert [match.similarity.tolist() for match in whole] == [
        match.similarity.tolist() for match in parts
    ]


def test_the_score_of_one_animal_is_the_mean_confidence_of_its_points():
    predicted = np.where([[True], [True], [False], [True]], SQUARE, NAN)[None]
    confidence = np.array([[0.5, 0.25, 1.0, 0.75]])
    (match,) = single_matches(SQUARE[None], np.full((1, 4), 2), predicted, confidence)
    assert match.scores.tolist() == [0.5]


def test_a_curve_falls_to_zero_beyond_the_highest_recall():
    found = FrameMatch(np.array([[0.8, 0.0]]), np.array([0.9]))
    stray = FrameMatch(np.empty((1, 0)), np.array([0.95]))
    curve = precision_at_recall([found, stray], 0.75)
    assert curve.tolist() == [0.5] * 51 + [0.0] * 50
    assert precision_at_recall([found, stray], 0.85).tolist() == [0.0] * 101


def test_there_is_no_curve_without_animals():
    assert precision_at_recall([FrameMatch(np.empty((1, 0)), np.array([0.9]))], 0.5) is None
    assert precision_at_recall([], 0.5) is None
