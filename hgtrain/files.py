"""Files that are written whole or not at all, and where hgtrain keeps what it made."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hgtrain.errors import RunError


def cache_folder() -> Path:
    """Return the folder for what is made once: `$HGTRAIN_CACHE`, or where the system has caches."""
    if "HGTRAIN_CACHE" in os.environ:
        return Path(os.environ["HGTRAIN_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hgtrain"


def check_new_folder(folder: Path) -> None:
    """Raise RunError unless a folder can be made there."""
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise RunError(f"{folder} is there already: choose another folder, or remove it")
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from error
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise RunError(f"{folder} cannot be written: {above} is a file")
    _check_writable(above, folder)


def _check_writable(folder: Path, path: Path) -> None:
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{path} cannot be written: no permission to write in {folder}")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Give a folder beside `folder` to write to, which takes its name when the block ends well.

    Otherwise it is removed.

    Raises:
        RunError: There is something at `folder` already, or nothing can be written there.
    """
    check_new_folder(folder)
    try:
        beside = folder.absolute().with_name(f".{folder.name}.{os.getpid()}")
        beside.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be written: {error.strerror}") from error
    try:
        yield beside
        beside.replace(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all: beside, synced to the disk, renamed."""
    with atomic_path(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Give a path beside `path` to write to.

    It takes the place of `path`, synced to the disk, when the block ends well.
    """
    beside = path_beside(path)
    try:
        yield beside
        take_place(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def path_beside(path: Path) -> Path:
    """Return a hidden path in the folder of `path`, with its suffix, that nothing else has."""
    # Processes of several machines or containers may have one number.
    return path.with_name(f".{path.stem}.{os.getpid()}-{secrets.token_hex(4)}{path.suffix}")


def take_place(beside: Path, path: Path) -> None:
    """Put a finished file in the place of `path`, synced to the disk."""
    fsync(beside)
    beside.replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Return when a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, document: Any, indent: int | None = 1) -> None:
    """Write a JSON document whole or not at all.

    Args:
        path: The file.
        document: What to write.
        indent: None for long lists, which take ten times as long with it.

    Raises:
        ValueError: The document has a NaN, which JSON cannot hold.
    """
    write_text(path, json.dumps(document, indent=indent, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Return a JSON document.

    Raises:
        RunError: It is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error


def check_outputs(inputs: Sequence[str], outputs: Sequence[Path]) -> None:
    """Check the files that a command is to write.

    Raises:
        RunError: One of them is a file to read, or has no folder that can be written to.
    """
    taken = {Path(path).resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise RunError(f"{path} is an input: choose another name for what is written")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise RunError(
                f"{path} cannot be written: "
                f"{'it is a folder' if path.is_dir() else 'there is no such folder'}"
            )
        _check_writable(path.absolute().parent, path)
