"""Real runs whose time is limited: they end in time, and what was decided is what they do."""

import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny_run
from loop_fakes import FakeClock
from tiny_run import SMALL, StopAt, json_of, rows_of, weights_of, without_times, write_data

from hgtrain.signals import StoppedError
from hgtrain.train import loop, plan
from hgtrain.train.plan import MARGIN, Pace
from hgtrain.train.trainer import Trainer

pytestmark = [
    pytest.mark.slow,
    # Keras's saving and NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

LIMITED = (*SMALL, "training.max_minutes=1", "training.ema=0.9")


@pytest.fixture
def config_file(tmp_path):
    return write_data(tmp_path)


@pytest.fixture
def paced(monkeypatch):
    """Return what makes steps seem so slow that a certain number of them fits into a minute."""
    measure = Trainer.measure
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)

    def let_fit(steps):
        def measured(self, first_step, seconds):
            measure(self, first_step, 0.1)
            return Pace(60 / (steps + 0.5) / MARGIN, 0.0, 0.0)

        monkeypatch.setattr(Trainer, "measure", measured)

    # Nothing else takes time.
    for module in (plan, tiny_run.fit_module):
        monkeypatch.setattr(module, "time", FakeClock())
    return let_fit


def assert_same_end(folder, other):
    assert without_times(rows_of(folder)) == without_times(rows_of(other))
    assert weights_of(folder / "best.keras") == weights_of(other / "best.keras")


def test_a_run_that_is_cut_short_is_that_of_fewer_epochs_bit_for_bit(config_file, tmp_path, paced):
    paced(8)
    tiny_run.fit(config_file, tmp_path / "cut", *LIMITED, "training.epochs=5")
    fewer = (*SMALL, "training.ema=0.9", "training.epochs=2")
    tiny_run.fit(config_file, tmp_path / "fewer", *fewer)
    assert [row["step"] for row in rows_of(tmp_path / "cut")] == [4, 8]
    assert_same_end(tmp_path / "cut", tmp_path / "fewer")


@pytest.mark.parametrize("step", [2, 5, 9])
def test_a_stopped_run_goes_on_with_what_was_decided(config_file, tmp_path, paced, step):
    overrides = (*LIMITED, "training.epochs=5")
    paced(10)
    tiny_run.fit(config_file, tmp_path / "whole", *overrides)
    with pytest.raises(StoppedError):
        tiny_run.fit_module.fit(
            tiny_run.load_config(config_file, overrides),
            tmp_path / "stopped",
            False,
            StopAt(step),
        )
    # Measured again, it would be another number.
    paced(3)
    tiny_run.fit(config_file, tmp_path / "stopped", *overrides, resume=True)
    assert [row["step"] for row in rows_of(tmp_path / "stopped")] == [4, 8, 10]
    assert_same_end(tmp_path / "stopped", tmp_path / "whole")


TWO_REPLICAS = """
import sys
from pathlib import Path
sys.path[:0] = [sys.argv[1], str(Path(sys.argv[1]).parent)]
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
import test_max_minutes
from hgtrain.commands import fit
fit._evaluate_best = lambda config, folder, split: {}
folder = Path(sys.argv[2])
overrides = (*test_max_minutes.SMALL, "training.strategy=mirrored")
fit = test_max_minutes.tiny_run.fit
fit(folder / "tiny.yaml", folder / "free", *overrides)
fit(folder / "tiny.yaml", folder / "timed", *overrides, "training.max_minutes=60")
test_max_minutes.assert_same_end(folder / "free", folder / "timed")
assert '"replicas": 2' in (folder / "timed" / "provenance.json").read_text()
"""


def test_measuring_changes_nothing_of_two_replicas(config_file, tmp_path):
    program = [sys.executable, "-c", TWO_REPLICAS, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "all 8 steps fit into 60 minutes" in done.stderr


def test_a_run_ends_in_time(config_file, tmp_path):
    overrides = (*SMALL, "training.max_minutes=0.4", "training.epochs=1000000")
    # What is imported once is no part of the time.
    tiny_run.fit(config_file, tmp_path / "first", *SMALL)
    started = time.monotonic()
    tiny_run.fit(config_file, tmp_path / "run", *overrides)
    assert 12 < time.monotonic() - started < 24
    rows = rows_of(tmp_path / "run")
    assert rows[-1]["step"] < 4_000_000
    # The cosine was gone through: what is left of the peak of 2e-3 is next to nothing.
    assert rows[-1]["learning_rate"] < 1e-4
    assert "finished" in json_of(tmp_path / "run", "provenance.json")
