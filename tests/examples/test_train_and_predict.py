"""The example in examples/ runs as it is, on drawn flies, with a network as small as can be."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from videos import write_video

import hgtrain

ROOT = Path(hgtrain.__file__).parents[1]
CONFIG = """\
data: {train: builtin:flies}
model:
  backbone: {stem_filters: 4, filters: 4, filter_increase: 0, stacks: 1, max_stride: 16}
training: {batch_size: 2, epochs: 1, steps_per_epoch: 2, device: cpu}
output: {tensorboard: false}
"""


@pytest.mark.slow
def test_the_example_trains_evaluates_predicts_a_film_and_exports(tmp_path, monkeypatch):
    monkeypatch.setenv("HGTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    write_video(tmp_path / "film.mp4", 7, size=(64, 48))
    script = ROOT / "examples" / "train_and_predict.py"
    done = subprocess.run(
        [sys.executable, script, "tiny.yaml", "film.mp4"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    (run,) = (tmp_path / "runs").iterdir()
    told = done.stdout.splitlines()
    assert told[0].startswith(f"runs/{run.name}: mean error ")
    assert told[1].startswith("film.mp4: 7 frames, mean confidence 0.")
    assert told[2] == f"for programs without hgtrain: runs/{run.name}/export"
    assert (run / "export" / "saved_model.pb").is_file()
    film = np.load(tmp_path / "film.npz")
    names = hgtrain.open_dataset("builtin:flies").keypoint_names
    assert film["keypoints"].shape == (7, len(names), 2)
    assert film["confidence"].shape == (7, len(names))
    assert np.isfinite(film["keypoints"]).all()
