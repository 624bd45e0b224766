"""What speaks for labelling a frame, with numbers by hand."""

import numpy as np
import pytest

from hgtrain.next_frames.both_ways import BothWays, halves, mirrored_order
from hgtrain.next_frames.doubts import (
    AN_ANIMAL,
    THUMBNAIL_PX,
    DoubtsSink,
    difference,
    frame_confidence,
    thumbnail,
)
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton

NAN = float("nan")


class Source:
    """A source of frames that is only asked for its kind."""

    def __init__(self, kind):
        self.kind = kind


class Brightest:
    """Finds the brightest pixel as the left ear, and the darkest as the right one."""

    batch_size = 4

    def __call__(self, images):
        width = images.shape[2]
        flat = images.reshape(len(images), -1)
        cells = np.stack([flat.argmax(1), flat.argmin(1)], axis=1)
        points = np.stack([cells % width, cells // width], axis=-1).astype(np.float32)
        confidence = np.full((len(images), 1, 2), [0.9, 0.5], np.float32)
        return Poses(points[:, None], confidence, confidence.mean(-1))


def image_with(bright, dark, size=(20, 30)):
    image = np.full((*size, 1), 100, np.uint8)
    image[bright[1], bright[0]], image[dark[1], dark[0]] = 200, 10
    return image


def poses(points, confidence=None):
    points = np.array(points, np.float32)
    given = np.ones(points.shape[:-1]) if confidence is None else np.array(confidence)
    return Poses(points, given.astype(np.float32), given.mean(-1).astype(np.float32))


@pytest.mark.parametrize(
    "skeleton",
    [
        Skeleton(("nose", "a", "b"), symmetries=((1, 2),)),
        Skeleton(("nose", "ear_left", "ear_right")),
    ],
)
def test_partners_are_exchanged_in_the_mirror_image_those_that_names_tell_too(skeleton):
    assert mirrored_order(skeleton) == [0, 2, 1]


def test_what_is_found_in_the_mirror_image_is_mirrored_back_and_its_partners_exchanged():
    images = image_with(bright=(4, 7), dark=(22, 3))[None]
    both = BothWays(Brightest(), Skeleton(("ear_left", "ear_right")))
    own, mirrored = halves(both(images))
    np.testing.assert_array_equal(own.points, [[[[4, 7], [22, 3]]]])
    # The model goes by brightness and not by sides, so that the partners come exchanged.
    np.testing.assert_array_equal(mirrored.points, [[[[22, 3], [4, 7]]]])
    np.testing.assert_allclose(mirrored.confidence, [[[0.5, 0.9]]])


def test_confidence_is_that_of_the_least_sure_animal_and_what_is_missing_counts_as_0():
    found = poses(
        [[[[1, 1], [2, 2]], [[5, 5], [NAN, NAN]]]],
        [[[0.8, 0.6], [0.9, NAN]]],
    )
    np.testing.assert_allclose(frame_confidence(found, several_animals=True), [0.45])


@pytest.mark.parametrize(("several", "expected"), [(False, 0.0), (True, NAN)])
def test_where_no_animal_is_found_one_that_must_be_there_has_confidence_0(several, expected):
    found = poses(np.full((1, 1, 2, 2), NAN), np.full((1, 1, 2), NAN))
    np.testing.assert_array_equal(frame_confidence(found, several), [expected])


def test_the_difference_of_one_animal_is_that_of_its_farthest_keypoint():
    points = np.array([[[[0, 0], [10, 10]]], [[[0, 0], [NAN, NAN]]]], np.float32)
    others = np.array([[[[0, 1], [13, 14]]], [[[NAN, NAN], [1, 1]]]], np.float32)
    found = difference(points, others, several_animals=False)
    np.testing.assert_array_equal(found.px, [5, NAN])
    assert found.keypoint[0] == 1


def test_several_animals_are_matched_before_they_are_compared():
    animals = np.array([[[0, 0], [20, 0]], [[100, 100], [100, 130]]], np.float32)
    moved = animals[::-1] + np.float32([[[0, 0], [0, 3]], [[0, 0], [4, 0]]])
    found = difference(animals[None], moved[None], several_animals=True)
    np.testing.assert_array_equal(found.px, [4])
    assert found.keypoint.tolist() == [1]


def test_an_animal_without_a_counterpart_is_as_far_away_as_it_is_large():
    animals = np.array([[[0, 0], [20, 0]], [[100, 100], [100, 130]]], np.float32)
    one = animals.copy()
    one[1] = NAN
    for pair in ((animals, one), (one, animals)):
        found = difference(pair[0][None], pair[1][None], several_animals=True)
        np.testing.assert_array_equal(found.px, [30])
        assert found.keypoint.tolist() == [AN_ANIMAL]


def test_thumbnails_are_means_of_grey():
    image = np.zeros((THUMBNAIL_PX * 2, THUMBNAIL_PX * 2, 1), np.uint8)
    image[:2, :2] = [[[10], [20]], [[30], [40]]]
    small = thumbnail(image)
    assert small.shape == (THUMBNAIL_PX**2,)
    assert (small[0], small[1:].max()) == (25, 0)


def doubts_of(kind, positions, batches=(2, 3), black=()):
    """Return the doubts of frames with an animal at these x, given in batches."""
    sink = DoubtsSink([Source(kind)], several_animals=False)
    first = 0
    for size in batches:
        rows = range(first, first + size)
        points = [[[[positions[row], 0]]] * 2 for row in rows]
        confidence = [[[0.5]] * 2 for _ in rows]
        images = np.full((size, 8, 8, 1), 9, np.uint8)
        for row in set(black) & set(rows):
            points[row - first], confidence[row - first] = [[[NAN, NAN]]] * 2, [[NAN]] * 2
            images[row - first] = 0
        sink(0, first, images, poses(points, confidence))
        first += size
    return sink.doubts()


def test_jumps_go_over_the_bounds_of_batches_and_the_first_frame_has_none():
    doubts = doubts_of("video", [0, 1, 4, 9, 9])
    np.testing.assert_array_equal(doubts.jump.px, [NAN, 1, 3, 5, 0])
    np.testing.assert_array_equal(doubts.number, [0, 1, 2, 3, 4])


def test_images_of_a_folder_have_no_jumps():
    assert np.isnan(doubts_of("images", [0, 1, 4, 9, 9]).jump.px).all()


def test_a_frame_that_cannot_be_read_has_no_doubts_nor_a_jump_to_or_from_it():
    doubts = doubts_of("video", [0, 1, 4, 9, 9], black=[1])
    np.testing.assert_array_equal(doubts.jump.px, [NAN, NAN, NAN, 5, 0])
    assert doubts.readable.tolist() == [True, False, True, True, True]
    assert np.isnan(doubts.confidence[1])


def test_without_frames_nothing_is_known():
    assert DoubtsSink([Source("video")], several_animals=False).doubts() is None
