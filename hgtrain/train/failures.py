"""What goes wrong around training, named.

That is a full disk, changed data, a loss that is not finite, and too little memory.
"""

import faulthandler
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hgtrain.config.schema import TrainingConfig
from hgtrain.errors import DatasetError, RunError
from hgtrain.log import say
from hgtrain.pipeline.order import epoch_order
from hgtrain.train.plan import steps_per_epoch

if TYPE_CHECKING:
    from hgtrain.pipeline.frame_store import StoredSplit
    from hgtrain.train.loop import NotFiniteError

STALLED_S = 600.0
"""A call for some steps takes half a second; after this long, something hangs."""
FRAMES_NAMED = 8


@contextmanager
def os_errors_as_run_error(folder: Path, out_of_memory: Callable[[], str]) -> Iterator[None]:
    """Turn what the system refuses within the block into RunError: writing of files, memory.

    TensorFlow must be imported already.

    Args:
        folder: The run directory.
        out_of_memory: Gives the text of the error where memory is refused.
    """
    import tensorflow as tf

    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise RunError(
            f"{where} cannot be written: {error.strerror or error}; what {folder} holds already "
            "is as it was: make "
            "room or mend the folder, then go on with --resume"
        ) from error
    except (tf.errors.OpError, MemoryError) as error:
        text = str(error)
        if "No space left" in text or "File too large" in text:
            raise RunError(
                f"{folder} cannot be written: {text.splitlines()[0]}; make room, then go on with "
                "--resume"
            ) from error
        if isinstance(error, tf.errors.OpError) and not isinstance(
            error, tf.errors.ResourceExhaustedError
        ):
            raise
        raise RunError(out_of_memory()) from error


@contextmanager
def stacks_shown_when_stalled() -> Iterator[None]:
    """Write the stack of every thread to stderr each time the block has taken ten more minutes.

    The block goes on.
    """
    # Not a thread of Python's: what hangs may hold the interpreter's lock.
    faulthandler.dump_traceback_later(STALLED_S, repeat=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


class _Stat(NamedTuple):
    inode: int
    size: int
    modified_ns: int


class FileWatch:
    """Sees when files that are open and trained on are changed or removed."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._known = {path: _stat(path) for path in paths}

    def check(self) -> None:
        """Raise DatasetError when a file was written to.

        A file that is gone or replaced is still open; that is only said.
        """
        for path, before in list(self._known.items()):
            now = _stat(path)
            if now is None or before is None or now.inode != before.inode:
                say(f"{path} was removed or replaced; training goes on with what was opened")
                del self._known[path]
            elif now != before:
                raise DatasetError(
                    f"{path} was changed while it was trained on (it had {before.size:,} bytes, "
                    f"has {now.size:,}): "
                    "restore the file, then go on with --resume"
                )


def _stat(path: str) -> _Stat | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return _Stat(stat.st_ino, stat.st_size, stat.st_mtime_ns)


def _frames_of_step(training: TrainingConfig, frames: "StoredSplit", step: int) -> str:
    """Return where the frames of a step's batch lie, as a message lists them."""
    samples, side = frames.train_samples, frames.split.train
    epoch, position = divmod(step, steps_per_epoch(training, len(samples)))
    batch = training.images_per_step
    order = epoch_order(training.seed, epoch, len(samples), batch, position * batch)
    chosen = np.unique(side.frames[samples.rows(order)])
    named = ", ".join(side.dataset.location(int(frame)) for frame in chosen[:FRAMES_NAMED])
    return named + (f" and {len(chosen) - FRAMES_NAMED} more" if len(chosen) > FRAMES_NAMED else "")


def not_finite_text(
    training: TrainingConfig, frames: "StoredSplit", error: "NotFiniteError"
) -> str:
    """Return where a loss was not finite, and what helps."""
    where = "in the validation"
    if not error.in_validation:
        where = f"of the frames {_frames_of_step(training, frames, error.step)}"
    skip = (
        ""
        if training.on_nonfinite == "skip" or error.in_validation
        else ", or leave such steps out with training.on_nonfinite: skip"
    )
    return (
        f"the loss is not finite at step {error.step}, {where}: look at them, lower "
        "training.learning_rate (now "
        f"{training.learning_rate}), set training.gradient_clip_norm: 1.0{skip}; the last "
        "checkpoint is as it was"
    )
