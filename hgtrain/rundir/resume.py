"""Which run goes on, and whether it may with a config."""

import shlex
from pathlib import Path
from typing import Any

from hgtrain.config.load import load_config
from hgtrain.config.schema import Config
from hgtrain.errors import RunError
from hgtrain.rundir import layout
from hgtrain.rundir.records import read_provenance

MAY_CHANGE = (
    "data.cache",
    "training.epochs",
    "training.max_minutes",
    "training.early_stopping_epochs",
    "training.device",
    "training.strategy",
    "training.xla",
    "training.on_nonfinite",
    "checkpoint",
    "output",
)
"""Keys that may differ from the run's own config on resume.

More epochs stretch a cosine from where the run stands.
"""


FROM_LABELS = ("model.head.max_instances", "model.head.crop_size_px")
"""Keys that a run's own config has from the labels where they were null."""


def config_and_run(given: Path, run_dir: Path | None, resume: bool) -> tuple[Path, Path | None]:
    """Return the config to train with and the run directory that was named, None for none.

    Args:
        given: A config, or the directory of a run to go on with.
        run_dir: As the command line has it.
        resume: Whether a run is to go on.

    Raises:
        RunError: It is a folder without a run, a run that is not to go on, or another one than
            `run_dir`.
    """
    if not given.is_dir():
        return given, run_dir
    config = given / layout.CONFIG
    if not config.is_file():
        raise RunError(
            f"{given} is a folder without {layout.CONFIG}: expected a config or a run directory"
        )
    if not resume:
        raise RunError(
            f"{given} is a run: `{shlex.join(['hgtrain', 'fit', str(given), '--resume'])}` goes on "
            f"with it, `{shlex.join(['hgtrain', 'fit', str(config)])}` trains anew with its config"
        )
    if run_dir is not None and run_dir.resolve() != given.resolve():
        raise RunError(
            f"--resume goes on with the run in {given}, and --run-dir names another directory, "
            f"{run_dir}: leave --run-dir out"
        )
    return config, given


def resumed_config(config: Config, folder: Path) -> Config:
    """Return the config with which a run goes on: what is left to the labels is as it was.

    Raises:
        RunError: The config is not the one the run in the folder was started with.
    """
    then = load_config(folder / layout.CONFIG)
    old, new = _flat(then.model_dump()), _flat(config.model_dump())
    left_to_labels = {key for key in FROM_LABELS if key in new and new[key] is None}
    changed = [
        f"{key} was {old.get(key)}, is {new[key]}"
        for key in new
        if new[key] != old.get(key) and not key.startswith(MAY_CHANGE) and key not in left_to_labels
    ]
    if changed:
        raise RunError(
            f"{folder} cannot be resumed with another config: {'; '.join(changed)}; resume with "
            f"{folder / layout.CONFIG}, or start a new run (may change: {', '.join(MAY_CHANGE)})"
        )
    # The labels may say otherwise than the run was told.
    head = config.model.head.model_copy(
        update={key.rpartition(".")[2]: old[key] for key in left_to_labels}
    )
    return config.model_copy(update={"model": config.model.model_copy(update={"head": head})})


def is_finished(config: Config, folder: Path) -> bool:
    """Return whether the run came to its end with just these epochs to go."""
    then = load_config(folder / layout.CONFIG).training
    now = config.training
    # A lost evaluation is made again.
    if not (folder / layout.EVALUATION).exists():
        return False
    ends = [(each.epochs, each.max_minutes, each.early_stopping_epochs) for each in (then, now)]
    return ends[0] == ends[1] and "finished" in read_provenance(folder)


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat
