import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from tiny_run import NAMES, TIMES, fit, json_of, rows_of, weights_of, without_times

from hgtrain.config.load import load_config
from hgtrain.data import open_split
from hgtrain.errors import DatasetError, RunError
from hgtrain.pipeline.cache import resolve_cache
from hgtrain.rundir import layout
from hgtrain.train import plan as plan_module
from hgtrain.train.loop import State
from hgtrain.train.observer import TrainingObserver

slow = pytest.mark.slow
# Keras's own, each time it saves a variable.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def finished(config_file, tmp_path_factory):
    """The directory of a run of two epochs of four steps."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    fit(config_file, folder)
    return folder


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run that a test may change."""
    subprocess.run(["cp", "-r", finished, tmp_path / "run"], check=True)
    return tmp_path / "run"


# What is worked out from a config


def configured(config_file, *overrides):
    return load_config(config_file, overrides)


def plan_of(config):
    return plan_module.make_plan(config.training, config.checkpoint, frames=9)


def observer(config, folder, trainer):
    plan = plan_of(config)
    return TrainingObserver(
        trainer,
        folder,
        range(plan.epochs * plan.steps_per_epoch),
        config.training,
        config.model.head,
        config.output.tensorboard,
    )


@pytest.mark.parametrize(
    ("frames", "steps"), [(1, 200), (1600, 200), (1601, 201), (80_000, 10_000)]
)
def test_an_epoch_is_one_pass_and_at_least_200_steps(config_file, frames, steps):
    config = configured(config_file, "training.steps_per_epoch=null", "training.batch_size=8")
    assert plan_module.steps_per_epoch(config.training, frames) == steps


def test_an_epoch_has_the_steps_that_are_configured(config_file):
    assert plan_module.steps_per_epoch(configured(config_file).training, 10_000) == 4


@pytest.mark.parametrize(
    ("size", "cache"), [(0, "device"), (2**31 - 1, "device"), (2**31, "ram"), (2**50, "none")]
)
def test_frames_are_kept_in_the_first_place_they_fit_in(config_file, monkeypatch, size, cache):
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2**22, "SC_PAGE_SIZE": 2**12}.__getitem__)
    assert resolve_cache(configured(config_file).data.cache, size) == cache


@pytest.mark.parametrize("cache", ["device", "ram", "none"])
def test_frames_are_kept_where_it_is_configured(config_file, cache):
    wanted = configured(config_file, f"data.cache={cache}").data.cache
    assert resolve_cache(wanted, 2**50) == cache


def test_the_plan_is_what_the_config_says(config_file):
    plan = plan_of(configured(config_file, "training.early_stopping_epochs=7"))
    assert (plan.epochs, plan.steps_per_epoch, plan.batch_size) == (2, 4, 4)
    assert (plan.checkpoint_steps, plan.early_stopping_epochs) == (4, 7)
    assert (plan.learning_rate(0, 1.0), plan.learning_rate(1, 1.0)) == pytest.approx((1e-3, 2e-3))


def test_checkpoints_come_at_the_configured_interval(config_file):
    plan = plan_of(configured(config_file, "checkpoint.every_steps=3"))
    assert plan.checkpoint_steps == 3


def test_only_the_schedule_plateau_has_plateaus(config_file):
    keys = ("training.plateau_patience_epochs=3", "training.plateau_factor=0.25")
    assert plan_of(configured(config_file, *keys)).plateau_patience_epochs is None
    plan = plan_of(configured(config_file, *keys, "training.schedule=plateau"))
    assert (plan.plateau_patience_epochs, plan.plateau_factor) == (3, 0.25)
    assert plan.learning_rate(5, 0.25) == pytest.approx(5e-4)


def test_five_percent_of_the_steps_warm_up(config_file):
    keys = (
        "training.warmup_steps=null",
        "training.steps_per_epoch=20",
        "training.schedule=constant",
    )
    plan = plan_of(configured(config_file, *keys))
    # 2 of 40 steps.
    assert [plan.learning_rate(step, 1.0) for step in range(3)] == pytest.approx(
        [2e-3 / 3, 4e-3 / 3, 2e-3]
    )


def test_flat_maps_are_warned_of(config_file, tmp_path, capsys):
    config = configured(config_file, "output.tensorboard=false")
    record = observer(config, tmp_path, SimpleNamespace())
    row = {
        "step": 200,
        "epoch": 1,
        "loss": 1.0,
        "val_loss": 1.0,
        "val_error_px": 9.0,
        "data_wait_fraction": None,
        "elapsed_s": 1.0,
    }
    state = State(history=[row])
    record.epoch_ended(state, row, {"val_confidence": 0.05})
    assert "flat" not in capsys.readouterr().err
    record.epoch_ended(state, row, {"val_confidence": 0.049})
    told = capsys.readouterr().err.partition("\n")[2]
    assert told.startswith(
        "the confidence maps are still flat after 200 steps (mean peak 0.049, expected above "
        "0.05): raise "
        "training.learning_rate (now 0.002) or model.head.sigma_px (now 3.0)\n"
    )
    record.epoch_ended(state, row | {"step": 199}, {"val_confidence": 0.0})
    assert "flat" not in capsys.readouterr().err


def test_waiting_for_frames_is_warned_of_once(config_file, tmp_path, capsys):
    config = configured(config_file, "output.tensorboard=false")
    trainer = SimpleNamespace(frames=SimpleNamespace(cache="none", size_bytes=2**20))
    record = observer(config, tmp_path, trainer)
    row = {"step": 4, "epoch": 1, "loss": 1.0, "val_loss": 1.0, "val_error_px": None}
    row["elapsed_s"] = 1.0
    for fraction, said in ((None, 0), (0.05, 0), (0.2, 1), (0.3, 0)):
        record.epoch_ended(State(history=[row]), row | {"data_wait_fraction": fraction}, {})
        assert (
            capsys.readouterr().err.count("go on with data.cache: ram, which takes 0.00 GiB")
            == said
        )


def test_where_another_run_has_the_name_that_nobody_chose_the_next_is_taken(
    config_file, tmp_path, monkeypatch
):
    # As when both looked in the same second, before either had made its folder.
    monkeypatch.setattr(layout, "default_run_dir", lambda name: tmp_path / name)
    with layout.lock_run_dir(tmp_path / "tiny", resume=False):
        folder, evaluation = fit(
            config_file, None, "training.epochs=1", "training.steps_per_epoch=1"
        )
    assert folder == tmp_path / "tiny-2"
    assert json_of(folder, "evaluation.json") == evaluation
    assert [path.name for path in (tmp_path / "tiny").iterdir()] == ["lock"]


def test_a_gpu_that_is_not_there_leaves_no_folder(config_file, tmp_path):
    import tensorflow as tf

    if tf.config.list_physical_devices("GPU"):
        pytest.skip("needs a machine without a GPU")
    with pytest.raises(RunError, match=r"training.device is gpu, but TensorFlow finds none"):
        fit(config_file, tmp_path / "runs" / "a", "training.device=gpu")
    assert list(tmp_path.iterdir()) == []


# What a run leaves


@slow
def test_a_run_leaves_the_files_of_the_contract(finished):
    names = {path.name for path in finished.iterdir()}
    assert {
        "config.yaml",
        "split.json",
        "provenance.json",
        "metrics.jsonl",
        "best.keras",
        "evaluation.json",
    } <= names
    assert {"checkpoints", "tensorboard"} <= names
    assert not [name for name in names if name.startswith(".")]


@slow
def test_metrics_has_a_row_an_epoch(finished):
    rows = rows_of(finished)
    assert [(row["step"], row["epoch"]) for row in rows] == [(4, 1), (8, 2)]
    assert [list(row)[-4:] for row in rows] == [list(TIMES)] * 2
    assert all(len(row["loss_per_stack"]) == 2 for row in rows)


@slow
def test_the_loss_falls(finished):
    first, second = rows_of(finished)
    assert second["loss"] < first["loss"]


@slow
def test_the_config_in_the_run_is_the_one_it_was_started_with(finished, config_file):
    assert load_config(finished / "config.yaml") == load_config(config_file)
    assert (
        yaml.safe_load((finished / "config.yaml").read_text())["training"]["schedule"] == "cosine"
    )


@slow
def test_the_split_is_on_record(finished, config_file):
    split = json_of(finished, "split.json")
    train, validation = split["train"], split["validation"]
    assert (len(train["frames"]), len(validation["frames"])) == (9, 3)
    assert sorted(train["frames"] + validation["frames"]) == list(range(12))
    assert train["files"] == validation["files"] == [str(config_file.parent / "flies.h5")]
    assert len(train["fingerprint"]) == 64
    assert (split["keypoint_names"], split["symmetries"], split["image_shape"]) == (
        list(NAMES),
        [[1, 2]],
        [32, 32, 1],
    )


@slow
def test_where_a_run_comes_from_is_on_record(finished):
    provenance = json_of(finished, "provenance.json")
    assert set(provenance["versions"]) == {
        "python",
        "hgtrain",
        "tensorflow",
        "keras",
        "numpy",
        "h5py",
    }
    known = {"seed": 0, "strategy": "single", "replicas": 1, "precision": "float32", "xla": "off"}
    assert {key: provenance[key] for key in known} == known
    assert provenance["command"] == sys.argv
    assert provenance["started"] <= provenance["finished"]


@slow
def test_the_evaluation_has_the_keys_of_the_contract(finished):
    evaluation = json_of(finished, "evaluation.json")
    keys = [
        "frames",
        "keypoints",
        "error_px",
        "rmse_px",
        "pck",
        "oks",
        "visibility",
        "per_keypoint",
        "images_per_s",
    ]
    assert set(keys) <= set(evaluation)
    assert (evaluation["frames"], evaluation["keypoints"]) == (3, 9)
    assert list(evaluation["error_px"]) == ["mean", "median", "p75", "p90", "p95", "p99"]
    assert [row["name"] for row in evaluation["per_keypoint"]] == list(NAMES)


@slow
def test_the_evaluation_is_of_the_best_epoch(finished):
    best = min(row["val_error_px"] for row in rows_of(finished))
    assert json_of(finished, "evaluation.json")["error_px"]["mean"] == pytest.approx(best, abs=1e-3)


@slow
def test_the_newest_checkpoints_are_kept(finished):
    assert {path.name for path in (finished / "checkpoints").glob("*.index")} == {
        "step-4.index",
        "step-8.index",
    }


@slow
def test_tensorboard_gets_the_curves_and_the_overlays(finished):
    import tensorflow as tf

    (path,) = (finished / "tensorboard").iterdir()
    events = [
        tf.compat.v1.Event.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    values = {(event.step, value.tag): value for event in events for value in event.summary.value}
    row = rows_of(finished)[1]
    assert values[8, "val_loss"].simple_value == pytest.approx(row["val_loss"])
    assert values[8, "loss/stack1"].simple_value == pytest.approx(row["loss_per_stack"][1])
    pictures = [values[4, f"validation/{frame}"].image for frame in range(3)]
    assert [(picture.width, picture.height) for picture in pictures] == [(64, 64)] * 3


# Again


@slow
def test_a_run_repeats_bit_by_bit_from_its_own_config(finished, tmp_path):
    fit(finished / "config.yaml", tmp_path / "again")
    assert without_times(rows_of(tmp_path / "again")) == without_times(rows_of(finished))
    assert weights_of(tmp_path / "again" / "best.keras") == weights_of(finished / "best.keras")
    assert json_of(tmp_path / "again", "split.json") == json_of(finished, "split.json")


@slow
def test_another_seed_gives_another_run(finished, config_file, tmp_path):
    fit(config_file, tmp_path / "other", "training.seed=1", "training.epochs=1")
    assert rows_of(tmp_path / "other")[0]["loss"] != rows_of(finished)[0]["loss"]


@slow
def test_a_finished_run_is_not_trained_again(copied, config_file, capsys, monkeypatch):
    monkeypatch.setattr(open_split, "open_split", None)
    before = {path: path.stat().st_mtime_ns for path in copied.rglob("*")}
    folder, evaluation = fit(config_file, copied, resume=True)
    assert (folder, evaluation) == (copied, json_of(copied, "evaluation.json"))
    assert (
        capsys.readouterr().err == f"{copied} is finished; to train longer, raise training.epochs\n"
    )
    assert {path: path.stat().st_mtime_ns for path in copied.rglob("*")} == before


@slow
def test_a_finished_run_goes_on_with_more_epochs(copied, config_file, capsys):
    before = rows_of(copied)
    fit(config_file, copied, "training.epochs=3", resume=True)
    assert "resuming at step 8 of 12\n" in capsys.readouterr().err
    rows = rows_of(copied)
    assert (rows[:2], rows[2]["step"], rows[2]["epoch"]) == (before, 12, 3)
    assert rows[2]["elapsed_s"] > before[1]["elapsed_s"]
    assert load_config(copied / "config.yaml").training.epochs == 3
    assert "finished" in json_of(copied, "provenance.json")


@slow
def test_a_run_with_other_keys_is_not_resumed(copied, config_file):
    changes = "training.batch_size was 4, is 3; training.seed was 0, is 1"
    with pytest.raises(
        RunError, match=rf"another config: {changes}; resume with {copied}/config.yaml"
    ):
        fit(config_file, copied, "training.batch_size=3", "training.seed=1", resume=True)


@slow
def test_a_run_is_not_resumed_on_changed_data(copied, config_file, tmp_path):
    text = (copied / "split.json").read_text()
    fingerprint = json.loads(text)["train"]["fingerprint"]
    (copied / "split.json").write_text(text.replace(fingerprint, "0" * 64))
    with pytest.raises(
        DatasetError, match=r"flies.h5 has changed since the split was made: .*restore the file"
    ):
        fit(config_file, copied, "training.epochs=3", resume=True)


@slow
def test_a_run_with_a_damaged_checkpoint_goes_on_from_the_one_before(
    copied, config_file, finished, capsys
):
    (copied / "checkpoints" / "step-8.index").write_bytes(b"")
    fit(config_file, copied, "training.early_stopping_epochs=9", resume=True)
    assert "resuming at step 4 of 8\n" in capsys.readouterr().err
    assert without_times(rows_of(copied)) == without_times(rows_of(finished))


@slow
def test_resuming_where_no_run_is_starts_one_and_says_so(config_file, tmp_path, capsys):
    fit(config_file, tmp_path / "new", "training.epochs=1", "output.tensorboard=false", resume=True)
    assert capsys.readouterr().err.startswith(
        f"{tmp_path}/new holds no run to continue: a new one starts\n"
    )
    assert len(rows_of(tmp_path / "new")) == 1
    assert not (tmp_path / "new" / "tensorboard").exists()


def test_resume_needs_a_run_directory(config_file):
    with pytest.raises(RunError, match="--resume needs the run to continue: give --run-dir"):
        fit(config_file, None, resume=True)


def test_the_option_wins_over_the_config(config_file, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "config.yaml").touch()
    with pytest.raises(RunError, match=f"{tmp_path}/taken holds a run already"):
        fit(config_file, tmp_path / "taken", f"output.run_dir={tmp_path / 'free'}")
    with pytest.raises(RunError, match=f"{tmp_path}/taken holds a run already"):
        fit(config_file, None, f"output.run_dir={tmp_path / 'taken'}")


# Signals

COMMAND = [sys.executable, "-m", "hgtrain", "fit"]
CLAIM = """
import sys
from pathlib import Path
from hgtrain.rundir.layout import lock_run_dir
with lock_run_dir(Path(sys.argv[1]), resume=True):
    print("claimed", flush=True)
    sys.stdin.read()
"""


@slow
def test_a_run_stopped_by_a_signal_goes_on_as_if_nothing_had_been(config_file, finished, tmp_path):
    folder = tmp_path / "a run"
    arguments = [str(config_file), "--run-dir", str(folder)]
    with subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if line.startswith("epoch 1/2, step 1/8"):
                break
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert (process.returncode, out) == (143, "")
    assert "Traceback" not in err
    resume = f"hgtrain fit '{folder}' --resume"
    assert err.splitlines()[-1].split("; ")[1] == f"go on with: {resume}"
    assert len(rows_of(folder)) < 2
    done = subprocess.run(
        [*COMMAND, *arguments, "--resume"], capture_output=True, text=True, check=True
    )
    assert "resuming at step " in done.stderr
    assert done.stdout.startswith(f"run               {folder}\n")
    assert without_times(rows_of(folder)) == without_times(rows_of(finished))
    assert weights_of(folder / "best.keras") == weights_of(finished / "best.keras")


def is_listening(process):
    """Return whether the process has a handler for SIGTERM by now."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(
        next(line for line in status.splitlines() if line.startswith("SigCgt")).split()[1], 16
    )
    return bool(caught & 1 << signal.SIGTERM - 1)


@slow
@pytest.mark.parametrize(("signum", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("delay_s", [0.05, 1.0])
def test_a_signal_before_training_ends_the_process_quietly(
    config_file, tmp_path, signum, status, delay_s
):
    program = [*COMMAND, str(config_file), "--run-dir", str(tmp_path / "run")]
    with subprocess.Popen(
        program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        while not is_listening(process):
            time.sleep(0.01)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(delay_s)
        process.send_signal(signum)
        out, err = process.communicate()
    assert (process.returncode, out) == (status, "")
    assert "Traceback" not in err
    assert not list(tmp_path.glob("run/.*"))


@slow
def test_a_second_process_cannot_train_into_the_same_directory(config_file, copied):
    program = [sys.executable, "-c", CLAIM, str(copied)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        with pytest.raises(
            RunError,
            match=f"{copied} is locked by another training process \\(process {process.pid} on ",
        ):
            fit(config_file, copied, "training.epochs=3", resume=True)
        process.stdin.close()
