import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest
from tiny_run import CONFIG, NAMES

import hgtrain
from hgtrain.config.load import load_config
from hgtrain.errors import ConfigError, RunError
from hgtrain.rundir.load import load_run

SPLIT = {
    "keypoint_names": NAMES,
    "edges": [[0, 1], [0, 2]],
    "symmetries": [[1, 2]],
    "image_shape": [32, 32, 1],
}
IMAGES = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 1)).astype(np.uint8)

# Opens best.keras where nothing of hgtrain can be imported.
KERAS_ALONE = """
import sys
import numpy as np

class NoHgtrain:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "hgtrain":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, NoHgtrain())
import keras
model = keras.models.load_model(sys.argv[1])
np.save(sys.argv[3], model.predict(np.load(sys.argv[2]), verbose=0))
"""

# Keras's own, each time it saves a variable.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def best(tmp_path_factory):
    """The best.keras of a network with weights that are not the first ones, BatchNorm's statistics
    too."""
    import keras
    from networks import whole_network

    folder = tmp_path_factory.mktemp("best")
    (folder / "a.yaml").write_text(CONFIG)
    keras.utils.set_random_seed(1)
    network = whole_network(load_config(folder / "a.yaml").model, 1, len(NAMES), all_stacks=False)
    random = np.random.default_rng(1)
    network.set_weights([w + random.uniform(0, 0.1, w.shape) for w in network.get_weights()])
    network.save(folder / "best.keras")
    return folder / "best.keras"


@pytest.fixture
def folder(best, tmp_path):
    """A run directory."""
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "split.json").write_text(json.dumps(SPLIT))
    (tmp_path / "best.keras").write_bytes(best.read_bytes())
    return tmp_path


def test_a_run_is_opened_with_what_it_knows(folder):
    run = hgtrain.load_run(folder)
    assert run.config == load_config(folder / "config.yaml")
    assert run.skeleton == (NAMES, ((0, 1), (0, 2)), ((1, 2),))
    assert run.model.output_shape == (None, None, None, 3)


def test_a_run_is_opened_by_its_name_too(folder):
    assert load_run(str(folder)).folder == folder


def test_it_predicts_keypoints_and_confidence(folder):
    keypoints, confidence = load_run(folder).predict(IMAGES)
    assert (keypoints.shape, keypoints.dtype) == ((3, 3, 2), np.float32)
    assert confidence.shape == (3, 3)
    assert ((confidence >= 0) & (confidence <= 1)).all()


@pytest.mark.slow
def test_best_opens_with_keras_alone_and_gives_the_same_maps(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    np.save(elsewhere / "images.npy", IMAGES)
    files = [folder / "best.keras", elsewhere / "images.npy", elsewhere / "maps.npy"]
    subprocess.run([sys.executable, "-c", KERAS_ALONE, *map(str, files)], cwd=elsewhere, check=True)
    maps = np.load(elsewhere / "maps.npy")
    assert maps.shape == (3, 16, 16, 3)
    expected = load_run(folder).model.predict(IMAGES, verbose=0)
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(maps, expected, rtol=0, atol=1e-5)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(RunError, match=f"{tmp_path} is no run directory: it has no config.yaml"):
        load_run(tmp_path)


def test_a_wrong_config_is_refused_with_its_line(folder):
    (folder / "config.yaml").write_text("data: {train: a.h5}\ntraining: {epochs: 0}\n")
    with pytest.raises(
        ConfigError, match=r"config.yaml:2: training.epochs must be at least 1, got 0"
    ):
        load_run(folder)


def test_a_run_without_a_split_is_refused(folder):
    (folder / "split.json").unlink()
    with pytest.raises(RunError, match=f"{folder}/split.json cannot be read: "):
        load_run(folder)


@pytest.mark.parametrize(
    "change",
    [{"keypoint_names": None}, {"edges": [[0]]}, {"symmetries": 3}, {"image_shape": [32, 32]}],
)
def test_a_split_that_lacks_something_is_refused(folder, change):
    (folder / "split.json").write_text(json.dumps(SPLIT | change))
    with pytest.raises(RunError, match=f"{folder}/split.json is damaged: "):
        load_run(folder)


def test_an_empty_split_is_refused(folder):
    (folder / "split.json").write_text("{}")
    with pytest.raises(RunError, match=r"split.json is damaged: KeyError\('image_shape'\)"):
        load_run(folder)


def test_a_run_without_a_best_model_is_refused(folder):
    (folder / "best.keras").unlink()
    with pytest.raises(
        RunError, match=f"{folder}/best.keras is missing: the run has not finished an epoch yet"
    ):
        load_run(folder)


def cut_off(path):
    path.write_bytes(path.read_bytes()[:7000])


def overwrite(path):
    path.write_bytes(b"x" * 7000)


def invert_weights(path):
    """Write the archive again with weights that are no HDF5."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["model.weights.h5"] = bytes(255 - byte for byte in members["model.weights.h5"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@pytest.mark.parametrize("damage", [cut_off, overwrite, invert_weights])
def test_a_damaged_best_model_is_refused(folder, damage):
    damage(folder / "best.keras")
    with pytest.raises(
        RunError, match=f"{folder}/best.keras cannot be opened, the file is damaged: "
    ):
        load_run(folder)
