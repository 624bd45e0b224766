import threading
import time

import numpy as np
import pytest

from hgtrain.errors import DatasetError
from hgtrain.poses import Poses
from hgtrain.predict.saved_model import poses_of
from hgtrain.predict.stream import background, find, predict_all, prefetch


class Brightness:
    """Predicts one keypoint at (brightness, brightness) and keeps the shapes it was given."""

    batch_size = 4

    def __init__(self):
        self.shapes = []

    def __call__(self, images):
        self.shapes.append(images.shape)
        value = images.mean((1, 2, 3), dtype=np.float32)
        points = np.repeat(value[:, None, None, None], 2, axis=3)
        return Poses(points, np.full(points.shape[:3], 0.5), np.full(points.shape[:2], 0.5))


class Listed:
    """Images of brightness first, first + 1, ..., that may break."""

    path = "film.gif"

    def __init__(self, first, count, breaks=False, damaged=()):
        self.first, self.count, self.breaks, self.damaged = first, count, breaks, damaged

    def __iter__(self):
        for i in range(self.count):
            if i in self.damaged:
                yield DatasetError(f"film.gif: frame {i} cannot be decoded")
            else:
                yield np.full((2, 2, 1), self.first + i, np.uint8)
        if self.breaks:
            raise DatasetError(f"breaks after {self.count}")


def run(*sources):
    taken = []
    model = Brightness()
    problems = predict_all(model, sources, lambda *arguments: taken.append(arguments))
    places = [(source, first + i) for source, first, images, _ in taken for i in range(len(images))]
    values = [float(point) for _, _, _, found in taken for point in found.points[:, 0, 0, 0]]
    return problems, places, values, model


def test_every_frame_of_every_source_is_predicted_in_order():
    problems, places, values, _ = run(Listed(0, 6), Listed(50, 3))
    assert problems == []
    assert places == [(0, i) for i in range(6)] + [(1, i) for i in range(3)]
    assert values == [0, 1, 2, 3, 4, 5, 50, 51, 52]


def test_the_model_meets_one_shape_only():
    assert set(run(Listed(0, 6), Listed(50, 3))[3].shapes) == {(4, 2, 2, 1)}


def test_a_source_that_breaks_keeps_its_frames_and_the_next_follows():
    problems, places, values, _ = run(Listed(0, 5, breaks=True), Listed(50, 2))
    assert [str(problem) for problem in problems] == ["breaks after 5"]
    assert places == [(0, i) for i in range(5)] + [(1, 0), (1, 1)]
    assert values == [0, 1, 2, 3, 4, 50, 51]


def test_a_source_without_frames_is_a_problem_and_the_next_follows():
    problems, places, *_ = run(Listed(0, 0), Listed(50, 1))
    assert [str(problem) for problem in problems] == [
        "film.gif: has no frames, nothing is predicted"
    ]
    assert places == [(1, 0)]


def test_damaged_frames_have_their_places_without_a_prediction_and_are_counted(capsys):
    problems, places, values, _ = run(Listed(10, 14, damaged=(0, *range(5, 12))), Listed(50, 1))
    assert problems == []
    assert places == [(0, i) for i in range(14)] + [(1, 0)]
    lost = [np.nan] * 7
    np.testing.assert_array_equal(values, [np.nan, 11, 12, 13, 14, *lost, 22, 23, 50])
    told = capsys.readouterr().err.splitlines()
    assert told == [
        *(f"skipped: film.gif: frame {i} cannot be decoded" for i in (0, 5, 6, 7, 8)),
        "film.gif: 8 of 14 frames cannot be read, they are without a prediction (NaN)",
    ]


def test_a_source_of_damaged_frames_alone_is_a_problem_and_the_next_follows():
    problems, places, values, _ = run(Listed(0, 2, damaged=(0, 1)), Listed(50, 1))
    assert [str(problem) for problem in problems] == [
        "none of 2 frames can be read, the first: film.gif: frame 0 cannot be decoded"
    ]
    assert (places, values) == ([(1, 0)], [50])


def test_one_animal_gets_an_axis_and_its_mean_confidence_as_score():
    outputs = {
        "keypoints": np.full((3, 2, 2), 7.0),
        "confidence": np.tile([0.25, 0.75], (3, 1)),
    }
    found = poses_of(outputs)
    assert found.points.tolist() == [[[[7, 7], [7, 7]]]] * 3
    assert found.confidence.tolist() == [[[0.25, 0.75]]] * 3
    assert found.scores.tolist() == [[0.5]] * 3


def test_several_animals_keep_their_scores():
    class Several:
        batch_size = 2

        def __call__(self, images):
            n = len(images)
            scores = np.tile([0.9, 0.8, np.nan], (n, 1))
            return Poses(np.zeros((n, 3, 4, 2)), np.zeros((n, 3, 4)), scores)

    found = find(Several(), np.zeros((1, 2, 2, 1), np.uint8))
    assert found.points.shape == (1, 3, 4, 2)
    np.testing.assert_array_equal(found.scores, [[0.9, 0.8, np.nan]])


def test_no_more_than_the_depth_is_read_ahead():
    read = []

    def items():
        for i in range(20):
            read.append(i)
            yield i

    stream = prefetch(items(), 3)
    assert next(stream) == 0
    time.sleep(0.05)
    assert len(read) <= 5
    assert list(stream) == list(range(1, 20))


def test_items_are_got_in_another_thread():
    def items():
        yield threading.current_thread().name

    assert next(prefetch(items(), 1)).startswith("reader")


def test_an_error_of_the_sink_reaches_the_caller():
    def sink(*arguments):
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"), background(sink) as take:
        take(0)


def test_all_is_written_when_the_block_ends():
    taken = []
    with background(lambda value: (time.sleep(0.01), taken.append(value))) as take:
        for i in range(10):
            take(i)
    assert taken == list(range(10))
