"""The refinements of `--decode`, against the reference's figures and by hand."""

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.evaluate.metrics import object_keypoint_similarity
from hgtrain.heads.decoding.peaks import DECODERS, RADIUS
from hgtrain.heads.single_instance import SingleInstance

REFERENCE_NAMES = {"none": "None", "local": "local", "integral": "integral"}
REFERENCE_THRESHOLD = 0.2


@pytest.mark.parametrize("name", REFERENCE_NAMES)
def test_points_and_values_are_those_of_the_reference(name, conformance):
    with np.load(conformance / "peaks.npz") as figures:
        maps = figures["confmaps"]
        expected = (
            figures[f"global_{REFERENCE_NAMES[name]}_points"],
            figures[f"global_{REFERENCE_NAMES[name]}_vals"],
        )
    points, values = (tensor.numpy() for tensor in DECODERS[name](maps, RADIUS))
    points[values < REFERENCE_THRESHOLD] = np.nan
    np.testing.assert_allclose(points, expected[0], atol=1e-4)
    np.testing.assert_allclose(values, expected[1], atol=1e-4)


def test_oks_is_that_of_the_reference(conformance):
    with np.load(conformance / "oks.npz") as figures:
        truth, predicted, expected = figures["gt"], figures["pr"], figures["oks"]
    visibility = np.where(np.isnan(truth).any(-1), 0, 2)
    np.testing.assert_allclose(
        object_keypoint_similarity(truth, visibility, predicted), expected, atol=1e-4
    )


def peak_map():
    """A map of 5x6 with its highest cell, 1.0, at x 3, y 2, 0.5 to its right and 0.25 above."""
    maps = np.zeros((1, 5, 6, 1), np.float32)
    maps[0, 2, 3], maps[0, 2, 4], maps[0, 1, 3] = 1.0, 0.5, 0.25
    return maps


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", (3.0, 2.0)),
        ("local", (3.25, 1.75)),
        ("integral", (3 + 0.5 / 1.75, 2 - 0.25 / 1.75)),
    ],
)
def test_refinement_by_hand(name, expected):
    points, values = DECODERS[name](tf.constant(peak_map()), RADIUS)
    np.testing.assert_allclose(points[0, 0], expected, atol=1e-6)
    assert values.numpy().item() == 1.0


@pytest.mark.parametrize("name", ["local", "integral"])
def test_beyond_the_border_counts_as_zero(name):
    maps = np.zeros((1, 4, 4, 1), np.float32)
    maps[0, 0, 0] = 1.0
    points, _ = DECODERS[name](tf.constant(maps), RADIUS)
    np.testing.assert_array_equal(points[0, 0], (0.0, 0.0))


def test_an_empty_map_has_its_peak_in_the_first_cell_whatever_the_refinement():
    for decoder in DECODERS.values():
        points, values = decoder(tf.zeros((1, 6, 6, 2)), RADIUS)
        assert np.isfinite(points.numpy()).all()
        assert values.numpy().max() == 0.0


def test_decode_uses_the_refinement_it_is_told():
    found = SingleInstance(1, 4, 5.0).decode({"confmaps": tf.constant(peak_map())}, "local")
    np.testing.assert_allclose(found.points[0, 0, 0], (13.0, 7.0))


@pytest.mark.parametrize("offsets", [False, True])
def test_with_a_size_only_cells_in_the_image_are_looked_at(offsets):
    random = np.random.default_rng(0)
    head = SingleInstance(3, 4, 5.0, offsets=offsets)
    outputs = {
        name: random.uniform(0, 1, (50, 8, 8, channels)).astype(np.float32)
        for name, channels in head.outputs.items()
    }
    if offsets:
        outputs["offsets"] = 40 * (outputs["offsets"] - 0.5)
    points, confidence, _ = head.decode(
        {name: tf.constant(maps) for name, maps in outputs.items()}, size=(13, 21)
    )
    points, confidence = points[:, 0], confidence[:, 0]
    # The centres of cells 0 to 3 down and 0 to 5 across lie in the image, 0 to 12 and 0 to 20 px.
    np.testing.assert_array_equal(confidence, outputs["confmaps"][:, :4, :6].max((1, 2)))
    assert points.numpy().min() >= -0.5 - 2
    assert (points.numpy().reshape(-1, 2).max(0) <= (20.5 + 2, 12.5 + 2)).all()
