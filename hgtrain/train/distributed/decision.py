"""What the processes that train together decide between two calls."""

from collections.abc import Callable
from typing import NamedTuple


class Decision(NamedTuple):
    """What is to be done after a call.

    Attributes:
        stops: Whether to stop.
        saves: Whether to write a checkpoint.
        steps: The most steps of the next call.
        ends: Whether the time is over, so that the run is to end here.
    """

    stops: bool
    saves: bool
    steps: int
    ends: bool = False


Decide = Callable[[int], Decision]
"""From the steps that the next call should have here to what all processes will do."""


def decide_alone(steps: int) -> Decision:
    """Go on, with nobody to ask."""
    return Decision(stops=False, saves=False, steps=steps)
