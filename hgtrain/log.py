"""What a run shows and writes while it goes: progress on stderr, TensorBoard's event file."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
SILENT_SECONDS = 2.0
"""A phase shorter than this shows nothing."""


def say(message: str) -> None:
    """Write a line to stderr, above a progress bar where there is one."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def progress(items: Iterable[T], total: int, what: str, unit: str = "frames") -> Iterator[T]:
    """Pass items on, and show how many are through and the time left.

    Nothing is shown until it takes longer than two seconds.
    """
    reporter = Reporter(total, what, unit)
    for done, item in enumerate(items):
        yield item
        reporter.update(done + 1)
    reporter.close()


def blocks_progress(what: str) -> Callable[[range], Iterator[int]]:
    """Return what passes on the first frames of blocks and shows how many blocks are through."""
    return lambda starts: progress(starts, len(starts), what, "blocks")


class Reporter:
    """A progress bar on a terminal, plain lines at intervals elsewhere.

    `total` is 0 where nobody knows; it may turn out to be too low.
    """

    def __init__(
        self, total: int, what: str, unit: str, done: int = 0, delay_s: float = SILENT_SECONDS
    ) -> None:
        from tqdm import tqdm

        self._what, self._unit, self._total, self._first = what, unit, total, done
        self._started = time.monotonic()
        self._last_line = self._started + delay_s - SECONDS_BETWEEN_LINES
        self._bar = (
            # Where there is one already, as that of the steps while a validation runs, it goes when
            # it is done.
            tqdm(
                total=total or None,
                initial=done,
                desc=what,
                unit=f" {unit}",
                delay=delay_s,
                file=sys.stderr,
                leave=None,
            )
            if sys.stderr.isatty()
            else None
        )

    def update(self, done: int, detail: str = "") -> None:
        """Show that `done` of the total are through."""
        if self._bar is not None:
            self._bar.set_postfix_str(detail, refresh=False)
            self._bar.update(done - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= SECONDS_BETWEEN_LINES:
            self._last_line = now
            seconds = now - self._started
            left = seconds / max(done - self._first, 1) * (self._total - done)
            is_known = self._total >= done
            eta = f", {format_seconds(left)} left" if is_known and done > self._first else ""
            of = f"/{self._total}" if is_known else ""
            say(f"{self._what}: {done}{of} {self._unit}{', ' if detail else ''}{detail}{eta}")

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def format_seconds(seconds: float) -> str:
    """Return `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
