from types import SimpleNamespace

import pytest
from loop_fakes import FakeClock

from hgtrain.config.schema import CheckpointConfig, TrainingConfig
from hgtrain.train import plan
from hgtrain.train.loop import State
from hgtrain.train.plan import (
    MARGIN,
    MEASURED_S,
    Pace,
    Schedule,
    default_warmup_steps,
    fitting_steps,
    limit_time,
    make_plan,
)


def schedule(kind, warmup_steps=4):
    return Schedule(kind, peak=0.01, minimum=0.002, warmup_steps=warmup_steps, total_steps=12)


@pytest.mark.parametrize("kind", ["cosine", "plateau", "constant"])
def test_the_rate_rises_in_equal_parts_to_the_peak(kind):
    rates = [schedule(kind).learning_rate(step) for step in range(5)]
    assert rates == pytest.approx([0.002, 0.004, 0.006, 0.008, 0.01])


@pytest.mark.parametrize("kind", ["cosine", "plateau", "constant"])
def test_without_warm_up_the_first_step_has_the_peak(kind):
    assert schedule(kind, warmup_steps=0).learning_rate(0) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("step", "rate"),
    [
        (4, 0.01),
        (6, 0.002 + 0.004 * (1 + 0.5**0.5)),  # a quarter: cos 45 degrees
        (8, 0.006),
        (10, 0.002 + 0.004 * (1 - 0.5**0.5)),
        (12, 0.002),
    ],
)
def test_cosine_falls_from_peak_to_minimum_over_the_steps_after_the_warm_up(step, rate):
    assert schedule("cosine").learning_rate(step) == pytest.approx(rate)


def test_cosine_stays_at_the_minimum_beyond_the_last_step():
    assert schedule("cosine").learning_rate(20) == pytest.approx(0.002)


def test_cosine_survives_a_run_that_is_all_warm_up():
    assert schedule("cosine", warmup_steps=12).learning_rate(12) == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("factor", "rate"), [(1.0, 0.01), (0.5, 0.005), (0.25, 0.0025), (0.125, 0.002)]
)
def test_plateau_multiplies_the_peak_down_to_the_minimum(factor, rate):
    assert schedule("plateau").learning_rate(7, factor) == pytest.approx(rate)


@pytest.mark.parametrize("step", [4, 11, 100])
def test_constant_stays_at_the_peak_whatever_the_plateau_factor(step):
    assert schedule("constant").learning_rate(step, 0.5) == 0.01


@pytest.mark.parametrize(
    ("total", "warmup"), [(0, 0), (19, 0), (100, 5), (3999, 199), (4000, 200), (10**6, 200)]
)
def test_default_warm_up_is_a_twentieth_of_the_steps_and_at_most_200(total, warmup):
    assert default_warmup_steps(total) == warmup


# Time


PACE = Pace(step_s=1 / MARGIN, epoch_s=10, end_s=0)


@pytest.mark.parametrize(
    ("seconds", "total"),
    [
        # Steps of a second with their margin, epochs of 100 steps, each with 10 s at its end.
        (1e9, 1000),
        (1100, 1000),
        (1099, 999),
        (550, 500),
        (390, 350),
        (350, 310),
        # Nine steps of a fourth epoch are not worth its validation.
        (349, 300),
        (330, 300),
        (60, 50),
        (11, 1),
        (5, 1),
        (-5, 1),
    ],
)
def test_steps_and_what_each_epoch_ends_with_fit_into_the_time(seconds, total):
    # Not cut off by a rounding.
    assert fitting_steps(seconds + 1e-6, PACE, of_epoch=100, done=0, most=1000) == total


@pytest.mark.parametrize(
    ("seconds", "total"), [(1e9, 1000), (230, 350), (170, 300), (-1, 151), (61, 200)]
)
def test_steps_that_are_done_take_no_time_again(seconds, total):
    assert fitting_steps(seconds + 1e-6, PACE, of_epoch=100, done=150, most=1000) == total


class FakeWorkers:
    is_chief = True

    def __init__(self):
        self.shared = []

    def from_chief(self, document):
        self.shared.append(document)
        return document


class FakeTrainer:
    """Steps take half a second, an epoch ends in 2 s and a run in 5; 20 s go into measuring it."""

    def __init__(self, clock):
        self.clock, self.workers, self.asked = clock, FakeWorkers(), []
        self.frames = SimpleNamespace(train_samples=range(80))

    def measure(self, first_step, seconds):
        self.asked.append((first_step, seconds))
        self.clock.now += 20
        return Pace(0.5 / MARGIN, 2.0, 5.0)


@pytest.fixture
def clock(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr(plan, "time", fake)
    return fake


def training(minutes, epochs=30):
    values = {"max_minutes": minutes, "epochs": epochs, "steps_per_epoch": 100}
    return TrainingConfig.model_validate(values)


def test_without_a_limit_nothing_is_measured(clock):
    trainer, state = FakeTrainer(clock), State()
    is_over = limit_time(training(None), trainer, state, clock.now)
    clock.now += 1e9
    assert (is_over(), state.fitted, trainer.asked) == (False, None, [])


def test_what_fits_is_said_in_one_line(clock, capsys):
    # 600 s, less 30 for setting up, 20 for measuring, 5 for the end: 545 s for epochs of 52 s.
    limit_time(training(10), FakeTrainer(clock), State(), clock.now - 30)
    assert capsys.readouterr().err == (
        "1,046 of 3,000 steps fit into 10 minutes (481 ms a step, 2.0 s an epoch's validation); "
        "the learning rate's schedule ends there\n"
    )


def test_a_run_that_fits_whole_keeps_its_steps(clock, capsys):
    state = State()
    limit_time(training(60), FakeTrainer(clock), state, clock.now)
    assert state.fitted["steps"] == 3000
    assert capsys.readouterr().err.startswith("all 3,000 steps fit into 60 minutes (")


def test_what_the_chief_decides_is_everybodys(clock):
    trainer, state = FakeTrainer(clock), State()
    trainer.workers.from_chief = lambda document: document | {"steps": 77}
    limit_time(training(10), trainer, state, clock.now)
    assert state.fitted["steps"] == 77


def test_what_was_decided_stays_when_the_run_goes_on(clock, capsys):
    trainer = FakeTrainer(clock)
    decided = {"minutes": 10.0, "of": 3000, "steps": 1046, "reserved_s": 7.0}
    state = State(step=500, elapsed_s=300.0, fitted=dict(decided))
    limit_time(training(10), trainer, state, clock.now)
    assert (state.fitted, trainer.asked, capsys.readouterr().err) == (decided, [], "")


@pytest.mark.parametrize(("minutes", "epochs"), [(20, 30), (10, 31)])
def test_other_minutes_or_epochs_are_fitted_to_the_time_that_is_left(clock, minutes, epochs):
    trainer = FakeTrainer(clock)
    decided = {"minutes": 10.0, "of": 3000, "steps": 700, "reserved_s": 7.0}
    state = State(step=700, elapsed_s=300.0, fitted=decided)
    limit_time(training(minutes, epochs), trainer, state, clock.now)
    # 60 s a minute, less 300 before, 20 for measuring and 5 for the end, in epochs of 52 s.
    left = 60 * minutes - 325
    whole, rest = divmod(left, 52)
    assert state.fitted["steps"] == 700 + 100 * whole + int((rest - 2) / 0.5)
    assert trainer.asked == [(700, MEASURED_S)]
    assert state.elapsed_s == 320


def test_measuring_takes_a_small_part_of_a_short_time(clock):
    trainer = FakeTrainer(clock)
    limit_time(training(0.5), trainer, State(), clock.now)
    assert trainer.asked == [(0, pytest.approx(1.2))]


def test_the_deadline_leaves_time_for_the_last_validation_and_the_end(clock):
    is_over = limit_time(training(10), FakeTrainer(clock), State(), started := clock.now)
    clock.now = started + 592
    assert not is_over()
    clock.now = started + 594
    assert is_over()


def test_compiling_again_is_no_part_of_a_resumed_runs_time(clock):
    decided = {"minutes": 10.0, "of": 3000, "steps": 1046, "reserved_s": 7.0}
    state = State(step=500, elapsed_s=300.0, fitted=decided)
    is_over = limit_time(training(10), FakeTrainer(clock), state, clock.now)
    clock.now += 1000
    assert not is_over()
    clock.now += 292
    assert not is_over()
    clock.now += 2
    assert is_over()


def test_the_schedule_ends_where_the_steps_do():
    made = make_plan(training(10), CheckpointConfig(), 80, {"steps": 1000})
    # Of the default warm-up 50 steps are left; half of the cosine is at 525.
    assert made.learning_rate(525, 1.0) == pytest.approx((1e-3 + 1e-6) / 2)
    assert made.learning_rate(1000, 1.0) == pytest.approx(1e-6)
