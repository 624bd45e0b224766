import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from click.testing import CliRunner
from networks import whole_network
from sleap_models import (
    BACKBONE,
    NAMES,
    described,
    heads_of,
    set_layers,
    training_config,
    write_model,
)
from tiny_run import make_frames

import hgtrain
from hgtrain.cli import commands
from hgtrain.config.schema import BackboneConfig, ModelConfig
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.errors import DatasetError, RunError
from hgtrain.skeleton import Skeleton
from hgtrain.sleap_import.run import import_sleap
from hgtrain.sleap_import.training_config import read_sleap_config
from hgtrain.train.initial_weights import read_keras_arrays

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def network() -> keras.Model:
    backbone = BackboneConfig(**BACKBONE, stacks=1)
    return whole_network(ModelConfig(backbone=backbone), 1, 3, all_stacks=False)


@pytest.fixture
def model(network: keras.Model, tmp_path: Path) -> Path:
    return write_model(tmp_path / "model", network)


def labels(folder: Path, names: tuple[str, ...] = NAMES) -> str:
    path = folder / "labels.h5"
    write_dataset(path, Skeleton(names), make_frames(8))
    return str(path)


def test_a_real_training_gives_the_maps_it_gave(real_data: Path, tmp_path: Path) -> None:
    import_sleap(real_data / "sleap_run", tmp_path / "run", (), ())
    expected = np.load(real_data / "sleap_run" / "expected.npz")
    run = hgtrain.load_run(tmp_path / "run")
    np.testing.assert_allclose(run.model(expected["images"]), expected["confmaps"], atol=1e-4)
    assert run.skeleton.keypoint_names[:3] == ("head", "eyeL", "eyeR")
    # Its sigma of 2.5 was multiplied by the stride of 2.
    assert run.config.model.head.sigma_px == 5.0


def test_the_config_inside_stands_for_its_folder(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        commands, ["import-sleap", str(model / "training_config.json"), "-o", str(tmp_path / "run")]
    )
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "best.keras").is_file()


def test_the_run_predicts_what_the_network_does(
    model: Path, network: keras.Model, tmp_path: Path
) -> None:
    import_sleap(model, tmp_path / "run", (), ())
    run = hgtrain.load_run(tmp_path / "run")
    images = np.random.default_rng(0).integers(0, 255, (2, 32, 32, 1)).astype(np.uint8)
    np.testing.assert_allclose(run.model(images), network(images), atol=1e-6)
    points, confidence = run.predict(images)
    assert (points.shape, confidence.shape) == ((2, 3, 2), (2, 3))


def test_labels_that_are_given_are_split_into_the_runs_sides(model: Path, tmp_path: Path) -> None:
    file = labels(tmp_path)
    import_sleap(model, tmp_path / "run", [file], ())
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    # A quarter of eight, as training_config.json says.
    assert (len(split["train"]["frames"]), len(split["validation"]["frames"])) == (6, 2)
    assert hgtrain.load_run(tmp_path / "run").config.data.train_files == (file,)


def test_labels_are_found_beside_and_above_the_model(network: keras.Model, tmp_path: Path) -> None:
    document = training_config(data__labels__training_labels="elsewhere/labels.h5")
    folder = write_model(tmp_path / "models" / "first", network, document)
    file = labels(tmp_path)
    assert import_sleap(folder, tmp_path / "run", (), ()) == []
    assert hgtrain.load_run(tmp_path / "run").config.data.train_files == (file,)


def test_labels_that_are_not_found_are_a_note(model: Path, tmp_path: Path) -> None:
    (note,) = import_sleap(model, tmp_path / "run", (), ())
    assert note.startswith(
        "labels.pkg.slp, which training_config.json names, was not found: give the labels with "
        "--data"
    )
    assert "train" not in json.loads((tmp_path / "run" / "split.json").read_text())


def test_labels_that_cannot_be_read_are_a_note(model: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.pkg.slp").write_text("no")
    (note,) = import_sleap(model, tmp_path / "run", (), ())
    assert note == f"the labels cannot be read: {tmp_path / 'labels.pkg.slp'} is not an HDF5 file"


def test_labels_of_other_keypoints_are_refused_and_nothing_is_written(
    model: Path, tmp_path: Path
) -> None:
    file = labels(tmp_path, ("head", "ear_right", "ear_left"))
    before = set(tmp_path.iterdir())
    with pytest.raises(
        DatasetError,
        match=r"keypoint 1 of .*labels.h5 is 'ear_right' but that of the SLEAP model is",
    ):
        import_sleap(model, tmp_path / "run", [file], ())
    assert set(tmp_path.iterdir()) == before


def test_a_network_without_a_size_takes_it_from_its_config_or_labels(
    network: keras.Model, tmp_path: Path
) -> None:
    layers = described(network)
    layers[0]["config"]["batch_input_shape"] = [None, None, None, 1]
    unsized = training_config(data__preprocessing__target_height=None)
    folder = write_model(tmp_path / "model", network, unsized)
    with h5py.File(folder / "best_model.h5", "r+") as file:
        set_layers(file, layers)
    with pytest.raises(
        RunError,
        match=r"neither training_config.json .* says how large images are: name the labels",
    ):
        import_sleap(folder, tmp_path / "run", (), ())
    import_sleap(folder, tmp_path / "run", [labels(tmp_path)], ())
    assert json.loads((tmp_path / "run" / "split.json").read_text())["image_shape"] == [32, 32, 1]


def test_the_size_of_scaled_images_is_that_before_scaling(
    network: keras.Model, tmp_path: Path
) -> None:
    document = training_config(
        data__preprocessing__target_height=None, data__preprocessing__input_scaling=0.5
    )
    import_sleap(write_model(tmp_path / "model", network, document), tmp_path / "run", (), ())
    assert json.loads((tmp_path / "run" / "split.json").read_text())["image_shape"] == [64, 64, 1]


def test_an_input_that_is_no_image_is_refused(
    model: Path, network: keras.Model, tmp_path: Path
) -> None:
    layers = described(network)
    layers[0]["config"]["batch_input_shape"] = [None, 32, 32, 2]
    with h5py.File(model / "best_model.h5", "r+") as file:
        set_layers(file, layers)
    with pytest.raises(RunError, match=r"its input has shape \[None, 32, 32, 2\], expected"):
        import_sleap(model, tmp_path / "run", (), ())


def test_the_settings_of_the_training_are_taken_over(model: Path) -> None:
    values = read_sleap_config(model).values
    assert values["data"] == {"validation": 0.25, "input_scale": 1.0}
    assert values["model"]["backbone"] == {**BACKBONE, "stacks": 1}
    # 1.5 in cells of 2 px.
    assert values["model"]["head"] == {
        "type": "single_instance",
        "sigma_px": 3.0,
        "loss_weight": 1.0,
        "offsets": False,
    }
    assert values["augmentation"] == {
        "rotation_deg": [-15, 15],
        "scale": [0.8, 1.2],
        "translation_px": None,
        "flip": "vertical",
        "brightness": [0.0, pytest.approx(0.2)],
        "contrast": None,
        "gamma": [0.5, 2.0],
        "noise_std": pytest.approx(0.01),
    }
    assert values["training"] == {
        "batch_size": 4,
        "epochs": 7,
        "steps_per_epoch": 200,
        "learning_rate": 0.001,
        "schedule": "plateau",
        "warmup_steps": 0,
        "min_learning_rate": 1e-8,
        "plateau_factor": 0.25,
        "plateau_patience_epochs": 3,
        "early_stopping_epochs": 10,
        "hard_keypoint_mining": True,
    }


def test_the_skeleton_is_read_without_making_its_objects(model: Path) -> None:
    assert read_sleap_config(model).skeleton == Skeleton(NAMES, ((0, 1), (0, 2)), ((1, 2),))


def test_keypoints_come_in_the_order_of_the_networks_outputs(
    network: keras.Model, tmp_path: Path
) -> None:
    order = ["ear_right", "head", "ear_left"]
    document = training_config(model__heads__single_instance__part_names=order)
    folder = write_model(tmp_path / "model", network, document)
    assert read_sleap_config(folder).skeleton == Skeleton(tuple(order), ((1, 2), (1, 0)), ((2, 0),))


def test_what_has_no_counterpart_is_a_note(network: keras.Model, tmp_path: Path) -> None:
    document = training_config(
        optimization__optimizer="rmsprop",
        optimization__augmentation_config__uniform_noise=True,
        optimization__augmentation_config__random_crop=True,
    )
    notes = read_sleap_config(write_model(tmp_path / "model", network, document)).notes
    assert [note.split(": ")[1] for note in notes] == [
        "optimizer rmsprop becomes adam",
        "uniform_noise has no counterpart and is left out",
        "random_crop has no counterpart and is left out",
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model__backbone": {"unet": {}, "hourglass": None}},
            r"model.backbone is unet, expected hourglass",
        ),
        (
            {"model__heads": heads_of("multi_class_topdown")},
            r"model.heads is multi_class_topdown, expected single_instance, multi_instance, "
            r"centroid or centered_instance: hgtrain imports no other yet",
        ),
        ({"model__heads": {}}, r"model.heads is empty, expected single_instance"),
        (
            {"model__heads": heads_of("single_instance") | {"centroid": {}}},
            r"model.heads is single_instance, centroid, expected single_instance, ",
        ),
        ({"data__preprocessing__imagenet_mode": "caffe"}, r"imagenet_mode is caffe, expected null"),
        ({"optimization": {}}, r"training_config.json is not understood: KeyError"),
        ({"data__labels__skeletons": []}, r"training_config.json is not understood: IndexError"),
    ],
)
def test_other_models_are_refused(
    network: keras.Model, tmp_path: Path, changes: dict, message: str
) -> None:
    folder = write_model(tmp_path / "model", network, training_config(**changes))
    with pytest.raises(RunError, match=message):
        import_sleap(folder, tmp_path / "run", (), ())


def test_a_backbone_that_hgtrain_cannot_build_is_refused(
    network: keras.Model, tmp_path: Path
) -> None:
    document = training_config(
        model__backbone__hourglass={**BACKBONE, "max_stride": 48, "stacks": 1}
    )
    folder = write_model(tmp_path / "model", network, document)
    with pytest.raises(
        RunError,
        match=r"what hgtrain cannot do: .*model.backbone.max_stride must be a power of two, got 48",
    ):
        import_sleap(folder, tmp_path / "run", (), ())


def test_a_folder_without_a_config_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is no SLEAP model: it has no training_config.json"):
        import_sleap(tmp_path, tmp_path / "run", (), ())


def test_a_training_that_saved_nothing_is_refused(model: Path, tmp_path: Path) -> None:
    (model / "best_model.h5").unlink()
    with pytest.raises(RunError, match=r"has no best_model.h5: the training has not saved a model"):
        import_sleap(model, tmp_path / "run", (), ())


@pytest.mark.parametrize(
    ("content", "message"), [("{", "cannot be read"), ("[]", "is not understood")]
)
def test_a_config_that_is_no_config_is_refused(
    model: Path, tmp_path: Path, content: str, message: str
) -> None:
    (model / "training_config.json").write_text(content)
    with pytest.raises(RunError, match=rf"training_config.json {message}"):
        import_sleap(model, tmp_path / "run", (), ())


def test_a_huge_config_is_refused(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hgtrain.sleap_import.training_config.MAX_BYTES", 10)
    with pytest.raises(RunError, match=r"training_config.json is larger than 10 bytes"):
        read_sleap_config(model)


def test_a_run_that_is_there_is_not_overwritten(model: Path) -> None:
    with pytest.raises(RunError, match=r"is there already: choose another folder"):
        import_sleap(model, model, (), ())


def test_the_command_writes_the_run_and_says_where(model: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["import-sleap", str(model), "-o", str(tmp_path / "run")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'run'}\n")
    assert len(read_keras_arrays(tmp_path / "run" / "best.keras")) == len(
        [
            layer
            for layer in described(hgtrain.load_run(tmp_path / "run").model)
            if layer["class_name"] in WITH_WEIGHTS
        ]
    )


WITH_WEIGHTS = ("Conv2D", "BatchNormalization")


def test_a_hostile_model_is_one_message_and_status_1(model: Path, tmp_path: Path) -> None:
    with h5py.File(model / "best_model.h5", "r+") as file, closing(file):
        layers = json.loads(file.attrs["model_config"])["config"]["layers"]
        layers[3] |= {"class_name": "Lambda"}
        set_layers(file, layers)
    program = [
        sys.executable,
        "-m",
        "hgtrain",
        "import-sleap",
        str(model),
        "-o",
        str(tmp_path / "run"),
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    where = model / "best_model.h5"
    assert done.stderr.splitlines()[-1] == (
        f"Error: {where}: layer stem0_conv3x3_conv is a Lambda, expected a Conv2D: nothing of it "
        "was run"
    )
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
