import json
from pathlib import Path
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pytest

from hgtrain.heads.single_instance import SingleInstance
from hgtrain.model import DownsamplingBlock, Hourglass, StemBlock, UpsamplingBlock, conv

SETS = range(7)


def backbone(args: dict, shape: list[int]) -> tuple[keras.Model, Hourglass]:
    hourglass = Hourglass(**args)
    image = keras.Input(shape, name="input")
    return keras.Model(image, hourglass.make_backbone(image)), hourglass


def layer_rows(model: keras.Model) -> list[tuple[str, str, list[int], int]]:
    return [
        (layer.name, type(layer).__name__, list(layer.output.shape[1:]), layer.count_params())
        for layer in model.layers
    ]


@pytest.mark.parametrize("index", SETS)
def test_layers_equal_the_reference_layer_by_layer(conformance: Path, index: int) -> None:
    expected = json.loads((conformance / "layers.json").read_text())[index]
    model, hourglass = backbone(expected["args"], expected["input_shape"])
    assert layer_rows(model) == [tuple(row) for row in expected["layers"]]
    assert model.count_params() == expected["params"]
    assert [list(output.shape[1:]) for output in model.outputs] == expected["outputs"]
    assert hourglass.maximum_stride == expected["maximum_stride"]
    assert hourglass.output_stride == expected["output_stride"]


def test_strides_give_the_blocks_of_the_reference(conformance: Path) -> None:
    rest = {
        "stem_filters": 4,
        "filters": 6,
        "filter_increase": 2,
        "stacks": 1,
        "interp_method": "nearest",
    }
    for case in json.loads((conformance / "from_config.json").read_text()):
        hourglass = Hourglass.from_config(SimpleNamespace(**case, **rest))
        assert (hourglass.down_blocks, hourglass.up_blocks) == (
            case["down_blocks"],
            case["up_blocks"],
        )


def load_by_layer_name(model: keras.Model, path: Path) -> None:
    order = {"kernel": 0, "bias": 1, "gamma": 0, "beta": 1, "moving_mean": 2, "moving_variance": 3}
    with h5py.File(path) as file:
        for layer in model.layers:
            if layer.weights:
                group = file[f"model_weights/{layer.name}/{layer.name}"]
                named = {key.split(":")[0]: group[key][()] for key in group}
                layer.set_weights([named[key] for key in sorted(named, key=order.__getitem__)])


@pytest.mark.parametrize("index", range(3))
def test_weights_trained_elsewhere_give_the_same_maps(conformance: Path, index: int) -> None:
    case = np.load(conformance / f"weights{index}.npz")
    args = json.loads(str(case["args"]))
    heads = args.pop("heads")
    model, _ = backbone(args, list(case["input"].shape[1:]))
    if heads:
        maps = [
            SingleInstance(heads, 4, 5.0).layers(x, s, args["stacks"])["confmaps"]
            for s, x in enumerate(model.outputs)
        ]
        model = keras.Model(model.inputs[0], maps)
    load_by_layer_name(model, conformance / f"weights{index}.h5")
    # Keras gives the tensor itself where there is one output.
    for stack, output in enumerate(keras.tree.flatten(model(case["input"]))):
        np.testing.assert_allclose(output, case[f"output{stack}"], atol=1e-4)


def names_after(make_block, **kwargs) -> list[str]:
    image = keras.Input((32, 32, 3), name="input")
    model = keras.Model(image, make_block(image, prefix="p", **kwargs))
    return [layer.name for layer in model.layers[1:]]


def shape_after(make_block, size: int = 32, **kwargs) -> tuple[int, ...]:
    return make_block(keras.Input((size, size, 3)), **kwargs).shape[1:]


def test_conv_names_its_layers_and_strides() -> None:
    assert names_after(lambda x, prefix: conv(x, 5, prefix=prefix)) == ["p_conv", "p_bn"]
    assert shape_after(lambda x: conv(x, 5, kernel_size=7, stride=2)) == (16, 16, 5)


@pytest.mark.parametrize(("stride", "first", "size"), [(1, 1, 32), (2, 1, 16), (4, 2, 8)])
def test_stem_divides_the_size_by_its_stride(stride: int, first: int, size: int) -> None:
    block = StemBlock(pooling_stride=stride, filters=4, output_filters=6)
    assert block.first_conv_stride == first
    assert shape_after(block.make_block) == (size, size, 6)


def test_stem_without_pool_keeps_the_size() -> None:
    block = StemBlock(pool=False, filters=4, output_filters=6)
    assert shape_after(block.make_block) == (32, 32, 6)
    assert "p_pool" not in names_after(block.make_block)


@pytest.mark.parametrize(
    ("pool", "stride", "size"), [(True, 2, 16), (True, 4, 8), (True, 1, 32), (False, 2, 32)]
)
def test_downsampling_honours_pool_and_stride(pool: bool, stride: int, size: int) -> None:
    block = DownsamplingBlock(pool=pool, pooling_stride=stride, filters=5)
    assert shape_after(block.make_block) == (size, size, 5)


@pytest.mark.parametrize("method", ["nearest", "bilinear"])
@pytest.mark.parametrize("stride", [2, 4])
def test_upsampling_honours_method_and_stride(method: str, stride: int) -> None:
    block = UpsamplingBlock(upsampling_stride=stride, filters=5, interp_method=method)
    skip = keras.Input((32 * stride, 32 * stride, 2))
    assert shape_after(block.make_block, skip_source=skip) == (32 * stride, 32 * stride, 5)
    assert names_after(block.make_block) == ["p_conv_conv", "p_conv_bn", f"p_{method}"]


def test_upsampling_refuses_a_skip_of_another_size() -> None:
    block = UpsamplingBlock(filters=5)
    with pytest.raises(
        ValueError,
        match=r"at stride 8: the skip connection is \(60, 60\), the upsampled input \(64",
    ):
        block.make_block(
            keras.Input((32, 32, 3)), current_stride=8, skip_source=keras.Input((60, 60, 2))
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: StemBlock(pooling_stride=8), r"StemBlock.pooling_stride must be 1, 2 or 4, got 8"),
        (
            lambda: StemBlock(filters=0),
            r"StemBlock.filters must be a whole number of 1 or more, got 0",
        ),
        (lambda: DownsamplingBlock(filters=-3), r"DownsamplingBlock.filters .* got -3"),
        (lambda: UpsamplingBlock(interp_method="cubic"), r"interp_method must be .* got 'cubic'"),
        (
            lambda: Hourglass(stacks=0),
            r"Hourglass.stacks must be a whole number of 1 or more, got 0",
        ),
        (lambda: Hourglass(up_blocks=5), r"up_blocks must be from 0 to down_blocks \(4\), got 5"),
        (
            lambda: Hourglass(up_blocks=3, stacks=2),
            r"must equal down_blocks \(4\) with 2 stacks, got 3",
        ),
        (lambda: Hourglass(filter_increase=-1), r"filter_increase must be 0 or more, got -1"),
        (
            lambda: Hourglass().make_backbone(keras.Input((100, 128, 1))),
            r"100 x 128, .* multiples of 64",
        ),
    ],
)
def test_what_cannot_be_built_is_refused_with_its_value(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("strides", "message"),
    [((4, 48, 4), "max_stride must be a power of two, got 48"), ((4, 64, 2), "got 4, 2, 64")],
)
def test_strides_that_do_not_fit_are_refused(strides: tuple[int, int, int], message: str) -> None:
    config = SimpleNamespace(
        stem_stride=strides[0], max_stride=strides[1], output_stride=strides[2], stem_filters=4,
        filters=6,
        filter_increase=2, stacks=1, interp_method="nearest",
    )  # fmt: skip
    with pytest.raises(ValueError, match=message):
        Hourglass.from_config(config)


def test_finest_skip_of_every_stack_is_the_stem() -> None:
    model, _ = backbone(
        {
            "down_blocks": 2,
            "up_blocks": 2,
            "stem_filters": 4,
            "filters": 6,
            "filter_increase": 2,
            "stacks": 3,
        },
        [64, 64, 1],
    )
    sources = [
        model.get_layer(f"stack{s}_dec1_skip_conv")
        ._inbound_nodes[0]
        .input_tensors[0]
        ._keras_history.operation.name
        for s in range(3)
    ]
    assert sources == ["stem0_conv3x3_out_bn"] * 3
