"""Opens the datasets that a config names and splits them."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

from hgtrain.config.schema import Config
from hgtrain.data.builtin_datasets import BUILTIN, draw_missing
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.sandbox.open import open_all
from hgtrain.data.split import Split, make_split
from hgtrain.errors import ConfigError, DatasetError
from hgtrain.log import say


@contextmanager
def open_split(config: Config) -> Iterator[Split]:
    """Open the datasets of a config and split them; closed when the block ends."""
    data, others = config.data, config.data.validation_files
    # All of them first: drawing or opening the one may take longer than seeing that the other is
    # missing.
    _check_files_exist(config, "data.train", data.train_files)
    _check_files_exist(config, "data.validation", others or ())
    with (
        _open_files(config, "data.train", data.train_files) as train,
        nullcontext()
        if others is None
        else _open_files(config, "data.validation", others) as validation,
    ):
        yield make_split(
            train, validation, data.validation_fraction, data.group_by, data.split_seed
        )


def _check_files_exist(config: Config, key: str, files: Sequence[str]) -> None:
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
                f"{config.where(key)}: {key}: {problem} {file}{_nearest_file(file)}"
            ) from error


def _open_files(config: Config, key: str, files: Sequence[str]) -> closing[PoseDataset]:
    try:
        return open_training_data(files, config.data.annotated_only)
    except DatasetError as error:
        raise DatasetError(f"{config.where(key)}: {key}: {error}") from error


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
def open_with_notes(config: Config, files: Sequence[str]) -> Iterator[PoseDataset]:
    """Open files as a run opened its own, and say what is worth knowing of them."""
    with open_training_data(files, config.data.annotated_only) as dataset:
        for note in dataset.notes:
            say(note)
        yield dataset
