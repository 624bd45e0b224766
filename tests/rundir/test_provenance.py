import pytest
from tiny_run import write_data

from hgtrain.config.load import load_config
from hgtrain.data import open as open_module
from hgtrain.data import split
from hgtrain.rundir.provenance import versions, what_must_agree


def differing(folder, overrides, fraction=0.25):
    """Return in what a config and a split differ from those of tiny.yaml."""
    found = []
    for config, part in (
        (load_config(folder / "tiny.yaml"), 0.25),
        (load_config(folder / "tiny.yaml", overrides), fraction),
    ):
        dataset = open_module.open_all(config.data.train_files, annotated_only=True)
        found.append(what_must_agree(config, split.make_split(dataset, None, part, None, 0)))
        dataset.close()
    return [key for key in found[0] if found[0][key] != found[1][key]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_data(folder)
    return folder


def test_versions_are_those_of_what_results_depend_on():
    assert list(versions()) == ["python", "hgtrain", "tensorflow", "keras", "numpy", "h5py"]


@pytest.mark.parametrize(
    "override", ["output.tensorboard=false", "checkpoint.keep=5", "training.learning_rate=2e-3"]
)
def test_processes_may_differ_in_what_they_write(folder, override):
    assert differing(folder, (override,)) == []


def test_processes_may_not_differ_in_config_or_frames(folder):
    assert differing(folder, ("training.seed=5",), fraction=0.5) == ["config", "dataset"]
