import pytest

from hgtrain.train.plan import Schedule, default_warmup_steps


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
