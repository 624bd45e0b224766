import json
from collections.abc import Callable
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from networks import whole_network
from sleap_models import BACKBONE, described, set_layers, write_model

from hgtrain.config.schema import BackboneConfig, ModelConfig
from hgtrain.errors import HgtrainError
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.model import Hourglass
from hgtrain.sleap_import.weights import load_sleap_weights


def network(stacks: int = 1, **changes: object) -> keras.Model:
    backbone = BackboneConfig(**{**BACKBONE, "stacks": stacks, **changes})
    return whole_network(ModelConfig(backbone=backbone), 1, 3, all_stacks=False)


@pytest.mark.parametrize("index", range(3))
def test_weights_trained_with_sleap_give_its_maps(conformance: Path, index: int) -> None:
    case = np.load(conformance / f"weights{index}.npz")
    args = json.loads(str(case["args"]))
    heads = args.pop("heads")
    image = keras.Input(case["input"].shape[1:], name="input")
    maps = Hourglass(**args).make_backbone(image)
    if heads:
        head = SingleInstance(heads, 4, 5.0)
        maps = [head.layers(x, s, args["stacks"])["confmaps"] for s, x in enumerate(maps)]
    model = keras.Model(image, maps)
    load_sleap_weights(model, conformance / f"weights{index}.h5")
    # Keras gives the tensor itself where there is one output.
    for stack, output in enumerate(keras.tree.flatten(model(case["input"]))):
        np.testing.assert_allclose(output, case[f"output{stack}"], atol=1e-4)


@pytest.fixture(scope="module")
def ours() -> keras.Model:
    return network()


@pytest.fixture
def weights(ours: keras.Model, tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", ours) / "best_model.h5"


def test_arrays_go_to_the_layers_of_their_names(weights: Path, ours: keras.Model) -> None:
    other = network()
    load_sleap_weights(other, weights)
    for layer, theirs in zip(other.layers, ours.layers, strict=True):
        for mine, variable in zip(layer.variables, theirs.variables, strict=True):
            np.testing.assert_array_equal(mine, variable)


CONV = "stack0_enc0_conv_conv"
KERNEL = f"model_weights/{CONV}/{CONV}/kernel:0"


def changed_layer(name: str, **changes: object) -> Callable[[h5py.File], None]:
    """Return what changes the description of a layer; `class_name`, or settings."""

    def change(file: h5py.File) -> None:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        layer = next(layer for layer in layers if layer["config"]["name"] == name)
        layer["class_name"] = changes.pop("class_name", layer["class_name"])
        layer["config"] |= changes
        set_layers(file, layers)

    return change


def added_layer(kind: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        # What Keras would run on loading: marshalled code that makes a file.
        code = {"name": "evil", "function": ["4wEAAAAAAAAA", None, None], "function_type": "lambda"}
        set_layers(file, [*layers, {"class_name": kind, "config": code}])

    return change


def dropped_layer(file: h5py.File) -> None:
    layers = json.loads(file.attrs["model_config"])["config"]["layers"]
    set_layers(file, [layer for layer in layers if layer["config"]["name"] != CONV])


def replaced(path: str, value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file[path]
        if value is not None:
            file[path] = value

    return change


def attribute(value: object) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file.attrs["model_config"]
        if value is not None:
            file.attrs["model_config"] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            replaced(KERNEL, np.zeros((3, 3, 4, 5), np.float32)),
            rf"layer {CONV}: .*kernel:0 has shape \(3, 3, 4, 5\)",
        ),
        (
            replaced(KERNEL, np.zeros((3, 3), np.float32)),
            rf"layer {CONV}: .*kernel:0 has shape \(3, 3\), expected",
        ),
        (
            replaced(KERNEL, np.zeros((3, 3, 4, 4), np.int32)),
            rf"layer {CONV}: .*kernel:0 is int32, expected",
        ),
        (
            replaced(KERNEL, np.full((3, 3, 4, 4), np.nan)),
            rf"layer {CONV}: .*kernel:0 holds values that are not finite",
        ),
        (replaced(KERNEL, None), rf"layer {CONV}: .* has no /{KERNEL}"),
        (
            replaced(f"model_weights/{CONV}", None),
            rf"layer {CONV}: .* has no /model_weights/{CONV}",
        ),
        (
            replaced(KERNEL, h5py.ExternalLink("/etc/hostname", "/a")),
            rf"layer {CONV}: .*kernel:0 is an external link to",
        ),
        (
            replaced(KERNEL, h5py.SoftLink("/model_weights")),
            rf"layer {CONV}: .*kernel:0 is a soft link to",
        ),
        (dropped_layer, rf"layer {CONV} is missing, the network"),
        (
            added_layer("Lambda"),
            r"layer evil \(Lambda\) is not part of the network that training_config.json describes",
        ),
        (added_layer("builtins.eval"), r"layer evil \(builtins.eval\) is not part of the network"),
        (
            changed_layer(CONV, class_name="Lambda"),
            rf"layer {CONV} is a Lambda, expected a Conv2D: nothing of it was run",
        ),
        (
            changed_layer(CONV, class_name="SeparableConv2D"),
            rf"layer {CONV} is a SeparableConv2D, expected a Conv2D",
        ),
        (
            changed_layer(CONV, activation="tanh"),
            rf"layer {CONV}: activation is tanh, expected relu",
        ),
        (
            changed_layer(CONV, strides=[2, 2]),
            rf"layer {CONV}: strides is \[2, 2\], expected \[1, 1\]",
        ),
        (
            changed_layer("stem0_conv7x7_bn", epsilon=0.1),
            r"layer stem0_conv7x7_bn: epsilon is 0.1, expected 0.001",
        ),
        (
            attribute(None),
            r"the attribute model_config, which describes the layers, cannot be read",
        ),
        (attribute("{"), r"the attribute model_config, which describes the layers, cannot be read"),
        (
            attribute(json.dumps({"config": {"layers": [{"class_name": 3}]}})),
            r"model_config, .* cannot be read",
        ),
        (
            attribute(np.arange(3)),
            r"the attribute model_config, .* cannot be read: a text of at most",
        ),
        (
            attribute(5),
            r"the attribute model_config, .* cannot be read: got int64, expected a text",
        ),
    ],
)
def test_a_foreign_file_that_does_not_fit_is_refused_by_layer(
    weights: Path, ours: keras.Model, change: Callable[[h5py.File], None], message: str
) -> None:
    with h5py.File(weights, "r+") as file:
        change(file)
    before = [variable.numpy() for variable in ours.variables]
    with pytest.raises(HgtrainError, match=message):
        load_sleap_weights(ours, weights)
    for variable, value in zip(ours.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_a_network_of_other_filters_is_refused(weights: Path) -> None:
    with pytest.raises(
        HgtrainError,
        match=r"layer stem0_conv3x3_out_conv: .* has shape \(3, 3, 8, 4\), expected \(3, 3, 8, 6\)",
    ):
        load_sleap_weights(network(filters=6), weights)


def test_the_description_leaves_out_what_sleap_does_outside_the_network(ours: keras.Model) -> None:
    assert "Rescaling" not in {layer["class_name"] for layer in described(ours)}
