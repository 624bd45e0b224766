"""A run directory: who may write to it, and the names of its files."""

import fcntl
import itertools
import json
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from hgtrain.errors import RunError
from hgtrain.files import write_text

CONFIG, SPLIT, PROVENANCE = "config.yaml", "split.json", "provenance.json"
METRICS, BEST, EVALUATION = "metrics.jsonl", "best.keras", "evaluation.json"
CHECKPOINTS, TENSORBOARD = "checkpoints", "tensorboard"
LOCK = "lock"
WRITTEN_BESIDE = (CONFIG, SPLIT, PROVENANCE, METRICS, BEST, EVALUATION, "report.html")


def default_run_dir(config_name: str) -> Path:
    """Return `runs/<config name>-<time>` below the working directory.

    It has a number after it where that is there.
    """
    wanted = Path("runs") / f"{config_name}-{time.strftime('%Y%m%d-%H%M%S')}"
    return next(folder for folder in _names(wanted) if not _is_there(folder))


def _names(wanted: Path) -> Iterator[Path]:
    """Give the wanted folder and then, without an end, those with 2, 3 ... after its name."""
    yield wanted
    yield from (wanted.with_name(f"{wanted.name}-{number}") for number in itertools.count(2))


def _is_there(folder: Path) -> bool:
    # What cannot even be looked for is refused when it is claimed.
    with suppress(OSError):
        return folder.exists()
    return False


class _TakenError(RunError):
    """A folder is another run's."""


def check_free(folder: Path) -> None:
    """Raise RunError when a run was started in the folder."""
    # What may not even be looked into is refused when it is claimed.
    with suppress(OSError):
        if any((folder / name).exists() for name in (CONFIG, METRICS, BEST, CHECKPOINTS)):
            raise _TakenError(
                f"{folder} holds a run already: continue it with --resume, or choose another "
                "directory with --run-dir"
            )


@contextmanager
def lock_run_dir(folder: Path, resume: bool, is_default: bool = False) -> Iterator[Path]:
    """Make the folder this process's own to write to, creating it where needed.

    A folder that it made, and those above, go again when the block fails before anything else was
    written there. The lock is the operating system's, so that it ends with the process however that
    ends; the file says who holds it.

    Args:
        folder: The run directory.
        resume: Whether a run that it holds is to go on.
        is_default: Nobody chose the name, so where another process came first the next free one is
            taken instead.

    Raises:
        RunError: It cannot be written to, another process trains into it, or it holds a run and
            `resume` is False.
    """
    for name in _names(folder):
        made = [path for path in (name, *name.parents) if not _is_there(path)]
        try:
            file = _locked(name, resume)
        except _TakenError:
            if not is_default:
                raise
        else:
            break
    with file:
        _remove_leftovers(name)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        try:
            yield name
        except BaseException:
            _remove_unused(made)
            raise


def _remove_unused(made: list[Path]) -> None:
    """Remove a folder with nothing in it but the lock, and then those above that are empty.

    The lock is still held, so that no other process takes the folder meanwhile.

    Args:
        made: The folders, from inner to outer.
    """
    # Something is there that is not ours, or the folder was moved away.
    with suppress(OSError):
        if made and {path.name for path in made[0].iterdir()} == {LOCK}:
            (made[0] / LOCK).unlink()
            for folder in made:
                folder.rmdir()


def _locked(folder: Path, resume: bool) -> TextIO:
    """Return the lock file of a folder, locked; see `claimed`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise RunError(f"{folder} cannot be used as a run directory: {error.strerror}") from error
    with ExitStack() as on_error:
        on_error.enter_context(file)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise _TakenError(
                f"{folder} is locked by another training process ({holder})"
            ) from error
        except OSError as error:
            raise RunError(
                f"{folder / LOCK} cannot be locked: {error.strerror}; choose another --run-dir"
            ) from error
        if not resume:
            # Only now: a process that held the folder until a moment ago may have left a run in it.
            check_free(folder)
        on_error.pop_all()
    return file


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process left beside its files that was killed while it wrote them."""
    for name in WRITTEN_BESIDE:
        stem, suffix = Path(name).stem, Path(name).suffix
        for path in folder.glob(f".{stem}.*{suffix}"):
            # Without the letters after the number it is of an older version.
            if re.fullmatch(r"\d+(-[0-9a-f]+)?", path.name[len(stem) + 2 : -len(suffix)]):
                path.unlink(missing_ok=True)


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write metrics.jsonl with exactly these rows."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Add a row to metrics.jsonl."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
