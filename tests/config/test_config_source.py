import os

import pytest

from hgtrain.config.load import load_config
from hgtrain.config.source import MAX_BYTES, ConfigSource
from hgtrain.errors import ConfigError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return the current folder, holding a.yaml with two keys."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("data:\n  train: a.h5\ntraining:\n  batch_size: 4\n")
    return tmp_path


def mistakes(*overrides):
    with pytest.raises(ConfigError) as caught:
        load_config("a.yaml", overrides)
    return str(caught.value)


def test_an_override_takes_the_place_of_the_files_value(folder):
    assert load_config("a.yaml", ["training.batch_size=16"]).training.batch_size == 16


def test_a_later_override_wins(folder):
    overrides = ["training.batch_size=16", "training={batch_size: 2}", "training.batch_size=3"]
    assert load_config("a.yaml", overrides).training.batch_size == 3


def test_an_override_replaces_a_whole_section(folder):
    config = load_config("a.yaml", ["training={epochs: 7}"])
    assert (config.training.batch_size, config.training.epochs) == (8, 7)


def test_an_override_replaces_a_list(folder):
    assert load_config("a.yaml", ["augmentation.scale=[1, 2]"]).augmentation.scale == (1.0, 2.0)


def test_an_override_creates_missing_sections(folder):
    assert load_config("a.yaml", ["model.backbone.stacks=1"]).model.backbone.stacks == 1


def test_an_override_without_a_value_is_null(folder):
    assert load_config("a.yaml", ["data.group_by=video", "data.group_by="]).data.group_by is None


def test_an_override_mends_a_mistake_of_the_file(folder):
    (folder / "a.yaml").write_text("data: {train: a.h5}\ntraining: 5\n")
    assert load_config("a.yaml", ["training.batch_size=3"]).training.batch_size == 3


@pytest.mark.parametrize(
    "override", ["training.batch_size", "=3", "training.=3", ".a=1", "", "a." * 20 + "b=1"]
)
def test_an_override_that_is_not_key_and_value_is_an_error(folder, override):
    assert (
        mistakes(override) == f"--set {override}: expected KEY=VALUE such as training.batch_size=4"
    )


def test_a_mistake_in_an_override_is_shown_as_it_was_given(folder):
    message = '--set training.batch_size=x: training.batch_size must be a whole number, got "x"'
    assert mistakes("training.batch_size=x") == message


def test_an_unknown_key_in_an_override_gets_a_suggestion(folder):
    message = (
        "--set training.batch_sise=2: unknown key training.batch_sise (did you mean "
        "training.batch_size?)"
    )
    assert mistakes("training.batch_sise=2") == message


def test_a_section_in_an_override_points_at_the_override(folder):
    message = "--set checkpoint={keep: 0}: checkpoint.keep must be at least 1, got 0"
    assert mistakes("checkpoint={keep: 0}") == message


def test_an_override_whose_value_is_not_yaml_is_an_error(folder):
    message = "--set data.train=[a: the value cannot be read: not YAML: "
    assert mistakes("data.train=[a").startswith(message)


def test_duplicate_keys_in_an_override_are_an_error(folder):
    override = "checkpoint={keep: 1, keep: 2}"
    assert (
        mistakes(override) == f"--set {override}: keep is given twice, first on line 1 (remove one)"
    )


def test_a_missing_file_is_an_error(folder):
    with pytest.raises(ConfigError, match=r"^none\.yaml: no such file, expected a config in YAML$"):
        load_config("none.yaml")


def test_a_folder_is_an_error(folder):
    with pytest.raises(ConfigError, match=r": is a folder, expected a config in YAML$"):
        load_config(folder)


def test_a_run_directory_is_an_error_that_names_its_config(folder):
    (folder / "config.yaml").touch()
    with pytest.raises(ConfigError, match=r"is a folder, .* \(its config is config.yaml inside\)$"):
        load_config(folder)


def test_a_file_in_place_of_a_folder_is_an_error(folder):
    with pytest.raises(ConfigError, match=r"^a\.yaml/b\.yaml: cannot be read: Not a directory$"):
        load_config("a.yaml/b.yaml")


def test_an_impossible_path_is_an_error():
    with pytest.raises(ConfigError, match=r"^a\\x00b: cannot be read: embedded null byte$"):
        load_config("a\0b")


def test_a_file_that_is_not_utf8_is_an_error_with_its_line(folder):
    (folder / "a.yaml").write_bytes(b"data:\n  train: \xe9.h5\n")
    assert mistakes() == "a.yaml:2: not UTF-8, got byte 0xe9 (save the file as UTF-8)"


def test_a_file_over_one_mebibyte_is_an_error(folder):
    (folder / "a.yaml").write_bytes(b"#" * (MAX_BYTES + 1))
    assert mistakes() == "a.yaml: larger than 1 MiB, expected a config in YAML"


@pytest.mark.parametrize(("text", "got"), [("[a]", '["a"]'), ("data", '"data"'), ("8", "8")])
def test_a_config_that_is_not_sections_is_an_error(folder, text, got):
    (folder / "a.yaml").write_text(text)
    assert mistakes() == f"a.yaml:1: a config must be sections such as data: and model:, got {got}"


def test_a_syntax_error_has_line_and_column(folder):
    (folder / "a.yaml").write_text("data:\n  train: a: b\n")
    assert mistakes() == "a.yaml:2:11: not YAML: mapping values are not allowed here"


def test_unprintable_characters_of_a_name_are_escaped(folder):
    name = "\x1b[31m.yaml"
    with pytest.raises(ConfigError, match=r"^\\x1b\[31m\.yaml: no such file"):
        load_config(name)


def test_the_origin_of_a_missing_key_is_that_of_the_section_around_it(folder):
    assert ConfigSource("a.yaml").origin(("training", "seed")).text == "a.yaml:3"


def test_the_origin_of_a_missing_section_is_the_file(folder):
    assert ConfigSource(os.fspath("a.yaml")).origin(("model", "head")).text == "a.yaml"


def test_a_dataset_given_as_the_config_is_named_with_the_command_that_writes_one(folder):
    (folder / "flies.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ConfigError) as caught:
        load_config("flies.h5")
    assert str(caught.value) == (
        "flies.h5: is a dataset, expected a config in YAML (`hgtrain init flies.h5 -o "
        "CONFIG.yaml` writes one for it)"
    )
