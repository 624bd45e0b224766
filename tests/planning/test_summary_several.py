"""What `summarize` says of heads for several animals, and what it needs to know for it."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from crowds import EDGES, NAMES, SKELETON, write_crowd

from hgtrain.cli import commands
from hgtrain.config.schema import DataConfig, ModelConfig, TrainingConfig
from hgtrain.errors import ConfigError
from hgtrain.planning.input_spec import InputSpec, describe
from hgtrain.planning.summary import input_size
from hgtrain.planning.summary_table import summary_text
from hgtrain.skeleton import Skeleton

TINY = "{stem_filters: 4, filters: 4, filter_increase: 0, max_stride: 32, stacks: 2}"
CROPS = "type: centered_instance, anchor: body"
WITHOUT_FILES = "train: gone.h5, image_shape: [200, 200, 1], keypoints: 5"


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    return write_crowd(tmp_path / "crowd.h5")


def write_config(folder: Path, head: str, data: str = "train: crowd.h5") -> Path:
    path = folder / "a.yaml"
    path.write_text(f"data: {{{data}}}\nmodel:\n  backbone: {TINY}\n  head: {{{head}}}\n")
    return path


def write_run(folder: Path, head: str, edges: tuple[tuple[int, int], ...] = EDGES) -> Path:
    run = folder / "run"
    run.mkdir()
    write_config(folder, head, "train: ../gone.h5").rename(run / "config.yaml")
    split = {
        "keypoint_names": NAMES,
        "edges": edges,
        "symmetries": [],
        "image_shape": [200, 200, 1],
    }
    (run / "split.json").write_text(json.dumps(split))
    return run


def summarized(path: Path, *options: str) -> dict:
    done = CliRunner().invoke(commands, ["summarize", str(path), "--json", *options])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.mark.usefixtures("crowd")
def test_outputs_have_names_and_the_head_has_its_numbers(tmp_path: Path) -> None:
    summary = summarized(write_config(tmp_path, "type: multi_instance, offsets: true"))
    # 200 px are padded to 224 px, 56 cells of 4 px; 5 keypoints, 4 edges.
    named = {"confmaps": [56, 56, 5], "pafs": [56, 56, 8], "offsets": [56, 56, 10]}
    assert summary["outputs_by_name"] == named
    assert sorted(summary["outputs"]) == sorted([*named.values()] * 2)
    assert [len(summary[key]) for key in ("outputs", "receptive_field_px")] == [6, 2]
    assert (summary["head"]["type"], summary["head"]["max_instances"]) == ("multi_instance", 4)
    assert summary["animal_px"] == 120
    lines = [" ".join(line.split()) for line in summary_text(summary).splitlines()]
    assert "head multi_instance, at most 4 animals in an image" in lines
    assert any(line.startswith("outputs ") and "2 of 56 x 56 x 8 (pafs)" in line for line in lines)


@pytest.mark.usefixtures("crowd")
def test_one_animal_has_one_output_as_ever(tmp_path: Path) -> None:
    summary = summarized(write_config(tmp_path, "type: single_instance"))
    assert summary["outputs"] == [[56, 56, 5]] * 2
    assert summary["outputs_by_name"] == {"confmaps": [56, 56, 5]}
    assert summary["head"]["type"] == "single_instance"


def test_the_head_is_that_of_the_frames_to_train_on(crowd: Path) -> None:
    head = "type: multi_instance"
    by_fraction, by_files = (
        describe(write_config(crowd.parent, head, f"train: crowd.h5, validation: {validation}"))
        for validation in ("0.5", "gone.h5")
    )
    assert by_fraction.model.head.max_instances == by_files.model.head.max_instances == 4


def test_the_network_of_crops_sees_a_crop(crowd: Path) -> None:
    spec = describe(write_config(crowd.parent, CROPS))
    # 2 * 80 px and 1 px, up to a multiple of 32.
    assert spec.model.head.crop_size_px == 192
    assert input_size(spec) == (192, 192, 1)
    coloured = spec._replace(data=DataConfig(train="a.h5", channels=3))
    assert input_size(coloured) == (192, 192, 3)
    summary = summarized(crowd.parent / "a.yaml")
    assert summary["outputs_by_name"] == {"confmaps": [48, 48, 5]}
    assert (summary["input_shape"], summary["head"]["crop_size_px"]) == ([192, 192, 1], 192)


def test_the_network_of_centroids_has_one_map(crowd: Path) -> None:
    summary = summarized(write_config(crowd.parent, "type: centroid, anchor: nose"))
    assert summary["outputs_by_name"] == {"confmaps": [56, 56, 1]}
    assert (summary["head"]["max_instances"], summary["head"]["anchor"]) == (4, "nose")


def test_crops_are_in_px_of_the_network_s_input(crowd: Path) -> None:
    spec = describe(write_config(crowd.parent, CROPS), ["data.input_scale=0.5"])
    # 2 * 40 px and 1 px.
    assert input_size(spec) == (96, 96, 1)


def test_a_crop_that_was_set_is_kept(crowd: Path) -> None:
    spec = describe(write_config(crowd.parent, f"{CROPS}, crop_size_px: 224"))
    assert input_size(spec) == (224, 224, 1)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("type: centroid, anchor: nos", r"a.yaml:4: model.head.anchor must be .*nearest: nose"),
        (f"{CROPS}, crop_size_px: 100", r"a.yaml:4: model.head.crop_size_px must be a multiple"),
        (f"{CROPS}, crop_size_px: 128", r"a.yaml:4: .* crops of 128 px cut off"),
    ],
)
def test_a_head_that_does_not_fit_the_labels_is_refused_with_its_line(
    crowd: Path, head: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        describe(write_config(crowd.parent, head))


# Without the dataset


def test_edges_are_not_known_without_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"a.yaml:4: model.head.type: multi_instance has an output for each of the skeleton's "
        r"edges, which only the dataset says, and there is no file \S*gone.h5",
    ):
        describe(write_config(tmp_path, "type: multi_instance", WITHOUT_FILES))


def test_a_crop_must_be_set_without_the_dataset(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError,
        match=r"a.yaml: model.head.crop_size_px must be set, to a multiple of "
        r"model.backbone.max_stride 32: .* cannot be read: \S*gone.h5",
    ):
        describe(write_config(tmp_path, CROPS, WITHOUT_FILES))
    with pytest.raises(ConfigError, match=r"a.yaml:4: .* must be a multiple of .*nearest: 96, 128"):
        describe(write_config(tmp_path, f"{CROPS}, crop_size_px: 100", WITHOUT_FILES))


def test_what_is_set_describes_a_network_without_the_dataset(tmp_path: Path) -> None:
    spec = describe(write_config(tmp_path, f"{CROPS}, crop_size_px: 96", WITHOUT_FILES))
    assert input_size(spec) == (96, 96, 1)
    # None of `keypoint0` to `keypoint4` is the body, and the network is the same.
    assert spec.model.head.anchor is None
    assert summarized(tmp_path / "a.yaml")["outputs_by_name"] == {"confmaps": [24, 24, 5]}


def test_a_run_knows_its_edges(tmp_path: Path) -> None:
    run = write_run(tmp_path, "type: multi_instance, max_instances: 3")
    summary = summarized(run)
    assert summary["outputs_by_name"] == {"confmaps": [56, 56, 5], "pafs": [56, 56, 8]}
    assert summary["head"]["max_instances"] == 3


def test_a_run_s_head_can_be_overridden_by_one_that_fits_alone(tmp_path: Path) -> None:
    run = write_run(tmp_path, "type: single_instance", edges=())
    with pytest.raises(ConfigError, match=r"tells animals apart along the skeleton's edges, and"):
        describe(run, ["model.head.type=multi_instance"])
    with pytest.raises(ConfigError, match=r"model.head.anchor must be a keypoint of .*run"):
        describe(run, ["model.head.type=centroid", "model.head.anchor=nos"])
    with pytest.raises(ConfigError, match=r"model.head.crop_size_px must be set"):
        describe(run, ["model.head.type=centered_instance"])


def test_a_run_s_crop_is_taken_from_its_labels_where_they_are_there(crowd: Path) -> None:
    run = write_run(crowd.parent, CROPS)
    spec = describe(run, ["data.train=../crowd.h5"])
    assert input_size(spec) == (192, 192, 1)


def test_the_size_of_images_is_that_of_heads_without_crops() -> None:
    sections = DataConfig(train="a.h5"), ModelConfig(), TrainingConfig()
    spec = InputSpec(*sections, (200, 130, 3), Skeleton(SKELETON.keypoint_names))
    assert input_size(spec) == (256, 192, 3)
