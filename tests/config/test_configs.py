"""The configs that come with hgtrain."""

from pathlib import Path

import pytest
from tiny_run import fit, make_frames, rows_of

from hgtrain.config.load import load_config
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.skeleton import Skeleton

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CONFIGS = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_begins_with_what_it_is_for_and_how_it_is_used(path: Path) -> None:
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"hgtrain fit configs/{path.name}" in line for line in head)
    assert any("Time:" in line for line in head)
    assert any("Expect:" in line for line in head)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_names_the_drawn_flies(path: Path) -> None:
    builtin = "builtin:fly-groups" if path.stem == "groups" else "builtin:flies"
    assert load_config(path).data.train_files == (builtin,)


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_builds_and_steps(path: Path, tmp_path: Path) -> None:
    write_dataset(
        tmp_path / "few.h5",
        Skeleton(("nose", "ear_left", "ear_right"), ((0, 1), (0, 2))),
        make_frames(count=4),
    )
    overrides = [f"data.train={tmp_path / 'few.h5'}", "data.validation=0.5"]
    overrides += ["training.epochs=1", "training.steps_per_epoch=1", "training.batch_size=2"]
    fit(path, tmp_path / "run", *overrides)
    (row,) = rows_of(tmp_path / "run")
    assert row["step"] == 1
