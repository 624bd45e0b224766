"""A loss that is not finite."""

import numpy as np
import pytest
from loop_fakes import FakeInner, FakeObserver, make_inner, make_plan
from test_parity import fit
from tiny_run import rows_of

from hgtrain.errors import RunError
from hgtrain.train.loop import NotFiniteError, State, train
from hgtrain.train.trainer import Trainer

slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class RestoringInner(FakeInner):
    """Goes back to what it saved last."""

    def restore(self):
        if not self.saved:
            return None
        state = State(**self.saved[-1])
        self.position = state.step
        return state

    def steps(self, first_step, learning_rates):
        self.position = first_step
        return super().steps(first_step, learning_rates)


class RestoringObserver(FakeObserver):
    def __init__(self):
        super().__init__()
        self.skipped = []

    def left_out(self, state, step):
        self.skipped.append((state.step, step))


def skipping(plan, bad):
    inner, observer = make_inner(plan), RestoringObserver()
    inner.__class__ = RestoringInner
    inner.losses[bad] = np.nan
    return train(plan, State(), inner, observer), inner, observer


def test_a_step_that_is_not_finite_is_left_out():
    state, _, observer = skipping(make_plan(skips_nonfinite=True), [5])
    assert (state.step, state.skipped, observer.skipped) == (8, [5], [(4, 5)])


def test_the_mean_loss_is_of_the_steps_that_were_done():
    state, inner, _ = skipping(make_plan(skips_nonfinite=True), [5])
    expected = inner.losses[[4, 6, 7]].astype(np.float64).mean(0)
    assert state.history[1]["loss_per_stack"] == pytest.approx(expected.tolist())


def test_the_first_step_can_be_left_out():
    assert skipping(make_plan(skips_nonfinite=True), [0, 1])[0].skipped == [0, 1]


def test_many_steps_that_are_not_finite_end_the_run():
    with pytest.raises(NotFiniteError, match="step 14"):
        skipping(make_plan(epochs=1, steps_per_epoch=20, skips_nonfinite=True), list(range(4, 16)))


def test_an_epoch_without_a_step_ends_the_run():
    with pytest.raises(NotFiniteError, match="step 2"):
        skipping(make_plan(epochs=2, steps_per_epoch=2, skips_nonfinite=True), [0, 1])


def nan_at(monkeypatch, bad):
    steps = Trainer.steps

    def spoilt(self, first_step, rates):
        losses, waited = steps(self, first_step, rates)
        losses = losses.copy()
        for step in range(first_step, first_step + len(losses)):
            if step in bad:
                losses[step - first_step] = np.nan
        return losses, waited

    monkeypatch.setattr(Trainer, "steps", spoilt)


@slow
@pytest.mark.usefixtures("quick")
def test_the_frames_of_a_loss_that_is_not_finite_are_named(config_file, tmp_path, monkeypatch):
    nan_at(monkeypatch, [6])
    with pytest.raises(
        RunError,
        match=r"not finite at step 6, of the frames .*flies.h5:/images\[\d+\], .*on_nonfinite: "
        r"skip",
    ):
        fit(config_file, tmp_path / "run", ())
    assert (tmp_path / "run" / "checkpoints" / "step-6.index").exists()


@slow
@pytest.mark.usefixtures("quick")
def test_a_run_that_leaves_steps_out_comes_to_its_end(config_file, tmp_path, monkeypatch, capsys):
    nan_at(monkeypatch, [1, 6])
    fit(config_file, tmp_path / "run", ("training.on_nonfinite=skip",))
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [4, 8]
    assert (
        "the loss of step 6 is not finite: back to step 6, to go on without it"
        in capsys.readouterr().err
    )
