from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.heads.targets.offsets import (
    disc_weights,
    nearest_offset_maps,
    offset_losses,
    offset_maps,
    offsets_at,
    offsets_at_peaks,
)

NAN = float("nan")


@pytest.mark.parametrize("case", range(3))
def test_offsets_are_the_reference_s(conformance: Path, case: int) -> None:
    figures = np.load(conformance / "targets.npz")
    height, width, stride, _ = figures[f"{case}_meta"]
    # The figures are of the first animal alone, over the whole map.
    points = figures[f"{case}_points"][:1].astype(np.float32)
    maps = offset_maps(tf.constant(points), int(height), int(width), int(stride))
    expected = figures[f"{case}_offsets"]
    located = np.isfinite(points[0]).all(-1)
    found = maps.numpy().reshape(expected.shape)
    np.testing.assert_allclose(found[:, :, located], expected[:, :, located], atol=1e-5)
    assert np.isnan(found[:, :, ~located]).all()


def test_an_offset_leads_from_its_cell_to_the_point() -> None:
    maps = offset_maps(tf.constant([[[10.0, 3.0]]]), 8, 16, 4)
    # Cell (column 2, row 1) is pixel (8, 4): 2 px to the right, 1 px up, in cells of 4 px.
    np.testing.assert_allclose(maps[0, 1, 2], [0.5, -0.25])


def test_only_the_disc_of_a_labelled_keypoint_counts() -> None:
    confmaps = tf.constant([[[[0.9, 0.9], [0.2, 0.3]]]])
    weights = disc_weights(confmaps, tf.constant([[1.0, 0.0]]))
    assert weights.numpy().tolist() == [[[[1.0, 0.0], [0.0, 0.0]]]]


def test_the_loss_is_quadratic_within_a_cell_and_linear_beyond() -> None:
    targets = tf.zeros((1, 1, 1, 2))
    loss = offset_losses(tf.constant([[[[0.5, -3.0]]]]), targets, tf.ones((1, 1, 1, 1)))
    # (0.5 * 0.25 + 2.5) / 2
    np.testing.assert_allclose(loss, [1.3125])


def test_what_has_no_position_gives_no_loss_and_no_gradient() -> None:
    offsets = tf.Variable(tf.ones((1, 1, 1, 2)))
    with tf.GradientTape() as tape:
        loss = offset_losses(offsets, tf.fill((1, 1, 1, 2), NAN), tf.zeros((1, 1, 1, 1)))
    assert loss.numpy().tolist() == [0.0]
    assert tape.gradient(loss, offsets).numpy().tolist() == [[[[0.0, 0.0]]]]


def test_each_keypoint_has_the_offset_of_its_own_cell() -> None:
    maps = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    cells = tf.constant([[[3.0, 1.0], [0.0, 2.0]], [[2.0, 0.0], [1.0, 1.0]]])
    found = offsets_at(tf.constant(maps), cells)
    expected = [[maps[0, 1, 3, :2], maps[0, 2, 0, 2:]], [maps[1, 0, 2, :2], maps[1, 1, 1, 2:]]]
    np.testing.assert_array_equal(found, expected)


def test_of_several_animals_an_offset_leads_to_the_nearest() -> None:
    # Far apart and near: the reference sums where discs overlap, which leads to neither.
    points = tf.constant([[[[10.0, 3.0], [NAN, NAN]], [[14.0, 3.0], [5.0, 5.0]]]])
    maps = nearest_offset_maps(points, 8, 16, 4).numpy().reshape(2, 4, 2, 2)
    # Column 3 is pixel 12: 2 px from both; the first stays. Row 1 is pixel 4.
    np.testing.assert_allclose(maps[1, 2, 0], [0.5, -0.25])
    np.testing.assert_allclose(maps[1, 3, 0], [-0.5, -0.25])
    # Of the other keypoint only the second animal's is there.
    np.testing.assert_allclose(maps[1, 1, 1], [0.25, 0.25])
    nobody = nearest_offset_maps(tf.fill((1, 2, 1, 2), NAN), 8, 16, 4)
    assert (np.abs(nobody) >= 1e6).all()


@pytest.mark.parametrize("case", range(3))
def test_several_animals_give_the_reference_s_offsets_where_it_has_no_fault(
    conformance: Path, case: int
) -> None:
    figures = np.load(conformance / "multi" / "multi_offsets.npz")
    height, width, stride, sigma_px, threshold = figures[f"{case}_meta"]
    points, expected = figures[f"{case}_points"], figures[f"{case}_offsets"]
    sides = (int(-(-side // stride) * stride) for side in (height, width))
    maps = nearest_offset_maps(tf.constant(points[None], tf.float32), *sides, int(stride))
    cells = np.stack(np.meshgrid(*(np.arange(n) * stride for n in expected.shape[1::-1])), -1)
    squared = ((points[:, None, None] - cells[:, :, None]) ** 2).sum(-1)
    heights = np.exp(-squared / (2 * sigma_px**2))
    # Where discs of two animals overlap, the reference sums.
    in_one_disc = (heights > threshold).sum(0) == 1
    assert in_one_disc.sum() > 20
    found = maps.numpy().reshape(expected.shape)
    np.testing.assert_allclose(found[in_one_disc], expected[in_one_disc], atol=1e-5)


def test_offsets_are_read_at_each_peak_of_each_keypoint() -> None:
    offsets = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, 3, 4, 4)
    cells = np.array([[[[1, 2], [3, 0]], [[0, 0], [2, 1]]], [[[0, 1], [0, 0]], [[3, 2], [1, 1]]]])
    found = offsets_at_peaks(tf.constant(offsets), tf.constant(cells, tf.float32)).numpy()
    for image in range(2):
        for keypoint in range(2):
            for peak, (x, y) in enumerate(cells[image, keypoint]):
                expected = offsets[image, y, x, 2 * keypoint : 2 * keypoint + 2]
                np.testing.assert_array_equal(found[image, keypoint, peak], expected)
