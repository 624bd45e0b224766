"""Crops, and what is to be learnt in them, against the reference's figures."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.heads.centered_instance import CenteredInstance
from hgtrain.heads.targets.offsets import DISC_HEIGHT

NAN = float("nan")


@pytest.mark.parametrize("case", range(3))
def test_maps_of_the_animal_in_the_middle_are_the_reference_s(conformance: Path, case: int) -> None:
    figures = np.load(conformance / "multi" / "centered_instance.npz")
    _, _, size, stride, sigma_px, anchor = figures[f"{case}_meta"]
    head = CenteredInstance(
        figures[f"{case}_points"].shape[1],
        int(stride),
        float(sigma_px),
        offsets=True,
        crop_size_px=int(size),
        anchor=None if anchor < 0 else int(anchor),
    )
    points = tf.constant(figures[f"{case}_points"], tf.float32)
    middles = head.crop.centroids(points).numpy()
    np.testing.assert_allclose(middles, figures[f"{case}_centroids"], atol=1e-5)
    # The reference's crops begin where they end up, not at whole pixels.
    corners = head.crop.corners(middles)
    np.testing.assert_allclose(corners, figures[f"{case}_boxes"][:, 1::-1], atol=1e-4)
    in_crop = points - corners[:, None]
    np.testing.assert_allclose(in_crop, figures[f"{case}_crop_points"], atol=1e-4)
    weights = tf.ones((*in_crop.shape[:2],))[:, None]
    targets = head.targets(in_crop[:, None], weights, int(size), int(size))
    maps = targets["confmaps"].values.numpy()
    np.testing.assert_allclose(maps, figures[f"{case}_confmaps"], atol=1e-5)
    expected = figures[f"{case}_offsets"].reshape(*maps.shape, 2)
    found = targets["offsets"].values.numpy().reshape(expected.shape)
    in_disc = maps > DISC_HEIGHT
    np.testing.assert_allclose(found[in_disc], expected[in_disc], atol=1e-5)
    np.testing.assert_array_equal(targets["offsets"].weights.numpy() > 0, in_disc)
