import json
import math
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from networks import spec_of, whole_network

from hgtrain.cli import commands
from hgtrain.config.schema import BackboneConfig, Config, DataConfig, ModelConfig, TrainingConfig
from hgtrain.data.animals import animal_px
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.open import open_dataset
from hgtrain.errors import ConfigError, DatasetError, HgtrainError, RunError
from hgtrain.planning.input_spec import describe
from hgtrain.planning.memory import MIB, Demand, Device, device_here, largest_batch, training_memory
from hgtrain.planning.receptive_field import LayerFacts
from hgtrain.planning.summary import input_size, summarize
from hgtrain.planning.summary_table import summary_text
from hgtrain.skeleton import Skeleton

CPU = Device("CPU", 8 * 2**30)
TINY = {"stem_filters": 4, "filters": 4, "filter_increase": 0}


def config_of(backbone: dict, **sections: dict) -> Config:
    data = DataConfig(train="none.h5", **sections.get("data", {}))
    training = TrainingConfig(**sections.get("training", {}))
    return Config(
        data=data, model=ModelConfig(backbone=BackboneConfig(**backbone)), training=training
    )


def backbone_of(args: dict) -> dict:
    stride = args["stem_stride"]
    maximum = stride * 2 ** args["down_blocks"]
    same = {
        key: args[key]
        for key in ("stem_filters", "filters", "filter_increase", "interp_method", "stacks")
    }
    return same | {
        "stem_stride": stride,
        "max_stride": maximum,
        "output_stride": maximum // 2 ** args["up_blocks"],
    }


def summary_of(
    backbone: dict, image_shape: tuple[int, int, int], keypoints: int = 2, **sections: dict
) -> dict:
    return summarize(spec_of(config_of(backbone, **sections), image_shape, keypoints), CPU)


@pytest.mark.parametrize("index", range(7))
def test_layers_are_the_references_and_a_head_for_each_stack(conformance: Path, index: int) -> None:
    case = json.loads((conformance / "layers.json").read_text())[index]
    summary = summary_of(backbone_of(case["args"]), tuple(case["input_shape"]), keypoints=5)
    rows = [
        [layer[key] for key in ("name", "type", "output_shape", "params")]
        for layer in summary["layers"]
    ]
    heads = [row for row in rows if row[0].endswith("Head")]
    assert [
        [name, kind, list(shape), params]
        for name, kind, shape, params in rows
        if "Head" not in name
    ] == case["layers"]
    *shape, channels = case["outputs"][-1]
    stacks = case["args"]["stacks"]
    names = [f"stack{stack}_SingleInstanceConfmapsHead" for stack in range(stacks - 1)]
    expected = (*shape, 5)
    assert heads == [
        [name, "Conv2D", expected, 5 * channels + 5]
        for name in [*names, "SingleInstanceConfmapsHead"]
    ]
    assert summary["params"] == case["params"] + stacks * (5 * channels + 5)
    assert summary["outputs"] == [expected] * stacks


@pytest.mark.parametrize(
    ("backbone", "image_shape", "keypoints", "macs"),
    [
        # stem 7x7x1x4 at 16x16, 3x3x4x8 at 16x16, 3x3x8x4 at 8x8; encoder 3x3x4x4 at 4x4; decoder
        # at 4x4, its skip at 8x8; head 4x2 at 8x8.
        (
            {**TINY, "max_stride": 8, "stacks": 1},
            (32, 32, 1),
            2,
            49 * 4 * 256 + 9 * 32 * 256 + 9 * 32 * 64 + 144 * 16 + 144 * 16 + 144 * 64 + 8 * 64,
        ),
        # The second stack has its own encoder, decoder, skip and head.
        (
            {**TINY, "max_stride": 8, "stacks": 2},
            (32, 32, 1),
            2,
            156672 + 144 * 16 + 144 * 16 + 144 * 64 + 8 * 64,
        ),
        # stem at stride 1 on 16x32, then 8x16; two levels down, one up.
        (
            {"stem_stride": 2, "max_stride": 8, "output_stride": 4, "stem_filters": 4}
            | {"filters": 6, "filter_increase": 2, "stacks": 1},
            (16, 32, 3),
            5,
            (49 * 3 * 4 + 9 * 4 * 8) * 512
            + 9 * 8 * 6 * 128
            + 9 * 36 * 32
            + 9 * 48 * 8
            + 9 * 64 * 8
            + 9 * 48 * 32
            + 40 * 32,
        ),
    ],
    ids=["one stack", "two stacks", "not square"],
)
def test_flops_are_two_for_each_weight_and_output_cell(
    backbone: dict, image_shape: tuple[int, int, int], keypoints: int, macs: int
) -> None:
    assert summary_of(backbone, image_shape, keypoints)["flops_per_image"] == 2 * macs


def test_the_receptive_field_of_the_default_strides_is_561_1101_1641_px() -> None:
    assert summary_of({**TINY, "stacks": 3}, (64, 64, 1))["receptive_field_px"] == [561, 1101, 1641]


def test_bilinear_upsampling_sees_one_cell_more_at_each_level() -> None:
    # Two levels up, from stride 16 and from 8.
    nearest, bilinear = (
        summary_of({**TINY, "max_stride": 16, "stacks": 1, "interp_method": method}, (32, 32, 1))[
            "receptive_field_px"
        ]
        for method in ("nearest", "bilinear")
    )
    assert (nearest, bilinear) == ([129], [129 + 16 + 8])


def moved_pixels(max_stride: int, stacks: int, size: int) -> list[int]:
    """Return the side of the square of input pixels that move the centre of each stack's maps."""
    backbone = BackboneConfig(
        stem_filters=2, filters=2, filter_increase=0, max_stride=max_stride, stacks=stacks
    )
    network = whole_network(ModelConfig(backbone=backbone), 1, 1)
    for variable in network.trainable_variables:
        if variable.path.endswith("kernel"):
            variable.assign(np.full(variable.shape, 1 / math.prod(variable.shape[:3])))
    # A maximum hands its gradient to one cell alone: over some noisy images each has its turn.
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (12, size, size, 1)), tf.float32)
    sides = []
    for stack in range(stacks):
        with tf.GradientTape() as tape:
            tape.watch(images)
            maps = tf.nest.flatten(network(images))[stack]
            centre = tf.reduce_sum(maps[:, size // 8, size // 8])
        rows = np.flatnonzero(tf.reduce_any(tape.gradient(centre, images) != 0, axis=(0, 2, 3)))
        sides.append(int(rows[-1] - rows[0] + 1))
    return sides


@pytest.mark.parametrize(("max_stride", "size", "side"), [(8, 96, 57), (16, 192, 129)])
def test_the_pixels_that_move_the_centre_are_the_receptive_field(
    max_stride: int, size: int, side: int
) -> None:
    assert moved_pixels(max_stride, 1, size) == [side]
    assert summary_of({**TINY, "max_stride": max_stride, "stacks": 1}, (64, 64, 1))[
        "receptive_field_px"
    ] == [side]


def test_a_further_stack_sees_at_most_a_stride_less_than_the_recurrence_says() -> None:
    first, second = moved_pixels(8, 2, 160)
    # 57 + 4 (pooling) + 16 (down) + 16 (up); the pooling takes two cells that the upsampling made
    # of one.
    said = summary_of({**TINY, "max_stride": 8, "stacks": 2}, (64, 64, 1))["receptive_field_px"]
    assert said == [57, 93]
    assert first == 57
    assert said[1] - 8 <= second <= said[1]


# Memory


def facts(**changes: object) -> LayerFacts:
    return LayerFacts("a", "Conv2D", (8, 8, 4), 100, 100, 3, 1)._replace(**changes)


def test_memory_is_counted_by_purpose() -> None:
    layers = [
        facts(),
        facts(name="b", type="BatchNormalization", params=16),
        facts(name="c", type="Add", params=0),
    ]
    memory = training_memory(Demand(layers, "float32", "adam", ema=False), 2)
    assert memory["parameters"] == 2 * 4 * 116
    assert memory["gradients"] == 4 * 116
    assert memory["optimizer"] == 2 * 4 * 116
    assert memory["activations"] == 2 * 2 * 256 * 4
    assert memory["workspace"] == int(1.4 * 4 * 2 * 256 + 32 * MIB + 3 * 0.95 * MIB)
    assert memory["total"] == sum(value for key, value in memory.items() if key != "total")


def test_a_moving_average_is_another_network_and_sgd_keeps_one_value_a_weight() -> None:
    memory = training_memory(Demand([facts()], "float32", "sgd", ema=True), 1)
    assert (memory["parameters"], memory["optimizer"]) == (3 * 400, 400)
    assert memory["workspace"] == int(1.4 * 4 * 256 + 32 * MIB + 2 * 0.95 * MIB)


def test_summing_gradients_over_passes_keeps_some_more_of_them() -> None:
    plain = Demand([facts()], "float32", "adam", ema=False)
    extra = (
        training_memory(plain._replace(accumulates=True), 1)["total"]
        - training_memory(plain, 1)["total"]
    )
    assert extra == 3 * 400


def test_computed_again_there_is_one_block_and_what_those_before_it_pass_on() -> None:
    layers = [
        facts(name="a"),
        facts(name="b", type="BatchNormalization", output_shape=(8, 8, 1)),
        facts(name="c", output_shape=(8, 8, 2)),
        facts(name="d"),
        facts(name="e", output_shape=(8, 8, 1)),
    ]
    memory = training_memory(
        Demand(layers, "float32", "adam", ema=False, blocks=["1", "1", "2", "2", "3"]), 3
    )
    # The second block is the largest, with the output of the first.
    assert memory["activations"] == 3 * 4 * 64 * (1 + 2 + 4)
    assert memory["workspace"] == int(3 * 1.4 * 4 * 256 + 32 * MIB + 5 * 0.95 * MIB)


def test_the_largest_batch_is_the_last_that_fits() -> None:
    demand = Demand([facts(output_shape=(256, 256, 4))], "float32", "adam", ema=False)
    batch = largest_batch(demand, 2**30)
    assert (
        training_memory(demand, batch)["total"]
        <= 0.9 * 2**30
        < training_memory(demand, batch + 1)["total"]
    )


def test_no_batch_fits_where_the_network_does_not() -> None:
    assert largest_batch(Demand([facts(params=10**9)], "float32", "adam", ema=False), 2**30) == 0


def test_the_device_is_the_first_gpu_of_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'NVIDIA H200, 143771'\necho 'NVIDIA T4, 15360'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert device_here() == Device("NVIDIA H200", 143771 * MIB)
    assert device_here("cpu").name == "CPU"


def test_a_gpu_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert device_here().name == "CPU"
    with pytest.raises(RunError, match=r"training.device is gpu, but nvidia-smi shows none"):
        device_here("gpu")


# What it is for


def test_the_input_is_resized_then_padded() -> None:
    config = config_of({**TINY, "max_stride": 32}, data={"input_scale": 0.5, "channels": 3})
    # 50 and 75 px, up to multiples of 32.
    assert input_size(spec_of(config, (100, 150, 1), 2)) == (64, 96, 3)


@pytest.fixture
def dataset_file(tmp_path: Path) -> Path:
    points = np.array([[[2, 4], [12, 4]], [[5, 5], [5, 25]]], np.float32)
    frames = [(np.zeros((32, 32, 1), np.uint8), at, None, None) for at in points]
    write_dataset(tmp_path / "a.h5", Skeleton(("head", "tail")), frames)
    return tmp_path / "a.h5"


def test_animals_are_as_long_as_their_longer_side(dataset_file: Path) -> None:
    dataset = open_dataset(dataset_file)
    # 10 px and 20 px: 95 in 100 are at most 19.5 px.
    assert animal_px(dataset) == pytest.approx(19.5)
    dataset.close()


def write_config(folder: Path, text: str = "") -> Path:
    path = folder / "a.yaml"
    path.write_text(f"data:\n  train: a.h5\n{text}")
    return path


def test_a_config_is_described_by_its_dataset(dataset_file: Path) -> None:
    spec = describe(write_config(dataset_file.parent))
    assert (spec.image_shape, spec.keypoints) == ((32, 32, 1), 2)
    assert spec.animal_px == pytest.approx(19.5)


def test_a_config_without_its_dataset_is_described_by_its_keys(tmp_path: Path) -> None:
    spec = describe(write_config(tmp_path, "  image_shape: [48, 64, 3]\n  keypoints: 7\n"))
    assert (spec.image_shape, spec.keypoints) == ((48, 64, 3), 7)
    assert spec.animal_px is None


def test_a_config_with_neither_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"a.yaml:2: data.train: there is no file .*a.h5; without it data.image_shape",
    ):
        describe(write_config(tmp_path, "  keypoints: 7\n"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("  keypoints: 7\n", r"a.yaml:3: data.keypoints is 7, but .*a.h5 has 2: set it to null"),
        (
            "  image_shape: [8, 8, 1]\n",
            r"a.yaml:3: data.image_shape is \(8, 8, 1\), but .*a.h5 has \(32, 32, 1\)",
        ),
    ],
)
def test_keys_that_the_dataset_contradicts_are_refused(
    dataset_file: Path, text: str, message: str
) -> None:
    with pytest.raises(DatasetError, match=message):
        describe(write_config(dataset_file.parent, text))


def test_keys_that_agree_with_the_dataset_pass(dataset_file: Path) -> None:
    text = "  keypoints: 2\n  image_shape: [32, 32, 1]\n"
    assert describe(write_config(dataset_file.parent, text)).keypoints == 2


def test_a_folder_without_a_config_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no run directory: it has no config.yaml"):
        describe(tmp_path)


def test_a_run_is_described_by_itself_when_its_dataset_is_gone(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: {train: gone.h5}\n")
    split = {"image_shape": [24, 32, 1], "keypoint_names": ["a", "b", "c"]}
    split |= {"edges": [[0, 1]], "symmetries": []}
    (tmp_path / "split.json").write_text(json.dumps(split))
    spec = describe(tmp_path)
    assert (spec.image_shape, spec.animal_px) == ((24, 32, 1), None)
    assert spec.skeleton == Skeleton(("a", "b", "c"), ((0, 1),))


# The table


def test_the_table_groups_layers_and_says_when_the_field_is_too_small() -> None:
    config = config_of({**TINY, "max_stride": 8, "stacks": 2})
    text = summary_text(summarize(spec_of(config, (64, 64, 1), 2, 120.0), CPU))
    lines = [line.split() for line in text.splitlines()]
    assert [line[0] for line in lines if len(line) == 1] == ["stem:", "stack0:", "stack1:", "head:"]
    assert [
        "stack1_enc0_conv_conv",
        "Conv2D",
        "8",
        "x",
        "8",
        "x",
        "4",
        "148",
        "77",
        "9.22",
        "k",
    ] in lines
    assert (
        "120 px long, 95% are at most that: larger than the receptive field: raise "
        "model.backbone.max_stride" in text
    )


def test_summarize_prints_one_json_document(tmp_path: Path) -> None:
    text = "  image_shape: [32, 32, 1]\n  keypoints: 2\n"
    text += "model:\n  backbone: {stem_filters: 4, filters: 4, filter_increase: 0}\n"
    arguments = [
        "summarize",
        str(write_config(tmp_path, text)),
        "--json",
        "--set",
        "model.backbone.max_stride=8",
    ]
    done = CliRunner().invoke(commands, [*arguments, "--set", "model.backbone.stacks=1"])
    document = json.loads(done.stdout)
    assert document["flops_per_image"] == 313344
    assert {
        "params",
        "trainable_params",
        "layers",
        "outputs",
        "max_stride",
        "output_stride",
        "memory",
    } <= set(document)


def test_a_mistake_is_told_before_a_network_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras, "Model", None)
    with pytest.raises(HgtrainError, match=r"there is no file"):
        commands.main(["summarize", str(write_config(tmp_path))], standalone_mode=False)
