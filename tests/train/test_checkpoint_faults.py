"""Checkpoints that were damaged or cannot be written."""

import random
import re
import shutil
import threading

import numpy as np
import pytest
from faulty import full_disk
from test_checkpoint import make, save_two

from hgtrain.errors import RunError
from hgtrain.rundir import layout
from hgtrain.train import checkpoint


def restored(folder):
    """Return the step that was restored and whether every variable is that step's."""
    checkpoints, (weights, step) = make(folder)
    state = checkpoints.restore_newest()
    expected = {4: 1.0, 8: 2.0}[state["step"]]
    return state["step"], weights.numpy().tolist() == [expected] * 3 and step.numpy() == state[
        "step"
    ]


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
        tmp_path / "good", tmp_path / "bad", suffix,
        lambda size: [size * i // 20 for i in range(20)],
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
        tmp_path / "good",
        tmp_path / "bad",
        suffix,
        lambda size: [chance.randrange(size) for _ in range(100)],
        flip,
    )
    results = {result for _, result in copies}
    # Some bytes of a file mean nothing: then the newest is restored, and is right.
    assert results <= {(4, True), (8, True)}
    assert (4, True) in results


def test_a_damaged_only_checkpoint_is_refused_by_name(tmp_path):
    save_two(tmp_path)
    for path in tmp_path.glob("step-*.index"):
        path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        RunError, match=rf"the checkpoint {re.escape(str(tmp_path))}/step-4 is damaged: "
    ):
        restored(tmp_path)


# What cannot be written


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path):
    save_two(tmp_path)
    checkpoints, (weights, _) = make(tmp_path)
    weights.assign(np.full(3, 3.0))
    with (
        full_disk(100),
        pytest.raises(RunError, match=r"step-12 cannot be written: .*step-8 is the newest left"),
    ):
        checkpoints.save(12, {"step": 12})
    assert restored(tmp_path) == (8, True)


def test_what_a_failed_write_leaves_is_removed_by_the_next_process(tmp_path):
    (tmp_path / ".partial_temp").mkdir()
    (tmp_path / ".partial.index").touch()
    make(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_beside_its_files_is_removed(tmp_path):
    for name in (".best.123.keras", ".config.9.yaml", ".best.7-0badcafe.keras"):
        (tmp_path / name).touch()
    kept = tmp_path / ".best.of.all.keras"
    kept.touch()
    with layout.lock_run_dir(tmp_path, resume=True):
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == [
            kept.name
        ]


def test_slow_writing_goes_on_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_WARMUP_S", 0.0)
    monkeypatch.setattr(checkpoint, "TOLERABLE_FRACTION", 0.0)
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


def test_the_best_is_copied_at_once_and_written_in_the_background(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_WARMUP_S", 0.0)
    monkeypatch.setattr(checkpoint, "TOLERABLE_FRACTION", 0.0)
    checkpoints, _ = make(tmp_path)
    may_write, done = threading.Event(), []

    def write():
        may_write.wait(10)
        done.append("written")

    checkpoints.save(4, {"step": 4})
    checkpoints.save_best(lambda: done.append("copied"), write)
    assert done == ["copied"]
    may_write.set()
    checkpoints.wait()
    checkpoints.close()
    assert done == ["copied", "written"]


def test_a_failure_in_the_background_is_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "CHECKPOINT_WARMUP_S", 0.0)
    monkeypatch.setattr(checkpoint, "TOLERABLE_FRACTION", 0.0)
    checkpoints, _ = make(tmp_path)
    checkpoints.save(4, {"step": 4})
    with full_disk(100):
        checkpoints.save(8, {"step": 8})
        with pytest.raises(
            RunError, match=r"step-8 cannot be written: .*step-4 is the newest left"
        ):
            checkpoints.wait()
    checkpoints.close()
