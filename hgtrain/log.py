"""What a person sees of what goes on: lines and bars on stderr."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
SILENT_SECONDS = 2.0
"""A phase shorter than this shows nothing."""
SHORT_SECONDS = 1.0
"""What takes no longer is not spoken of."""
LEAST_BAR = 8
"""Columns of the smallest bar that is worth its room."""
COLOURS = {"green": 32, "red": 31, "bold": 1}


def say(message: str) -> None:
    """Write a line to stderr, above a progress bar where there is one."""
    from tqdm import tqdm

    tqdm.write(message, file=sys.stderr)


def coloured(text: str, colour: str) -> str:
    """Return the text in a colour of COLOURS where stderr is a terminal that has colours.

    `NO_COLOR` keeps it as it is, as https://no-color.org has it.
    """
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    if is_plain or not sys.stderr.isatty():
        return text
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


@contextmanager
def doing(what: str, delay_s: float = SHORT_SECONDS) -> Iterator[None]:
    """Say what goes on within the block, once it has taken `delay_s` seconds.

    It is a line; on a terminal it goes when the block ends.
    """
    shown = _Shown(what)
    if delay_s <= 0:
        shown.show()
        timer = None
    else:
        timer = threading.Timer(delay_s, shown.show)
        timer.daemon = True
        timer.start()
    try:
        yield
    finally:
        if timer is not None:
            timer.cancel()
            timer.join()
        shown.close()


class _Shown:
    """A line that stays, or on a terminal one that goes."""

    def __init__(self, what: str) -> None:
        self._what = what
        self.close: Callable[[], None] = lambda: None

    def show(self) -> None:
        from tqdm import tqdm

        if not sys.stderr.isatty():
            say(self._what)
            return
        # In the place of the bar that there may be, which comes again with its next step.
        shape, text = "{desc} ...", self._what
        self.close = tqdm(
            [], text, bar_format=shape, position=0, leave=False, file=sys.stderr
        ).close


def progress(
    items: Iterable[T], total: int, what: str, unit: str = "frames", size: int = 1
) -> Iterator[T]:
    """Pass items on, and show how much is through and the time left.

    Nothing is shown until it takes longer than two seconds.

    Args:
        items: What is worked on.
        total: How many units they are together.
        what: What is done with them.
        unit: Of which an item has `size`, the last one what is left.
        size: The same.
    """
    reporter = Reporter(total, what, unit)
    for done, item in enumerate(items):
        yield item
        reporter.update(min((done + 1) * size, total))
    reporter.close()


def blocks_progress(what: str) -> Callable[[range], Iterator[int]]:
    """Return what passes on the first frames of blocks and shows how many frames are through."""
    return lambda starts: progress(starts, starts.stop, what, size=starts.step)


class Reporter:
    """A progress bar on a terminal, plain lines at intervals elsewhere.

    Args:
        total: 0 where nobody knows; it may turn out to be too low.
        what: What is done.
        unit: With what.
        done: How many are done before it begins.
        delay_s: Seconds in which nothing is shown.
        counts_first: Whether what is done before the first `update` counts in the speed; it may
            take long to prepare.
    """

    def __init__(
        self,
        total: int,
        what: str,
        unit: str,
        done: int = 0,
        delay_s: float = SILENT_SECONDS,
        counts_first: bool = True,
    ) -> None:
        from tqdm import tqdm

        self._what, self._unit, self._total = what, unit, total
        self._started = time.monotonic()
        # Of the speed: how many were done, and when.
        self._since = (done, self._started) if counts_first else None
        self._last_line = self._started + delay_s - SECONDS_BETWEEN_LINES
        self._bar = (
            tqdm(
                total=total or None,
                initial=done,
                desc=what,
                bar_format="{desc}",
                delay=delay_s,
                miniters=0,
                dynamic_ncols=True,
                file=sys.stderr,
                leave=False,
            )
            if sys.stderr.isatty()
            else None
        )

    def begin(self, what: str) -> None:
        """Say what goes on before the first `update`."""
        if self._bar is None:
            say(what)
        else:
            self._bar.set_description_str(f"{what} ...")

    def update(self, done: int) -> None:
        """Show that `done` of the total are through."""
        of = f"/{self._total}" if self._total >= done else ""
        speed = self.speed(done)
        rate = "" if speed is None else f"{_number(speed)} {self._unit}/s"
        parts = [f"{self._what}: {done}{of} {self._unit}", rate, self.left(done)]
        self.show(done, [", ".join(filter(None, parts))])

    def show(self, done: int, texts: Sequence[str]) -> None:
        """Show that `done` of the total are through, in other words.

        Args:
            done: Of the total.
            texts: The same in more and more narrow forms. A line is the first; a bar gets the
                first that fits beside it into the terminal's width.
        """
        now = time.monotonic()
        self._since = self._since or (done, now)
        if self._bar is None:
            if now - self._last_line >= SECONDS_BETWEEN_LINES:
                self._last_line = now
                say(texts[0])
            return
        width = self._bar.ncols or 80
        text = next((text for text in texts if len(text) <= width), texts[-1])
        has_bar = self._total >= done and width - len(text) >= LEAST_BAR + len(" ||")
        self._bar.bar_format = "{desc} |{bar}|" if has_bar else "{desc}"
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def speed(self, done: int) -> float | None:
        """Return how many are done in a second, None before it can be told."""
        first, since = self._since or (done, 0.0)
        if done <= first:
            return None
        return (done - first) / max(time.monotonic() - since, 1e-9)

    def left_s(self, done: int) -> float | None:
        """Return the seconds left, None before they can be told."""
        speed = self.speed(done)
        return None if speed is None or self._total < done else (self._total - done) / speed

    def left(self, done: int) -> str:
        """Return the time left in words, nothing before it can be told."""
        seconds = self.left_s(done)
        return "" if seconds is None else f"{format_seconds(seconds)} left"

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.close()


def _number(speed: float) -> str:
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"


def format_seconds(seconds: float) -> str:
    """Return `1:02:03` or `2:03`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def duration(seconds: float) -> str:
    """Return about how long it is, in words: `40 seconds`, `12 minutes`, `3.5 hours`, `2 days`."""
    for unit, size, digits in (("day", 86400, 1), ("hour", 3600, 1), ("minute", 60, 0)):
        if seconds >= 1.5 * size:
            number = f"{seconds / size:.{digits}f}".removesuffix(".0")
            return f"{number} {unit}s"
    return f"{round(seconds)} seconds" if seconds >= 10 else "a few seconds"
