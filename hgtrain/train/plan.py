"""How long a run trains: steps, epochs, the learning rate of each step."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

from hgtrain.config.schema import CheckpointConfig, TrainingConfig


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


def make_plan(training: TrainingConfig, checkpoint: CheckpointConfig, frames: int) -> Plan:
    """Return what the loop is to do for a number of training frames."""
    steps = steps_per_epoch(training, frames)
    total = training.epochs * steps
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
