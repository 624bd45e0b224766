"""Signals to a run: what they do and what is said."""

import os
import signal
import subprocess
import sys
import time

import pytest
from loop_fakes import FakeObserver, make_inner, make_plan
from loop_fakes import run as run_loop
from test_parity import assert_same, fit

from hgtrain import files
from hgtrain.commands import fit as fit_module
from hgtrain.rundir import layout
from hgtrain.signals import StoppedError, StopRequest
from hgtrain.train import loop
from hgtrain.train.distributed.decision import Decision
from hgtrain.train.loop import State, train
from hgtrain.train.trainer import Trainer

slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def test_sigusr1_asks_for_a_checkpoint_once():
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert (bool(stop), stop.take_save(), stop.take_save()) == (False, True, False)


def test_a_checkpoint_that_is_asked_for_is_written_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)
    plan = make_plan(checkpoint_steps=100)
    whole_state, _, _ = run_loop(plan)
    inner = make_inner(plan)
    state = train(
        plan,
        State(),
        inner,
        FakeObserver(),
        lambda steps: Decision(False, inner.position == 2, steps),
    )
    assert [saved["step"] for saved in inner.saved] == [2, 8]
    assert state.history[1]["loss"] == whole_state.history[1]["loss"]


def resume_line(folder, what):
    return f"{what}; go on with: hgtrain fit {folder} --resume\n"


@slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("moment", ["finish_writing", "close"])
def test_a_signal_after_the_last_row_says_how_to_go_on(
    config_file, whole, tmp_path, monkeypatch, capsys, moment
):
    # Where the last checkpoint was written and the loop asks for a stop no more, and after signals
    # were postponed.
    method = getattr(Trainer, moment)

    def signalled(trainer):
        os.kill(os.getpid(), signal.SIGTERM)
        method(trainer)

    stop = StopRequest()
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, moment, signalled)
        with pytest.raises(StoppedError), stop.listening():
            fit(config_file, tmp_path / "run", (), stop)
    err = capsys.readouterr().err
    assert err.endswith(resume_line(tmp_path / "run", "stopped"))
    assert err.count("go on with") == 1
    fit(config_file, tmp_path / "run", (), resume=True)
    assert_same(tmp_path / "run", whole)


@slow
@pytest.mark.usefixtures("quick")
def test_a_signal_before_the_run_is_one_says_nothing(config_file, tmp_path, monkeypatch, capsys):
    def write(*arguments, **options):
        raise StoppedError(signal.SIGTERM)

    monkeypatch.setattr(files, "write_json", write)
    with pytest.raises(StoppedError):
        fit(config_file, tmp_path / "run", ())
    assert "go on with" not in capsys.readouterr().err


@slow
def test_sigusr1_writes_a_checkpoint_and_the_run_goes_on(config_file, tmp_path):
    folder = tmp_path / "run"
    # One epoch of many minutes, and no checkpoint but for the signal's.
    edits = (
        "training.epochs=1",
        "training.steps_per_epoch=20000",
        "training.device=cpu",
        "output.tensorboard=false",
    )
    program = [sys.executable, "-m", "hgtrain", "fit", str(config_file), "--run-dir", str(folder)]
    program += [f"--set={edit}" for edit in edits]

    def checkpoints():
        return {
            int(path.stem.rpartition("-")[2]) for path in folder.glob("checkpoints/step-*.index")
        }

    def wait_for(condition):
        while not condition():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.05)

    with (tmp_path / "log").open("w+") as log:
        process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=log)
        try:
            wait_for(lambda: "epoch 1/1, step " in (tmp_path / "log").read_text())
            assert checkpoints() == set()
            process.send_signal(signal.SIGUSR1)
            wait_for(checkpoints)
            process.send_signal(signal.SIGUSR1)
            wait_for(lambda: len(checkpoints()) == 2)
            first, second = sorted(checkpoints())
            assert 0 < first < second
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 143
        finally:
            process.kill()
            process.wait()
    assert max(checkpoints()) > second


@slow
@pytest.mark.usefixtures("quick")
def test_a_signal_during_the_evaluation_says_how_to_go_on(
    config_file, whole, tmp_path, monkeypatch, capsys
):
    def evaluate(config, folder, split):
        raise StoppedError(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "_evaluate_best", evaluate)
        with pytest.raises(StoppedError):
            fit(config_file, tmp_path / "run", ())
    err = capsys.readouterr().err
    assert err.endswith(resume_line(tmp_path / "run", "stopped before the evaluation was done"))
    assert err.count("go on with") == 1
    fit(config_file, tmp_path / "run", (), resume=True)
    assert_same(tmp_path / "run", whole)
    assert "finished" in files.read_json(tmp_path / "run" / layout.PROVENANCE)
