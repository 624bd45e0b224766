"""How long a run trains: steps, epochs, the learning rate of each step."""

import math
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from hgtrain.config.schema import CheckpointConfig, TrainingConfig
from hgtrain.log import say

if TYPE_CHECKING:
    from hgtrain.train.loop import State
    from hgtrain.train.trainer import Trainer

MEASURED_S, MEASURED_FRACTION = 4.0, 0.04
"""How long steps are measured to see how many fit, at most that part of the time there is."""

MARGIN = 1.04
"""By how much steps may be slower than those that were measured."""

SHORTEST_EPOCH = 0.1
"""A last epoch that would have a smaller part of an epoch's steps is left out."""


class Plan(NamedTuple):
    """What a run is to do.

    Attributes:
        epochs: How many.
        steps_per_epoch: How many.
        batch_size: Images of a step.
        checkpoint_steps: A checkpoint is due at its multiples, at the end and when the run is
            interrupted.
        learning_rate: (step, plateau factor) -> learning rate.
        early_stopping_epochs: None for never.
        plateau_patience_epochs: None for no plateau.
        plateau_factor: What the learning rate is multiplied by on a plateau.
        skips_nonfinite: Whether a step whose loss is not finite is left out.
    """

    epochs: int
    steps_per_epoch: int
    batch_size: int
    checkpoint_steps: int
    learning_rate: Callable[[int, float], float]
    early_stopping_epochs: int | None = None
    plateau_patience_epochs: int | None = None
    plateau_factor: float = 1.0
    skips_nonfinite: bool = False


@dataclass(frozen=True)
class Schedule:
    """Warm-up and decay of the learning rate.

    Attributes:
        kind: "cosine" falls towards `minimum`, which it has at step `total_steps`, the first after
            the run; "plateau" is lowered by a factor, not below `minimum`; "constant" stays.
        peak: The highest learning rate.
        minimum: The lowest learning rate.
        warmup_steps: The rate rises linearly over them.
        total_steps: Of the whole run.
    """

    kind: Literal["cosine", "plateau", "constant"]
    peak: float
    minimum: float
    warmup_steps: int
    total_steps: int

    def learning_rate(self, step: int, plateau_factor: float = 1.0) -> float:
        """Return the learning rate of a step.

        Args:
            step: Counted from 0.
            plateau_factor: The product of all lowerings.
        """
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        if self.kind == "cosine":
            after = max(1, self.total_steps - self.warmup_steps)
            progress = min(1.0, (step - self.warmup_steps) / after)
            return self.minimum + (self.peak - self.minimum) * 0.5 * (
                1 + math.cos(math.pi * progress)
            )
        if self.kind == "plateau":
            return max(self.minimum, self.peak * plateau_factor)
        return self.peak


def default_warmup_steps(total_steps: int) -> int:
    """Return 5% of the steps, at most 200."""
    return min(200, total_steps // 20)


def steps_per_epoch(training: TrainingConfig, frames: int) -> int:
    """Return the steps of an epoch: as configured, else one pass over the frames, at least 200."""
    return training.steps_per_epoch or max(200, -(-frames // training.images_per_step))


def make_plan(
    training: TrainingConfig,
    checkpoint: CheckpointConfig,
    frames: int,
    fitted: dict[str, float] | None = None,
) -> Plan:
    """Return what the loop is to do for a number of training frames.

    Args:
        training: The section.
        checkpoint: The section.
        frames: To train on.
        fitted: As in the state; the learning rate's schedule is made for its `steps`.
    """
    steps = steps_per_epoch(training, frames)
    total = training.epochs * steps if fitted is None else int(fitted["steps"])
    warmup = default_warmup_steps(total) if training.warmup_steps is None else training.warmup_steps
    schedule = Schedule(
        training.schedule, training.learning_rate, training.min_learning_rate, warmup, total
    )
    return Plan(
        epochs=training.epochs,
        steps_per_epoch=steps,
        batch_size=training.images_per_step,
        checkpoint_steps=checkpoint.every_steps or steps,
        learning_rate=schedule.learning_rate,
        early_stopping_epochs=training.early_stopping_epochs,
        plateau_patience_epochs=training.plateau_patience_epochs
        if training.schedule == "plateau"
        else None,
        plateau_factor=training.plateau_factor,
        skips_nonfinite=training.on_nonfinite == "skip",
    )


class Pace(NamedTuple):
    """What takes how long.

    Attributes:
        step_s: Seconds of a step.
        epoch_s: Of what an epoch ends with: validating, writing a checkpoint and best.keras.
        end_s: Of what a run ends with: evaluation and report.
    """

    step_s: float
    epoch_s: float
    end_s: float


def fitting_steps(seconds: float, pace: Pace, of_epoch: int, done: int, most: int) -> int:
    """Return how many steps a run has in all, so that its epochs end in time.

    Args:
        seconds: That are left for steps and epochs.
        pace: What takes how long.
        of_epoch: Steps of an epoch; the last one may have fewer.
        done: Steps before.
        most: Steps that were asked for.

    Returns:
        At most `most`, and one more than `done` at least.
    """

    def needed(total: int) -> float:
        epochs = -(-total // of_epoch) - done // of_epoch
        return (total - done) * pace.step_s * MARGIN + epochs * pace.epoch_s

    total = done + bisect_right(range(done + 1, most + 1), seconds, key=needed)
    rest = total % of_epoch
    if total < most and rest < SHORTEST_EPOCH * of_epoch and total - rest > done:
        total -= rest
    return max(total, min(done + 1, most))


class Deadline:
    """Says whether the time for training is over.

    Args:
        seconds: Until then.
        started: From when, as `time.monotonic` says it; None: from when it is first asked, after
            the first steps. What a resumed process compiles again is not counted, so that it trains
            as long as one that was not stopped.
    """

    def __init__(self, seconds: float, started: float | None) -> None:
        self._seconds, self._started = seconds, started

    def __call__(self) -> bool:
        """Return whether it is over."""
        if self._started is None:
            self._started = time.monotonic()
        return time.monotonic() - self._started > self._seconds


def limit_time(
    training: TrainingConfig, trainer: "Trainer", state: "State", started: float
) -> Callable[[], bool]:
    """Decide how many steps fit into `training.max_minutes`, and note it in `state.fitted`.

    It is decided once, for all processes by the chief, and again only where other minutes or epochs
    are asked for.

    Args:
        training: The section.
        trainer: What steps are measured with; it is as before afterwards.
        state: Where the run stands.
        started: When this process began with the run, as `time.monotonic` says it.

    Returns:
        What says whether the time is over, should steps take longer than they were to.
    """
    if training.max_minutes is None:
        state.fitted = None
        return lambda: False
    seconds = 60 * training.max_minutes - state.elapsed_s
    of_epoch = steps_per_epoch(training, len(trainer.frames.train_samples))
    most = training.epochs * of_epoch
    asked: dict[str, float] = {"minutes": training.max_minutes, "of": most}
    if state.fitted is not None and asked.items() <= state.fitted.items():
        return Deadline(seconds - state.fitted["reserved_s"], None)
    before = time.monotonic()
    pace = trainer.measure(state.step, min(MEASURED_S, MEASURED_FRACTION * seconds))
    left = seconds - (time.monotonic() - started) - pace.end_s
    steps = fitting_steps(left, pace, of_epoch, state.step, most)
    reserved = pace.epoch_s + pace.end_s
    decided = asked | {"steps": steps, "reserved_s": reserved}
    state.fitted = trainer.workers.from_chief(decided)
    state.elapsed_s += time.monotonic() - before
    if trainer.workers.is_chief:
        say(_fitted_text(decided, pace))
    return Deadline(seconds - reserved, started)


def _fitted_text(decided: dict[str, float], pace: Pace) -> str:
    steps, most, minutes = decided["steps"], decided["of"], decided["minutes"]
    time_ = "1 minute" if minutes == 1 else f"{minutes:g} minutes"
    taken = f"{1000 * pace.step_s:.0f} ms a step, {pace.epoch_s:.1f} s an epoch's validation"
    if steps == most:
        return f"all {most:,} steps fit into {time_} ({taken})"
    return (
        f"{steps:,} of {most:,} steps fit into {time_} ({taken}); the learning rate's schedule "
        "ends there"
    )
