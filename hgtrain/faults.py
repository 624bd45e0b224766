"""What goes wrong around training, named: a full disk, changed data, a loss that is not finite, too little memory."""

import faulthandler
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain.config import Config
from hgtrain.data.source import Side
from hgtrain.errors import DatasetError, RunError
from hgtrain.memory import USABLE_PART, Device, training_memory
from hgtrain.train.log import say

STALLED_S = 600.0
"""A call for some steps takes half a second; after this long, something hangs."""

LESS = 0.75
"""What an edit must bring the estimate down to, because what was estimated did not fit."""

FRAMES_NAMED = 8
GIB = 2**30


@contextmanager
def named_failures(folder: Path, out_of_memory: Callable[[], str]) -> Iterator[None]:
    """Turn what the system refuses within the block into RunError: files that cannot be written, memory.

    out_of_memory: gives the text for the latter. TensorFlow must be imported already.
    """
    import tensorflow as tf

    try:
        yield
    except OSError as error:
        where = error.filename or folder
        raise RunError(
            f"{where} cannot be written: {error.strerror or error}; what {folder} holds already is as it was: make "
            "room or mend the folder, then go on with --resume"
        ) from error
    except (tf.errors.OpError, MemoryError) as error:
        text = str(error)
        if "No space left" in text or "File too large" in text:
            raise RunError(
                f"{folder} cannot be written: {text.splitlines()[0]}; make room, then go on with --resume"
            ) from error
        if isinstance(error, tf.errors.OpError) and not isinstance(error, tf.errors.ResourceExhaustedError):
            raise
        raise RunError(out_of_memory()) from error


@contextmanager
def stacks_shown_when_stalled() -> Iterator[None]:
    """Write the stack of every thread to stderr each time the block has taken ten more minutes; it goes on."""
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
        """Raise DatasetError when a file was written to; a file that is gone or replaced is still open, and said so."""
        for path, before in list(self._known.items()):
            now = _stat(path)
            if now is None or before is None or now.inode != before.inode:
                say(f"{path} was removed or replaced; training goes on with what was opened")
                del self._known[path]
            elif now != before:
                raise DatasetError(
                    f"{path} was changed while it was trained on (it had {before.size:,} bytes, has {now.size:,}): "
                    "restore the file, then go on with --resume"
                )


def _stat(path: str) -> _Stat | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return _Stat(stat.st_ino, stat.st_size, stat.st_mtime_ns)


def frames_of_step(config: Config, side: Side, step: int, steps_per_epoch: int) -> str:
    """Return where the frames of a step's batch lie, as a message lists them."""
    from hgtrain.data.pipeline import epoch_order

    epoch, position = divmod(step, steps_per_epoch)
    batch = config.training.images_per_step
    order = epoch_order(config.training.seed, epoch, len(side.frames), steps_per_epoch * batch)
    chosen = np.unique(side.frames[order[position * batch : (position + 1) * batch]])
    named = ", ".join(side.dataset.location(int(frame)) for frame in chosen[:FRAMES_NAMED])
    return named + (f" and {len(chosen) - FRAMES_NAMED} more" if len(chosen) > FRAMES_NAMED else "")


def out_of_memory_text(config: Config, device: Device, estimate: Callable[[Config], dict[str, int]]) -> str:
    """Return what to say when training does not fit: the estimate, and up to three edits that would fit.

    estimate: config -> what `training_memory` gives.
    """
    total = estimate(config)["total"]
    goal = min(USABLE_PART * device.memory_bytes, LESS * total)
    fitting = []
    for key, values in _edits(config).items():
        for value in values:
            needed = estimate(_edited(config, key, value))["total"]
            if needed <= goal:
                fitting.append(f"--set {key}={str(value).lower()} ({_gib(needed)})")
                break
    edits = ", or ".join(fitting[:3]) or "a smaller network"
    return (
        f"out of memory on {device.name}, which has {_gib(device.memory_bytes)}: training at training.batch_size "
        f"{config.training.batch_size} takes an estimated {_gib(total)}. A new run fits with {edits}"
    )


def estimate_for(image_shape: tuple[int, int, int], keypoints: int) -> Callable[[Config], dict[str, int]]:
    """Return the function that estimates the memory of a config's training on such images, on the CPU."""

    def estimate(config: Config) -> dict[str, int]:
        import tensorflow as tf

        from hgtrain.described import Described
        from hgtrain.summary import demand_of

        with tf.device("CPU"):
            demand = demand_of(Described(config, image_shape, keypoints, None))
        return training_memory(demand, config.training.batch_size)

    return estimate


def _edits(config: Config) -> dict[str, list[Any]]:
    """Return what can be lowered, and to what, the mildest first."""
    training, backbone = config.training, config.model.backbone
    return {
        "training.batch_size": [
            training.batch_size // part for part in (2, 4, 8, 16, 32) if training.batch_size >= part
        ],
        "training.recompute": [] if training.recompute else [True],
        "training.precision": ["mixed_bfloat16"] if training.precision == "float32" else [],
        "data.input_scale": [config.data.input_scale * factor for factor in (0.75, 0.5, 0.25)],
        "model.backbone.stacks": list(range(backbone.stacks - 1, 0, -1)),
    }


def _edited(config: Config, key: str, value: Any) -> Config:
    *sections, name = key.split(".")
    inner: Any = config
    path = [inner := getattr(inner, section) for section in sections]
    changed = path[-1].model_copy(update={name: value})
    for section, outer in zip(reversed(sections), reversed([config, *path[:-1]]), strict=True):
        changed = outer.model_copy(update={section: changed})
    return changed


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
