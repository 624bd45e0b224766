"""The datasets that hgtrain draws itself, on first use."""

from collections.abc import Callable, Iterable
from pathlib import Path

from hgtrain import log
from hgtrain.data.flies.draw import FLIES, draw_flies
from hgtrain.data.flies.groups import FLY_GROUPS, draw_groups
from hgtrain.data.flies.scene import FliesSettings
from hgtrain.data.formats.hgtrain_format import LabelledImage
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.errors import DatasetError
from hgtrain.files import cache_folder

BUILTIN = "builtin:"
Progress = Callable[[Iterable[LabelledImage], int], Iterable[LabelledImage]]
"""Passes on the frames it is given, and shows how many of the total are through."""


def _drawing(frames: Iterable[LabelledImage], total: int) -> Iterable[LabelledImage]:
    return log.progress(frames, total, "drawing the built-in dataset")


def _draw_flies(path: Path, progress: Progress) -> None:
    skeleton, frames = draw_flies(FLIES)
    write_dataset(path, skeleton, progress(frames, FLIES.frames))


def _draw_groups(path: Path, progress: Progress) -> None:
    skeleton, frames = draw_groups(FLY_GROUPS)
    write_dataset(path, skeleton, progress(frames, FLY_GROUPS.frames))


def _file_name(name: str, drawn: FliesSettings) -> str:
    return f"{name}-v{drawn.version}-seed{drawn.seed}-{drawn.size}px-{drawn.frames}.h5"


BUILTINS = {
    "flies": (_file_name("flies", FLIES), _draw_flies),
    "fly-groups": (_file_name("fly-groups", FLY_GROUPS), _draw_groups),
}
"""The file of each, and what draws it."""


def builtin_file(name: str, progress: Progress = _drawing) -> Path:
    """Return the file of a built-in dataset such as `builtin:flies`, drawn where it is missing.

    It lies in the cache folder: `$HGTRAIN_CACHE`, else `$XDG_CACHE_HOME/hgtrain`, else
    `~/.cache/hgtrain`. Two processes may draw at once: each writes a file of its own and the last
    rename wins.

    Raises:
        DatasetError: The name is not known.
    """
    known = BUILTINS.get(name.removeprefix(BUILTIN))
    if known is None:
        raise DatasetError(
            f"{name} is not known, expected one of {', '.join(BUILTIN + key for key in BUILTINS)}"
        )
    path = cache_folder() / known[0]
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            known[1](path, progress)
        except OSError as error:
            raise DatasetError(
                f"{name} cannot be drawn into {path} ({error}): set HGTRAIN_CACHE to a folder"
            ) from error
    return path


def draw_missing(files: Iterable[str]) -> None:
    """Draw the built-in datasets among `files` that are not there yet, and show how far that is."""
    for file in files:
        if file.startswith(BUILTIN):
            builtin_file(file)
