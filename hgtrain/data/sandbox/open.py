"""Open datasets for commands, after trying them out in a process of their own.

The command's own process must not loop or crash. The other process opens a file with the calls that
the command will use, so that a file it comes through does no harm there. Of the images it reads
what a quarter of a second allows: all of a small dataset, frames spread evenly over a large one.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgtrain.data.sandbox.process import Sandbox, answer_with, begin_with, step_done
from hgtrain.errors import DatasetError

if TYPE_CHECKING:
    from hgtrain.data.dataset import PoseDataset

IMAGES_S = 0.25
"""Wall time for the images of all files together."""

READ_AT_ONCE = 8
BUILTIN = "builtin:"
"""As in `data.source`, which is imported only where files are opened.

Its libraries take a while.
"""

_State = tuple[str, int, int, int]
_begun: dict[tuple[str, ...], Sandbox] = {}
_passed: set[_State] = set()


@contextmanager
def start_preflight(*groups: Sequence[str]) -> Iterator[None]:
    """Try groups of files out while the block does something else.

    This goes on up to where the block opens a group with `open_all`.
    """
    wanted = {tuple(_untried(group)) for group in groups} - {()}
    try:
        _begun.update({files: Sandbox(__name__, files) for files in wanted})
        yield
    finally:
        for files in wanted:
            if files in _begun:
                _begun.pop(files).close()


def open_all(paths: Sequence[str], annotated_only: bool = True) -> "PoseDataset":
    """Return `data.open.open_all` of files that were tried out.

    Raises:
        DatasetError: As there, and also when a file takes the process that tries it out down.
    """
    try_out(paths)
    from hgtrain.data.open import open_all

    return open_all(paths, annotated_only)


def open_dataset(path: str, annotated_only: bool = True) -> "PoseDataset":
    """Return `data.open.open_dataset` of a file that was tried out; see `open_all`."""
    try_out([path])
    from hgtrain.data.open import open_dataset

    return open_dataset(path, annotated_only)


def try_out(paths: Sequence[str], step_s: float | None = None) -> None:
    """Try files out as datasets in another process.

    Built-in datasets, and files that passed and have not changed since, are not looked at.

    Args:
        paths: The files.
        step_s: Processor time of opening one, and of reading a few images.

    Raises:
        DatasetError: A file cannot be opened, or doing so takes the other process down.
    """
    files = tuple(_untried(paths))
    if files:
        states = [_state(path) for path in files]
        (_begun.pop(files, None) or Sandbox(__name__, files, step_s)).answer()
        _passed.update(state for state in states if state is not None)


def _untried(paths: Sequence[str]) -> list[str]:
    return [path for path in paths if not path.startswith(BUILTIN) and _state(path) not in _passed]


def _state(path: str) -> _State | None:
    try:
        stat = Path(path).stat()
    except OSError:
        return None
    return str(Path(path).resolve()), stat.st_ino, stat.st_size, stat.st_mtime_ns


def read_datasets(paths: Sequence[str]) -> dict[str, Any]:
    """Open each of some datasets and read images of it.

    An image that cannot be read is no reason to refuse a dataset: it may be one that nobody uses.

    Raises:
        DatasetError: A dataset cannot be opened.
    """
    from hgtrain.data.open import open_dataset

    for path in paths:
        begin_with(path)
        with closing(open_dataset(path)) as dataset:
            step_done()
            _read_images(dataset, IMAGES_S / len(paths))
    return {}


def _read_images(dataset: "PoseDataset", seconds: float) -> None:
    end = time.monotonic() + seconds
    for rows in spread(len(dataset), READ_AT_ONCE):
        with suppress(DatasetError):
            dataset.read_images(rows)
        step_done()
        if time.monotonic() > end:
            return


def spread(count: int, at_once: int) -> Iterator[range]:
    """Give the rows 0 to count - 1, each once, a few at a time.

    Wherever one stops, the rows given so far lie evenly.
    """
    step = 1 << max(count - 1, 0).bit_length()
    passes = [range(0, count, step)]
    while step > 1:
        # Those in the middle between all that were given.
        passes.append(range(step // 2, count, step))
        step //= 2
    for rows in passes:
        yield from (rows[start : start + at_once] for start in range(0, len(rows), at_once))


if __name__ == "__main__":
    answer_with(read_datasets)
