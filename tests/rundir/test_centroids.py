"""Runs that are joined by --centroids, and those that do not fit together."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import yaml
from tiny_run import NAMES

from hgtrain.config.load import load_config
from hgtrain.errors import DatasetError, RunError
from hgtrain.heads import make_head
from hgtrain.model.network import build_network
from hgtrain.rundir.load import check_finds_animals, load_run
from hgtrain.skeleton import Skeleton

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

BACKBONE = {"stem_filters": 4, "filters": 4, "filter_increase": 2, "max_stride": 8, "stacks": 1}
CENTROID = {"type": "centroid", "max_instances": 3}
CENTERED = {"type": "centered_instance", "crop_size_px": 16}


def write_run(folder: Path, head: dict[str, Any], names: tuple[str, ...] = tuple(NAMES)) -> Path:
    """Write what load_run needs of a run with a network that has not been trained."""
    folder.mkdir()
    document = {"data": {"train": "a.h5"}, "model": {"backbone": BACKBONE, "head": head}}
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    split = {"keypoint_names": names, "edges": [], "symmetries": [], "image_shape": [32, 32, 1]}
    (folder / "split.json").write_text(json.dumps(split))
    model = load_config(folder / "config.yaml").model
    keras.utils.set_random_seed(0)
    head_object = make_head(model.head, Skeleton(names), model.backbone.output_stride)
    build_network(model.backbone, head_object.layers, 1, all_stacks=False).save(
        folder / "best.keras"
    )
    return folder


@pytest.fixture
def centered(tmp_path: Path) -> Path:
    return write_run(tmp_path / "centered", CENTERED)


def test_two_runs_predict_several_animals(centered: Path, tmp_path: Path) -> None:
    finder = write_run(tmp_path / "finder", CENTROID | {"peak_threshold": 0.000001})
    run = load_run(centered, centroids=finder)
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 33, 1), np.uint8)
    keypoints, confidence = run.predict(images)
    assert keypoints.shape == (2, 3, len(NAMES), 2)
    assert confidence.shape == (2, 3, len(NAMES))
    assert np.isfinite(keypoints).any()
    places, _ = load_run(finder).predict(images)
    assert places.shape == (2, 3, 1, 2)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (
            {"type": "multi_instance"},
            "must be a run that finds centroids, and .* multi_instance head",
        ),
        (CENTERED, "must be a run that finds centroids, and .* centered_instance head"),
        (
            CENTROID | {"anchor": NAMES[1]},
            f"finds animals at {NAMES[1]} .* the middle of their points",
        ),
    ],
)
def test_a_run_that_does_not_find_what_the_other_crops_is_refused(
    centered: Path, tmp_path: Path, head: dict[str, Any], message: str
) -> None:
    other = write_run(tmp_path / "other", head)
    with pytest.raises(RunError, match=message):
        load_run(centered, centroids=other)


def test_a_run_of_other_keypoints_is_refused(centered: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", CENTROID, ("a", "b"))
    with pytest.raises(DatasetError, match="has 2 keypoints"):
        load_run(centered, centroids=other)


def test_a_run_that_sees_whole_images_takes_no_other(tmp_path: Path) -> None:
    finder = write_run(tmp_path / "finder", CENTROID)
    with pytest.raises(RunError, match=r"belongs to a run that sees crops .* centroid head: leave"):
        load_run(finder, centroids=finder)


def test_what_is_no_run_finds_nothing(centered: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is no run directory"):
        load_run(centered, centroids=tmp_path)


def test_a_run_that_sees_crops_names_what_is_missing(centered: Path) -> None:
    with pytest.raises(RunError, match=r"name the run that finds these with --centroids RUN"):
        check_finds_animals(centered, None)
