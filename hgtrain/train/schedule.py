"""Learning rates as plain functions of the step, so that resuming needs no state but the plateau's factor."""

import math
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Schedule:
    """Warm-up and decay of the learning rate.

    kind: "cosine" falls towards `minimum`, which it has at step `total_steps`, the first after the run; "plateau" is
    lowered by a factor, not below `minimum`; "constant" stays.
    peak, minimum: learning rates. warmup_steps: the rate rises linearly over them. total_steps: of the whole run.
    """

    kind: Literal["cosine", "plateau", "constant"]
    peak: float
    minimum: float
    warmup_steps: int
    total_steps: int

    def learning_rate(self, step: int, plateau_factor: float = 1.0) -> float:
        """Return the learning rate of a step, counted from 0; `plateau_factor` is the product of all lowerings."""
        if step < self.warmup_steps:
            return self.peak * (step + 1) / (self.warmup_steps + 1)
        if self.kind == "cosine":
            after = max(1, self.total_steps - self.warmup_steps)
            progress = min(1.0, (step - self.warmup_steps) / after)
            return self.minimum + (self.peak - self.minimum) * 0.5 * (1 + math.cos(math.pi * progress))
        if self.kind == "plateau":
            return max(self.minimum, self.peak * plateau_factor)
        return self.peak


def default_warmup_steps(total_steps: int) -> int:
    """Return 5% of the steps, at most 200."""
    return min(200, total_steps // 20)
