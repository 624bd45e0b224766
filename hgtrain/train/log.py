"""What a run shows and writes while it goes: progress on stderr, TensorBoard's event file."""

import os
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from tqdm import tqdm

T = TypeVar("T")

SECONDS_BETWEEN_LINES = 10.0
SILENT_SECONDS = 2.0
"""A phase shorter than this shows nothing."""


def say(message: str) -> None:
    """Write a line to stderr, above a progress bar where there is one."""
    tqdm.write(message, file=sys.stderr)


def progress(items: Iterable[T], total: int, what: str, unit: str = "frames") -> Iterator[T]:
    """Pass items on, and show how many are through and the time left once it takes longer than two seconds."""
    reporter = Reporter(total, what, unit)
    for done, item in enumerate(items):
        yield item
        reporter.update(done + 1)
    reporter.close()


class Reporter:
    """A progress bar on a terminal, plain lines at intervals elsewhere.

    total: 0 where nobody knows; it may turn out to be too low.
    """

    def __init__(self, total: int, what: str, unit: str, done: int = 0, delay_s: float = SILENT_SECONDS) -> None:
        self._what, self._unit, self._total, self._first = what, unit, total, done
        self._started = time.monotonic()
        self._last_line = self._started + delay_s - SECONDS_BETWEEN_LINES
        self._bar = (
            # Where there is one already, as that of the steps while a validation runs, it goes when it is done.
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


class EventFile:
    """Scalars and images for TensorBoard.

    An event file is a TFRecord file of Event messages; written with what TensorFlow itself has, because TensorBoard is
    no longer installed with it.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self._tf = tf
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._writer = tf.io.TFRecordWriter(str(folder / name))
        self._write(file_version="brain.Event:2")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point of each curve."""
        value = self._tf.compat.v1.Summary.Value
        self._summary(step, [value(tag=tag, simple_value=number) for tag, number in values.items()])

    def images(self, step: int, tag: str, images: np.ndarray) -> None:
        """Write images `(n, H, W, 3)` uint8 under `<tag>/0`, `<tag>/1`, ..."""
        summary = self._tf.compat.v1.Summary
        values = [
            summary.Value(
                tag=f"{tag}/{i}",
                image=summary.Image(
                    height=image.shape[0],
                    width=image.shape[1],
                    colorspace=3,
                    encoded_image_string=self._tf.io.encode_png(image).numpy(),
                ),
            )
            for i, image in enumerate(images)
        ]
        self._summary(step, values)

    def _summary(self, step: int, values: list[Any]) -> None:
        self._write(step=step, summary=self._tf.compat.v1.Summary(value=values))
        self._writer.flush()

    def _write(self, **fields: Any) -> None:
        self._writer.write(self._tf.compat.v1.Event(wall_time=time.time(), **fields).SerializeToString())

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
