import numpy as np
import tensorflow as tf

from hgtrain.heads.targets.counted_cells import Grid, map_weights, near_animals

NAN = float("nan")
# An animal in x 40..60 and y 20..30, of which the third keypoint is not known; no second animal.
POINTS = tf.constant([[[[40.0, 20.0], [60.0, 30.0], [NAN, NAN]], [[NAN, NAN]] * 3]])
UNKNOWN = tf.constant([[[False, False, True], [False, False, False]]])
GRID = Grid(96, 128, 4)


def test_cells_are_near_an_animal_up_to_a_margin_around_its_points() -> None:
    rows, columns = near_animals(POINTS, GRID)
    # Half the longer side is 10 px, the least margin 16: y 4..46 and x 24..76.
    assert np.flatnonzero(rows[0, 0]).tolist() == list(range(1, 12))
    assert np.flatnonzero(columns[0, 0]).tolist() == list(range(6, 20))
    assert not np.any(rows[0, 1])


def test_the_margin_grows_with_the_animal() -> None:
    points = tf.constant([[[[20.0, 40.0], [100.0, 44.0]]]])
    rows, columns = near_animals(points, GRID)
    # 40 px on each side, cut off by the image.
    assert np.flatnonzero(rows[0, 0]).tolist() == list(range(0, 22))
    assert np.flatnonzero(columns[0, 0]).tolist() == list(range(0, 32))


def test_background_near_an_animal_counts_nothing_for_the_keypoint_it_lacks() -> None:
    maps = np.zeros((1, 24, 32, 3), np.float32)
    # The same keypoint of somebody else, in the middle of it.
    maps[0, 6, 12, 2] = 0.5
    weights = map_weights(POINTS, UNKNOWN, tf.constant(maps), GRID, complete=True).numpy()
    expected = np.ones((24, 32, 3))
    expected[1:12, 6:20, 2] = 0
    expected[6, 12, 2] = 1
    np.testing.assert_array_equal(weights[0], expected)


def test_where_labels_are_not_complete_background_counts_near_animals_only() -> None:
    maps = tf.zeros((1, 24, 32, 3))
    weights = map_weights(POINTS, UNKNOWN, maps, GRID, complete=False).numpy()
    expected = np.zeros((24, 32, 3))
    expected[1:12, 6:20, :2] = 1
    np.testing.assert_array_equal(weights[0], expected)
