"""The page of a run while it trains, in the place of its report.html."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgtrain import files
from hgtrain.log import format_seconds, say
from hgtrain.report.page import OF_SEVERAL, REPORT, render, training_figures

PART_OF_TIME = 0.01
"""What drawing may take of a run's time."""
SHOWN_EPOCHS = 20
RELOAD_S = 30


class LivePage:
    """Writes the page after a validation, unless that would take more than 1% of the time so far.

    After the first it is written in any case.

    Args:
        folder: The run directory.
        epochs: That the run is to have.
    """

    def __init__(self, folder: Path, epochs: int) -> None:
        self._folder, self._epochs = folder, epochs
        self._spent_s = self._last_s = 0.0
        self._has_failed = False

    def __call__(self, history: Sequence[dict[str, Any]], best: dict[str, Any] | None) -> None:
        """Write the page of the rows of metrics.jsonl so far; a failure is said once.

        Args:
            history: The rows.
            best: The one of the best epoch.
        """
        allowed = PART_OF_TIME * history[-1]["elapsed_s"]
        if self._has_failed or self._spent_s + self._last_s > allowed:
            return
        before = time.monotonic()
        try:
            page = render("live.html.j2", live_page(self._folder, history, best, self._epochs))
            files.write_text(self._folder / REPORT, page)
        except Exception as error:  # noqa: BLE001
            # Whatever it is, it is no reason to lose a training.
            self._has_failed = True
            say(f"{self._folder / REPORT} is not written while training goes on: {error}")
        self._last_s = time.monotonic() - before
        self._spent_s += self._last_s


def live_page(
    folder: Path, history: Sequence[dict[str, Any]], best: dict[str, Any] | None, epochs: int
) -> dict[str, Any]:
    """Return what the template of the page needs."""
    last = history[-1]
    return {
        "title": folder.resolve().name,
        "reload_s": RELOAD_S,
        "result": (
            f"In training: {last['epoch']} of {epochs} epochs, {last['step']} steps in "
            f"{format_seconds(last['elapsed_s'])}."
        ),
        "curves": training_figures(history, only_results=True),
        "rows": list(reversed(history[-SHOWN_EPOCHS:])),
        "several": [(key, name) for key, name in OF_SEVERAL.items() if key in last],
        "best": None if best is None else best["epoch"],
    }
