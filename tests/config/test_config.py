import json
import os
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hgtrain.config.load import config_json_schema, dump_config, load_config
from hgtrain.config.schema import Config
from hgtrain.config.yaml import parse_yaml
from hgtrain.errors import ConfigError

DEFAULTS = {
    "data": {
        "validation": 0.1,
        "group_by": None,
        "split_seed": 0,
        "annotated_only": True,
        "complete": True,
        "input_scale": 1.0,
        "channels": None,
        "image_shape": None,
        "keypoints": None,
        "cache": "auto",
    },
    "augmentation": {
        "rotation_deg": (-180.0, 180.0),
        "scale": (0.9, 1.1),
        "translation_px": (-10.0, 10.0),
        "flip": "none",
        "brightness": (-0.1, 0.1),
        "contrast": (0.8, 1.2),
        "gamma": None,
        "noise_std": 0.0,
        "blur_sigma_px": None,
        "fill": "constant",
    },
    "model": {
        "backbone": {
            "type": "hourglass",
            "reinject": False,
            "stem_stride": 4,
            "max_stride": 64,
            "output_stride": 4,
            "stem_filters": 128,
            "filters": 256,
            "filter_increase": 128,
            "stacks": 3,
            "interp_method": "nearest",
        },
        "head": {
            "type": "single_instance",
            "sigma_px": 5.0,
            "loss_weight": 1.0,
            "offsets": False,
            "offsets_loss_weight": 1.0,
        },
    },
    "training": {
        "batch_size": 8,
        "accumulate_steps": 1,
        "recompute": False,
        "epochs": 100,
        "max_minutes": None,
        "steps_per_epoch": None,
        "optimizer": "adam",
        "learning_rate": 0.001,
        "schedule": "cosine",
        "warmup_steps": None,
        "min_learning_rate": 0.000001,
        "plateau_factor": 0.5,
        "plateau_patience_epochs": 5,
        "weight_decay": 0.0,
        "early_stopping_epochs": None,
        "hard_keypoint_mining": False,
        "ema": None,
        "initial_weights": None,
        "gradient_clip_norm": None,
        "precision": "float32",
        "xla": "auto",
        "device": "auto",
        "strategy": "auto",
        "synchronize_batch_norm": False,
        "seed": 0,
        "deterministic": False,
        "on_nonfinite": "stop",
    },
    "checkpoint": {"every_steps": None, "keep": 2},
    "output": {"run_dir": None, "tensorboard": True},
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function from a config's text, after a first line with data.train, to the config."""
    monkeypatch.chdir(tmp_path)

    def read(text="", *overrides, first="data: {train: a.h5}\n"):
        Path("a.yaml").write_text(first + text)
        return load_config("a.yaml", overrides)

    return read


def test_the_defaults_are_the_documented_ones(load, tmp_path):
    values = load().model_dump()
    assert values["data"].pop("train") == str(tmp_path / "a.h5")
    assert values == DEFAULTS


@pytest.mark.parametrize(
    "section", ["augmentation", "model", "training", "checkpoint", "output", "model: {head: }\n#"]
)
def test_an_empty_section_has_its_defaults(load, section):
    assert load(f"{section}:\n") == load()


def test_numbers_with_an_exponent_are_numbers(load):
    assert load("training: {learning_rate: 1e-4}").training.learning_rate == 0.0001


@pytest.mark.parametrize("word", ["on", "off", "auto"])
def test_xla_takes_words_that_older_yaml_reads_as_booleans(load, word):
    assert load(f"training: {{xla: {word}}}").training.xla == word


def test_xla_takes_the_same_words_as_an_override(load):
    assert load("", "training.xla=on").training.xla == "on"


def test_a_whole_number_is_taken_where_a_fraction_is_expected(load):
    sigma_px = load("model: {head: {sigma_px: 3}}").model.head.sigma_px
    assert (sigma_px, type(sigma_px)) == (3.0, float)


@pytest.mark.parametrize(
    "name", ["rotation_deg", "scale", "translation_px", "brightness", "contrast", "gamma"]
)
@pytest.mark.parametrize("off", ["null", "[0, 0]", "[0.0, -0.0]"])
def test_null_and_zeros_turn_a_range_off(load, name, off):
    assert getattr(load(f"augmentation: {{{name}: {off}}}").augmentation, name) is None


def test_a_range_of_whole_numbers_becomes_two_floats(load):
    gamma = load("augmentation: {gamma: [1, 2]}").augmentation.gamma
    assert [(value, type(value)) for value in gamma] == [(1.0, float), (2.0, float)]


def test_relative_paths_start_at_the_config_files_folder(tmp_path, monkeypatch):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs/a.yaml").write_text(
        "data: {train: [../a.h5, b.h5], validation: c.h5}\noutput: {run_dir: r}\n"
    )
    monkeypatch.chdir(tmp_path)
    config = load_config("configs/a.yaml")
    assert config.data.train == (f"{tmp_path}/a.h5", f"{tmp_path}/configs/b.h5")
    assert config.data.validation == f"{tmp_path}/configs/c.h5"
    assert config.output.run_dir == f"{tmp_path}/configs/r"


def test_relative_paths_of_overrides_start_there_too(load, tmp_path):
    assert load("", "output.run_dir=x/y").output.run_dir == f"{tmp_path}/x/y"


def test_absolute_paths_stay(load):
    assert load("", "data.train=/x/y.h5").data.train == "/x/y.h5"


def test_a_tilde_is_the_home_folder(load, monkeypatch):
    monkeypatch.setenv("HOME", "/home/fly")
    assert load("", "data.train=~/y.h5").data.train == "/home/fly/y.h5"


def test_a_tilde_of_nobody_is_a_name(load, tmp_path):
    assert load("", "data.train=~no.such.user/y.h5").data.train == f"{tmp_path}/~no.such.user/y.h5"


def test_a_builtin_dataset_is_no_path(load):
    assert load("", "data.train=builtin:flies").data.train == "builtin:flies"


def test_a_fraction_has_no_validation_files(load):
    data = load("", "data.validation=0.25").data
    assert (data.validation_fraction, data.validation_files) == (0.25, None)


def test_validation_files_have_no_fraction(load, tmp_path):
    data = load("", "data.validation=b.h5").data
    assert (data.validation_fraction, data.validation_files) == (None, (f"{tmp_path}/b.h5",))


def test_train_files_are_listed_whether_one_or_many(load):
    assert load("", "data.train=/a").data.train_files == ("/a",)
    assert load("", "data.train=[/a, /b]").data.train_files == ("/a", "/b")


def test_validation_files_may_be_many(load):
    assert load("", "data.validation=[/a, /b]").data.validation_files == ("/a", "/b")


@pytest.mark.parametrize("strategy", ["single", "mirrored", "multi_worker"])
def test_every_strategy_runs_on_the_cpu(load, strategy):
    assert load(f"training: {{device: cpu, strategy: {strategy}, deterministic: true, xla: off}}")


def test_a_single_stack_may_end_at_a_coarser_stride_than_its_stem(load):
    assert (
        load(
            "model: {backbone: {stem_stride: 1, output_stride: 8, stacks: 1}}"
        ).model.backbone.output_stride
        == 8
    )


@pytest.mark.parametrize(
    ("backbone", "left_out"),
    [
        ("hourglass", set()),
        ("associative_embedding", {"reinject", "stem_filters"}),
        ("residual_hourglass", {"reinject", "stem_filters", "filter_increase"}),
    ],
)
def test_a_dump_has_the_keys_of_its_backbone_alone_and_loads_again(load, backbone, left_out):
    config = load(f"model: {{backbone: {{type: {backbone}, stacks: 2}}}}")
    dumped = yaml.safe_load(dump_config(config))
    assert dumped["model"]["backbone"].keys() == DEFAULTS["model"]["backbone"].keys() - left_out
    assert load(dump_config(config), first="") == config


def test_a_key_is_where_the_file_has_it(load):
    assert load("training:\n  xla: on\n").where("training.xla") == "a.yaml:3"


def test_a_key_is_where_an_override_has_it(load):
    config = load("model: {backbone: {filters: 8}}", "model.backbone={stacks: 1}")
    assert config.where("model.backbone.stacks") == "--set model.backbone={stacks: 1}"


def test_a_replaced_key_is_no_longer_in_the_file(load):
    config = load("model: {backbone: {filters: 8}}", "model.backbone={stacks: 1}")
    assert config.where("model.backbone.filters") == "a.yaml"


def test_a_default_is_nowhere_but_in_the_file(load):
    assert load("training:\n  epochs: 1\n").where("training.seed") == "a.yaml"


def test_a_configs_name_is_its_files(load):
    assert load().name == "a"


def test_configs_with_the_same_values_are_equal_wherever_they_were_read(load):
    one, other = load("training: {seed: 1}"), load("\n\n", "training.seed=1")
    assert one == other
    assert hash(one) == hash(other)


def test_configs_with_other_values_differ(load):
    assert load("training: {seed: 1}") != load()


def test_a_config_cannot_be_changed(load):
    with pytest.raises(ValidationError, match="frozen"):
        load().training.seed = 3


def test_a_dump_has_every_key_in_the_order_of_the_documentation(load):
    values = yaml.safe_load(dump_config(load()))
    assert [*values] == ["data", "augmentation", "model", "training", "checkpoint", "output"]
    assert [*values["data"]] == ["train", *DEFAULTS["data"]]
    assert [*values["training"]] == [*DEFAULTS["training"]]


def test_a_dump_has_no_run_directory(load):
    assert "run_dir: null" in dump_config(load("", "output.run_dir=x"))


def test_a_dump_holds_its_words_in_older_yaml_too(load):
    assert yaml.safe_load(dump_config(load("", "training.xla=off")))["training"]["xla"] == "off"


FILE_NAMES = st.text(
    st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1
).map("/".__add__)


@given(
    train=FILE_NAMES | st.lists(FILE_NAMES, min_size=1, max_size=3, unique_by=os.path.normpath),
    learning_rate=st.floats(1e-6, 10),
    ema=st.none() | st.floats(1e-6, 0.999999),
    xla=st.sampled_from(["on", "off", "auto"]),
    stacks=st.integers(1, 8),
    shift_px=st.just(0.0) | st.floats(1e-4, 1e4),
)
def test_a_dump_loads_back_to_an_equal_config(
    tmp_path_factory, train, learning_rate, ema, xla, stacks, shift_px
):
    folder = tmp_path_factory.mktemp("round")
    training = {"learning_rate": learning_rate, "ema": ema, "xla": xla}
    values = {
        "data": {"train": train},
        "training": training,
        "model": {"backbone": {"stacks": stacks}},
        "augmentation": {"translation_px": [-shift_px, shift_px]},
    }
    (folder / "a.yaml").write_text(json.dumps(values))
    config = load_config(folder / "a.yaml")
    (folder / "b.yaml").write_text(dump_config(config), encoding="utf-8")
    again = load_config(folder / "b.yaml")
    assert again == config
    assert dump_config(again) == dump_config(config)


MUTATED = b"""data:
  train: [&a a.h5, "b\\x41.h5", *a]
  validation: 0.1
augmentation: {scale: [0.9, 1.1], gamma: null}
model:
  backbone: {max_stride: 64}
training:
  learning_rate: 1e-4
  xla: 'on'
"""
PIECES = [
    b"[",
    b"{",
    b"&a",
    b"*a",
    b"!!int ",
    b"<<: ",
    b"\n",
    b"\t",
    b'"',
    b"\\U",
    b"\\ud800",
    b"\xff",
    b"\0",
    b"9" * 30,
]


@given(
    edits=st.lists(
        st.tuples(
            st.integers(0, len(MUTATED)),
            st.integers(0, 4),
            st.sampled_from(PIECES) | st.binary(max_size=3),
        ),
        max_size=6,
    )
)
def test_no_bytes_give_anything_but_a_config_or_a_config_error(tmp_path_factory, edits):
    text = bytearray(MUTATED)
    for start, length, piece in edits:
        text[start : start + length] = piece
    path = tmp_path_factory.mktemp("mutated") / "a.yaml"
    path.write_bytes(text)
    try:
        assert isinstance(load_config(path), Config)
    except ConfigError as error:
        # Either is right.
        assert all(line.startswith(str(path)) for line in str(error).splitlines())  # noqa: PT017


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(config_json_schema())


def test_the_schema_takes_a_dumped_config(load):
    jsonschema.validate(parse_yaml(dump_config(load())).value, config_json_schema())


@pytest.mark.parametrize(
    "values",
    [
        {"data": {"train": "a.h5"}, "trainin": {}},
        {"data": {"train": "a.h5", "shuffle": True}},
        {"data": {}},
        {},
        {"data": {"train": []}},
        {"data": {"train": "a.h5", "validation": 1}},
        {"data": {"train": "a.h5"}, "training": {"xla": "yes"}},
        {"data": {"train": "a.h5"}, "training": {"batch_size": 0}},
        {"data": {"train": "a.h5"}, "augmentation": {"scale": [1]}},
        {"data": {"train": "a.h5"}, "augmentation": {"scale": [1, 1e30]}},
        {"data": {"train": "a.h5"}, "augmentation": {"rotation_deg": [-1e30, 0]}},
        {"data": {"train": "a.h5"}, "model": {"head": {"sigma_px": 1e30}}},
        {"data": {"train": "a.h5"}, "model": {"backbone": {"stem_stride": 8}}},
    ],
)
def test_the_schema_refuses_what_loading_refuses(values):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(values, config_json_schema())


def test_the_schema_describes_every_key():
    schema = config_json_schema()
    objects = [schema, *schema["$defs"].values()]
    assert [
        name
        for o in objects
        for name, field in o["properties"].items()
        if not field.get("description")
    ] == []


def test_configs_are_read_without_tensorflow():
    code = (
        "import sys, hgtrain.config.load as _; "
        "print(*(name in sys.modules for name in ('tensorflow', 'h5py', 'numpy')))"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert answer.stdout.split() == ["False", "False", "False"]
