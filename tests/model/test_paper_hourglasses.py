"""The papers' networks, and what of a stack goes into the next."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import whole_network

from hgtrain.config.schema import BackboneConfig, HeadConfig, ModelConfig
from hgtrain.model import Hourglass
from hgtrain.model.associative_embedding import AssociativeEmbedding
from hgtrain.model.backbones import backbone_of
from hgtrain.model.dynamic_size import any_size
from hgtrain.model.residual_hourglass import ResidualHourglass
from hgtrain.model.training_pass import TrainingPass, block_of

SMALL: dict[str, Any] = {"filters": 8, "max_stride": 8, "stacks": 2}
BACKBONES: dict[str, dict[str, Any]] = {
    "hourglass": SMALL | {"stem_filters": 4, "filter_increase": 4, "reinject": True},
    "associative_embedding": SMALL | {"filter_increase": 4},
    "residual_hourglass": SMALL,
}
KEYPOINTS = 3
IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 48, 1)).astype(np.float32)


def model_of(kind: str, offsets: bool = False, **changes: Any) -> ModelConfig:
    backbone = BackboneConfig(type=kind, **(BACKBONES[kind] | changes))
    return ModelConfig(backbone=backbone, head=HeadConfig(offsets=offsets))


def network_of(kind: str, *options: Any, offsets: bool = False, **changes: Any) -> keras.Model:
    keras.utils.set_random_seed(0)
    return whole_network(model_of(kind, offsets, **changes), 1, KEYPOINTS, *options)


@pytest.fixture(params=BACKBONES)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


# How many parameters


def conv(kernel_size: int, inputs: int, outputs: int) -> int:
    return kernel_size**2 * inputs * outputs + outputs


def reinjection(stacks: int, filters: int, outputs: int) -> int:
    """Parameters of the convolutions of features and of outputs between stacks."""
    return (stacks - 1) * (conv(1, filters, filters) + conv(1, outputs, filters))


def associative_embedding(stacks: int, outputs: int) -> int:
    """Parameters of 256, 384, 512, 640 and 768 filters, of colour images."""
    stem = conv(7, 3, 64) + conv(3, 64, 128) + conv(3, 128, 128) + conv(3, 128, 256)
    levels = [
        # Up branch, down, up.
        conv(3, here, here) + conv(3, here, below) + conv(3, below, here)
        for here, below in ((256, 384), (384, 512), (512, 640), (640, 768))
    ]
    stack = sum(levels) + conv(3, 768, 768) + 2 * conv(3, 256, 256) + conv(1, 256, outputs)
    return stem + stacks * stack + reinjection(stacks, 256, outputs)


def residual(inputs: int, outputs: int) -> int:
    """Parameters of a residual block, with scale and shift of its three normalisations."""
    half = outputs // 2
    convolutions = conv(1, inputs, half) + conv(3, half, half) + conv(1, half, outputs)
    normalisations = 2 * (inputs + half + half)
    return convolutions + normalisations + (conv(1, inputs, outputs) if inputs != outputs else 0)


def residual_hourglass(stacks: int, outputs: int) -> int:
    """Parameters of 256 filters everywhere, of colour images."""
    stem = conv(7, 3, 64) + 2 * 64 + residual(64, 128) + residual(128, 128) + residual(128, 256)
    # Three at each of four levels, one at the bottom, one behind.
    stack = (3 * 4 + 1 + 1) * residual(256, 256)
    stack += conv(1, 256, 256) + 2 * 256 + conv(1, 256, outputs)
    return stem + stacks * stack + reinjection(stacks, 256, outputs)


def trained_parameters(network: keras.Model) -> int:
    return sum(int(np.prod(variable.shape)) for variable in network.trainable_variables)


@pytest.mark.parametrize(("stacks", "millions"), [(1, 35.1), (2, 69.7), (3, 104.3), (4, 138.9)])
def test_associative_embedding_has_the_parameters_of_its_authors(
    stacks: int, millions: float
) -> None:
    backbone = BackboneConfig(type="associative_embedding", stacks=stacks)
    counted = trained_parameters(whole_network(ModelConfig(backbone=backbone), 3, 68))
    assert counted == associative_embedding(stacks, 68)
    assert round(counted / 1e6, 1) == millions


@pytest.mark.parametrize(
    ("stacks", "millions"),
    [(1, 3.4), (2, 6.6), (4, 12.9), pytest.param(8, 25.4, marks=pytest.mark.slow)],
)
def test_the_residual_hourglass_has_the_parameters_of_its_authors(
    stacks: int, millions: float
) -> None:
    backbone = BackboneConfig(type="residual_hourglass", stacks=stacks)
    counted = trained_parameters(whole_network(ModelConfig(backbone=backbone), 3, 16))
    assert counted == residual_hourglass(stacks, 16)
    assert round(counted / 1e6, 1) == millions


@pytest.mark.parametrize("stacks", [1, 2, 4, 8])
def test_reinjection_adds_two_convolutions_between_stacks_to_the_hourglass(stacks: int) -> None:
    chained, reinjected = (
        network_of("hourglass", stacks=stacks, reinject=reinject) for reinject in (False, True)
    )
    stem = conv(7, 1, 4) + conv(3, 4, 8) + conv(3, 8, 8) + 2 * (4 + 8 + 8)
    down_and_up = 3 * (conv(3, 8, 8) + 2 * 8)
    counted = stem + stacks * (down_and_up + conv(1, 8, KEYPOINTS))
    assert trained_parameters(chained) == counted
    assert trained_parameters(reinjected) == counted + reinjection(stacks, 8, KEYPOINTS)


@pytest.mark.parametrize("stacks", [1, 2, 4, 8])
def test_narrow_networks_of_the_papers_have_the_parameters_of_their_layers(stacks: int) -> None:
    # A level of 8 and 12 filters, of grey images: stem, up branch, down, bottom, up, end, head.
    stem = conv(7, 1, 2) + conv(3, 2, 4) + conv(3, 4, 4) + conv(3, 4, 8)
    stack = conv(3, 8, 8) + conv(3, 8, 12) + conv(3, 12, 12) + conv(3, 12, 8) + 2 * conv(3, 8, 8)
    stack += conv(1, 8, KEYPOINTS)
    plain = network_of("associative_embedding", stacks=stacks)
    assert trained_parameters(plain) == stem + stacks * stack + reinjection(stacks, 8, KEYPOINTS)
    stem = conv(7, 1, 2) + 2 * 2 + residual(2, 4) + residual(4, 4) + residual(4, 8)
    stack = 5 * residual(8, 8) + conv(1, 8, 8) + 2 * 8 + conv(1, 8, KEYPOINTS)
    blocks = network_of("residual_hourglass", stacks=stacks)
    assert trained_parameters(blocks) == stem + stacks * stack + reinjection(stacks, 8, KEYPOINTS)


# What they are made of


def types_of(network: keras.Model) -> set[str]:
    return {type(layer).__name__ for layer in network.layers}


def filters_of(network: keras.Model, *names: str) -> list[int]:
    return [network.get_layer(name).output.shape[-1] for name in names]


def test_associative_embedding_grows_down_and_normalises_nothing() -> None:
    network = network_of("associative_embedding", max_stride=64)
    assert "BatchNormalization" not in types_of(network)
    down = [f"stack0_enc{level}_conv" for level in range(4)]
    up = [f"stack0_dec{level}_conv" for level in range(4)]
    assert filters_of(network, *down, "stack0_bottom_conv", *up) == [
        *(12, 16, 20, 24),
        24,
        *(20, 16, 12, 8),
    ]


def test_the_residual_hourglass_has_as_many_filters_everywhere() -> None:
    network = network_of("residual_hourglass", max_stride=64)
    sums = [layer.name for layer in network.layers if layer.name.endswith(("_add", "_sum"))]
    assert set(filters_of(network, *(name for name in sums if "stem" not in name))) == {8}
    stem = ["stem0_conv7x7_conv", *(f"stem0_block{number}_add" for number in range(3))]
    assert filters_of(network, *stem) == [2, 4, 4, 8]


def test_every_layer_is_one_of_keras_with_a_flat_name(kind: str) -> None:
    for layer in network_of(kind, offsets=True).layers:
        assert type(layer).__module__.startswith("keras.src.layers")
        assert "/" not in layer.name


@pytest.mark.parametrize("stem_stride", [1, 2, 4])
def test_the_papers_networks_end_at_the_stride_of_their_stem(stem_stride: int) -> None:
    for kind in ("associative_embedding", "residual_hourglass"):
        network = network_of(kind, stem_stride=stem_stride, output_stride=stem_stride, stacks=1)
        (maps,) = tf.nest.flatten(network(IMAGES, training=False))
        assert maps.shape == (2, 32 // stem_stride, 48 // stem_stride, KEYPOINTS)


def sources_of(network: keras.Model, layer: str) -> list[str]:
    return [
        tensor._keras_history.operation.name
        for tensor in keras.tree.flatten(network.get_layer(layer).input)
    ]


def test_a_stack_that_something_is_added_to_has_its_own_input_as_finest_skip() -> None:
    finest = {
        "hourglass": ("stem0_conv3x3_out_bn", "dec0_skip_conv"),
        "associative_embedding": ("stem0_block2_conv", "dec0_skip_conv"),
        "residual_hourglass": ("stem0_block2_add", "dec0_skip_bn1"),
    }
    for kind, (first, layer) in finest.items():
        network = network_of(kind)
        assert sources_of(network, f"stack0_{layer}") == [first]
        assert sources_of(network, f"stack1_{layer}") == ["reinject0_add"]


def test_the_layers_of_the_reference_keep_their_names() -> None:
    chained, reinjected = (
        [layer.name for layer in network_of("hourglass", reinject=reinject).layers]
        for reinject in (False, True)
    )
    added = ["reinject0_features", "reinject0_maps", "reinject0_add"]
    assert sorted(reinjected) == sorted([*chained, *added])


# What goes from a stack into the next


def output_of(network: keras.Model, layer: str) -> np.ndarray:
    return keras.Model(network.inputs[0], network.get_layer(layer).output)(IMAGES).numpy()


def test_the_next_stack_sees_what_this_one_saw_and_made_of_it(kind: str) -> None:
    network = network_of(kind, offsets=True)
    first, features = {
        "hourglass": ("stem0_conv3x3_out_bn", "stack0_dec0_skip_add"),
        "associative_embedding": ("stem0_block2_conv", "stack0_end1_conv"),
        "residual_hourglass": ("stem0_block2_add", "stack0_end1_relu"),
    }[kind]
    maps, offsets = (
        output_of(network, f"stack0_{name}")
        for name in ("SingleInstanceConfmapsHead", "OffsetRefinementHead")
    )
    expected = output_of(network, first)
    both = np.concatenate([maps, offsets], -1)
    for layer, inputs in (("features", output_of(network, features)), ("maps", both)):
        kernel, bias = network.get_layer(f"reinject0_{layer}").get_weights()
        expected = expected + inputs @ kernel[0, 0] + bias
    np.testing.assert_allclose(output_of(network, "reinject0_add"), expected, atol=1e-5)


@pytest.mark.parametrize("cut", ["features", "maps"])
def test_gradients_reach_the_first_stack_through_features_and_maps_each(
    kind: str, cut: str
) -> None:
    network = network_of(kind)
    # Nothing passes this way now.
    layer = network.get_layer(f"reinject0_{cut}")
    layer.set_weights([np.zeros_like(array) for array in layer.get_weights()])
    inside = [
        variable
        for layer in network.layers
        if layer.name.startswith("stack0_") and "Head" not in layer.name
        for variable in layer.trainable_variables
        if "kernel" in variable.path
    ]
    head = network.get_layer("stack0_SingleInstanceConfmapsHead").kernel
    with tf.GradientTape() as tape:
        last = tf.reduce_sum(tf.square(network(IMAGES, training=True)[-1] - 1))
    gradients = tape.gradient(last, [variable.value for variable in (head, *inside)])
    of_head, *of_inside = [np.abs(gradient).max() for gradient in gradients]
    assert (of_head > 0) == (cut == "features")
    assert min(of_inside) > 0


def test_chained_stacks_pass_features_alone() -> None:
    network = network_of("hourglass", reinject=False)
    assert sources_of(network, "stack1_enc0_pool") == ["stack0_dec0_skip_add"]
    with tf.GradientTape() as tape:
        last = tf.reduce_sum(network(IMAGES, training=True)[-1])
    head = network.get_layer("stack0_SingleInstanceConfmapsHead").kernel
    assert tape.gradient(last, head.value) is None


def test_the_last_stack_alone_still_has_the_heads_it_depends_on(kind: str) -> None:
    network = network_of(kind, "float32", False)
    heads = [layer.name for layer in network.layers if "Head" in layer.name]
    assert heads == ["stack0_SingleInstanceConfmapsHead", "SingleInstanceConfmapsHead"]
    assert [maps.shape for maps in network.outputs] == [(None, None, None, KEYPOINTS)]


def test_without_a_head_features_alone_go_on(kind: str) -> None:
    image = keras.Input((32, 48, 1))
    features = backbone_of(model_of(kind).backbone).make_backbone(image)
    assert [each.shape[1:] for each in features] == [(8, 12, 8)] * 2
    names = {layer.name for layer in keras.Model(image, features).layers}
    assert "reinject0_features" in names
    assert "reinject0_maps" not in names


def test_in_python_the_hourglass_takes_no_head() -> None:
    hourglass = Hourglass(
        down_blocks=1, up_blocks=1, stem_filters=4, filters=4, stacks=2, reinject=True
    )
    assert len(hourglass.make_backbone(keras.Input((32, 32, 1)))) == 2


# As every network


def test_images_of_any_size_give_the_same_in_a_compiled_graph(kind: str) -> None:
    network = network_of(kind, interp_method="bilinear")
    compiled = tf.function(any_size(network), input_signature=[tf.TensorSpec((None,) * 3 + (1,))])
    for found, expected in zip(compiled(tf.constant(IMAGES)), network(IMAGES), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("recompute", [False, True])
def test_the_training_pass_gives_the_maps_and_gradients_of_keras(
    kind: str, recompute: bool
) -> None:
    network = network_of(kind)
    results = []
    for forward in (lambda x: network(x, training=True), TrainingPass(network, recompute)):
        with tf.GradientTape() as tape:
            maps = forward(tf.constant(IMAGES))
            loss = tf.add_n([tf.reduce_sum(tf.square(one - 1)) for one in maps])
        gradients = tape.gradient(loss, [v.value for v in network.trainable_variables])
        results.append((maps, np.concatenate([np.ravel(gradient) for gradient in gradients])))
    (expected, wanted), (found, gradient) = results
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.linalg.norm(gradient - wanted) < 1e-4 * np.linalg.norm(wanted)


def test_a_stack_is_computed_again_with_what_it_passes_on(kind: str) -> None:
    network = network_of(kind, offsets=True, stacks=3)
    blocks = [block_of(layer.name) for layer in network.layers if layer.name != "input"]
    # Each is one piece, or what lies between is kept too.
    pieces = [block for at, block in enumerate(blocks) if block != blocks[at - 1]]
    assert len(pieces) == len(set(pieces))
    assert pieces.index("stack0") < pieces.index("stack1") < pieces.index("stack2")
    by_name = {layer.name: block_of(layer.name) for layer in network.layers}
    assert by_name["reinject0_outputs"] == by_name["reinject0_add"] == "stack0"
    assert by_name["reinject1_maps"] == by_name["stack1_OffsetRefinementHead"] == "stack1"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AssociativeEmbedding(filters=6),
            r"AssociativeEmbedding.filters must be a multiple of 4, got 6",
        ),
        (
            lambda: AssociativeEmbedding(filter_increase=-1),
            r"AssociativeEmbedding.filter_increase must be 0 or more, got -1",
        ),
        (lambda: ResidualHourglass(stem_stride=8), r"stem_stride must be 1, 2 or 4, got 8"),
        (lambda: ResidualHourglass(stacks=0), r"ResidualHourglass.stacks .* 1 or more, got 0"),
        (
            lambda: ResidualHourglass().make_backbone(keras.Input((100, 128, 1))),
            r"100 x 128, .* multiples of 64",
        ),
        (
            lambda: ResidualHourglass.from_config(
                BackboneConfig(type="residual_hourglass", output_stride=8, stacks=1)
            ),
            r"output_stride must equal stem_stride \(4\), got 8",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_value(
    make: Callable[[], object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        make()
