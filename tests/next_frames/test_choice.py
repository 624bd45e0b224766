"""Which frames are chosen, and the reasons given."""

import numpy as np
import pytest

from hgtrain.next_frames.choice import choose, reason, scores
from hgtrain.next_frames.doubts import AN_ANIMAL, THUMBNAIL_PX, Difference, Doubts
from hgtrain.poses import Poses

NAMES = ("nose", "tail")
NAN = float("nan")


def make_doubts(confidence, flip=None, jump=None, greys=None, keypoint=1, mirrored=1):
    """Return doubts of frames of one source; without `greys` each looks unlike all others."""
    count = len(confidence)
    if greys is None:
        pictures = np.random.default_rng(0).integers(0, 256, (count, THUMBNAIL_PX**2), np.uint8)
    else:
        pictures = np.repeat(np.array(greys, np.uint8)[:, None], THUMBNAIL_PX**2, axis=1)
    confidence = np.array(confidence, float)
    points = np.ones((count, 1, 2, 2), np.float32)
    points[np.isnan(confidence) | (confidence == 0)] = NAN
    each = np.stack([confidence * 2, np.zeros(count)], axis=-1)[:, None]

    def differences(px):
        values = np.full(count, NAN) if px is None else np.array(px, float)
        return Difference(values, np.full(count, keypoint))

    return Doubts(
        np.zeros(count, int),
        np.arange(count),
        Poses(points, each, confidence[:, None]),
        np.full(count, mirrored),
        confidence,
        differences(jump),
        differences(flip),
        pictures,
        np.ones(count, bool),
    )


def test_scores_are_means_of_the_ranks_there_are():
    doubts = make_doubts([0.9, 0.5, 0.1], flip=[0, 8, 2], jump=[NAN, 1, 7])
    score, ranks = scores(doubts)
    np.testing.assert_allclose(ranks, [[0, 0.5, 1], [NAN, 0, 1], [0, 1, 0.5]])
    np.testing.assert_allclose(score, [0, 0.5, 2.5 / 3])


def test_equal_frames_have_equal_ranks_in_the_middle():
    _, ranks = scores(make_doubts([0.5, 0.5, 0.5, 0.1, 0.9]))
    np.testing.assert_allclose(ranks[0], [0.5, 0.5, 0.5, 1, 0])


def test_a_frame_that_cannot_be_read_has_no_score_and_is_not_chosen():
    doubts = make_doubts([NAN, 0.5, 0.1])
    doubts.readable[0] = False
    assert np.isnan(scores(doubts)[0][0])
    assert sorted(choose(doubts, np.zeros(3, bool), 3)) == [1, 2]


def test_an_empty_frame_of_several_animals_is_neither_sure_nor_unsure():
    _, ranks = scores(make_doubts([0.9, 0.1, NAN]))
    np.testing.assert_allclose(ranks[0], [0, 1, 0.5])


def test_the_worst_come_first():
    doubts = make_doubts([0.9, 0.1, 0.5, 0.3])
    assert choose(doubts, np.zeros(4, bool), 3) == [1, 3, 2]


def test_of_near_copies_one_is_chosen():
    # Twenty of one grey with a little noise, and four others.
    greys = [*(100 + i % 3 for i in range(20)), 0, 50, 200, 250]
    chosen = choose(make_doubts(np.linspace(0, 1, 24), greys=greys), np.zeros(24, bool), 24)
    assert len([frame for frame in chosen if frame < 20]) == 1
    assert sorted(frame for frame in chosen if frame >= 20) == [20, 21, 22, 23]


def test_of_identical_frames_one_is_chosen():
    assert len(choose(make_doubts([0.5] * 6, greys=[7] * 6), np.zeros(6, bool), 6)) == 1


def test_frames_of_a_video_keep_apart_in_time_those_of_folders_need_not():
    doubts = make_doubts(np.linspace(0, 1, 80))
    # 80 frames, 5 wanted: 16 on average, at least a quarter of that.
    in_video = choose(doubts, np.ones(80, bool), 5)
    assert len(in_video) == 5
    assert np.diff(sorted(in_video)).min() == 4
    assert choose(doubts, np.zeros(80, bool), 5) == [0, 1, 2, 3, 4]


def test_frames_of_two_videos_are_not_near_in_time():
    doubts = make_doubts(np.linspace(0, 1, 80))
    doubts.source[1::2] = 1
    doubts = doubts._replace(number=np.arange(80) // 2)
    assert choose(doubts, np.ones(80, bool), 5)[:2] == [0, 1]


@pytest.mark.parametrize("count", [1, 3])
def test_at_most_as_many_as_there_are_are_chosen(count):
    assert len(choose(make_doubts([0.5] * count), np.zeros(count, bool), 10)) == count


def test_reasons_are_in_words_with_the_figures():
    doubts = make_doubts([0.9, 0.2], flip=[1, 35.2], jump=[2, 1])
    _, ranks = scores(doubts)
    assert reason(doubts, ranks, 1, NAMES) == (
        "low confidence 0.20 (tail 0.00); tail is 35 px elsewhere in the mirror image"
    )
    assert reason(doubts, ranks, 0, NAMES) == "tail jumps 2 px from the frame before"


def test_reasons_name_animals_that_come_and_go():
    doubts = make_doubts([0.9, 0.5], flip=[1, 35], jump=[2, 11], keypoint=AN_ANIMAL, mirrored=3)
    _, ranks = scores(doubts)
    assert reason(doubts, ranks, 1, NAMES) == (
        "low confidence 0.50 (tail 0.00); an animal comes or goes; "
        "1 animals found, 3 in the mirror image"
    )


def test_a_frame_without_an_animal_says_so():
    doubts = make_doubts([0.9, 0.0])
    _, ranks = scores(doubts)
    assert reason(doubts, ranks, 1, NAMES) == "no animal found"
