"""Runs whose frames are read while they train."""

import os
import signal

import pytest
from test_parity import assert_same, fit

from hgtrain.commands import fit as fit_module
from hgtrain.errors import RunError
from hgtrain.pipeline import feed
from hgtrain.train import loop
from hgtrain.train.trainer import Trainer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(autouse=True)
def one_step_a_call(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)
    monkeypatch.setattr(fit_module, "_evaluate_best", lambda config, folder, split: {})


@pytest.fixture(scope="module")
def held_by_the_device(config_file, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SECONDS_A_CALL", 0.0)
        patch.setattr(fit_module, "_evaluate_best", lambda config, folder, split: {})
        fit(config_file, folder, ("data.cache=device",))
    return folder


@pytest.mark.parametrize("steps_a_piece", [1, 3])
@pytest.mark.parametrize("cache", ["ram", "none"])
def test_a_run_has_the_same_bits_wherever_its_frames_are(
    config_file, held_by_the_device, tmp_path, monkeypatch, cache, steps_a_piece
):
    monkeypatch.setattr(feed, "PIECE_STEPS", steps_a_piece)
    fit(config_file, tmp_path / "run", (f"data.cache={cache}",))
    assert_same(tmp_path / "run", held_by_the_device)


def test_a_run_whose_reader_is_killed_ends_with_a_sentence_and_can_go_on(
    config_file, held_by_the_device, tmp_path, monkeypatch
):
    monkeypatch.setattr(feed, "PIECE_STEPS", 1)
    monkeypatch.setattr(feed, "AHEAD_PIECES", 2)
    steps = Trainer.steps

    def killing(self, first_step, learning_rates):
        if first_step == 4:
            for pid in list(self._feed._readers._pool._processes):
                os.kill(pid, signal.SIGKILL)
        return steps(self, first_step, learning_rates)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "steps", killing)
        ended = pytest.raises(RunError, match=r"has ended, killed .* go on with --resume")
        with ended:
            fit(config_file, tmp_path / "run", ("data.cache=none",))
    assert list((tmp_path / "run" / "checkpoints").glob("step-3.index"))
    fit(config_file, tmp_path / "run", ("data.cache=none",), resume=True)
    assert_same(tmp_path / "run", held_by_the_device)
