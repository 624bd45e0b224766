"""What commands say before TensorFlow is there: mistakes at once, and that it is being loaded."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import h5py
import numpy as np
import pytest
from sleap_models import training_config

from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.skeleton import Skeleton

FIXTURE = Path(__file__).parents[1] / "fixtures" / "run_0_1_0"
"""A finished run of version 0.1.0, and its dataset of keypoints head and tail."""
CHECKOUT = Path(__file__).parents[2]

RUN_ALL = """
import contextlib, io, json, sys, traceback

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "keras"):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, NoTensorFlow())
sys.modules["tf2onnx"] = None
from hgtrain.cli import main

for line in json.loads(sys.argv[1]):
    sys.argv = ["hgtrain", *line]
    out, err, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code
        except BaseException:
            status = traceback.format_exc()
    print(json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""

REFUSED = [
    ("evaluate nowhere", "nowhere is no run directory: it has no config.yaml"),
    ("evaluate unfinished", "unfinished/best.keras is missing"),
    ("evaluate damaged", "damaged/best.keras cannot be opened, the file is damaged"),
    ("evaluate run nowhere.h5", "nowhere.h5"),
    ("evaluate run other.h5", "other.h5"),
    ("evaluate run --centroids run", "--centroids belongs to a run that sees crops"),
    ("predict nowhere dots.h5 -o a.csv", "nowhere is neither a run directory"),
    ("predict unfinished dots.h5 -o a.csv", "unfinished/best.keras is missing"),
    ("predict run nowhere.mp4 -o a.csv", "nowhere.mp4: cannot be read"),
    ("predict run text.mp4 -o a.csv", "text.mp4"),
    ("predict run dots.h5 -o none/a.csv", "none/a.csv cannot be written: there is no such folder"),
    ("predict run dots.h5 -o a.txt", "a.txt"),
    ("predict run dots.h5 -o dots.h5", "dots.h5 is an input"),
    ("predict run dots.h5 -o a.csv --overlay a.xyz", "a.xyz cannot be written as a video"),
    ("predict run dots.h5 -o a.csv --centroids run", "--centroids belongs to a run that sees"),
    ("predict export dots.h5 -o a.csv", "dots.h5 has images of 1 channels but the export export"),
    ("predict export dots.h5 -o a.csv --decode local", "--decode local needs a run"),
    ("export nowhere -o model", "nowhere is no run directory"),
    ("export unfinished -o model", "unfinished/best.keras is missing"),
    ("export run -o run", "run is there already: choose another folder"),
    ("export run -o dots.h5/model", "dots.h5/model cannot be written: "),
    ("export run -o model --data nowhere.h5", "nowhere.h5"),
    ("export run -o model --data other.h5", "other.h5"),
    ("export run -o model --format onnx", "--format onnx needs tf2onnx: pip install"),
    ("report nowhere", "nowhere is no run directory"),
    ("report run unfinished", "unfinished/best.keras is missing"),
    ("report run run -o none/a.html", "none/a.html cannot be written: there is no such folder"),
    ("summarize nowhere", "nowhere"),
    ("summarize bad.yaml", "bad.yaml:1: unknown key dat (did you mean data?)"),
    ("import-sleap nowhere -o new", "nowhere is no SLEAP model: it has no training_config.json"),
    ("import-sleap sleap -o run", "run is there already: choose another folder"),
    ("import-sleap sleap -o new --data nowhere.h5", "nowhere.h5: there is no such file"),
    ("import-sleap sleap -o new --data other.h5", "other.h5"),
    ("init nowhere.h5 -o new.yaml", "nowhere.h5"),
    ("init dots.h5 -o bad.yaml", "bad.yaml is there already"),
    ("fit nowhere.yaml", "nowhere.yaml"),
    ("fit run", "run is a run: `hgtrain fit run --resume` goes on with it"),
    ("fit run --resume --run-dir other", "--run-dir names another directory, other"),
]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with a run, what is wrong with others, and data."""
    folder = tmp_path_factory.mktemp("lab")
    shutil.copy(FIXTURE / "dots.h5", folder / "dots.h5")
    for name in ("run", "unfinished", "damaged"):
        run = shutil.copytree(FIXTURE / "run", folder / name)
        for file in (run / "config.yaml", run / "split.json"):
            file.write_text(file.read_text().replace("DATA", str(folder / "dots.h5")))
    (folder / "unfinished" / "best.keras").unlink()
    (folder / "damaged" / "best.keras").write_bytes(b"no archive")
    (folder / "text.mp4").write_text("no film")
    (folder / "bad.yaml").write_text("dat: {train: dots.h5}\n")
    (folder / "good.yaml").write_text("data: {train: dots.h5}\ntraining: {batch_size: 4}\n")
    frame = (np.zeros((32, 48, 1), np.uint8), np.full((2, 2), 9, np.float32), None, None)
    write_dataset(folder / "other.h5", Skeleton(("nose", "tail")), [frame] * 4)
    export = folder / "export"
    export.mkdir()
    (export / "saved_model.pb").write_bytes(b"")
    described = {"keypoint_names": ["head", "tail"], "input": {"shape": [None, None, None, 3]}}
    (export / "metadata.json").write_text(json.dumps(described))
    model = folder / "sleap"
    model.mkdir()
    (model / "training_config.json").write_text(json.dumps(training_config()))
    shape = {"name": "input", "batch_input_shape": [None, 32, 32, 1]}
    layers = {"config": {"layers": [{"class_name": "InputLayer", "config": shape}]}}
    with h5py.File(model / "best_model.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(layers)
    return folder


def environment(*path):
    return os.environ | {"PYTHONPATH": os.pathsep.join(map(str, (*path, CHECKOUT)))}


@pytest.fixture(scope="module")
def refusals(lab):
    """Exit status, stdout and stderr of each line; in one process, which is most of the time."""
    lines = json.dumps([line.split() for line, _ in REFUSED])
    done = subprocess.run(
        [sys.executable, "-c", RUN_ALL, lines],
        capture_output=True, text=True, check=True, cwd=lab, env=environment(),
    )  # fmt: skip
    results = map(json.loads, done.stdout.splitlines())
    return {line: result for (line, _), result in zip(REFUSED, results, strict=True)}


@pytest.mark.parametrize(("line", "message"), REFUSED, ids=[line for line, _ in REFUSED])
def test_a_mistake_is_answered_without_tensorflow(refusals, line, message):
    status, out, err = refusals[line]
    assert (status, out) == (1, ""), err
    assert "Error: " in err
    assert message in err


def test_refused_lines_leave_nothing_behind(lab, refusals):
    assert {path.name for path in lab.iterdir()} == {
        *("run", "unfinished", "damaged", "dots.h5", "other.h5", "text.mp4", "bad.yaml"),
        *("good.yaml", "export", "sleap"),
    }
    assert {path.name for path in (lab / "export").iterdir()} == {
        "saved_model.pb",
        "metadata.json",
    }


# A TensorFlow that takes ten seconds

SLOW = """
import pathlib, time
time.sleep(10)
pathlib.Path(__file__).with_name("slept").touch()
raise ImportError("no TensorFlow")
"""

LOADING = [
    ("fit good.yaml --run-dir new", "loading TensorFlow"),
    ("fit run --resume --set training.epochs=3", "loading TensorFlow"),
    ("summarize good.yaml", "loading TensorFlow"),
    ("evaluate run", "loading TensorFlow"),
    ("evaluate run dots.h5 --json", "loading TensorFlow"),
    ("predict run dots.h5 -o a.csv", "loading TensorFlow"),
    ("export run -o model", "loading TensorFlow"),
    ("report run", "loading TensorFlow"),
    ("import-sleap sleap -o new-run", "loading TensorFlow"),
    ("init dots.h5 -o new.yaml", "loading TensorFlow"),
    ("doctor", "looking at TensorFlow"),
]


def processor_time(pid):
    """Return the seconds a process has computed; wall time depends on what a machine does else."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize(("line", "said"), LOADING, ids=[line for line, _ in LOADING])
def test_while_tensorflow_loads_there_is_a_line_within_two_seconds(lab, tmp_path, line, said):
    module = tmp_path / "tensorflow"
    module.mkdir()
    (module / "__init__.py").write_text(SLOW)
    program = [sys.executable, "-m", "hgtrain", *line.split()]
    with subprocess.Popen(
        program,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=shutil.copytree(lab, tmp_path / "lab"),
        env=environment(tmp_path),
    ) as process:
        overdue = threading.Timer(60, process.kill)
        overdue.start()
        lines = []
        while (text := process.stderr.readline()) and not text.startswith(said):
            lines.append(text)
        has_slept = (module / "slept").exists()
        seconds = processor_time(process.pid)
        overdue.cancel()
        process.kill()
        assert process.stdout.read() == ""
    assert text.startswith(said), lines
    assert not has_slept
    assert seconds < 2
