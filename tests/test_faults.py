import os
import random
import re
import resource
import shutil
import signal
import time
from contextlib import contextmanager

import numpy as np
import pytest
import tensorflow as tf
from test_checkpoint import make, save_two
from test_loop import FakeInner, FakeObserver, make_inner, make_plan
from test_loop import run as run_loop
from test_parity import assert_same, fit
from tiny_run import rows_of, write_data

from hgtrain import faults, run, rundir
from hgtrain.config import load_config
from hgtrain.errors import DatasetError, RunError
from hgtrain.faults import FileWatch, named_failures, out_of_memory_text, stacks_shown_when_stalled
from hgtrain.memory import Device
from hgtrain.stopping import StoppedError, StopRequest
from hgtrain.train import checkpoint, loop
from hgtrain.train.loop import Decision, NotFiniteError, State, train
from hgtrain.trainer import Trainer

slow = pytest.mark.slow
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
GIB = 2**30


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    """The directory of an undisturbed run of two epochs of four steps."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "SECONDS_A_CALL", 0.0)
        patch.setattr(run, "_evaluate_best", lambda config, folder, split: {})
        fit(config_file, folder, ())
    return folder


@pytest.fixture(autouse=True, scope="module")
def indeterminate_again():
    yield
    from tensorflow.python.framework import config

    config.disable_op_determinism()


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)
    monkeypatch.setattr(run, "_evaluate_best", lambda config, folder, split: {})


@contextmanager
def full_disk(limit=1000):
    """No file may grow beyond some bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# Damaged checkpoints


def restored(folder):
    """Return the step that was restored and whether every variable is that step's."""
    checkpoints, (weights, step) = make(folder)
    state = checkpoints.restore_newest()
    expected = {4: 1.0, 8: 2.0}[state["step"]]
    return state["step"], weights.numpy().tolist() == [expected] * 3 and step.numpy() == state["step"]


def damaged_copies(folder, copy, suffix, places, damage):
    save_two(folder)
    size = (folder / f"step-8{suffix}").stat().st_size
    for place in places(size):
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        path = copy / f"step-8{suffix}"
        path.write_bytes(damage(path.read_bytes(), place))
        yield place, restored(copy)


SUFFIXES = [checkpoint.INDEX, checkpoint.DATA]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_checkpoint_cut_off_at_any_of_20_places_gives_way_to_the_one_before(tmp_path, suffix):
    copies = damaged_copies(
        tmp_path / "good", tmp_path / "bad", suffix, lambda size: [size * i // 20 for i in range(20)],
        lambda data, place: data[:place],
    )  # fmt: skip
    assert {result for _, result in copies} == {(4, True)}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_bit_flipped_at_any_of_100_places_never_gives_wrong_values(tmp_path, suffix):
    chance = random.Random(0)

    def flip(data, place):
        changed = bytearray(data)
        changed[place] ^= 1 << chance.randrange(8)
        return bytes(changed)

    copies = damaged_copies(
        tmp_path / "good", tmp_path / "bad", suffix, lambda size: [chance.randrange(size) for _ in range(100)], flip
    )
    results = {result for _, result in copies}
    # Some bytes of a file mean nothing: then the newest is restored, and is right.
    assert results <= {(4, True), (8, True)}
    assert (4, True) in results


def test_a_damaged_only_checkpoint_is_refused_by_name(tmp_path):
    save_two(tmp_path)
    for path in tmp_path.glob("step-*.index"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(RunError, match=rf"the checkpoint {re.escape(str(tmp_path))}/step-4 is damaged: "):
        restored(tmp_path)


# What cannot be written


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    save_two(tmp_path)
    checkpoints, (weights, _) = make(tmp_path)
    weights.assign(np.full(3, 3.0))
    with full_disk(100), pytest.raises(RunError, match=r"step-12 cannot be written: .*step-8 is the newest left"):
        checkpoints.save(12, {"step": 12})
    assert restored(tmp_path) == (8, True)


def test_what_a_failed_write_leaves_is_removed_by_the_next_process(tmp_path):
    (tmp_path / ".partial_temp").mkdir()
    (tmp_path / ".partial.index").touch()
    make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_beside_its_files_is_removed(tmp_path):
    for name in (".best.123.keras", ".config.9.yaml"):
        (tmp_path / name).touch()
    kept = tmp_path / ".best.of.all.keras"
    kept.touch()
    with rundir.claimed(tmp_path, resume=True):
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [kept.name]


def test_slow_writing_goes_on_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SETTLED_S", 0.0)
    monkeypatch.setattr(checkpoint, "TOLERABLE_PART", 0.0)
    checkpoints, (weights, step) = make(tmp_path)
    weights.assign(np.full(3, 1.0))
    step.assign(4)
    checkpoints.save(4, {"step": 4})
    for number in (2, 9):
        # What changes after the call is not in the checkpoint.
        weights.assign(np.full(3, float(number)))
        step.assign(8)
        if number == 2:
            checkpoints.save(8, {"step": 8})
    checkpoints.wait()
    checkpoints.close()
    assert restored(tmp_path) == (8, True)


def test_a_failure_in_the_background_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SETTLED_S", 0.0)
    monkeypatch.setattr(checkpoint, "TOLERABLE_PART", 0.0)
    checkpoints, _ = make(tmp_path)
    checkpoints.save(4, {"step": 4})
    with full_disk(100):
        checkpoints.save(8, {"step": 8})
        with pytest.raises(RunError, match=r"step-8 cannot be written: .*step-4 is the newest left"):
            checkpoints.wait()
    checkpoints.close()


def failing(monkeypatch, owner, name, at, fault):
    """Call `fault` before the `at`th call of a method."""
    method, calls = getattr(owner, name), []

    def called(self, *arguments):
        calls.append(1)
        if len(calls) == at:
            with fault(self):
                return method(self, *arguments)
        return method(self, *arguments)

    monkeypatch.setattr(owner, name, called)


@slow
@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("name", "what"), [("save_state", "step-6 cannot be written"), ("save_best", "best.keras cannot be written")]
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
def test_a_run_directory_that_is_removed_ends_the_run_with_a_message(config_file, tmp_path, monkeypatch):
    folder = tmp_path / "run"

    @contextmanager
    def removed(trainer):
        shutil.rmtree(folder)
        yield

    failing(monkeypatch, Trainer, "save_state", 2, removed)
    with pytest.raises(RunError, match=f"{folder}/checkpoints/step-6 cannot be written: No such file or directory"):
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
    with pytest.raises(RunError, match=text), named_failures("/runs/a", lambda: "too much"):
        raise error


def test_another_failure_of_tensorflow_is_a_defect():
    with pytest.raises(tf.errors.InvalidArgumentError), named_failures("/runs/a", str):
        raise tf.errors.InvalidArgumentError(None, None, "shapes")


# Too little memory


def estimate(config):
    return {"total": config.training.batch_size * int(GIB * config.data.input_scale**2)}


def test_out_of_memory_is_told_with_the_estimate_and_edits_that_fit(config_file):
    config = load_config(config_file, ["training.batch_size=16"])
    assert out_of_memory_text(config, Device("H200", 10 * GIB), estimate) == (
        "out of memory on H200, which has 10.00 GiB: training at training.batch_size 16 takes an estimated 16.00 GiB. "
        "A new run fits with --set training.batch_size=8 (8.00 GiB), or --set data.input_scale=0.75 (9.00 GiB)"
    )


def test_at_most_three_edits_are_offered(config_file):
    config = load_config(config_file, ["training.batch_size=16"])

    def three(config):
        part = config.training.batch_size * config.data.input_scale * config.model.backbone.stacks
        return {"total": int(GIB * part * (0.5 if config.training.precision == "mixed_bfloat16" else 1))}

    assert out_of_memory_text(config, Device("H200", 99 * GIB), three).count("--set") == 3


def test_where_nothing_fits_a_smaller_network_is_asked_for(config_file):
    text = out_of_memory_text(load_config(config_file), Device("H200", 10), lambda config: {"total": 1000})
    assert text.endswith("A new run fits with a smaller network")


@slow
@pytest.mark.usefixtures("quick")
def test_a_run_out_of_memory_ends_with_the_estimate(config_file, tmp_path, monkeypatch):
    def steps(self, first_step, rates):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    monkeypatch.setattr(Trainer, "steps", steps)
    with pytest.raises(RunError, match=r"^out of memory on CPU.*estimated 0\.\d\d GiB.*--set training.batch_size=\d"):
        fit(config_file, tmp_path / "run", ("training.batch_size=512",))


# A loss that is not finite


class RestoringInner(FakeInner):
    """Goes back to what it saved last."""

    def restore(self):
        if not self.saved:
            return None
        state = State(**self.saved[-1])
        self.position = state.step
        return state

    def steps(self, first_step, learning_rates):
        self.position = first_step
        return super().steps(first_step, learning_rates)


class RestoringObserver(FakeObserver):
    def __init__(self):
        super().__init__()
        self.skipped = []

    def left_out(self, state, step):
        self.skipped.append((state.step, step))


def skipping(plan, bad):
    inner, observer = make_inner(plan), RestoringObserver()
    inner.__class__ = RestoringInner
    inner.losses[bad] = np.nan
    return train(plan, State(), inner, observer), inner, observer


def test_a_step_that_is_not_finite_is_left_out():
    state, _, observer = skipping(make_plan(skips_nonfinite=True), [5])
    assert (state.step, state.skipped, observer.skipped) == (8, [5], [(4, 5)])


def test_the_mean_loss_is_of_the_steps_that_were_done():
    state, inner, _ = skipping(make_plan(skips_nonfinite=True), [5])
    expected = inner.losses[[4, 6, 7]].astype(np.float64).mean(0)
    assert state.history[1]["loss_per_stack"] == pytest.approx(expected.tolist())


def test_the_first_step_can_be_left_out():
    assert skipping(make_plan(skips_nonfinite=True), [0, 1])[0].skipped == [0, 1]


def test_many_steps_that_are_not_finite_end_the_run():
    with pytest.raises(NotFiniteError, match="step 14"):
        skipping(make_plan(epochs=1, steps_per_epoch=20, skips_nonfinite=True), list(range(4, 16)))


def test_an_epoch_without_a_step_ends_the_run():
    with pytest.raises(NotFiniteError, match="step 2"):
        skipping(make_plan(epochs=2, steps_per_epoch=2, skips_nonfinite=True), [0, 1])


def nan_at(monkeypatch, bad):
    steps = Trainer.steps

    def spoilt(self, first_step, rates):
        losses, waited = steps(self, first_step, rates)
        losses = losses.copy()
        for step in range(first_step, first_step + len(losses)):
            if step in bad:
                losses[step - first_step] = np.nan
        return losses, waited

    monkeypatch.setattr(Trainer, "steps", spoilt)


@slow
@pytest.mark.usefixtures("quick")
def test_the_frames_of_a_loss_that_is_not_finite_are_named(config_file, tmp_path, monkeypatch):
    nan_at(monkeypatch, [6])
    with pytest.raises(
        RunError, match=r"not finite at step 6, of the frames .*flies.h5:/images\[\d+\], .*on_nonfinite: skip"
    ):
        fit(config_file, tmp_path / "run", ())
    assert (tmp_path / "run" / "checkpoints" / "step-6.index").exists()


@slow
@pytest.mark.usefixtures("quick")
def test_a_run_that_leaves_steps_out_comes_to_its_end(config_file, tmp_path, monkeypatch, capsys):
    nan_at(monkeypatch, [1, 6])
    fit(config_file, tmp_path / "run", ("training.on_nonfinite=skip",))
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [4, 8]
    assert "the loss of step 6 is not finite: back to step 6, to go on without it" in capsys.readouterr().err


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
    with pytest.raises(DatasetError, match=r"a.h5 was changed while .* \(it had 1 bytes, has 3\): restore the file"):
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
    assert capsys.readouterr().err == f"{path} was removed or replaced; training goes on with what was opened\n"


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
    assert {path.name for path in (tmp_path / "run" / "checkpoints").glob("*.index")} == {"step-3.index"}


# Hanging


def test_a_call_that_hangs_shows_its_stack_and_goes_on(monkeypatch, capfd):
    monkeypatch.setattr(faults, "STALLED_S", 0.1)
    with stacks_shown_when_stalled():
        time.sleep(0.35)
    err = capfd.readouterr().err
    assert err.count("Timeout (0:00:00.100000)!") >= 2
    assert "test_a_call_that_hangs_shows_its_stack_and_goes_on" in err


def test_a_call_that_ends_shows_nothing(monkeypatch, capfd):
    monkeypatch.setattr(faults, "STALLED_S", 0.1)
    with stacks_shown_when_stalled():
        pass
    time.sleep(0.2)
    assert capfd.readouterr().err == ""


# Signals


def test_sigusr1_asks_for_a_checkpoint_once():
    stop = StopRequest()
    with stop.listening():
        os.kill(os.getpid(), signal.SIGUSR1)
    assert (bool(stop), stop.take_save(), stop.take_save()) == (False, True, False)


def test_a_checkpoint_that_is_asked_for_is_written_and_the_run_goes_on(monkeypatch):
    monkeypatch.setattr(loop, "SECONDS_A_CALL", 0.0)
    plan = make_plan(checkpoint_steps=100)
    whole_state, _, _ = run_loop(plan)
    inner = make_inner(plan)
    state = train(plan, State(), inner, FakeObserver(), lambda steps: Decision(False, inner.position == 2, steps))
    assert [saved["step"] for saved in inner.saved] == [2, 8]
    assert state.history[1]["loss"] == whole_state.history[1]["loss"]


@slow
@pytest.mark.usefixtures("quick")
def test_a_signal_during_the_evaluation_says_how_to_go_on(config_file, whole, tmp_path, monkeypatch, capsys):
    def evaluate(config, folder, split):
        raise StoppedError(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(run, "_evaluate_best", evaluate)
        with pytest.raises(StoppedError):
            fit(config_file, tmp_path / "run", ())
    again = f"hgtrain fit {tmp_path}/run/config.yaml --run-dir {tmp_path}/run --resume"
    assert capsys.readouterr().err.endswith(f"stopped before the evaluation was done; go on with: {again}\n")
    fit(config_file, tmp_path / "run", (), resume=True)
    assert_same(tmp_path / "run", whole)
    assert "finished" in rundir.read_json(tmp_path / "run" / rundir.PROVENANCE)
