import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from endless import make_endless
from networks import whole_network
from tiny_run import fit, write_data

from hgtrain.config.load import load_config
from hgtrain.config.schema import BackboneConfig, ModelConfig
from hgtrain.data.sandbox import process
from hgtrain.errors import RunError
from hgtrain.train.initial_weights import (
    InitialWeights,
    read_initial_weights,
    read_keras_arrays,
    take_weights,
)

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = {"stem_filters": 4, "filters": 4, "filter_increase": 0, "max_stride": 8}
HEAD = "SingleInstanceConfmapsHead"


def network(
    keypoints: int = 3, stacks: int = 1, all_stacks: bool = True, **backbone_keys: Any
) -> keras.Model:
    backbone = BackboneConfig(**{**TINY, "stacks": stacks, **backbone_keys})
    return whole_network(ModelConfig(backbone=backbone), 1, keypoints, all_stacks=all_stacks)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[keras.Model, Path]:
    model = network()
    random = np.random.default_rng(0)
    for variable in model.variables:
        variable.assign(random.uniform(0.1, 1, variable.shape))
    path = tmp_path_factory.mktemp("saved") / "best.keras"
    model.save(path)
    return model, path


def initial(path: Path, names: tuple[str, ...] | None = None) -> InitialWeights:
    return InitialWeights(path, read_keras_arrays(path), names)


def test_arrays_are_those_of_the_layers_by_name(saved: tuple[keras.Model, Path]) -> None:
    model, path = saved
    arrays = read_keras_arrays(path)
    assert set(arrays) == {layer.name for layer in model.layers if layer.variables}
    for layer in model.layers:
        for mine, theirs in zip(layer.variables, arrays.get(layer.name, []), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_an_equal_network_takes_everything(saved: tuple[keras.Model, Path]) -> None:
    model, path = saved
    other = network()
    taken = take_weights(other, initial(path), ("a", "b", "c"))
    assert (taken.new, taken.unused) == ((), ())
    images = np.random.default_rng(1).uniform(0, 255, (1, 16, 16, 1))
    np.testing.assert_array_equal(other(images), model(images))


def test_a_file_that_hdf5_reads_without_end_is_refused(
    saved: tuple[keras.Model, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "STEP_S", 0.5)
    with zipfile.ZipFile(saved[1]) as archive:
        weights = Path(archive.extract("model.weights.h5", tmp_path))
    with zipfile.ZipFile(tmp_path / "best.keras", "w") as archive:
        archive.write(make_endless(weights), weights.name)
    config = load_config(write_data(tmp_path), ["training.initial_weights=best.keras"])
    with pytest.raises(
        RunError,
        match=r"training.initial_weights: .*/best.keras: the HDF5 library ran out of CPU time",
    ):
        read_initial_weights(config.training, config.where)


def test_a_head_for_another_number_of_keypoints_starts_anew(
    saved: tuple[keras.Model, Path],
) -> None:
    other = network(keypoints=5)
    before = other.get_layer(HEAD).kernel.numpy()
    taken = take_weights(other, initial(saved[1]), tuple("abcde"))
    assert (taken.new, taken.unused) == ((HEAD,), (HEAD,))
    np.testing.assert_array_equal(other.get_layer(HEAD).kernel, before)


def test_a_head_for_other_keypoints_starts_anew(saved: tuple[keras.Model, Path]) -> None:
    weights = initial(saved[1], ("a", "b", "c"))
    assert take_weights(network(), weights, ("a", "c", "b")).new == (HEAD,)
    assert take_weights(network(), weights, ("a", "b", "c")).new == ()


def test_what_other_keypoints_give_to_the_next_stack_starts_anew(tmp_path: Path) -> None:
    network(stacks=2, reinject=True).save(tmp_path / "best.keras")
    weights = initial(tmp_path / "best.keras", ("a", "b", "c"))
    taken = take_weights(network(stacks=2, reinject=True), weights, ("a", "c", "b"))
    assert taken.new == (f"stack0_{HEAD}", "reinject0_maps", HEAD)
    assert "reinject0_features" in taken.matched


def test_stacks_that_are_not_there_start_anew(saved: tuple[keras.Model, Path]) -> None:
    taken = take_weights(network(stacks=2), initial(saved[1]), ("a", "b", "c"))
    assert f"stack0_{HEAD}" in taken.new
    assert "stack1_enc0_conv_conv" in taken.new
    assert "stack0_enc0_conv_conv" in taken.matched


def test_layers_of_another_size_start_anew_and_are_named(saved: tuple[keras.Model, Path]) -> None:
    taken = take_weights(network(filters=6), initial(saved[1]), ("a", "b", "c"))
    sentence = taken.sentence(saved[1])
    assert "stem0_conv7x7_conv" in taken.matched
    assert "stem0_conv3x3_out_conv" in taken.new
    assert (
        f"best.keras: {len(taken.matched)} layers matched; new: stem0_conv3x3_out_conv, "
        in sentence
    )


def weights_at(folder: Path, value: object):
    (folder / "a.yaml").write_text(
        f"data: {{train: a.h5}}\ntraining:\n  initial_weights: {value}\n"
    )
    config = load_config(folder / "a.yaml")
    return read_initial_weights(config.training, config.where)


def test_no_key_means_no_weights(tmp_path: Path) -> None:
    assert weights_at(tmp_path, "null") is None


def test_a_path_is_relative_to_the_config(tmp_path: Path, saved: tuple[keras.Model, Path]) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "best.keras").write_bytes(saved[1].read_bytes())
    (tmp_path / "old" / "split.json").write_text('{"keypoint_names": ["x", "y", "z"]}')
    weights = weights_at(tmp_path, "old")
    assert weights.path == tmp_path / "old" / "best.keras"
    assert weights.keypoint_names == ("x", "y", "z")


def test_a_missing_file_is_refused_with_the_line(tmp_path: Path) -> None:
    with pytest.raises(
        RunError,
        match=r"a.yaml:3: training.initial_weights: there is no file .*gone.keras, expected",
    ):
        weights_at(tmp_path, "gone.keras")


def archive(path: Path, change) -> Path:
    """Write a .keras file whose HDF5 part is what `change` makes of an empty one."""
    memory = BytesIO()
    with h5py.File(memory, "w") as file:
        change(file)
    with zipfile.ZipFile(path, "w") as made:
        made.writestr("model.weights.h5", memory.getvalue())
    return path


def unnamed(file: h5py.File) -> None:
    file["layers/conv2d/vars/0"] = np.zeros(3)


def linked(file: h5py.File) -> None:
    file.create_group("layers/conv2d/vars").attrs["name"] = "a"
    file["layers/conv2d/vars/0"] = h5py.ExternalLink("/etc/hostname", "/x")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (unnamed, r"model.weights.h5:/layers/conv2d/vars has no name of its layer"),
        (linked, r"model.weights.h5:/layers/conv2d/vars/0 is an external link to /x"),
        (lambda file: None, r"b.keras/model.weights.h5 has no /layers"),
    ],
)
def test_weights_that_cannot_be_used_are_refused(tmp_path: Path, change, message: str) -> None:
    path = archive(tmp_path / "b.keras", change)
    with pytest.raises(RunError, match=rf"a.yaml:3: training.initial_weights: .*{message}"):
        weights_at(tmp_path, path)


def test_what_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.keras").write_text("no")
    with pytest.raises(RunError, match=r"b.keras is no .keras file: File is not a zip file"):
        read_keras_arrays(tmp_path / "b.keras")


def test_an_archive_without_weights_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "b.keras", "w") as made:
        made.writestr("config.json", "{}")
    with pytest.raises(RunError, match=r"b.keras is no .keras file: .*model.weights.h5"):
        read_keras_arrays(tmp_path / "b.keras")


def test_weights_that_claim_to_be_huge_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = archive(tmp_path / "b.keras", lambda file: None)
    monkeypatch.setattr("hgtrain.train.initial_weights.MAX_BYTES", 10)
    with pytest.raises(RunError, match=r"declares [\d,]+ bytes of weights, at most 10 are read"):
        read_keras_arrays(path)


@pytest.mark.slow
def test_fit_starts_where_the_other_run_ended(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config_file = write_data(tmp_path)
    shorter = (
        "training.epochs=1",
        "training.steps_per_epoch=1",
        "model.backbone.stacks=1",
        "training.ema=0.5",
    )
    fit(config_file, tmp_path / "first", *shorter)
    still = (
        "training.learning_rate=1e-10",
        "training.min_learning_rate=0.0",
        "training.initial_weights=first",
    )
    fit(config_file, tmp_path / "second", *shorter, *still)
    assert "initial weights from" in capsys.readouterr().err
    first, second = (
        read_keras_arrays(tmp_path / name / "best.keras") for name in ("first", "second")
    )
    np.testing.assert_allclose(second[HEAD][0], first[HEAD][0], atol=1e-6)
