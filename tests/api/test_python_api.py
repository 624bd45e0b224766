"""`hgtrain.fit`, `hgtrain.load_run` and the methods of a run: they do what the commands do."""

import json
import os
import signal
import subprocess
import sys
import threading

import numpy as np
import pytest
import tiny_groups
import tiny_run
from click.testing import CliRunner
from PIL import Image
from test_parity import assert_same
from tiny_run import NAMES, SMALL, json_of, write_data
from videos import damage_frame, write_video

import hgtrain
from hgtrain.cli import commands
from hgtrain.commands import fit as fit_module
from hgtrain.errors import ConfigError, DatasetError, HgtrainError, RunError
from hgtrain.signals import StoppedError
from hgtrain.train.trainer import Trainer

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A folder with data, a config, and the run of it, made by the command in `command`."""
    folder = tmp_path_factory.mktemp("lab")
    config = write_data(folder)
    config.write_text(config.read_text().replace("deterministic: true", "device: cpu"))
    arguments = ["fit", str(config), "--run-dir", str(folder / "command")]
    assert CliRunner().invoke(commands, arguments).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def run(lab):
    return hgtrain.load_run(lab / "command")


def test_fit_trains_as_the_command_does(lab, tmp_path):
    run = hgtrain.fit(lab / "tiny.yaml", tmp_path / "run")
    assert run.folder == tmp_path / "run"
    by_command = tiny_run.rows_of(lab / "command")
    of_both = tiny_run.without_times(tiny_run.rows_of(run.folder)), by_command
    for one, other in zip(of_both[0], of_both[1], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
    assert {path.name for path in run.folder.iterdir()} == {
        path.name for path in (lab / "command").iterdir()
    }
    assert json_of(run.folder, "evaluation.json").keys() == run.evaluate().keys()


def test_fit_takes_a_config_that_was_loaded(lab, tmp_path):
    config = hgtrain.load_config(lab / "tiny.yaml", [*SMALL, "training.epochs=1"])
    run = hgtrain.fit(config, str(tmp_path / "run"))
    assert run.config.training.epochs == 1
    assert len(tiny_run.rows_of(run.folder)) == 1


def test_fit_without_a_run_dir_makes_one_in_runs(lab, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = hgtrain.fit(hgtrain.load_config(lab / "tiny.yaml", [*SMALL, "training.epochs=1"]))
    assert run.folder.parent.name == "runs"
    assert run.folder.name.startswith("tiny-")


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_ctrl_c_is_keyboardinterrupt_with_a_checkpoint_from_which_it_goes_on_exactly(
    config_file, whole, tmp_path, monkeypatch
):
    config = hgtrain.load_config(whole / "config.yaml")
    method, calls = Trainer.steps, []

    def interrupted(trainer, *arguments):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGINT)
        return method(trainer, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "steps", interrupted)
        with pytest.raises(KeyboardInterrupt):
            hgtrain.fit(config, tmp_path / "run")
    assert len(tiny_run.rows_of(tmp_path / "run")) < len(tiny_run.rows_of(whole))
    assert signal.getsignal(signal.SIGINT) == signal.default_int_handler
    hgtrain.fit(tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


def test_a_signal_that_ended_a_training_goes_to_the_programs_own_handler(lab, monkeypatch):
    got = []
    before = signal.signal(signal.SIGTERM, lambda signum, frame: got.append(signum))
    monkeypatch.setattr(fit_module, "fit", lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    try:
        with pytest.raises(StoppedError, match="SIGTERM"):
            hgtrain.fit(lab / "tiny.yaml")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert got == [signal.SIGTERM]


def test_fit_resumes_a_finished_run_by_opening_it(lab):
    before = (lab / "command" / "metrics.jsonl").read_bytes()
    run = hgtrain.fit(lab / "command", resume=True)
    assert run.folder == lab / "command"
    assert (lab / "command" / "metrics.jsonl").read_bytes() == before


def test_fit_of_a_run_directory_that_is_not_to_go_on_is_refused(lab):
    with pytest.raises(RunError, match=r"command is a run: .*--resume` goes on with it"):
        hgtrain.fit(lab / "command")


def test_fit_runs_in_a_thread_too(lab, tmp_path):
    config = hgtrain.load_config(lab / "tiny.yaml", [*SMALL, "training.epochs=1"])
    runs = []
    thread = threading.Thread(target=lambda: runs.append(hgtrain.fit(config, tmp_path / "run")))
    thread.start()
    thread.join()
    assert [run.folder for run in runs] == [tmp_path / "run"]


def test_fit_refuses_a_directory_that_holds_a_run(lab):
    with pytest.raises(RunError, match=r"command holds a run already"):
        hgtrain.fit(lab / "tiny.yaml", lab / "command")


def test_evaluate_is_what_the_command_prints(run, lab):
    arguments = ["evaluate", str(lab / "command"), str(lab / "flies.h5"), "--json"]
    printed = json.loads(CliRunner().invoke(commands, arguments).stdout)
    for data in (lab / "flies.h5", [str(lab / "flies.h5")]):
        evaluation = run.evaluate(data)
        assert (evaluation["frames"], evaluation["keypoints"]) == (12, 36)
        assert evaluation["error_px"] == pytest.approx(printed["error_px"])


def test_evaluate_without_data_measures_the_validation_frames(run):
    written = json_of(run.folder, "evaluation.json")
    assert run.evaluate()["error_px"] == pytest.approx(written["error_px"])


def test_evaluate_refuses_data_that_is_not_there(run, tmp_path):
    with pytest.raises(HgtrainError, match=r"none\.h5"):
        run.evaluate(tmp_path / "none.h5")


def test_predict_of_a_film_is_that_of_its_frames(run, tmp_path):
    pictures = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 1), np.uint8)
    (tmp_path / "pictures").mkdir()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture[..., 0]).save(tmp_path / "pictures" / f"{number}.png")
    keypoints, confidence = run.predict(str(tmp_path / "pictures"))
    assert (keypoints.shape, confidence.shape) == ((5, 3, 2), (5, 3))
    of_array = run.predict(pictures)
    np.testing.assert_allclose(keypoints, of_array[0], atol=1e-4)
    np.testing.assert_allclose(confidence, of_array[1], atol=1e-6)


def test_predict_takes_a_video_and_a_damaged_frame_of_it_is_nan(run, tmp_path):
    film = damage_frame(write_video(tmp_path / "film.avi", 10, codec="mjpeg"), 4)
    keypoints, confidence = run.predict(film)
    assert keypoints.shape == (10, 3, 2)
    assert np.flatnonzero(np.isnan(keypoints).any((1, 2))).tolist() == [4]
    assert np.flatnonzero(np.isnan(confidence).any(1)).tolist() == [4]


def test_predict_of_a_film_that_is_cut_off_is_an_error(run, tmp_path):
    film = write_video(tmp_path / "film.avi", 30, codec="mjpeg")
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(DatasetError, match=r"film\.avi: ends after "):
        run.predict(film)


def test_predict_of_no_images_is_empty(run):
    keypoints, confidence = run.predict(np.empty((0, 32, 32, 1), np.uint8))
    assert (keypoints.shape, confidence.shape) == ((0, 3, 2), (0, 3))


def test_export_writes_what_predicts_alike(run, lab, tmp_path, capsys):
    import tensorflow as tf

    folder = run.export(tmp_path / "model")
    assert folder == tmp_path / "model"
    assert "writing savedmodel and checking it on " in capsys.readouterr().err
    with np.load(write_images(tmp_path)) as arrays:
        images = arrays["images"]
    found = tf.saved_model.load(str(folder)).signatures["serving_default"](tf.constant(images))
    keypoints, _ = run.predict(images)
    np.testing.assert_allclose(found["keypoints"], keypoints, atol=0.05)


def write_images(folder):
    images = [image for image, *_ in tiny_run.make_frames(4)]
    np.savez(folder / "images.npz", images=np.stack(images))
    return folder / "images.npz"


def test_export_refuses_formats_that_there_are_not(run, tmp_path):
    with pytest.raises(
        RunError, match=r"format must be one of savedmodel, tflite, onnx, got 'torch'"
    ):
        run.export(tmp_path / "model", format="torch")
    assert not (tmp_path / "model").exists()


def test_export_refuses_a_folder_that_holds_something(run, lab):
    with pytest.raises(RunError, match=r"is there already"):
        run.export(lab)


def test_refinements_that_there_are_not_are_refused(lab):
    with pytest.raises(
        RunError, match="refinement must be one of unbiased, integral, local, none, got 'best'"
    ):
        hgtrain.load_run(lab / "command", refinement="best")


@pytest.mark.parametrize("average", [["turns"], "flips"])
def test_averages_that_there_are_not_are_refused(lab, average):
    with pytest.raises(RunError, match=r"average must be a list of flips, rotations, got "):
        hgtrain.load_run(lab / "command", average=average)


def test_a_run_that_averages_over_flips_evaluates_so(run, lab):
    averaged = hgtrain.load_run(lab / "command", average=["flips"])
    arguments = ["evaluate", str(lab / "command"), "--average", "flips", "--json"]
    printed = json.loads(CliRunner().invoke(commands, arguments).stdout)
    assert averaged.evaluate()["error_px"] == pytest.approx(printed["error_px"])
    assert printed["error_px"]["mean"] != pytest.approx(run.evaluate()["error_px"]["mean"])


def test_a_run_says_what_it_is(run, lab):
    assert repr(run) == f"<hgtrain run {lab}/command>"
    assert run.config == hgtrain.load_config(lab / "command" / "config.yaml")
    assert run.skeleton.keypoint_names == NAMES
    assert run.model.output_shape == (None, None, None, 3)


@pytest.fixture(scope="module")
def groups(tmp_path_factory):
    """A folder with runs of one epoch of each head for several animals, by its name."""
    folder = tmp_path_factory.mktemp("groups")
    config = tiny_groups.write_groups(folder)
    for name, overrides in tiny_groups.HEADS.items():
        overrides = [*overrides, "training.epochs=1", "training.device=cpu"]
        hgtrain.fit(hgtrain.load_config(config, overrides), folder / name)
    return folder


@pytest.mark.slow
def test_several_animals_have_an_axis_of_their_own(groups):
    run = hgtrain.load_run(groups / "multi_instance")
    animals = run.config.model.head.max_instances
    keypoints, confidence = run.predict(groups / "groups.h5")
    assert keypoints.shape == (12, animals, 3, 2)
    assert confidence.shape == (12, animals, 3)
    assert "instances" in run.evaluate()


@pytest.mark.slow
def test_a_run_that_sees_crops_needs_the_one_that_finds_animals(groups, tmp_path):
    folder = groups / "centered_instance"
    alone = hgtrain.load_run(folder)
    # Around the labelled animals.
    assert alone.evaluate()["frames"] == 3
    images = np.zeros((1, 48, 48, 1), np.uint8)
    for method in (
        lambda: alone.predict(images),
        lambda: alone.predict(groups / "groups.h5"),
        lambda: alone.export(tmp_path / "model"),
    ):
        with pytest.raises(RunError, match=r"sees crops .*load_run\('.*', centroids=RUN\)"):
            method()
    both = hgtrain.load_run(folder, centroids=groups / "centroid")
    keypoints, confidence = both.predict(images)
    assert (keypoints.shape[0], keypoints.shape[2:]) == (1, (3, 2))
    assert confidence.shape == keypoints.shape[:3]
    assert "instances" in both.evaluate()


WITHOUT_TENSORFLOW = """
import sys
import hgtrain
assert not {"numpy", "click", "h5py", "keras", "tensorflow"} & set(sys.modules)
for call, arguments in ((hgtrain.fit, sys.argv[1:]), (hgtrain.load_run, ["/nowhere"])):
    try:
        call(*arguments)
    except hgtrain.errors.HgtrainError as error:
        print(error)
assert not {"keras", "tensorflow"} & set(sys.modules)
"""


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("data: {train: builtin:flies}\ntraining: {epochs: 0}\n", "training.epochs must be"),
        ("data: {train: gone.h5}\n", "there is no file"),
    ],
)
def test_mistakes_are_answered_without_tensorflow(tmp_path, config, message):
    (tmp_path / "a.yaml").write_text(config)
    program = [sys.executable, "-c", WITHOUT_TENSORFLOW, str(tmp_path / "a.yaml")]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert message in first
    assert second == "/nowhere is no run directory: it has no config.yaml"


def test_a_wrong_config_is_a_configerror(tmp_path):
    (tmp_path / "a.yaml").write_text("data: {train: builtin:flies}\nmodell: {}\n")
    with pytest.raises(ConfigError, match=r"a\.yaml:2: .*model"):
        hgtrain.fit(tmp_path / "a.yaml")


def test_public_names_are_listed_and_others_are_no_attributes():
    assert {"fit", "load_config", "load_run", "open_dataset"} <= set(dir(hgtrain))
    with pytest.raises(AttributeError, match="module 'hgtrain' has no attribute 'trian'"):
        _ = hgtrain.trian
