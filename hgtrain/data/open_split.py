"""Opens the datasets that a config names and splits them."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from hgtrain.config.head import HeadConfig
from hgtrain.config.schema import DataConfig, Where
from hgtrain.data.builtin_datasets import BUILTIN, draw_missing
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.sandbox.open import open_all
from hgtrain.data.selection import UnsuitedHeadError
from hgtrain.data.split import Split, make_split
from hgtrain.errors import ConfigError, DatasetError
from hgtrain.log import say


@contextmanager
def open_split(data: DataConfig, head: HeadConfig, where: Where) -> Iterator[Split]:
    """Open the datasets of a `data` section and split them; closed when the block ends.

    Args:
        data: The section.
        head: The section of the head, which says what frames it can use.
        where: Gives the place of a key.

    Raises:
        HgtrainError: One of them is missing or cannot be used; the message has the place of the
            key that names it.
    """
    others = data.validation_files
    # All of them first: drawing or opening the one may take longer than seeing that the other is
    # missing.
    _check_files_exist("data.train", data.train_files, where)
    _check_files_exist("data.validation", others or (), where)
    with (
        _open_files("data.train", data.train_files, data.annotated_only, where) as train,
        nullcontext()
        if others is None
        else _open_files("data.validation", others, data.annotated_only, where) as validation,
    ):
        try:
            split = make_split(
                train, validation, data.validation_fraction, data.group_by, data.split_seed, head
            )
        except UnsuitedHeadError as error:
            key = "model.head.type"
            raise ConfigError(f"{where(key)}: {key}: {error}") from error
        yield split


def _check_files_exist(key: str, files: Sequence[str], where: Where) -> None:
    for file in files:
        if file.startswith(BUILTIN):
            continue
        try:
            Path(file).stat()
        except OSError as error:
            problem = (
                "there is no file" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
            )
            raise ConfigError(
                f"{where(key)}: {key}: {problem} {file}{_nearest_file(file)}"
            ) from error


def _open_files(
    key: str, files: Sequence[str], annotated_only: bool, where: Where
) -> closing[PoseDataset]:
    try:
        return open_training_data(files, annotated_only)
    except DatasetError as error:
        raise DatasetError(f"{where(key)}: {key}: {error}") from error


def open_training_data(files: Sequence[str], annotated_only: bool) -> closing[PoseDataset]:
    """Return the files as one dataset, closed when the block ends; built-in ones are drawn first.

    Raises:
        DatasetError: One of them cannot be used.
    """
    draw_missing(files)
    return closing(open_all(files, annotated_only))


def _nearest_file(file: str) -> str:
    import difflib

    folder = Path(file).parent
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        return f" ({folder}: {error.strerror})"
    near = difflib.get_close_matches(Path(file).name, names, n=1)
    return f" (nearest: {near[0]})" if near else ""


@contextmanager
def open_with_notes(files: Sequence[str], annotated_only: bool) -> Iterator[PoseDataset]:
    """Open files as one dataset, and say what is worth knowing of them."""
    with open_training_data(files, annotated_only) as dataset:
        for note in dataset.notes:
            say(note)
        yield dataset
