"""The outer loop in plain Python.

Epochs, intervals, validation, keeping the best, stopping early, being interrupted.
"""

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import numpy as np

from hgtrain.train.distributed.decision import Decide, decide_alone
from hgtrain.train.plan import Plan

SECONDS_A_CALL = 0.5
"""Steps are run in calls of about this length.

Long enough to cost nothing, short enough to react to a signal.
"""

OF_SEVERAL = ("val_oks_map", "val_f1")
"""What metrics.jsonl has too where an image may hold several animals."""
MAX_SKIPPED = 10
"""Steps of a run that may be left out; more of them are no accident."""


@dataclass
class State:
    """Where a run stands, as plain JSON values: with the variables, all that a checkpoint holds.

    Attributes:
        step: Updates over the whole run.
        epoch_losses: The sum over the steps of the current epoch of each loss: by stack, and in it
            by output.
        checkpoint_s: Seconds spent on writing checkpoints and best.keras.
        skipped: The steps that were left out.
        fitted: Where the run's time is limited, how many `steps` there are in all, and of what
            that was decided, as `train.plan.limit_time` has it.
    """

    step: int = 0
    epoch_losses: list[float] = field(default_factory=list)
    best: float | None = None
    epochs_without_best: int = 0
    plateau_factor: float = 1.0
    epochs_on_plateau: int = 0
    elapsed_s: float = 0.0
    checkpoint_s: float = 0.0
    skipped: list[int] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    fitted: dict[str, float] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as a dict that `State(**dict)` takes."""
        return asdict(self)


class Inner(Protocol):
    """What the loop drives; everything that knows TensorFlow is behind it."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return the names of a stack's outputs."""
        ...

    def steps(self, first_step: int, learning_rates: np.ndarray) -> tuple[np.ndarray, float]:
        """Run steps; return the losses `(n, stacks, outputs)` and the seconds of waiting."""
        ...

    def validate(self) -> dict[str, Any]:
        """Return the metrics of the clean validation.

        They have at least `val_loss` and `val_error_px` (None without labelled points), and
        `val_rank` where the best epoch is not that of the lowest error but of the lowest rank.
        """
        ...

    def save_best(self) -> None:
        """Keep the network as the best so far."""
        ...

    def save_state(self, state: State) -> None:
        """Write a checkpoint to resume from; its writing may still go on after the return."""
        ...

    def restore(self) -> State | None:
        """Go back to the newest checkpoint and return its state; None where there is none."""
        ...


class Observer(Protocol):
    """Who is told what happens: the progress bar, metrics.jsonl, TensorBoard."""

    def stepped(self, state: State, loss: float, images_per_s: float | None) -> None:
        """Take note of some steps done.

        Args:
            state: After them.
            loss: The last one's.
            images_per_s: None until it can be measured.
        """
        ...

    def epoch_ended(self, state: State, row: dict[str, Any], validation: dict[str, Any]) -> None:
        """Take note of the end of an epoch.

        Args:
            state: After it.
            row: Of metrics.jsonl, in `state.history` already.
            validation: All that `validate` returned.
        """
        ...

    def left_out(self, state: State, step: int) -> None:
        """Take note that a step's loss was not finite; the run is back at `state` without it."""
        ...


class InterruptedRunError(Exception):
    """The run was asked to stop and has written a checkpoint."""


class NotFiniteError(Exception):
    """The loss is NaN or infinite.

    Args:
        step: Where it was first seen.
        in_validation: Whether it was in the validation after that many steps.
    """

    def __init__(self, step: int, in_validation: bool = False) -> None:
        super().__init__(f"the loss is not finite at step {step}")
        self.step, self.in_validation = step, in_validation


class _Clock:
    """What of the current epoch was spent on steps and on waiting for data.

    It says how many steps a call should have.
    """

    def __init__(self, elapsed_s: float) -> None:
        self._started = time.monotonic() - elapsed_s
        self._is_compiled = False
        self.steps_a_call = 1
        self.start_epoch()

    def start_epoch(self) -> None:
        self._seconds = self._waited = 0.0
        self._steps = 0
        self._is_compiling_alone = False

    def add(self, steps: int, seconds: float, waited: float) -> None:
        # The first call of a process traces and compiles: it counts only as long as there is no
        # other.
        if self._is_compiling_alone:
            self._seconds = self._waited = 0.0
            self._steps = 0
        self._is_compiling_alone = not self._is_compiled
        self._is_compiled = True
        self._seconds += seconds
        self._waited += waited
        self._steps += steps
        fitting = int(SECONDS_A_CALL * steps / max(seconds, 1e-6))
        self.steps_a_call = max(1, min(fitting, 4 * self.steps_a_call, 256))

    def elapsed_s(self) -> float:
        return time.monotonic() - self._started

    def steps_per_s(self) -> float | None:
        return self._steps / max(self._seconds, 1e-9) if self._steps else None

    def wait_fraction(self) -> float | None:
        return self._waited / max(self._seconds, 1e-9) if self._steps else None


def train(
    plan: Plan, state: State, inner: Inner, observer: Observer, decide: Decide = decide_alone
) -> State:
    """Return the state after the last epoch, or after stopping early.

    What is done follows from plan, state, losses, validation and decisions alone, never from this
    process's clock: of several that train together each does the same.

    Raises:
        InterruptedRunError: It was decided to stop; a checkpoint is written.
        NotFiniteError: The loss is not finite; no checkpoint is written.
    """
    clock = _Clock(state.elapsed_s)
    if plan.skips_nonfinite and state.step == 0:
        _save(state, inner)
    while not is_finished(plan, state):
        clock.start_epoch()
        try:
            _run_epoch(plan, state, inner, observer, clock, decide)
        except NotFiniteError as error:
            if not plan.skips_nonfinite or len(state.skipped) >= MAX_SKIPPED:
                raise
            _go_back(state, inner, error.step)
            observer.left_out(state, error.step)
        else:
            _end_epoch(plan, state, inner, observer, clock, decide)
    return state


def _end_epoch(
    plan: Plan, state: State, inner: Inner, observer: Observer, clock: _Clock, decide: Decide
) -> None:
    validation = inner.validate()
    if not math.isfinite(validation["val_loss"]) or not state.epoch_losses:
        raise NotFiniteError(state.step, in_validation=True)
    row = _epoch_row(plan, state, clock, validation, inner.output_names)
    state.elapsed_s = row["elapsed_s"]
    state.history.append(row)
    if _judge(plan, state, validation):
        before = time.monotonic()
        inner.save_best()
        state.checkpoint_s += time.monotonic() - before
    state.epoch_losses = []
    observer.epoch_ended(state, row, validation)
    _decide(
        state,
        inner,
        clock,
        decide,
        is_finished(plan, state) or state.step % plan.checkpoint_steps == 0,
    )


def _decide(state: State, inner: Inner, clock: _Clock, decide: Decide, is_due: bool) -> None:
    """Write a checkpoint where one is due or wanted.

    Raises:
        InterruptedRunError: The run is to stop; the checkpoint is written.
    """
    decision = decide(clock.steps_a_call)
    clock.steps_a_call = decision.steps
    is_over = decision.ends and state.fitted is not None and state.step < state.fitted["steps"]
    if is_over and state.fitted is not None:
        state.fitted["steps"] = state.step
    if decision.saves or decision.stops or is_due or is_over:
        _save(state, inner)
    if decision.stops:
        raise InterruptedRunError


def _save(state: State, inner: Inner) -> None:
    before = time.monotonic()
    inner.save_state(state)
    state.checkpoint_s += time.monotonic() - before


def _go_back(state: State, inner: Inner, step: int) -> None:
    """Make `state` that of the newest checkpoint, with one more step to leave out."""
    skipped = sorted({*state.skipped, step})
    before = inner.restore()
    if before is None:
        raise NotFiniteError(step)
    vars(state).update(vars(before) | {"skipped": skipped})


def is_finished(plan: Plan, state: State) -> bool:
    """Return whether all epochs are done or too many of them brought nothing."""
    patience = plan.early_stopping_epochs
    return _steps_validated(state) >= total_steps(plan, state) or (
        patience is not None and state.epochs_without_best >= patience
    )


def total_steps(plan: Plan, state: State) -> int:
    """Return how many steps the run has in all."""
    whole = plan.epochs * plan.steps_per_epoch
    return whole if state.fitted is None else min(whole, int(state.fitted["steps"]))


def _steps_validated(state: State) -> int:
    return state.history[-1]["step"] if state.history else 0


def _epoch_end(plan: Plan, state: State) -> int:
    """Return the step at which the epoch ends; the last one may be shorter."""
    # Not from the step: a run stopped after an epoch's last step has yet to validate it.
    return min((len(state.history) + 1) * plan.steps_per_epoch, total_steps(plan, state))


def _run_epoch(
    plan: Plan, state: State, inner: Inner, observer: Observer, clock: _Clock, decide: Decide
) -> None:
    # Again after each call: the run's time may be over.
    while state.step < (end := _epoch_end(plan, state)):
        if state.step in state.skipped:
            state.step += 1
        else:
            loss = _run_call(plan, state, inner, clock, end)
            observer.stepped(state, loss, _images_per_s(plan, clock))
        _decide(
            state,
            inner,
            clock,
            decide,
            state.step % plan.checkpoint_steps == 0 and state.step < end,
        )


def _run_call(plan: Plan, state: State, inner: Inner, clock: _Clock, end: int) -> float:
    """Run some steps, at most to the next checkpoint, and return the loss of the last."""
    to_checkpoint = plan.checkpoint_steps - state.step % plan.checkpoint_steps
    to_skipped = [step - state.step for step in state.skipped if step > state.step]
    count = min(clock.steps_a_call, end - state.step, to_checkpoint, *to_skipped)
    rates = [plan.learning_rate(state.step + i, state.plateau_factor) for i in range(count)]
    before = time.monotonic()
    losses, waited = inner.steps(state.step, np.asarray(rates, np.float32))
    clock.add(count, time.monotonic() - before, waited)
    _add_losses(state, losses.reshape(count, -1))
    state.step += count
    state.elapsed_s = clock.elapsed_s()
    return float(losses[-1].sum())


def _add_losses(state: State, losses: np.ndarray) -> None:
    # One step after the other in float64, so that the sum does not depend on how steps were grouped
    # into calls.
    sums = state.epoch_losses or [0.0] * losses.shape[1]
    for offset, row in enumerate(losses):
        if not np.isfinite(row).all():
            raise NotFiniteError(state.step + offset)
        sums = [total + float(value) for total, value in zip(sums, row, strict=True)]
    state.epoch_losses = sums


def _epoch_row(
    plan: Plan,
    state: State,
    clock: _Clock,
    validation: dict[str, Any],
    output_names: tuple[str, ...],
) -> dict[str, Any]:
    first = _steps_validated(state)
    steps = state.step - first - sum(first <= step < state.step for step in state.skipped)
    mean = np.reshape(state.epoch_losses, (-1, len(output_names))) / steps
    per_stack = mean.sum(1).tolist()
    return {
        "step": state.step,
        "epoch": len(state.history) + 1,
        "loss": sum(per_stack),
        "loss_per_stack": per_stack,
        "loss_per_output": dict(zip(output_names, mean.sum(0).tolist(), strict=True)),
        "val_loss": validation["val_loss"],
        "val_error_px": validation["val_error_px"],
        **{key: validation[key] for key in OF_SEVERAL if key in validation},
        "learning_rate": plan.learning_rate(state.step - 1, state.plateau_factor),
        "images_per_s": _images_per_s(plan, clock),
        "data_wait_fraction": clock.wait_fraction(),
        "elapsed_s": clock.elapsed_s(),
        "checkpoint_s": state.checkpoint_s,
    }


def _images_per_s(plan: Plan, clock: _Clock) -> float | None:
    steps_per_s = clock.steps_per_s()
    return None if steps_per_s is None else steps_per_s * plan.batch_size


def _judge(plan: Plan, state: State, validation: dict[str, Any]) -> bool:
    """Return whether this epoch is the best, and count it if not.

    It is by rank where there is one, else by error in px or, where nothing is labelled, by loss.
    """
    values = (validation.get(key) for key in ("val_rank", "val_error_px", "val_loss"))
    value = next(value for value in values if value is not None)
    is_best = state.best is None or value < state.best
    if is_best:
        state.best = value
        state.epochs_without_best = state.epochs_on_plateau = 0
        return True
    state.epochs_without_best += 1
    state.epochs_on_plateau += 1
    patience = plan.plateau_patience_epochs
    if patience is not None and state.epochs_on_plateau >= patience:
        state.plateau_factor *= plan.plateau_factor
        state.epochs_on_plateau = 0
    return False
