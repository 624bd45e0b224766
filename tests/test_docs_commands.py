"""All commands of README.md and docs/ run, in the order of the pages, with networks as small as can
be."""

import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from documentation import DOCS, README, ROOT, blocks, command_lines
from networks import whole_network
from PIL import Image
from sleap_models import BACKBONE, training_config, write_model
from sleap_models import NAMES as SLEAP_NAMES
from videos import write_video

from hgtrain.cli import commands
from hgtrain.config.load import load_config
from hgtrain.config.schema import BackboneConfig, ModelConfig
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.skeleton import Skeleton

pytestmark = [
    pytest.mark.slow,
    # Keras's saving and NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

SHORT = (
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "training.batch_size=2",
    "training.device=cpu",
    "output.tensorboard=false",
)
SMALL = (
    "model.backbone.stem_filters=4",
    "model.backbone.filters=4",
    "model.backbone.filter_increase=0",
)
QUIET = "model.head.peak_threshold=0.9"
"""A network of two steps finds no animals from there on; what rounding makes of noise would differ
between a run and its exports."""

NAMES = ("head", "eye_left", "eye_right", "thorax")
SIDE = 64


def pages() -> list[Path]:
    """Return the pages of docs/ in the order in which a user reads them."""
    text = (DOCS / "index.md").read_text()
    names = re.findall(r"^([a-z-]+)$", text, re.MULTILINE)
    return [DOCS / f"{name}.md" for name in names]


def frames(count: int, names: int):
    random = np.random.default_rng(0)
    for _ in range(count):
        points = random.uniform(8, SIDE - 8, (names, 2)).astype(np.float32)
        yield random.integers(0, 255, (SIDE, SIDE, 1), np.uint8), points, None, None


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    """Where built-in datasets are drawn once."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def lab(tmp_path, drawn, monkeypatch) -> Path:
    """The files that the pages speak of and that no command of theirs writes."""
    monkeypatch.setenv("HGTRAIN_CACHE", str(drawn))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    skeleton = Skeleton(NAMES, ((0, 1), (0, 2)), ())
    # The last is read as what it is; what SLEAP writes is tested with the formats.
    for name in ("flies.h5", "other.h5", "flies.pkg.slp"):
        write_dataset(tmp_path / name, skeleton, frames(20, len(NAMES)))
    (tmp_path / "frames").mkdir()
    for number in range(3):
        Image.new("L", (SIDE, SIDE), 40 * number).save(tmp_path / "frames" / f"{number}.png")
    write_video(tmp_path / "film.mp4", size=(SIDE, SIDE))
    network = whole_network(
        ModelConfig(backbone=BackboneConfig(**BACKBONE, stacks=1)), 1, 3, all_stacks=False
    )
    labels = tmp_path / "models" / "labels.h5"
    document = training_config(data__labels__training_labels="elsewhere/labels.h5")
    write_model(tmp_path / "models" / "hourglass", network, document)
    write_dataset(labels, Skeleton(SLEAP_NAMES), frames(20, len(SLEAP_NAMES)))
    return tmp_path


def overrides_of(config: str) -> tuple[str, ...]:
    """Return what makes a training short, and a network that is not there yet small."""
    if config.startswith("runs/from-sleap"):
        return SHORT
    # A run goes on with the config it has.
    file = Path(config, "config.yaml") if Path(config).is_dir() else config
    if "peak_threshold" in load_config(file).model.head.own_keys:
        return (*SHORT, *SMALL, QUIET)
    return (*SHORT, *SMALL)


def run(arguments: list[str]) -> None:
    """Run a command of a page, a training as short as can be."""
    shown = " ".join(["hgtrain", *arguments])
    if arguments[0] == "fit":
        for override in overrides_of(arguments[1]):
            arguments = [*arguments, "--set", override]
    done = CliRunner().invoke(commands, arguments)
    if done.exception is not None:
        raise AssertionError(f"{shown}\n{done.output}") from done.exception


def run_page(page: Path, already: set[tuple[str, ...]]) -> None:
    for block in filter(lambda block: block.is_run, blocks(page)):
        for arguments in command_lines(block):
            if block.language != "text" and tuple(arguments) not in already:
                already.add(tuple(arguments))
                run(arguments)
        if block.language == "python":
            exec(block.text, {})


def test_every_command_of_the_documentation_runs(lab):
    already = set()
    for page in pages():
        run_page(page, already)
    assert len(already) > 30
    with h5py.File(lab / "top-down.h5") as file:
        assert len(file["points"]) == 500
    assert (lab / "top-down-model" / "saved_model.pb").is_file()
    assert (lab / "comparison.html").is_file()


def test_every_command_of_the_readme_runs(lab):
    run_page(README, set())
    (folder,) = (lab / "runs").iterdir()
    assert (folder / "report.html").is_file()
