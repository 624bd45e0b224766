"""What holds for every head on every backbone; a new head is one more entry of HEADS below."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from hgtrain.config.choices import BACKBONE_TYPES
from hgtrain.config.schema import BackboneConfig, HeadConfig, ModelConfig
from hgtrain.heads import HEADS as KINDS
from hgtrain.heads import Head, Outputs, by_stack, make_head
from hgtrain.model.network import build_network
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.predict.averaging import Averaging
from hgtrain.predict.predictor import Predictor
from hgtrain.predict.turns import AVERAGES, turns_of
from hgtrain.skeleton import Skeleton

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

MULTI: dict[str, Any] = {"type": "multi_instance", "max_instances": 3, "paf_width_px": 4.0}
CENTERED: dict[str, Any] = {"type": "centered_instance", "crop_size_px": 48, "anchor": "a"}
HEADS: dict[str, dict[str, Any]] = {
    "single_instance": {"type": "single_instance"},
    "single_instance with offsets": {"type": "single_instance", "offsets": True},
    "multi_instance": MULTI,
    "multi_instance with offsets": MULTI | {"offsets": True, "assignment": "greedy"},
    "centroid": {"type": "centroid", "max_instances": 3},
    "centroid with offsets": {
        "type": "centroid",
        "max_instances": 3,
        "anchor": "b",
        "offsets": True,
    },
    "centered_instance": CENTERED,
    "centered_instance with offsets": CENTERED | {"offsets": True},
}
SMALL = {"stem_filters": 4, "filters": 4, "filter_increase": 2, "max_stride": 8}
BACKBONES: dict[str, dict[str, Any]] = {
    "two stacks at stride 2": SMALL | {"stem_stride": 2, "output_stride": 2, "stacks": 2},
    "a stack at stride 4, bilinear": SMALL | {"stacks": 1, "interp_method": "bilinear"},
    "two stacks with re-injection": SMALL | {"stacks": 2, "reinject": True},
    "associative embedding": {
        "type": "associative_embedding",
        "filters": 8,
        "filter_increase": 4,
        "max_stride": 8,
        "stacks": 2,
    },
    "residual hourglass": {
        "type": "residual_hourglass",
        "filters": 8,
        "max_stride": 8,
        "stacks": 2,
    },
}
SKELETON = Skeleton(("a", "b", "c", "d"), ((0, 1), (0, 2), (2, 3)))
KEYPOINTS, HEIGHT, WIDTH, NAN = 4, 48, 64, float("nan")
# Anywhere, in a corner, at the opposite one, missing.
ONE = [
    [[[20.3, 30.7], [0.0, 0.0], [63.0, 47.0], [NAN, NAN]]],
    [[[5.5, 40.1], [33.3, 11.9], [5.5, 40.1], [33.3, 11.9]]],
]
# Two of them, a corner and a missing keypoint among theirs; one; then a place for one more.
SEVERAL = [
    [
        [[12.3, 10.7], [0.0, 0.0], [9.0, 24.0], [NAN, NAN]],
        [[50.2, 30.1], [62.4, 24.0], [44.1, 40.8], [33.5, 46.6]],
    ],
    [[[30.5, 20.1], [20.3, 11.9], [40.5, 30.1], [33.3, 41.9]], [[NAN, NAN]] * 4],
]


def is_for_one(head: Head) -> bool:
    """Whether what the network sees has one animal."""
    return not head.several_animals or head.crop is not None


@pytest.fixture(params=BACKBONES.values(), ids=BACKBONES, scope="module")
def backbone(request: pytest.FixtureRequest) -> BackboneConfig:
    return BackboneConfig(**request.param)


@pytest.fixture(params=HEADS.values(), ids=HEADS, scope="module")
def section(request: pytest.FixtureRequest) -> HeadConfig:
    return HeadConfig(**request.param)


@pytest.fixture(params=[2, 4], ids="stride {}".format, scope="module")
def head(request: pytest.FixtureRequest, section: HeadConfig) -> Head:
    """A head for features that no network made."""
    return make_head(section, SKELETON, request.param)


@pytest.fixture(scope="module")
def model(section: HeadConfig, backbone: BackboneConfig) -> ModelConfig:
    return ModelConfig(backbone=backbone, head=section)


@pytest.fixture(scope="module")
def laid_head(model: ModelConfig) -> Head:
    """The head on every stack of `network`."""
    return make_head(model.head, SKELETON, model.backbone.output_stride)


@pytest.fixture(scope="module")
def network(model: ModelConfig, laid_head: Head) -> keras.Model:
    return network_of(model, laid_head)


def network_of(model: ModelConfig, head: Head, *options: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    return build_network(model.backbone, head.layers, 1, *options)


def points_for(head: Head) -> np.ndarray:
    return np.array(ONE if is_for_one(head) else SEVERAL, np.float32)


def targets_of(head: Head) -> dict:
    points = points_for(head)
    weights = np.where(np.isnan(points[..., 0]), 0, 1).astype(np.float32)
    return head.targets(tf.constant(points), tf.constant(weights), HEIGHT, WIDTH)


def perfect(targets: dict) -> Outputs:
    return {
        name: tf.where(tf.math.is_nan(target.values), 0.0, target.values)
        for name, target in targets.items()
    }


def images_of(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 1), np.uint8)


def test_every_head_and_every_backbone_is_among_them() -> None:
    assert {keys["type"] for keys in HEADS.values()} == set(KINDS)
    types = {str(keys.get("type", BACKBONE_TYPES[0])) for keys in BACKBONES.values()}
    assert types == set(BACKBONE_TYPES)


def test_outputs_have_the_channels_and_the_stride_that_the_head_says(
    model: ModelConfig, laid_head: Head, network: keras.Model
) -> None:
    stacks = by_stack(laid_head, tf.nest.flatten(network(images_of(), training=False)))
    assert len(stacks) == model.backbone.stacks
    sides = HEIGHT // laid_head.stride, WIDTH // laid_head.stride
    for outputs in stacks:
        assert {name: maps.shape for name, maps in outputs.items()} == {
            name: (2, *sides, channels) for name, channels in laid_head.outputs.items()
        }


def test_decoding_what_is_to_be_learnt_gives_the_points(section: HeadConfig, head: Head) -> None:
    found = head.decode(perfect(targets_of(head)))
    expected = head.labelled(points_for(head))
    limit = 0.01 * head.stride if section.offsets else 0.1
    assert found.points.shape == (2, head.max_instances, *expected.shape[2:])
    for frame, animals in enumerate(expected):
        there = animals[np.isfinite(animals).all(-1).any(-1)]
        scores = found.scores.numpy()[frame]
        assert np.isfinite(scores).sum() == len(there)
        assert (scores[np.isfinite(scores)] > 0.5).all()
        for animal in there:
            located = np.isfinite(animal).all(-1)
            away = np.abs(found.points.numpy()[frame] - animal)[:, located].max((1, 2))
            best = np.nanargmin(away)
            assert away[best] <= limit
            absent = found.confidence.numpy()[frame, best][~located]
            assert (np.isnan(absent) | (absent == 0)).all()


def total(losses: dict[str, tf.Tensor]) -> np.ndarray:
    return np.sum([np.asarray(loss) for loss in losses.values()], axis=0)


def test_each_output_has_a_loss_of_its_own(head: Head) -> None:
    targets = targets_of(head)
    right = {name: target.values for name, target in targets.items()}
    for changed in right:
        outputs = right | {changed: tf.where(tf.math.is_nan(right[changed]), 0.0, 2.0)}
        losses = head.losses(outputs, targets)
        assert losses.keys() == head.outputs.keys()
        assert {name for name, loss in losses.items() if loss.numpy().max() > 0} == {changed}


def test_what_is_to_be_learnt_costs_nothing(head: Head) -> None:
    targets = targets_of(head)
    given = {name: target.values for name, target in targets.items()}
    assert total(head.losses(given, targets)).tolist() == [0.0, 0.0]


def test_every_variable_has_a_finite_gradient_that_is_not_zero(
    model: ModelConfig, laid_head: Head, network: keras.Model
) -> None:
    targets = targets_of(laid_head)
    with tf.GradientTape() as tape:
        stacks = by_stack(laid_head, tf.nest.flatten(network(images_of(), training=True)))
        losses = [laid_head.losses(outputs, targets) for outputs in stacks]
        loss = tf.add_n(tf.nest.map_structure(tf.reduce_sum, tf.nest.flatten(losses)))
    gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    heads = [
        gradient
        for gradient, variable in zip(gradients, network.trainable_variables, strict=True)
        if "Head" in variable.path and "kernel" in variable.path
    ]
    assert len(heads) == model.backbone.stacks * len(laid_head.outputs)
    assert all(np.abs(gradient).max() > 0 for gradient in heads)


def test_a_keypoint_that_is_not_labelled_teaches_nothing(head: Head) -> None:
    """Near its animal, whatever the network says there; in crops and of one animal, anywhere."""
    points = np.full((1, 1, KEYPOINTS, 2), 20.0, np.float32)
    points[0, 0, 0], points[0, 0, 1] = [14.0, 24.0], NAN
    weights = tf.constant([[[1.0, 0.0, 1.0, 1.0]]])
    targets = head.targets(tf.constant(points), weights, HEIGHT, WIDTH)
    outputs = {name: target.values.numpy() for name, target in targets.items()}
    expected = total(head.losses(outputs, targets))
    assert expected.tolist() == [0.0]
    if head.keypoints == 1:
        return
    around = slice(4, 30)
    cells = slice(around.start // head.stride, around.stop // head.stride)
    changed = outputs["confmaps"].copy()
    changed[:, cells, cells, 1] = 0.7
    assert total(head.losses(outputs | {"confmaps": changed}, targets)).tolist() == [0.0]
    changed[:, cells, cells, 0] = 0.7
    assert total(head.losses(outputs | {"confmaps": changed}, targets))[0] > 0.1


def test_no_animals_and_the_most_there_can_be_are_drawn_and_found(head: Head) -> None:
    nobody = np.full((1, 2, KEYPOINTS, 2), NAN, np.float32)
    if is_for_one(head):
        nobody = nobody[:, :1]
    targets = head.targets(tf.constant(nobody), tf.zeros(nobody.shape[:3]), HEIGHT, WIDTH)
    outputs = perfect(targets)
    assert float(tf.reduce_max(outputs["confmaps"])) == 0
    found = head.decode(outputs)
    if is_for_one(head):
        assert found.confidence.numpy().max() == 0
        return
    assert np.isnan(found.points).all()
    assert np.isnan(found.scores).all()
    side = np.array([[0, 0], [6, 0], [0, 6], [6, 6]], np.float32)
    many = np.array([[side + at for at in ([8, 8], [40, 8], [8, 36], [40, 36])]], np.float32)
    drawn = head.targets(tf.constant(many), tf.ones(many.shape[:3]), HEIGHT, WIDTH)
    most = head.decode(perfect(drawn))
    # One more than there is room for.
    assert np.isfinite(most.scores).all()


def test_a_network_that_was_saved_predicts_the_same(
    model: ModelConfig, laid_head: Head, tmp_path: Path
) -> None:
    best = network_of(model, laid_head, "float32", False)
    best.save(tmp_path / "best.keras")
    before = Preprocessing(1, 1.0, model.backbone.max_stride)
    images = images_of(3)[:, :41, :59]
    centroids = (np.full((3, 2, 2), 24, np.float32),) if laid_head.crop else ()
    found = [
        Predictor(network, laid_head, before)(images, *centroids)
        for network in (best, keras.models.load_model(tmp_path / "best.keras"))
    ]
    np.testing.assert_array_equal(found[0].points, found[1].points)
    animals = 2 if laid_head.crop else laid_head.max_instances
    assert found[0].points.shape == (3, animals, laid_head.keypoints, 2)
    if is_for_one(laid_head):
        assert np.isfinite(found[0].points).all()


def test_predictions_averaged_over_turned_images_are_of_the_same_kind(section: HeadConfig) -> None:
    model = ModelConfig(backbone=BackboneConfig(**next(iter(BACKBONES.values()))), head=section)
    head = make_head(section, SKELETON, model.backbone.output_stride)
    best = network_of(model, head, "float32", False)
    before = Preprocessing(1, 1.0, model.backbone.max_stride)
    images = images_of(3)[:, :41, :59]
    centroids = (np.full((3, 2, 2), 24, np.float32),) if head.crop else ()
    averaging = Averaging(turns_of(AVERAGES, "none"), ((0, 1),))
    plain, averaged = (
        Predictor(best, head, before, averaging=each)(images, *centroids)
        for each in (None, averaging)
    )
    assert [part.shape for part in averaged] == [part.shape for part in plain]
    # Of noise, but once more the same.
    again = Predictor(best, head, before, averaging=averaging)(images, *centroids)
    np.testing.assert_array_equal(averaged.points, again.points)
    if is_for_one(head):
        assert np.isfinite(averaged.points).all()
        assert (averaged.points != plain.points).any()


def test_in_a_compiled_graph_of_any_size_all_is_the_same(head: Head) -> None:
    points = tf.constant(points_for(head))
    weights = tf.ones(points.shape[:3])

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 1)), *[tf.TensorSpec((), tf.int32)] * 2]
    )
    def compiled(images: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tuple:
        targets = head.targets(points, weights, height, width)
        outputs = {name: images * maps for name, maps in perfect(targets).items()}
        return head.decode(outputs), head.losses(outputs, targets)

    found, losses = compiled(tf.ones((2, 1, 1, 1)), HEIGHT, WIDTH)
    eager = head.decode(perfect(targets_of(head)))
    np.testing.assert_allclose(found.points, eager.points, atol=1e-4)
    np.testing.assert_allclose(found.confidence, eager.confidence, atol=1e-6)
    np.testing.assert_allclose(found.scores, eager.scores, atol=1e-6)
    np.testing.assert_allclose(total(losses), 0.0, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1])
def test_what_is_to_be_learnt_of_a_mirrored_image_is_mirrored(head: Head, axis: int) -> None:
    points = points_for(head)
    # Mirrored about the middle of the cells' centres, so that each cell falls on a cell.
    last = (np.array([WIDTH, HEIGHT]) // head.stride - 1) * head.stride
    mirrored = points.copy()
    mirrored[..., axis] = last[axis] - mirrored[..., axis]
    weights = tf.ones(points.shape[:3])
    plain, other = (
        head.targets(tf.constant(at), weights, HEIGHT, WIDTH) for at in (points, mirrored)
    )
    for name, target in plain.items():
        values = np.flip(other[name].values.numpy(), 2 - axis)
        if target.values.shape[-1] != head.outputs["confmaps"]:
            values = values.reshape(*values.shape[:3], -1, 2).copy()
            values[..., axis] *= -1
            values = values.reshape(target.values.shape)
        counted = np.isfinite(values) & (np.abs(values) < 1e3)
        np.testing.assert_allclose(
            values[counted], target.values.numpy()[counted], atol=2e-5, rtol=1e-5
        )


def test_in_mixed_precision_outputs_are_float32(model: ModelConfig, laid_head: Head) -> None:
    network = network_of(model, laid_head, "mixed_bfloat16")
    for maps in tf.nest.flatten(network(images_of(), training=False)):
        assert maps.dtype == tf.float32
        assert np.isfinite(maps).all()
