"""Interrupted and resumed equals uninterrupted, bit for bit.

Weights, moving average, optimizer, rows, best.keras.
"""

import json
import os
import subprocess
import sys
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import tensorflow as tf
from tiny_run import SMALL, StopAt, rows_of, weights_of, without_times, write_data

from hgtrain.commands import fit as fit_module
from hgtrain.config.load import load_config
from hgtrain.rundir import layout
from hgtrain.signals import StoppedError, StopRequest
from hgtrain.train import loop
from hgtrain.train.trainer import Trainer

pytestmark = [
    pytest.mark.slow,
    # Keras's own, each time it saves a variable.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

STEPS = 8

VARIANTS = {
    "cosine": (),
    "plateau": (
        "training.schedule=plateau",
        "training.plateau_patience_epochs=1",
        "training.epochs=3",
    ),
    "early stopping": ("training.early_stopping_epochs=1", "training.epochs=3"),
    "moving average": ("training.ema=0.9",),
    "sgd": ("training.optimizer=sgd", "training.gradient_clip_norm=1.0"),
    "mixed_bfloat16": ("training.precision=mixed_bfloat16",),
    "mixed_float16": ("training.precision=mixed_float16",),
    "cache ram": ("data.cache=ram",),
    "cache none": ("data.cache=none",),
}
"""Each is stopped in the middle of the second epoch; cosine also elsewhere.

Without data.cache it is the device.
"""


@pytest.fixture(autouse=True, scope="module")
def indeterminate_again():
    yield
    from tensorflow.python.framework import config

    config.disable_op_determinism()


@pytest.fixture(autouse=True)
def one_step_a_call(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)
    # What comes after the loop is of best.keras alone, which is compared.
    monkeypatch.setattr(fit_module, "_evaluate_best", lambda config, folder, split: {})


def fit(config_file, folder, overrides, stop=None, resume=False):
    # Not `stop or`: to ask one counts as a step.
    fit_module.fit(
        load_config(config_file, (*SMALL, *overrides)),
        folder,
        resume,
        StopRequest() if stop is None else stop,
    )


def checkpoint_of(folder):
    """Return every variable of the newest checkpoint as bytes, and the state but for times."""
    newest = max(
        (folder / "checkpoints").glob("step-*.index"),
        key=lambda path: int(path.stem.rpartition("-")[2]),
    )
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    values = {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}
    values.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    state = json.loads(values.pop("state/.ATTRIBUTES/VARIABLE_VALUE"))
    state["history"] = without_times(state["history"])
    state = {key: value for key, value in state.items() if key not in ("elapsed_s", "checkpoint_s")}
    return newest.name, state, {name: np.asarray(value).tobytes() for name, value in values.items()}


def assert_same(folder, other):
    assert without_times(rows_of(folder)) == without_times(rows_of(other))
    assert weights_of(folder / "best.keras") == weights_of(other / "best.keras")
    name, state, values = checkpoint_of(folder)
    other_name, other_state, other_values = checkpoint_of(other)
    assert (name, state) == (other_name, other_state)
    assert [key for key in values if values[key] != other_values[key]] == []
    assert values.keys() == other_values.keys()


@contextmanager
def worsening(variant):
    """Make validation find every epoch worse than the one before, for the variants that are about
    that."""
    validate = Trainer.validate

    def worse(self):
        return validate(self) | {"val_error_px": float(self.networks.optimizer.iterations.numpy())}

    with pytest.MonkeyPatch.context() as patch:
        if variant in ("plateau", "early stopping"):
            patch.setattr(Trainer, "validate", worse)
        yield


@pytest.fixture(scope="module")
def uninterrupted(config_file, tmp_path_factory):
    """Give the folder of a variant's undisturbed run; made once."""
    folders = {}

    def give(variant):
        if variant not in folders:
            folders[variant] = tmp_path_factory.mktemp("whole") / "run"
            with worsening(variant):
                fit(config_file, folders[variant], VARIANTS[variant])
        return folders[variant]

    return give


def interrupted(config_file, folder, overrides, step):
    with pytest.raises(StoppedError):
        fit(config_file, folder, overrides, StopAt(step))
    assert list((folder / "checkpoints").glob("step-*.index"))
    fit(config_file, folder, overrides, resume=True)


@pytest.mark.parametrize(
    ("variant", "step"),
    [
        *(("cosine", step) for step in (1, 2, 4, 8)),
        *((variant, 6) for variant in VARIANTS),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(
    config_file, uninterrupted, tmp_path, variant, step
):
    with worsening(variant):
        interrupted(config_file, tmp_path / "run", VARIANTS[variant], step)
    assert_same(tmp_path / "run", uninterrupted(variant))


def test_early_stopping_did_stop(uninterrupted):
    # Else the variant above would prove nothing.
    assert len(rows_of(uninterrupted("early stopping"))) == 2


def test_the_plateau_did_lower_the_learning_rate(uninterrupted):
    assert checkpoint_of(uninterrupted("plateau"))[1]["plateau_factor"] == 0.25


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is done."""


def killed(config_file, folder, monkeypatch, name, at):
    """Run until the method `name` of the trainer is called for the `at`th time, and end there."""
    calls = []
    method = getattr(Trainer, name)

    def dying(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            raise Killed
        return method(self, *arguments)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(Trainer, name, dying)
        fit(config_file, folder, ())


@pytest.mark.parametrize(
    ("name", "at"), [("save_state", 2), ("save_state", 3), ("save_best", 2), ("validate", 2)]
)
def test_killed_between_two_files_it_goes_on_all_the_same(
    config_file, uninterrupted, tmp_path, monkeypatch, name, at
):
    killed(config_file, tmp_path / "run", monkeypatch, name, at)
    fit(config_file, tmp_path / "run", (), resume=True)
    assert_same(tmp_path / "run", uninterrupted("cosine"))


def test_best_keras_goes_back_with_the_state(config_file, uninterrupted, tmp_path, monkeypatch):
    # Steps 3, 6 and 8 have checkpoints, epochs end at 4 and 8: best.keras of epoch 2 is there, its
    # checkpoint not.
    killed(config_file, tmp_path / "run", monkeypatch, "save_state", 3)
    newer = weights_of(tmp_path / "run" / "best.keras")
    with monkeypatch.context() as patch:
        patch.setattr("hgtrain.train.loop.train", lambda *arguments: None)
        fit(config_file, tmp_path / "run", (), resume=True)
    assert weights_of(tmp_path / "run" / "best.keras") != newer
    assert [row["epoch"] for row in rows_of(tmp_path / "run")] == [1]


def test_a_lost_best_keras_comes_back(config_file, uninterrupted, tmp_path):
    with pytest.raises(StoppedError):
        fit(config_file, tmp_path / "run", (), StopAt(6))
    (tmp_path / "run" / layout.BEST).unlink()
    fit(config_file, tmp_path / "run", (), resume=True)
    assert_same(tmp_path / "run", uninterrupted("cosine"))


TWO_REPLICAS = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import test_parity
from hgtrain.commands import fit
from hgtrain.train import loop
loop.SECONDS_A_CALL = 0.0
fit._evaluate_best = lambda config, folder, split: {}
folder = Path(sys.argv[2])
overrides = ("training.strategy=mirrored", "training.ema=0.9")
test_parity.fit(folder / "tiny.yaml", folder / "whole", overrides)
test_parity.interrupted(folder / "tiny.yaml", folder / "parts", overrides, 6)
test_parity.assert_same(folder / "parts", folder / "whole")
assert '"replicas": 2' in (folder / "whole" / "provenance.json").read_text()
"""


def test_two_replicas_interrupted_and_resumed_equal_uninterrupted(tmp_path):
    write_data(tmp_path)
    here = os.path.dirname(__file__)  # noqa: PTH120
    program = [sys.executable, "-c", TWO_REPLICAS, here, str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
