"""Each backbone trains as every other: it resumes exactly, is exported, and takes all options."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from faulty import make_quick
from test_parity import assert_same, fit, interrupted
from test_parity_of_heads import TWO_REPLICAS
from tiny_run import rows_of, write_data

from hgtrain.cli import commands

pytestmark = [
    pytest.mark.slow,
    # Keras's own, each time it saves a variable.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

STRIDES = "stem_stride: 2, output_stride: 2, max_stride: 4, stacks: 2"
BACKBONES = {
    "hourglass": "reinject: true, stem_filters: 4, filters: 4, filter_increase: 2",
    "associative_embedding": "filters: 8, filter_increase: 4",
    "residual_hourglass": "filters: 8",
}


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


def override_of(kind):
    """Return the override of a whole `model.backbone`."""
    return f"model.backbone={{type: {kind}, {STRIDES}, {BACKBONES[kind]}}}"


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return override_of(request.param)


@pytest.fixture(scope="module")
def runs(config_file, tmp_path_factory):
    """Give the folder of a backbone's undisturbed run; made once."""
    folders = {}

    def give(backbone):
        if backbone not in folders:
            folders[backbone] = tmp_path_factory.mktemp("whole") / "run"
            with pytest.MonkeyPatch.context() as patch:
                make_quick(patch)
                fit(config_file, folders[backbone], (backbone,))
        return folders[backbone]

    return give


def test_interrupted_and_resumed_equals_uninterrupted(config_file, runs, tmp_path, backbone, quick):
    interrupted(config_file, tmp_path / "run", (backbone,), 6)
    assert_same(tmp_path / "run", runs(backbone))


def test_computed_again_bfloat16_trains(config_file, tmp_path, backbone, quick):
    options = ("training.precision=mixed_bfloat16", "training.recompute=true")
    more = ("training.steps_per_epoch=30", "training.learning_rate=5e-3")
    fit(config_file, tmp_path / "run", (backbone, *options, *more))
    first, last = (row["loss"] for row in rows_of(tmp_path / "run"))
    assert np.isfinite(first)
    assert last < 0.9 * first


@pytest.mark.multiprocess
def test_two_replicas_equal_one_device(config_file, tmp_path, backbone):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}
    program = [sys.executable, "-c", TWO_REPLICAS, str(config_file), str(tmp_path), backbone]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr[-3000:]


def hgtrain(*arguments):
    done = CliRunner().invoke(commands, list(map(str, arguments)))
    if done.exception is not None:
        raise done.exception
    return done.stdout


@pytest.mark.filterwarnings("ignore")  # of TensorFlow Lite's interpreter and of tf2onnx
@pytest.mark.parametrize(
    ("kind", "format_name"),
    [
        *((kind, "savedmodel") for kind in BACKBONES),
        # It has all kinds of layers that there are.
        ("residual_hourglass", "tflite"),
        ("residual_hourglass", "onnx"),
    ],
)
def test_an_export_finds_what_the_run_finds(runs, tmp_path, kind, format_name):
    # It compares itself with the run on real frames, and fails where they differ.
    run = runs(override_of(kind))
    hgtrain("export", run, "-o", tmp_path / "export", "--format", format_name)
    assert (tmp_path / "export" / "metadata.json").exists()


def test_a_run_is_summarized(runs, backbone):
    summary = json.loads(hgtrain("summarize", runs(backbone), "--json"))
    assert summary["outputs"] == [[16, 16, 3]] * 2
    assert len(summary["receptive_field_px"]) == 2
    text = hgtrain("summarize", runs(backbone))
    assert [line for line in text.splitlines() if line.endswith(":")] == [
        *("stem:", "stack0:", "head:", "reinject0:", "stack1:", "head:")
    ]


LOADED_WITHOUT_HGTRAIN = """
import sys
sys.modules["hgtrain"] = None
import keras, numpy as np
network = keras.models.load_model(sys.argv[1])
print(network(np.zeros((1, 32, 32, 1), np.uint8)).shape)
"""


def test_best_keras_opens_with_keras_alone(runs, backbone):
    program = [sys.executable, "-c", LOADED_WITHOUT_HGTRAIN, runs(backbone) / "best.keras"]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 16, 16, 3)"
