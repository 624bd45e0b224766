import json
import math
import re

import pytest
from loop_fakes import FakeClock, FakeInner, FakeObserver, make_inner, make_plan, run, without_times

from hgtrain.train import loop
from hgtrain.train.distributed.decision import Decision
from hgtrain.train.loop import InterruptedRunError, NotFiniteError, State, train

CONTRACT_KEYS = [
    "step",
    "epoch",
    "loss",
    "loss_per_stack",
    "loss_per_output",
    "val_loss",
    "val_error_px",
    "learning_rate",
    "images_per_s",
    "data_wait_fraction",
    "elapsed_s",
    "checkpoint_s",
]


@pytest.fixture
def one_step_a_call(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)


@pytest.fixture
def clock(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr(loop, "time", fake)
    return fake


# Rows


def test_a_row_has_exactly_the_keys_of_the_contract():
    state, _, _ = run(make_plan())
    assert [list(row) for row in state.history] == [CONTRACT_KEYS] * 2


def test_a_row_is_json_as_it_stands():
    state, _, _ = run(make_plan())
    assert json.loads(json.dumps(state.history[0], allow_nan=False)) == state.history[0]


def test_each_epoch_ends_with_its_row():
    _, _, observer = run(make_plan(epochs=3, steps_per_epoch=5))
    assert [(row["step"], row["epoch"]) for row in observer.rows] == [(5, 1), (10, 2), (15, 3)]


def test_the_loss_is_the_mean_over_the_steps_of_an_epoch_summed_over_stacks():
    inner = FakeInner([[1, 2], [2, 4], [3, 6], [4, 8], [0, 0], [0, 0], [0, 0], [8, 4]], [1, 1], 4)
    state = train(make_plan(), State(), inner, FakeObserver())
    assert [row["loss_per_stack"] for row in state.history] == [[2.5, 5.0], [2.0, 1.0]]
    assert [row["loss"] for row in state.history] == [7.5, 3.0]


def test_the_loss_of_an_output_is_the_sum_over_stacks():
    inner = FakeInner([[[1, 20], [2, 10]], [[3, 40], [0, 30]]], [1], 2)
    inner.output_names = ("confmaps", "pafs")
    state = train(make_plan(epochs=1, steps_per_epoch=2), State(), inner, FakeObserver())
    (row,) = state.history
    assert row["loss_per_output"] == {"confmaps": 3.0, "pafs": 50.0}
    assert (row["loss_per_stack"], row["loss"]) == ([32.0, 21.0], 53.0)


def test_validation_is_in_the_row_and_whole_for_the_observer():
    _, _, observer = run(make_plan(epochs=1), errors=[3.5])
    assert (observer.rows[0]["val_loss"], observer.rows[0]["val_error_px"]) == (10.0, 3.5)
    assert observer.validations[0]["val_confidence"] == 0.5


def test_each_step_gets_the_learning_rate_of_its_number():
    _, inner, _ = run(make_plan(learning_rate=lambda step, factor: 0.5 * step))
    assert inner.rates == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]


def test_the_learning_rate_of_a_row_is_that_of_its_last_step():
    state, _, _ = run(make_plan(learning_rate=lambda step, factor: 0.5 * step))
    assert [row["learning_rate"] for row in state.history] == [1.5, 3.5]


def test_grouping_steps_into_calls_does_not_change_the_sums(monkeypatch):
    plan = make_plan(steps_per_epoch=300)
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 1e9)
    together, grouped, _ = run(plan)
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)
    apart, single, _ = run(plan)
    assert max(count for _, count in grouped.calls) > 1 == max(count for _, count in single.calls)
    assert without_times(together) == without_times(apart)


# Fewer steps than the epochs have


def fitted(steps):
    return State(fitted={"minutes": 1.0, "of": 12, "steps": steps, "reserved_s": 0.0})


def test_a_run_that_is_cut_short_ends_with_a_shorter_epoch():
    plan = make_plan(epochs=3)
    state, inner, observer = run(plan, state=fitted(6))
    assert [(row["step"], row["epoch"]) for row in observer.rows] == [(4, 1), (6, 2)]
    assert inner.position == 6
    assert inner.saved[-1]["fitted"]["steps"] == 6
    # The mean of its two steps alone.
    assert state.history[1]["loss"] == pytest.approx(float(inner.losses[4:6].sum()) / 2)


def test_a_run_that_is_cut_short_at_the_end_of_an_epoch_has_no_other():
    _, _, observer = run(make_plan(epochs=3), state=fitted(8))
    assert [row["step"] for row in observer.rows] == [4, 8]


@pytest.mark.parametrize("late", [1, 4, 5, 7, 8])
def test_a_run_whose_time_is_over_validates_and_ends(one_step_a_call, late):
    inner, observer = make_inner(plan := make_plan(epochs=3)), FakeObserver()
    state = train(
        plan,
        fitted(12),
        inner,
        observer,
        lambda steps: Decision(False, False, steps, ends=inner.position >= late),
    )
    assert (state.step, inner.position, state.history[-1]["step"]) == (late, late, late)
    assert (state.fitted["steps"], inner.saved[-1]["fitted"]["steps"]) == (late, late)
    assert inner.saved[-1]["history"][-1]["step"] == late
    # Resumed, there is nothing to do.
    train(plan, State(**inner.saved[-1]), inner, observer)
    assert inner.position == late


def test_a_run_without_a_limit_has_no_time_that_is_over(one_step_a_call):
    inner = make_inner(plan := make_plan())
    decide = lambda steps: Decision(False, False, steps, ends=True)  # noqa: E731
    assert train(plan, State(), inner, FakeObserver(), decide).step == 8


# Speed


def test_speed_leaves_out_the_first_call_which_compiles(clock):
    inner = make_inner(plan := make_plan(epochs=1, steps_per_epoch=11))

    def take_time(first_step, count):
        clock.now += 60.0 if first_step == 0 else 0.5 * count
        return 30.0 if first_step == 0 else 0.125 * count

    inner.on_steps = take_time
    row = train(plan, State(), inner, FakeObserver()).history[0]
    assert row["images_per_s"] == pytest.approx(8 / 0.5)
    assert row["data_wait_fraction"] == pytest.approx(0.25)


def test_speed_is_of_its_own_epoch(clock):
    inner = make_inner(plan := make_plan())

    def take_time(first_step, count):
        clock.now += (1.0 if first_step < 4 else 0.5) * count
        return 0.0

    inner.on_steps = take_time
    rows = train(plan, State(), inner, FakeObserver()).history
    assert [row["images_per_s"] for row in rows] == pytest.approx([8.0, 16.0])


def test_the_first_call_counts_while_it_is_the_only_one(clock):
    inner = make_inner(plan := make_plan(epochs=2, steps_per_epoch=1))

    def take_time(first_step, count):
        clock.now += 4.0 if first_step == 0 else 0.5
        return 1.0 if first_step == 0 else 0.25

    inner.on_steps = take_time
    rows = train(plan, State(), inner, FakeObserver()).history
    assert [row["images_per_s"] for row in rows] == pytest.approx([2.0, 16.0])
    assert [row["data_wait_fraction"] for row in rows] == pytest.approx([0.25, 0.5])


def test_elapsed_time_goes_on_where_the_checkpoint_stood(clock):
    inner = make_inner(plan := make_plan(epochs=1))

    def take_time(first_step, count):
        clock.now += 2.0 * count
        return 0.0

    inner.on_steps = take_time
    state = train(plan, State(elapsed_s=100.0), inner, FakeObserver())
    assert state.elapsed_s == state.history[0]["elapsed_s"] == pytest.approx(108.0)


def test_a_call_is_as_long_as_half_a_second_of_steps(clock):
    inner = make_inner(plan := make_plan(epochs=1, steps_per_epoch=100))

    def take_time(first_step, count):
        clock.now += 5.0 if first_step == 0 else 0.0625 * count
        return 0.0

    inner.on_steps = take_time
    train(plan, State(), inner, FakeObserver())
    assert [count for _, count in inner.calls] == [1, 1, 4, *[8] * 11, 6]


def test_a_call_has_as_many_steps_as_were_decided_on(clock):
    inner, asked = make_inner(plan := make_plan(epochs=1, steps_per_epoch=100)), []

    def take_time(first_step, count):
        clock.now += 0.0625 * count
        return 0.0

    def decide(steps):
        asked.append(steps)
        # Somebody else is as slow as that.
        return Decision(stops=False, saves=False, steps=min(steps, 2))

    inner.on_steps = take_time
    train(plan, State(), inner, FakeObserver(), decide)
    assert [count for _, count in inner.calls] == [1, *[2] * 49, 1]
    assert asked[:3] == [4, 8, 8]


def test_a_decision_is_made_after_every_call_and_every_epoch():
    inner, at = make_inner(plan := make_plan(epochs=2, steps_per_epoch=3)), []

    def decide(steps):
        at.append(inner.position)
        return Decision(stops=False, saves=False, steps=1)

    train(plan, State(), inner, FakeObserver(), decide)
    assert at == [1, 2, 3, 3, 4, 5, 6, 6]


# Checkpoints


@pytest.mark.parametrize(
    ("checkpoint_steps", "saved_at"),
    [
        (4, [4, 8, 12]),
        (3, [3, 6, 9, 12]),
        (1, list(range(1, 13))),
        (8, [8, 12]),
        (6, [6, 12]),
        (1000, [12]),
    ],
)
def test_checkpoints_are_written_at_their_interval_and_at_the_end(checkpoint_steps, saved_at):
    _, inner, _ = run(make_plan(epochs=3, checkpoint_steps=checkpoint_steps))
    assert [saved["step"] for saved in inner.saved] == saved_at


def test_no_call_goes_over_the_end_of_an_epoch_or_a_checkpoint(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 1e9)
    _, inner, _ = run(make_plan(epochs=2, steps_per_epoch=40, checkpoint_steps=30))
    ends = {first + count for first, count in inner.calls}
    assert {30, 40, 60, 80} <= ends


def test_the_last_checkpoint_of_an_epoch_holds_its_row():
    _, inner, _ = run(make_plan())
    assert [len(saved["history"]) for saved in inner.saved] == [1, 2]


def test_a_finished_run_does_nothing_more():
    state, _, _ = run(plan := make_plan())
    inner = make_inner(plan)
    assert train(plan, state, inner, FakeObserver()) is state
    assert (inner.calls, inner.saved, inner.validating) == ([], [], False)


def test_more_epochs_go_on_where_the_run_ended():
    state, _, _ = run(make_plan(epochs=1))
    inner = make_inner(plan := make_plan(epochs=2), position=4)
    assert train(plan, state, inner, FakeObserver()).step == 8


# The best


@pytest.mark.parametrize(
    ("errors", "best_at"),
    [
        ([5.0, 4.0, 6.0, 3.0], [4, 8, 16]),
        ([5.0, 5.0, 5.0, 5.0], [4]),
        ([1.0, 2.0, 3.0, 4.0], [4]),
    ],
)
def test_the_best_has_the_smallest_error_whatever_its_loss(errors, best_at):
    _, inner, _ = run(make_plan(epochs=4), errors)
    assert inner.best_at == best_at


def test_without_labelled_points_the_best_has_the_smallest_loss():
    _, inner, _ = run(make_plan(epochs=3), errors=[None] * 3)
    assert inner.best_at == [4, 8, 12]


def test_the_best_is_kept_before_the_checkpoint_that_says_so():
    state, _, _ = run(make_plan(), errors=[5.0, 4.0])
    assert state.best == 4.0


# Stopping early, plateaus


def test_training_stops_after_so_many_epochs_without_a_best():
    state, inner, _ = run(
        make_plan(epochs=9, early_stopping_epochs=2), [5.0, 4.0, 4.5, 4.0, 1.0, 1, 1, 1, 1]
    )
    assert len(state.history) == 4
    assert [saved["step"] for saved in inner.saved][-1] == 16


def test_a_new_best_starts_the_patience_over():
    state, _, _ = run(
        make_plan(epochs=7, early_stopping_epochs=2), [5.0, 6.0, 4.0, 6.0, 3.0, 6.0, 6.0]
    )
    assert len(state.history) == 7


def test_an_early_stopped_run_stays_stopped():
    plan = make_plan(epochs=5, early_stopping_epochs=1)
    state, _, _ = run(plan, [5.0, 6.0, 1, 1, 1])
    inner = make_inner(plan)
    train(plan, State(**json.loads(json.dumps(state.to_json()))), inner, FakeObserver())
    assert inner.calls == []


def test_a_plateau_lowers_the_learning_rate_again_and_again():
    plan = make_plan(epochs=6, steps_per_epoch=1, plateau_patience_epochs=2, plateau_factor=0.5)
    state, inner, _ = run(plan, [5.0, 5.0, 5.0, 5.0, 5.0, 5.0])
    assert inner.rates == [0.25, 0.25, 0.25, 0.125, 0.125, 0.0625]
    assert [row["learning_rate"] for row in state.history] == inner.rates


def test_a_new_best_ends_a_plateau():
    plan = make_plan(epochs=5, steps_per_epoch=1, plateau_patience_epochs=2, plateau_factor=0.5)
    _, inner, _ = run(plan, [5.0, 6.0, 4.0, 6.0, 3.0])
    assert inner.rates == [0.25] * 5


def test_no_plateau_without_patience():
    _, inner, _ = run(make_plan(epochs=4, steps_per_epoch=1, plateau_factor=0.5), [5.0] * 4)
    assert inner.rates == [0.25] * 4


# Interruption

HARD_PLAN = {
    "epochs": 4,
    "learning_rate": lambda step, factor: factor / (step + 1),
    "plateau_patience_epochs": 1,
    "plateau_factor": 0.5,
    "checkpoint_steps": 3,
}
ERRORS = [5.0, 6.0, 4.0, 6.0]


def interrupt(plan, inner, should_stop):
    with pytest.raises(InterruptedRunError):
        train(
            plan,
            State(),
            inner,
            FakeObserver(),
            lambda steps: Decision(should_stop(), False, steps),
        )
    return State(**inner.saved[-1])


@pytest.mark.usefixtures("one_step_a_call")
@pytest.mark.parametrize("step", [1, 2, 3, 4, 5, 8, 14, 16])
def test_a_run_interrupted_after_a_step_goes_on_as_if_nothing_had_been(step):
    plan = make_plan(**HARD_PLAN)
    whole, uninterrupted, _ = run(plan, ERRORS)
    first = make_inner(plan, ERRORS)
    state = interrupt(plan, first, lambda: first.position >= step)
    assert state.step == step
    second = make_inner(plan, ERRORS, position=step)
    resumed = train(plan, state, second, FakeObserver())
    assert without_times(resumed) == without_times(whole)
    assert first.rates + second.rates == uninterrupted.rates
    assert first.calls + second.calls == uninterrupted.calls
    assert first.best_at + second.best_at == uninterrupted.best_at


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_a_run_interrupted_while_it_validates_ends_the_epoch_and_goes_on_after_it(epoch):
    plan = make_plan(**HARD_PLAN)
    whole, uninterrupted, _ = run(plan, ERRORS)
    first = make_inner(plan, ERRORS)
    asked = []

    def validate():
        asked.append(first.position == 4 * epoch)
        return FakeInner.validate(first)

    first.validate = validate
    state = interrupt(plan, first, lambda: any(asked))
    assert (state.step, len(state.history)) == (4 * epoch, epoch)
    second = make_inner(plan, ERRORS, position=4 * epoch)
    assert without_times(train(plan, state, second, FakeObserver())) == without_times(whole)
    assert first.rates + second.rates == uninterrupted.rates


def test_a_run_killed_between_checkpoints_repeats_what_was_lost():
    plan = make_plan(**HARD_PLAN)
    whole, _, _ = run(plan, ERRORS)
    first = make_inner(plan, ERRORS)

    def die(first_step, count):
        if first.position > 10:
            raise KeyboardInterrupt
        return 0.0

    first.on_steps = die
    with pytest.raises(KeyboardInterrupt):
        train(plan, State(), first, FakeObserver())
    second = make_inner(plan, ERRORS, position=9)
    assert without_times(
        train(plan, State(**first.saved[-1]), second, FakeObserver())
    ) == without_times(whole)


@pytest.mark.usefixtures("one_step_a_call")
def test_an_interruption_in_the_middle_of_an_epoch_does_not_validate():
    plan = make_plan()
    inner = make_inner(plan)
    interrupt(plan, inner, lambda: inner.position >= 2)
    assert not inner.validating


# What is not finite


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("stack", [0, 1])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(value, stack):
    inner = make_inner(plan := make_plan())
    inner.losses[6, stack] = value
    with pytest.raises(
        NotFiniteError, match=re.escape("the loss is not finite at step 6")
    ) as caught:
        train(plan, State(), inner, FakeObserver())
    assert caught.value.step == 6


def test_a_loss_that_is_not_finite_is_in_no_checkpoint():
    inner = make_inner(plan := make_plan(checkpoint_steps=1))
    inner.losses[2] = math.nan
    with pytest.raises(NotFiniteError, match="step 2"):
        train(plan, State(), inner, FakeObserver())
    assert [saved["step"] for saved in inner.saved] == [1, 2]


def test_a_validation_loss_that_is_not_finite_ends_the_run():
    inner = make_inner(plan := make_plan())
    inner.validate = lambda: {"val_loss": math.nan, "val_error_px": None}
    with pytest.raises(NotFiniteError, match="step 4"):
        train(plan, State(), inner, FakeObserver())
    assert (inner.saved, inner.best_at) == ([], [])
