from types import SimpleNamespace

import numpy as np
import pytest

from hgtrain.data.split import Subset
from hgtrain.pipeline.samples import Samples

NAN = np.nan


@pytest.fixture
def side() -> Subset:
    """Frames 1, 2 and 3 of a dataset of four: of two animals, of none, and of one in the second
    place."""
    points = np.zeros((4, 2, 2, 2), np.float32)
    points[1] = [[[1, 2], [3, 4]], [[5, 6], [NAN, NAN]]]
    points[3, 1] = [[7, 8], [9, 10]]
    visibility = np.zeros((4, 2, 2), np.uint8)
    visibility[1] = [[2, 1], [2, 0]]
    visibility[3, 1] = [0, 2]
    return Subset(SimpleNamespace(points=points, visibility=visibility), np.array([1, 2, 3]))


def test_each_frame_is_a_sample_with_all_its_animals(side: Subset) -> None:
    samples = Samples(side, 1.0, of_animals=False)
    assert (len(samples), samples.frame_of) == (3, None)
    labels = samples.labels(np.array([2, 0, 1]))
    np.testing.assert_array_equal(
        labels.points[:2],
        [
            [[[NAN, NAN], [9, 10]], [[NAN, NAN], [NAN, NAN]]],
            [[[1, 2], [3, 4]], [[5, 6], [NAN, NAN]]],
        ],
    )
    assert np.isnan(labels.points[2]).all()
    assert labels.weights.tolist() == [[[0, 1], [0, 0]], [[1, 1], [1, 0]], [[0, 0], [0, 0]]]


def test_each_animal_is_a_sample(side: Subset) -> None:
    samples = Samples(side, 0.5, of_animals=True)
    assert (len(samples), samples.frame_of.tolist()) == (3, [0, 0, 2])
    assert samples.rows(np.array([2, 1])).tolist() == [2, 0]
    labels = samples.labels(np.array([2, 1]))
    # Pixel 9 of the image is (9 + 0.5) * 0.5 - 0.5 = 4.25 of the network's input.
    np.testing.assert_array_equal(
        labels.points, [[[[NAN, NAN], [4.25, 4.75]]], [[[2.25, 2.75], [NAN, NAN]]]]
    )
    np.testing.assert_array_equal(labels.truth, [[[[NAN, NAN], [9, 10]]], [[[5, 6], [NAN, NAN]]]])
    assert labels.weights.tolist() == [[[0, 1]], [[1, 0]]]
