"""Checkpoints: every variable and the loop's state in one bundle, so that they cannot disagree."""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any

import tensorflow as tf

from hgtrain.errors import RunError
from hgtrain.files import fsync
from hgtrain.log import say

NAME = "step"
PARTIAL = ".partial"
DATA, INDEX = ".data-00000-of-00001", ".index"

TOLERABLE_FRACTION = 0.005
"""Once writing has taken more than this part of the time, it goes on in the background."""

CHECKPOINT_WARMUP_S = 10.0
"""Before that a run is too short to say which part of it writing takes."""


class Checkpoints:
    """The newest `keep` checkpoints of a run in one folder.

    TensorFlow writes a bundle with a checksum for each tensor; the loop's state travels in it as a
    JSON string. It is written beside, synced to the disk and renamed, the index last, because it
    makes a checkpoint of the two files.

    Args:
        folder: Of the checkpoints.
        keep: How many are kept.
        variables: Gives the variables, by what they belong to, when there is something to write or
            to restore.
    """

    def __init__(
        self, folder: Path, keep: int, variables: Callable[[], Mapping[str, Sequence[tf.Variable]]]
    ) -> None:
        self._folder, self._keep, self._variables_of = folder, keep, variables
        _remove_partial(folder)
        self._state = tf.Variable("{}", dtype=tf.string, trainable=False)
        self._started, self._seconds = time.monotonic(), 0.0
        self._copy: _Copy | None = None
        self._pending: Future[None] | None = None
        self._pending_best: Future[None] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write variables and state as the checkpoint of `step`.

        The oldest beyond `keep` is removed after it. The writing may go on in the background;
        `wait` is for its end.

        Raises:
            RunError: It cannot be written, now or at the next call; what was written before stays.
        """
        before = time.monotonic()
        _finish(self._pending)
        text = json.dumps(state)
        if self._is_slow():
            self._copy = self._copy or _Copy(self._variables)
            self._copy.take(text)
            self._pending = self._thread.submit(self._write, self._copy.bundle, step)
        else:
            self._state.assign(text)
            self._write(self._bundle, step)
        self._seconds += time.monotonic() - before

    def save_best(self, copy: Callable[[], None], write: Callable[[], None]) -> None:
        """Copy what is best and write it, the writing in the background as with `save`."""
        before = time.monotonic()
        _finish(self._pending_best)
        copy()
        if self._is_slow():
            self._pending_best = self._thread.submit(write)
        else:
            write()
        self._seconds += time.monotonic() - before

    @cached_property
    def _variables(self) -> dict[str, list[tf.Variable]]:
        return {name: list(group) for name, group in self._variables_of().items()}

    @cached_property
    def _bundle(self) -> tf.train.Checkpoint:
        return _bundle(self._state, self._variables)

    def wait(self) -> None:
        """Return when everything is on the disk; RunError when that fails."""
        pending, self._pending, self._pending_best = (self._pending_best, self._pending), None, None
        for writing in pending:
            _finish(writing)

    def close(self) -> None:
        """Finish the writing, whatever comes of it."""
        self._thread.shutdown()

    def _is_slow(self) -> bool:
        elapsed = time.monotonic() - self._started
        return self._copy is not None or (
            elapsed > CHECKPOINT_WARMUP_S and self._seconds > TOLERABLE_FRACTION * elapsed
        )

    def _write(self, bundle: tf.train.Checkpoint, step: int) -> None:
        beside, path = self._folder / PARTIAL, self._folder / f"{NAME}-{step}"
        try:
            # Not with those above: a run directory that is gone was removed on purpose.
            self._folder.mkdir(exist_ok=True)
            bundle.write(str(beside))
            for suffix in (DATA, INDEX):
                fsync(Path(f"{beside}{suffix}"))
                Path(f"{beside}{suffix}").replace(f"{path}{suffix}")
            fsync(self._folder)
            self._remove_oldest()
        except (OSError, tf.errors.OpError) as error:
            reason = (
                error.strerror if isinstance(error, OSError) else str(error.message).splitlines()[0]
            )
            raise RunError(
                f"the checkpoint {path} cannot be written: {reason}; {self._what_is_left()}: make "
                "room or mend the "
                "folder, then go on with --resume"
            ) from error

    def _remove_oldest(self) -> None:
        for path in self._prefixes()[: -self._keep]:
            # The index first: without it the rest is no checkpoint.
            for suffix in (INDEX, DATA):
                Path(f"{path}{suffix}").unlink(missing_ok=True)

    def _prefixes(self) -> list[Path]:
        """Return the paths of the checkpoints without their suffixes, the oldest first."""
        names = [path.with_suffix("") for path in self._folder.glob(f"{NAME}-*{INDEX}")]
        numbered = [path for path in names if path.name.removeprefix(f"{NAME}-").isdecimal()]
        return sorted(numbered, key=lambda path: int(path.name.removeprefix(f"{NAME}-")))

    def _what_is_left(self) -> str:
        left = self._prefixes()
        return f"{left[-1].name} is the newest left" if left else "there is none yet"

    def restore_newest(self) -> dict[str, Any] | None:
        """Restore the variables of the newest checkpoint and return its state.

        A damaged checkpoint is passed over, and said so, for the one before.

        Returns:
            The loop's state, None where there is no checkpoint.

        Raises:
            RunError: All are damaged.
        """
        self.wait()
        problem = ""
        for path in reversed(self._prefixes()):
            try:
                self._bundle.read(str(path)).assert_consumed()
                return json.loads(self._state.numpy())
            # A file that is too short is an IndexError.
            except (tf.errors.OpError, IndexError, ValueError) as error:
                problem = f"the checkpoint {path} is damaged: {str(error).splitlines()[0]}"
                say(problem)
        if problem:
            raise RunError(f"{problem}; no other is left to resume from: start a new run")
        return None


class _Copy:
    """Variables in the CPU's memory, which are written while training changes the others."""

    def __init__(self, variables: Mapping[str, Sequence[tf.Variable]]) -> None:
        self._variables = variables
        with tf.device("CPU"):
            self._state = tf.Variable("{}", dtype=tf.string, trainable=False)
            self._copies = {
                name: [tf.Variable(variable.read_value(), trainable=False) for variable in group]
                for name, group in variables.items()
            }
        self.bundle = _bundle(self._state, self._copies)

    def take(self, state: str) -> None:
        self._state.assign(state)
        for name, group in self._variables.items():
            for copy, variable in zip(self._copies[name], group, strict=True):
                copy.assign(variable.read_value())


def _bundle(
    state: tf.Variable, variables: Mapping[str, Sequence[tf.Variable]]
) -> tf.train.Checkpoint:
    return tf.train.Checkpoint(
        state=state, **{name: list(group) for name, group in variables.items()}
    )


def _finish(writing: Future[None] | None) -> None:
    if writing is not None:
        writing.result()


def _remove_partial(folder: Path) -> None:
    """Remove what a process left that was killed while it wrote a checkpoint."""
    for path in folder.glob(f"{PARTIAL}*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
