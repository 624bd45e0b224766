import numpy as np
import pytest
import tensorflow as tf

from hgtrain.heads.losses import MAP_SCALE, confmap_losses, map_losses

NAN, INF = float("nan"), float("inf")


def maps_with(errors: list[list[float]]) -> tf.Tensor:
    """Return maps `(B, 2, 2, K)` whose mean squared value per keypoint is as given."""
    return tf.constant(np.sqrt(errors), tf.float32)[:, None, None, :] * tf.ones((1, 2, 2, 1))


def loss_of(
    errors: list[list[float]], weights: list[list[float]], mining: bool = False
) -> list[float]:
    maps = maps_with(errors)
    losses = confmap_losses(maps, tf.zeros_like(maps), tf.constant(weights, tf.float32), mining)
    return (losses / MAP_SCALE**2).numpy().tolist()


def test_loss_is_the_mean_over_cells_and_keypoints_at_the_scale_of_the_maps() -> None:
    maps = tf.constant([[[[1.0, 0.0], [0.0, 0.5]]]])  # one row of two cells, two keypoints
    targets = tf.constant([[[[0.0, 0.0], [0.0, 1.0]]]])
    # Squared errors: keypoint 0: (1 + 0) / 2, keypoint 1: (0 + .25) / 2; mean .3125; times 30^2.
    assert confmap_losses(maps, targets, tf.ones((1, 2)), False).numpy().tolist() == [281.25]


def test_each_example_has_its_own_loss_and_weights() -> None:
    # (1 * 1 + 4 * .5) / 2 and (9 * 0 + 2 * 1) / 2.
    assert loss_of([[1, 4], [9, 2]], [[1, 0.5], [0, 1]]) == pytest.approx([1.5, 1.0])


@pytest.mark.parametrize("mining", [False, True])
def test_nothing_labelled_is_no_loss(mining: bool) -> None:
    assert loss_of([[1, 4, 9]], [[0, 0, 0]], mining) == [0]


@pytest.mark.parametrize("mining", [False, True])
@pytest.mark.parametrize("undefined", [NAN, INF, -INF, 1e30])
def test_what_weighs_nothing_adds_nothing_to_loss_and_gradient(
    undefined: float, mining: bool
) -> None:
    targets = np.zeros((1, 2, 2, 3), np.float32)
    weights = tf.constant([[1.0, 0.0, 1.0]])
    maps = tf.Variable(maps_with([[1, 4, 9]]))

    def loss_and_gradient() -> tuple[float, np.ndarray]:
        with tf.GradientTape() as tape:
            loss = confmap_losses(maps, tf.constant(targets), weights, mining)
        return float(loss[0]), tape.gradient(loss, maps).numpy()

    expected_loss, expected_gradient = loss_and_gradient()
    targets[..., 1] = undefined
    loss, gradient = loss_and_gradient()
    assert loss == expected_loss
    np.testing.assert_array_equal(gradient, expected_gradient)
    assert not gradient[..., 1].any()
    assert gradient[..., 0].all()


@pytest.mark.parametrize(
    ("errors", "expected"),
    [
        ([[1, 4, 9, 16]], 12.5),  # the two hardest: (9 + 16) / 2
        ([[16, 1, 4]], 10.0),  # the two hardest of three: (16 + 4) / 2
        ([[1, 2, 3, 4, 5]], 4.0),  # three of five: (3 + 4 + 5) / 3
        ([[7]], 7.0),  # there is but one: as without
        ([[3, 3]], 3.0),
    ],
)
def test_mining_is_the_mean_over_the_hardest_half(
    errors: list[list[float]], expected: float
) -> None:
    assert loss_of(errors, [[1] * len(errors[0])], mining=True) == pytest.approx([expected])


def test_mining_chooses_for_each_example_and_after_weights() -> None:
    # 9 is not labelled: the hardest two are 4 and 1 there.
    assert loss_of(
        [[1, 4, 9, 0], [4, 0, 1, 0]], [[1, 1, 0, 1], [1, 1, 1, 1]], mining=True
    ) == pytest.approx([2.5, 2.5])


def test_only_the_hardest_have_a_gradient() -> None:
    maps = tf.Variable(maps_with([[1, 4, 9, 16]]))
    with tf.GradientTape() as tape:
        loss = confmap_losses(maps, tf.zeros_like(maps), tf.ones((1, 4)), True)
    gradient = tape.gradient(loss, maps).numpy()
    assert gradient.any(axis=(0, 1, 2)).tolist() == [False, False, True, True]


def test_an_empty_batch_has_no_losses() -> None:
    assert confmap_losses(
        tf.zeros((0, 2, 2, 3)), tf.zeros((0, 2, 2, 3)), tf.zeros((0, 3)), True
    ).shape == (0,)


def test_cells_that_do_not_count_add_nothing_and_have_no_gradient() -> None:
    maps = tf.constant(np.random.default_rng(0).uniform(0, 1, (2, 3, 4, 2)), tf.float32)
    targets = np.zeros((2, 3, 4, 2), np.float32)
    targets[0, 0, 0] = np.nan
    weights = np.ones_like(targets)
    weights[0, 0, 0] = 0
    weights[1, :, :, 1] = 0
    with tf.GradientTape() as tape:
        tape.watch(maps)
        loss = map_losses(maps, tf.constant(targets), tf.constant(weights))
    squared = 900 * np.where(weights > 0, maps.numpy() ** 2, 0)
    np.testing.assert_allclose(loss, squared.mean((1, 2)).mean(-1), rtol=1e-5)
    # d/dm of 900 * m ** 2 over 12 cells and 2 channels.
    expected = np.where(weights > 0, 2 * 900 * maps.numpy() / 24, 0)
    np.testing.assert_allclose(tape.gradient(loss, maps), expected, rtol=1e-5)


def test_mining_takes_the_worse_half_of_maps_with_cells_that_count() -> None:
    maps = tf.constant([[[[1.0, 2.0, 3.0]]]])
    zeros, ones = tf.zeros((1, 1, 1, 3)), tf.ones((1, 1, 1, 3))
    loss = map_losses(maps, zeros, ones, hard_keypoint_mining=True)
    np.testing.assert_allclose(loss, [900 * (4 + 9) / 2], rtol=1e-6)
