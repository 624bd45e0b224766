import os
import shutil
import time
from contextlib import contextmanager

import pytest
import tensorflow as tf
from faulty import failing, full_disk
from networks import spec_of
from test_parity import assert_same, fit
from tiny_run import write_data

from hgtrain.config.load import load_config
from hgtrain.errors import DatasetError, RunError
from hgtrain.planning.memory import Device
from hgtrain.planning.out_of_memory import out_of_memory_text
from hgtrain.train import failures
from hgtrain.train.failures import FileWatch, os_errors_as_run_error, stacks_shown_when_stalled
from hgtrain.train.trainer import Trainer

slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
GIB = 2**30


# What cannot be written


@slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "what"),
    [("save_state", "step-6 cannot be written"), ("save_best", "best.keras cannot be written")],
)
def test_a_run_survives_a_full_disk(config_file, whole, tmp_path, monkeypatch, name, what):
    with monkeypatch.context() as patch:
        failing(patch, Trainer, name, 2, lambda trainer: full_disk())
        with pytest.raises(RunError, match=f"{what}: .*--resume"):
            fit(config_file, tmp_path / "run", ())
    fit(config_file, tmp_path / "run", (), resume=True)
    assert_same(tmp_path / "run", whole)


@slow
@pytest.mark.usefixtures("quick")
def test_a_run_directory_that_is_removed_ends_the_run_with_a_message(
    config_file, tmp_path, monkeypatch
):
    folder = tmp_path / "run"

    @contextmanager
    def removed(trainer):
        shutil.rmtree(folder)
        yield

    failing(monkeypatch, Trainer, "save_state", 2, removed)
    with pytest.raises(
        RunError, match=f"{folder}/checkpoints/step-6 cannot be written: No such file or directory"
    ):
        fit(config_file, folder, ())
    assert not folder.exists()


@slow
@pytest.mark.usefixtures("quick")
def test_a_folder_that_cannot_be_written_to_any_more_ends_the_run_with_a_message(
    config_file, whole, tmp_path, monkeypatch
):
    folder = tmp_path / "run"

    @contextmanager
    def blocked(trainer):
        (folder / "checkpoints").rename(folder / "away")
        (folder / "checkpoints").touch()
        yield

    with monkeypatch.context() as patch:
        failing(patch, Trainer, "save_state", 2, blocked)
        with pytest.raises(RunError, match="step-6 cannot be written: File exists"):
            fit(config_file, folder, ())
    (folder / "checkpoints").unlink()
    (folder / "away").rename(folder / "checkpoints")
    fit(config_file, folder, (), resume=True)
    assert_same(folder, whole)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            OSError(28, "No space left on device", "/runs/a/metrics.jsonl"),
            "/runs/a/metrics.jsonl cannot be written: No space",
        ),
        (OSError(30, "Read-only file system"), "/runs/a cannot be written: Read-only file system"),
        (
            tf.errors.ResourceExhaustedError(None, None, "x; No space left on device"),
            "/runs/a cannot be written: x; No",
        ),
        (tf.errors.ResourceExhaustedError(None, None, "OOM when allocating"), "^too much$"),
        (MemoryError(), "^too much$"),
    ],
)
def test_what_the_system_refuses_is_named(error, text):
    with pytest.raises(RunError, match=text), os_errors_as_run_error("/runs/a", lambda: "too much"):
        raise error


def test_another_failure_of_tensorflow_is_a_defect():
    with pytest.raises(tf.errors.InvalidArgumentError), os_errors_as_run_error("/runs/a", str):
        raise tf.errors.InvalidArgumentError(None, None, "shapes")


# Too little memory


def spec(config_file, *overrides):
    return spec_of(load_config(config_file, overrides), (32, 32, 1), 3)


def estimate(spec):
    return {"total": spec.training.batch_size * int(GIB * spec.data.input_scale**2)}


def test_out_of_memory_is_told_with_the_estimate_and_edits_that_fit(config_file):
    trained = spec(config_file, "training.batch_size=16")
    assert out_of_memory_text(trained, Device("H200", 10 * GIB), estimate) == (
        "out of memory on H200, which has 10.00 GiB: training at training.batch_size 16 takes an "
        "estimated 16.00 GiB. "
        "A new run fits with --set training.batch_size=8 (8.00 GiB), or --set "
        "data.input_scale=0.75 (9.00 GiB)"
    )


def test_at_most_three_edits_are_offered(config_file):
    trained = spec(config_file, "training.batch_size=16")

    def three(changed):
        training, stacks = changed.training, changed.model.backbone.stacks
        part = training.batch_size * changed.data.input_scale * stacks
        return {"total": int(GIB * part * (0.5 if training.precision == "mixed_bfloat16" else 1))}

    assert out_of_memory_text(trained, Device("H200", 99 * GIB), three).count("--set") == 3


def test_where_nothing_fits_a_smaller_network_is_asked_for(config_file):
    text = out_of_memory_text(
        spec(config_file), Device("H200", 10), lambda changed: {"total": 1000}
    )
    assert text.endswith("A new run fits with a smaller network")


@slow
@pytest.mark.usefixtures("quick")
def test_a_run_out_of_memory_ends_with_the_estimate(config_file, tmp_path, monkeypatch):
    def steps(self, first_step, rates):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(Trainer, "steps", steps)
    with pytest.raises(
        RunError,
        match=r"^out of memory on CPU.*estimated 0\.\d\d GiB.*--set training.batch_size=\d",
    ):
        fit(config_file, tmp_path / "run", ("training.batch_size=512",))


# Data that change


def test_data_that_stay_are_not_mentioned(tmp_path, capsys):
    path = tmp_path / "a.h5"
    path.write_bytes(b"1")
    FileWatch([str(path)]).check()
    assert capsys.readouterr().err == ""


def test_data_that_are_written_to_end_the_run(tmp_path):
    path = tmp_path / "a.h5"
    path.write_bytes(b"1")
    watch = FileWatch([str(path)])
    with path.open("ab") as file:
        file.write(b"23")
    with pytest.raises(
        DatasetError, match=r"a.h5 was changed while .* \(it had 1 bytes, has 3\): restore the file"
    ):
        watch.check()


@pytest.mark.parametrize("is_replaced", [False, True])
def test_data_that_are_gone_are_still_open_and_said_once(tmp_path, capsys, is_replaced):
    path = tmp_path / "a.h5"
    path.write_bytes(b"1")
    watch = FileWatch([str(path)])
    if is_replaced:
        (tmp_path / "b").write_bytes(b"2")
        (tmp_path / "b").replace(path)
    else:
        path.unlink()
    watch.check()
    watch.check()
    assert (
        capsys.readouterr().err
        == f"{path} was removed or replaced; training goes on with what was opened\n"
    )


@slow
@pytest.mark.usefixtures("quick")
def test_a_run_whose_data_are_removed_goes_on(whole, tmp_path, monkeypatch):
    config_file = write_data(tmp_path)

    @contextmanager
    def removed(trainer):
        (tmp_path / "flies.h5").rename(tmp_path / "away.h5")
        yield

    failing(monkeypatch, Trainer, "save_state", 1, removed)
    fit(config_file, tmp_path / "run", ("data.cache=none",))
    assert_same(tmp_path / "run", whole)


@slow
@pytest.mark.usefixtures("quick")
def test_a_run_whose_data_are_changed_writes_no_checkpoint_of_them(tmp_path, monkeypatch):
    config_file = write_data(tmp_path)

    @contextmanager
    def changed(trainer):
        os.utime(tmp_path / "flies.h5", (1, 1))
        yield

    failing(monkeypatch, Trainer, "steps", 5, changed)
    with pytest.raises(DatasetError, match=r"flies.h5 was changed while it was trained on"):
        fit(config_file, tmp_path / "run", ("data.cache=none",))
    assert {path.name for path in (tmp_path / "run" / "checkpoints").glob("*.index")} == {
        "step-3.index"
    }


# Hanging


def test_a_call_that_hangs_shows_its_stack_and_goes_on(monkeypatch, capfd):
    monkeypatch.setattr(failures, "STALLED_S", 0.1)
    with stacks_shown_when_stalled():
        time.sleep(0.35)
    err = capfd.readouterr().err
    assert err.count("Timeout (0:00:00.100000)!") >= 2
    assert "test_a_call_that_hangs_shows_its_stack_and_goes_on" in err


def test_a_call_that_ends_shows_nothing(monkeypatch, capfd):
    monkeypatch.setattr(failures, "STALLED_S", 0.1)
    with stacks_shown_when_stalled():
        pass
    time.sleep(0.2)
    assert capfd.readouterr().err == ""
