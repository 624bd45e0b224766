"""What holds for every head on every backbone; a new head is one more entry of HEADS below."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import head_of, whole_network

from hgtrain.config.schema import BackboneConfig, HeadConfig, ModelConfig
from hgtrain.heads import by_stack
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.predict.predictor import Predictor

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

HEADS = {
    "single_instance": {"type": "single_instance"},
    "single_instance with offsets": {"type": "single_instance", "offsets": True},
}
SMALL = {"stem_filters": 4, "filters": 4, "filter_increase": 2, "max_stride": 8}
BACKBONES = {
    "two stacks at stride 2": SMALL | {"stem_stride": 2, "output_stride": 2, "stacks": 2},
    "a stack at stride 4, bilinear": SMALL | {"stacks": 1, "interp_method": "bilinear"},
}
KEYPOINTS, HEIGHT, WIDTH, NAN = 4, 48, 64, float("nan")
# Anywhere, in a corner, at the opposite one, missing.
POINTS = [
    [[[20.3, 30.7], [0.0, 0.0], [63.0, 47.0], [NAN, NAN]]],
    [[[5.5, 40.1], [33.3, 11.9], [5.5, 40.1], [33.3, 11.9]]],
]


@pytest.fixture(params=BACKBONES.values(), ids=BACKBONES, scope="module")
def backbone(request: pytest.FixtureRequest) -> BackboneConfig:
    return BackboneConfig(**request.param)


@pytest.fixture(params=HEADS.values(), ids=HEADS, scope="module")
def model(request: pytest.FixtureRequest, backbone: BackboneConfig) -> ModelConfig:
    return ModelConfig(backbone=backbone, head=HeadConfig(**request.param))


@pytest.fixture(scope="module")
def network(model: ModelConfig) -> keras.Model:
    keras.utils.set_random_seed(0)
    return whole_network(model, 1, KEYPOINTS)


def targets_of(model: ModelConfig) -> dict:
    weights = tf.constant([[[1.0] * KEYPOINTS], [[1.0, 0.0, 1.0, 1.0]]])
    return head_of(model, KEYPOINTS).targets(tf.constant(POINTS), weights, HEIGHT, WIDTH)


def images_of(count: int = 2) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, HEIGHT, WIDTH, 1), np.uint8)


def test_outputs_have_the_channels_and_the_stride_that_the_head_says(
    model: ModelConfig, network: keras.Model
) -> None:
    head = head_of(model, KEYPOINTS)
    stacks = by_stack(head, tf.nest.flatten(network(images_of(), training=False)))
    assert len(stacks) == model.backbone.stacks
    sides = HEIGHT // head.stride, WIDTH // head.stride
    for outputs in stacks:
        assert {name: maps.shape for name, maps in outputs.items()} == {
            name: (2, *sides, channels) for name, channels in head.outputs.items()
        }


def test_decoding_what_is_to_be_learnt_gives_the_points(model: ModelConfig) -> None:
    targets = targets_of(model)
    perfect = {
        name: tf.where(tf.math.is_nan(target.values), 0.0, target.values)
        for name, target in targets.items()
    }
    points, confidence, scores = head_of(model, KEYPOINTS).decode(perfect)
    located = np.isfinite(POINTS).all(-1)
    limit = 0.01 * model.backbone.output_stride if model.head.offsets else 0.1
    np.testing.assert_allclose(points.numpy()[located], np.array(POINTS)[located], atol=limit)
    assert confidence.numpy()[~located].tolist() == [0.0]
    assert (scores.numpy() > 0.5).all()


def test_what_is_to_be_learnt_costs_nothing(model: ModelConfig) -> None:
    targets = targets_of(model)
    perfect = {name: target.values for name, target in targets.items()}
    assert head_of(model, KEYPOINTS).losses(perfect, targets).numpy().tolist() == [0.0, 0.0]


def test_every_variable_has_a_finite_gradient_that_is_not_zero(
    model: ModelConfig, network: keras.Model
) -> None:
    head, targets = head_of(model, KEYPOINTS), targets_of(model)
    with tf.GradientTape() as tape:
        stacks = by_stack(head, tf.nest.flatten(network(images_of(), training=True)))
        loss = tf.add_n([tf.reduce_sum(head.losses(outputs, targets)) for outputs in stacks])
    gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    heads = [
        gradient
        for gradient, variable in zip(gradients, network.trainable_variables, strict=True)
        if "Head" in variable.path and "kernel" in variable.path
    ]
    assert len(heads) == model.backbone.stacks * len(head.outputs)
    assert all(np.abs(gradient).max() > 0 for gradient in heads)


def test_a_keypoint_that_is_not_labelled_teaches_nothing(model: ModelConfig) -> None:
    head, weights = head_of(model, KEYPOINTS), tf.constant([[[1.0, 0.0, 1.0, 1.0]]])
    one, other = np.full((2, 1, 1, KEYPOINTS, 2), 20.0, np.float32)
    other[0, 0, 1] = NAN
    targets = [head.targets(tf.constant(at), weights, HEIGHT, WIDTH) for at in (one, other)]
    outputs = {
        name: tf.random.stateless_uniform(target.values.shape, (0, 1))
        for name, target in targets[0].items()
    }
    losses = [head.losses(outputs, target).numpy() for target in targets]
    np.testing.assert_array_equal(*losses)
    assert np.isfinite(losses).all()


def test_a_network_that_was_saved_predicts_the_same(model: ModelConfig, tmp_path: Path) -> None:
    keras.utils.set_random_seed(0)
    best = whole_network(model, 1, KEYPOINTS, all_stacks=False)
    best.save(tmp_path / "best.keras")
    head, before = head_of(model, KEYPOINTS), Preprocessing(1, 1.0, model.backbone.max_stride)
    found = [
        Predictor(network, head, before)(images_of(3)[:, :41, :59])
        for network in (best, keras.models.load_model(tmp_path / "best.keras"))
    ]
    np.testing.assert_array_equal(found[0][0], found[1][0])
    assert found[0][0].shape == (3, 1, KEYPOINTS, 2)
    assert np.isfinite(found[0][0]).all()


def test_in_a_compiled_graph_of_any_size_all_is_the_same(model: ModelConfig) -> None:
    head = head_of(model, KEYPOINTS)
    weights = tf.ones((2, 1, KEYPOINTS))

    @tf.function(
        input_signature=[tf.TensorSpec((None, None, None, 1)), *[tf.TensorSpec((), tf.int32)] * 2]
    )
    def compiled(images: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tuple:
        targets = head.targets(tf.constant(POINTS), weights, height, width)
        outputs = {
            name: images * tf.where(tf.math.is_nan(target.values), 0.0, target.values)
            for name, target in targets.items()
        }
        return head.decode(outputs), head.losses(outputs, targets)

    (points, confidence, _), losses = compiled(tf.ones((2, 1, 1, 1)), HEIGHT, WIDTH)
    perfect = {
        name: tf.where(tf.math.is_nan(target.values), 0.0, target.values)
        for name, target in targets_of(model).items()
    }
    eager = head.decode(perfect)
    np.testing.assert_allclose(points, eager[0], atol=1e-4)
    np.testing.assert_allclose(confidence, eager[1], atol=1e-6)
    assert losses.numpy().tolist() == [0.0, 0.0]


def test_in_mixed_precision_outputs_are_float32(model: ModelConfig) -> None:
    network = whole_network(model, 1, KEYPOINTS, "mixed_bfloat16")
    for maps in tf.nest.flatten(network(images_of(), training=False)):
        assert maps.dtype == tf.float32
        assert np.isfinite(maps).all()
