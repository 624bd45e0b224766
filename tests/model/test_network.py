import io
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import whole_network

from hgtrain.config.schema import BackboneConfig, HeadConfig, ModelConfig
from hgtrain.heads.losses import confmap_losses
from hgtrain.model.network import copy_weights, synchronize_batch_norm

STEM = {"stem_stride": 2, "output_stride": 2, "max_stride": 8}
SMALL = {"stem_filters": 4, "filters": 4, "filter_increase": 0}
KEYPOINTS = 3


def config_of(stacks: int = 2, **backbone: object) -> ModelConfig:
    return ModelConfig(
        backbone=BackboneConfig(**(STEM | SMALL | {"stacks": stacks} | backbone)), head=HeadConfig()
    )


def network_of(
    stacks: int = 2, channels: int = 1, precision: str = "float32", **options: object
) -> keras.Model:
    return whole_network(config_of(stacks), channels, KEYPOINTS, precision, **options)


def images_of(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


@pytest.fixture(scope="module")
def two_stacks() -> keras.Model:
    keras.utils.set_random_seed(0)
    return network_of(2)


def maps_of(network: keras.Model, images: np.ndarray) -> list[np.ndarray]:
    return [maps.numpy() for maps in tf.nest.flatten(network(images, training=False))]


@pytest.mark.parametrize("stacks", [1, 2, 3, 8])
def test_a_step_supervises_every_stack_and_reaches_every_variable(stacks: int) -> None:
    keras.utils.set_random_seed(0)
    network = network_of(stacks)
    assert len(network.outputs) == stacks
    images, targets = (
        images_of(2, 16, 32, 1),
        tf.random.stateless_uniform((2, 8, 16, KEYPOINTS), (0, 0)),
    )
    with tf.GradientTape() as tape:
        maps = tf.nest.flatten(network(images, training=True))
        losses = [
            tf.reduce_sum(confmap_losses(m, targets, tf.ones((2, KEYPOINTS)), False)) for m in maps
        ]
        total = tf.add_n(losses)
    assert [m.shape.as_list() for m in maps] == [[2, 8, 16, KEYPOINTS]] * stacks
    assert np.isfinite(losses).all()
    variables = [variable.value for variable in network.trainable_variables]
    gradients = tape.gradient(total, variables)
    without = [
        v.name
        for v, g in zip(variables, gradients, strict=True)
        if g is None or not np.isfinite(g).all()
    ]
    assert not without
    zero = [
        v.path
        for v, g in zip(network.trainable_variables, gradients, strict=True)
        if not g.numpy().any()
    ]
    assert not zero


def test_outputs_are_a_list_for_all_stacks_and_one_tensor_for_the_last() -> None:
    assert [output.shape for output in network_of(3).outputs] == [(None, None, None, KEYPOINTS)] * 3
    last = network_of(3, all_stacks=False)
    assert last.output_shape == (None, None, None, KEYPOINTS)
    assert isinstance(network_of(1).output, list)


def test_the_last_head_has_the_name_of_the_reference_and_the_others_their_stack() -> None:
    heads = [layer.name for layer in network_of(3).layers if "Head" in layer.name]
    assert sorted(heads) == [
        "SingleInstanceConfmapsHead", "stack0_SingleInstanceConfmapsHead",
        "stack1_SingleInstanceConfmapsHead"
    ]  # fmt: skip
    last = [layer.name for layer in network_of(3, all_stacks=False).layers if "Head" in layer.name]
    assert last == ["SingleInstanceConfmapsHead"]


def test_every_layer_is_one_of_keras(two_stacks: keras.Model) -> None:
    assert all(type(layer).__module__.startswith("keras.src.layers") for layer in two_stacks.layers)


@pytest.mark.parametrize("size", [(16, 16), (24, 8), (8, 40)])
def test_any_multiple_of_the_maximum_stride_is_taken(
    two_stacks: keras.Model, size: tuple[int, int]
) -> None:
    maps = maps_of(two_stacks, images_of(1, *size, 1))
    assert [m.shape for m in maps] == [(1, size[0] // 2, size[1] // 2, KEYPOINTS)] * 2


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, np.int32])
def test_images_give_the_same_maps_whatever_their_type(
    two_stacks: keras.Model, dtype: type
) -> None:
    images = images_of(2, 16, 16, 1)
    for found, expected in zip(
        maps_of(two_stacks, images.astype(dtype)), maps_of(two_stacks, images), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_images_are_rescaled_from_bytes(two_stacks: keras.Model) -> None:
    rescaled = keras.Model(two_stacks.inputs[0], two_stacks.get_layer("rescaling").output)
    np.testing.assert_allclose(
        rescaled(np.array([[[[0], [51], [255]]]], np.uint8)).numpy().ravel(), [0, 0.2, 1]
    )


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_rescaling_heads_and_variables_in_float32(precision: str) -> None:
    network = network_of(2, precision=precision)
    half = precision.removeprefix("mixed_")
    assert network.get_layer("stem0_conv7x7_conv").compute_dtype == half
    assert network.get_layer("rescaling").compute_dtype == "float32"
    assert all(layer.compute_dtype == "float32" for layer in network.layers if "Head" in layer.name)
    assert {variable.dtype for variable in network.variables} == {"float32"}
    assert {maps.dtype for maps in network(images_of(1, 16, 16, 1))} == {tf.float32}


def test_maps_of_mixed_precision_are_close_to_those_of_float32(two_stacks: keras.Model) -> None:
    mixed = network_of(2, precision="mixed_bfloat16")
    copy_weights(two_stacks, mixed)
    images = images_of(2, 16, 16, 1)
    for found, expected in zip(maps_of(mixed, images), maps_of(two_stacks, images), strict=True):
        assert np.abs(found - expected).max() < 0.05 * np.abs(expected).max()


def test_the_dtype_policy_is_as_before() -> None:
    network_of(1, precision="mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"
    keras.config.set_dtype_policy("mixed_float16")
    try:
        assert network_of(1).get_layer("stem0_conv7x7_conv").compute_dtype == "float32"
        assert keras.config.dtype_policy().name == "mixed_float16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_dtype_policy_is_as_before_after_an_error() -> None:
    broken = config_of(1, stem_stride=4, max_stride=2)
    with pytest.raises(ValueError, match="got 4, 2, 2"):
        whole_network(broken, 1, KEYPOINTS, "mixed_bfloat16")
    assert keras.config.dtype_policy().name == "float32"


def test_copied_weights_give_the_same_maps(two_stacks: keras.Model) -> None:
    other, last = network_of(2), network_of(2, all_stacks=False)
    images = images_of(2, 16, 16, 1)
    expected = maps_of(two_stacks, images)
    assert np.abs(maps_of(other, images)[1] - expected[1]).max() > 0
    copy_weights(two_stacks, other)
    copy_weights(two_stacks, last)
    np.testing.assert_array_equal(maps_of(other, images), expected)
    np.testing.assert_allclose(maps_of(last, images)[0], expected[1], atol=1e-6)


def test_statistics_are_copied_with_the_weights() -> None:
    first, second = network_of(1), network_of(1)
    first(images_of(2, 16, 16, 1), training=True)
    copy_weights(first, second)
    for mine, theirs in zip(
        second.non_trainable_variables, first.non_trainable_variables, strict=True
    ):
        np.testing.assert_array_equal(mine, theirs)
    assert any(np.asarray(variable).any() for variable in second.non_trainable_variables)


def test_weights_of_fewer_stacks_are_refused(two_stacks: keras.Model) -> None:
    with pytest.raises(KeyError, match="stack2_"):
        copy_weights(two_stacks, network_of(3))


# Keras 3.15 converts its variables in a way that NumPy 2 warns about.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_saved_network_gives_the_same_maps_when_loaded(
    two_stacks: keras.Model, tmp_path: Path
) -> None:
    two_stacks.save(tmp_path / "network.keras")
    loaded = keras.models.load_model(tmp_path / "network.keras", compile=False, safe_mode=True)
    images = images_of(2, 16, 24, 1)
    for found, expected in zip(maps_of(loaded, images), maps_of(two_stacks, images), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_colour_images_are_taken() -> None:
    assert maps_of(network_of(1, channels=3), images_of(2, 8, 8, 3))[0].shape == (
        2,
        4,
        4,
        KEYPOINTS,
    )


def test_maps_start_near_the_background() -> None:
    keras.utils.set_random_seed(0)
    assert np.abs(maps_of(network_of(1), images_of(4, 16, 16, 1))[0]).max() < 0.3


def test_the_summary_names_the_stem_and_the_stacks(two_stacks: keras.Model) -> None:
    text = io.StringIO()
    two_stacks.summary(print_fn=lambda line: text.write(f"{line}\n"), line_length=200)
    assert "stem0_conv7x7_conv" in text.getvalue()
    assert "stack1_enc0_pool" in text.getvalue()


def test_synchronising_batch_norm_changes_no_name_and_no_weight() -> None:
    plain, synchronised = network_of(2), network_of(2)
    synchronize_batch_norm(synchronised)
    assert [variable.path for variable in synchronised.variables] == [
        variable.path for variable in plain.variables
    ]
    layers = [
        layer for layer in synchronised.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert len(layers) > 8
    assert all(layer.synchronized for layer in layers)
