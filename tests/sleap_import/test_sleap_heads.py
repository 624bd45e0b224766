"""Networks for several animals that SLEAP trained."""

import json
import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sleap_models import BACKBONE, NAMES, heads_of, training_config, write_model
from tiny_run import make_frames

import hgtrain
from hgtrain.config.head import HeadConfig
from hgtrain.config.schema import BackboneConfig
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.errors import RunError
from hgtrain.heads import make_head
from hgtrain.model.network import build_network
from hgtrain.skeleton import Skeleton
from hgtrain.sleap_import.run import import_sleap
from hgtrain.sleap_import.training_config import SleapModel, read_sleap_config

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

EDGES = ((0, 1), (0, 2))
"""Of the skeleton in training_config."""

LAYERS = {
    "multi_instance": {
        "MultiInstanceConfmapsHead": 3,
        "PartAffinityFieldsHead": 4,
        "OffsetRefinementHead": 6,
    },
    "centroid": {"CentroidConfmapsHead": 1, "OffsetRefinementHead": 2},
    "centered_instance": {"CenteredInstanceConfmapsHead": 3, "OffsetRefinementHead": 6},
}
"""By kind of head: SLEAP's names of its layers, and their channels."""


def network_of(kind: str, offsets: bool) -> keras.Model:
    backbone = BackboneConfig(**BACKBONE, stacks=1)
    section = HeadConfig(type=kind, offsets=offsets, crop_size_px=32)
    head = make_head(section, Skeleton(NAMES, EDGES), 2)
    return build_network(backbone, head.layers, 1, all_stacks=False)


def outputs_of(model: keras.Model, images: np.ndarray, names: list[str]) -> list[np.ndarray]:
    """Return what layers give for images `(B, H, W, C)` in 0..255."""
    part = keras.Model(model.input, [model.get_layer(name).output for name in names])
    return [np.asarray(output) for output in keras.tree.flatten(part(images))]


def described(folder: Path, kind: str, **changes: Any) -> SleapModel:
    """Return what is read of a training_config.json with a kind of head, without any weights."""
    folder.mkdir(exist_ok=True)
    document = training_config(model__heads=heads_of(kind), **changes)
    (folder / "training_config.json").write_text(json.dumps(document))
    return read_sleap_config(folder)


def test_a_real_training_bottom_up_gives_what_it_gave(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sleap_run_multi" / "bottomup"
    labels = [str(real_data / "flies2" / f"flies2.{side}.pkg.slp") for side in ("train", "val")]
    import_sleap(folder, tmp_path / "run", labels[:1], labels[1:])
    run = hgtrain.load_run(tmp_path / "run")
    expected = dict(np.load(folder / "expected.npz"))
    images = 255 * expected.pop("input")
    assert list(expected) == ["MultiInstanceConfmapsHead", "PartAffinityFieldsHead"]
    for name, output in zip(expected, outputs_of(run.model, images, list(expected)), strict=True):
        np.testing.assert_allclose(output, expected[name], atol=1e-4, err_msg=name)
    head = run.config.model.head
    # 1.25 at stride 2; two flies in a frame, and two more to look for.
    assert (head.sigma_px, head.max_instances) == (2.5, 4)
    # The curve that SLEAP draws is a half at the width.
    assert math.exp(-(head.paf_width_px**4) / (2 * 12**2)) == pytest.approx(0.5)
    names = run.skeleton.keypoint_names
    assert [(names[a], names[b]) for a, b in run.skeleton.edges[:3]] == [
        ("thorax", "neck"),
        ("neck", "head"),
        ("thorax", "abdomen"),
    ]
    points, confidence = run.predict(np.zeros((2, 384, 384, 1), np.uint8))
    assert (points.shape, confidence.shape) == ((2, 4, 24, 2), (2, 4, 24))


def test_a_real_training_of_centroids_gives_what_it_gave(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "sleap_run_multi" / "centroid"
    (note,) = import_sleap(
        folder, tmp_path / "run", (), (str(real_data / "flies2/flies2.val.pkg.slp"),)
    )
    assert note.startswith("flies2.train.pkg.slp, which training_config.json names, was not found")
    run = hgtrain.load_run(tmp_path / "run")
    expected = dict(np.load(folder / "expected.npz"))
    images = 255 * expected.pop("input")
    assert list(expected) == ["CentroidConfmapsHead"]
    np.testing.assert_allclose(
        outputs_of(run.model, images, list(expected))[0],
        expected["CentroidConfmapsHead"],
        atol=1e-4,
    )
    head = run.config.model.head
    # 2.5 at stride 2.
    assert (head.type, head.sigma_px, head.anchor) == ("centroid", 5.0, "thorax")
    points, _ = run.predict(np.zeros((1, 384, 384, 1), np.uint8))
    assert (points.shape[0], *points.shape[2:]) == (1, 1, 2)


@pytest.mark.parametrize("offsets", [False, True])
@pytest.mark.parametrize("kind", list(LAYERS))
def test_every_output_comes_from_the_layer_of_its_name(
    tmp_path: Path, kind: str, offsets: bool
) -> None:
    network = network_of(kind, offsets)
    document = training_config(model__heads=heads_of(kind, offsets))
    folder = write_model(tmp_path / "model", network, document)
    import_sleap(folder, tmp_path / "run", (), ())
    model = hgtrain.load_run(tmp_path / "run").model
    names = [name for name in LAYERS[kind] if offsets or name != "OffsetRefinementHead"]
    images = np.random.default_rng(0).uniform(0, 255, (2, 32, 32, 1)).astype(np.float32)
    found, expected = (outputs_of(each, images, names) for each in (model, network))
    for name, output, theirs in zip(names, found, expected, strict=True):
        assert output.shape == (2, 16, 16, LAYERS[kind][name])
        np.testing.assert_allclose(output, theirs, atol=1e-6)
    assert len(model.outputs) == len(names)


def test_the_fields_sigma_is_not_one_of_the_maps(tmp_path: Path) -> None:
    head = described(tmp_path, "multi_instance").values["model"]["head"]
    assert head == {
        "type": "multi_instance",
        "sigma_px": 3.0,
        "loss_weight": 1.0,
        "offsets": False,
        # 1.085 * sqrt(12), whatever the stride.
        "paf_width_px": pytest.approx(3.758, abs=1e-3),
        "paf_loss_weight": 0.5,
    }


def test_edges_come_in_the_order_of_the_fields(tmp_path: Path) -> None:
    heads = heads_of("multi_instance")
    assert described(tmp_path, "multi_instance").skeleton.edges == EDGES
    heads["multi_instance"]["pafs"]["edges"] = [["ear_right", "head"], ["head", "ear_left"]]
    document = training_config(model__heads=heads)
    (tmp_path / "training_config.json").write_text(json.dumps(document))
    assert read_sleap_config(tmp_path).skeleton.edges == ((2, 0), (0, 1))


def test_fields_of_another_stride_than_the_maps_are_refused(tmp_path: Path) -> None:
    heads = heads_of("multi_instance")
    heads["multi_instance"]["pafs"]["output_stride"] = 4
    (tmp_path / "training_config.json").write_text(json.dumps(training_config(model__heads=heads)))
    with pytest.raises(
        RunError,
        match=r"model.heads.multi_instance.pafs.output_stride is 4, expected 2, that of "
        r"model.backbone.hourglass: hgtrain has one stride for all outputs$",
    ):
        read_sleap_config(tmp_path)


def test_top_down_heads_have_the_anchor_that_crops_were_centred_on(tmp_path: Path) -> None:
    cropping = {"center_on_part": "ear_left", "crop_size": 24}
    centroid, centered = (
        described(tmp_path, kind, data__instance_cropping=cropping).values["model"]["head"]
        for kind in ("centroid", "centered_instance")
    )
    assert (centroid["type"], centroid["anchor"]) == ("centroid", "ear_left")
    assert "crop_size_px" not in centroid
    assert (centered["anchor"], centered["crop_size_px"]) == ("ear_left", 24)


def test_crops_are_as_large_as_the_network_takes_them(tmp_path: Path) -> None:
    document = training_config(model__heads=heads_of("centered_instance"))
    folder = write_model(tmp_path / "model", network_of("centered_instance", False), document)
    import_sleap(folder, tmp_path / "run", (), ())
    assert hgtrain.load_run(tmp_path / "run").config.model.head.crop_size_px == 32


def test_a_network_of_crops_does_not_say_how_large_images_are(tmp_path: Path) -> None:
    document = training_config(
        model__heads=heads_of("centered_instance"), data__preprocessing__target_height=None
    )
    folder = write_model(tmp_path / "model", network_of("centered_instance", False), document)
    with pytest.raises(RunError, match=r"says how large images are: name the labels with --data"):
        import_sleap(folder, tmp_path / "run", (), ())


def test_an_anchor_that_is_no_keypoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        RunError,
        match=r"center_on_part is 'tail', expected a keypoint: head, ear_left, ear_right",
    ):
        described(tmp_path, "centroid", data__instance_cropping={"center_on_part": "tail"})


def test_without_labels_the_most_animals_are_left_open(tmp_path: Path) -> None:
    document = training_config(model__heads=heads_of("multi_instance"))
    folder = write_model(tmp_path / "model", network_of("multi_instance", False), document)
    import_sleap(folder, tmp_path / "open", (), ())
    assert hgtrain.load_run(tmp_path / "open").config.model.head.max_instances is None
    animals = (
        (image, np.stack([points, points + 1, points - 1]), None, None)
        for image, points, _, _ in make_frames(8)
    )
    write_dataset(tmp_path / "labels.h5", Skeleton(NAMES, EDGES), animals)
    import_sleap(folder, tmp_path / "run", [str(tmp_path / "labels.h5")], ())
    assert hgtrain.load_run(tmp_path / "run").config.model.head.max_instances == 5
