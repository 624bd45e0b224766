"""A run that version 0.1.0 wrote: two epochs of three steps on twelve images of two dots."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import hgtrain
from hgtrain.cli import commands

WRITTEN = Path(__file__).parents[1] / "fixtures" / "run_0_1_0"

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def older_run(tmp_path):
    folder = shutil.copytree(WRITTEN, tmp_path / "older")
    for name in ("config.yaml", "split.json"):
        file = folder / "run" / name
        file.write_text(file.read_text().replace("DATA", str(folder / "dots.h5")))
    return folder / "run"


def test_it_opens_and_predicts_what_it_predicted(older_run):
    evaluation = json.loads((older_run / "evaluation.json").read_text())
    done = CliRunner().invoke(commands, ["evaluate", str(older_run), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["error_px"] == pytest.approx(evaluation["error_px"], abs=0.01)
    assert hgtrain.load_run(older_run).skeleton.keypoint_names == ("head", "tail")


def test_it_is_resumed_where_it_stood(older_run):
    before = (older_run / "metrics.jsonl").read_text().splitlines()
    arguments = ["fit", str(older_run / "config.yaml"), "--run-dir", str(older_run), "--resume"]
    done = CliRunner().invoke(commands, [*arguments, "--set", "training.epochs=4"])
    assert done.exit_code == 0, done.output
    after = (older_run / "metrics.jsonl").read_text().splitlines()
    assert after[:2] == before
    assert [json.loads(row)["step"] for row in after] == [3, 6, 9, 12]
    assert np.isfinite([json.loads(row)["val_error_px"] for row in after]).all()
    assert (
        json.loads((older_run / "provenance.json").read_text())["finished"] > "2026-11-25T08:31:08"
    )
