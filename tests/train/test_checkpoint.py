import re

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.errors import RunError
from hgtrain.train.checkpoint import Checkpoints
from hgtrain.train.loop import State

STATE = State(
    step=8,
    epoch_losses=[0.1, 1 / 3],
    best=2.5,
    elapsed_s=1.25,
    history=[{"step": 8, "val_error_px": None}],
)


def make(folder, values=(0.0, 0.0, 0.0), keep=2, groups=("network",)):
    variables = {name: [tf.Variable(values), tf.Variable(0, dtype=tf.int64)] for name in groups}
    return Checkpoints(folder, keep, lambda: variables), variables["network"]


def save_two(folder):
    """Write step 4 with ones and step 8 with twos."""
    checkpoints, (weights, step) = make(folder)
    for number in (1, 2):
        weights.assign(np.full(3, float(number)))
        step.assign(4 * number)
        checkpoints.save(4 * number, {"step": 4 * number})


def files(folder, suffix):
    return sorted(path.name for path in folder.glob(f"*{suffix}"))


def test_variables_come_back_bit_by_bit(tmp_path):
    values = np.array([1 / 3, -0.0, np.float32(1e-42)], np.float32)
    make(tmp_path, values)[0].save(4, {})
    checkpoints, (weights, _) = make(tmp_path)
    checkpoints.restore_newest()
    assert weights.numpy().tobytes() == values.tobytes()


def test_the_state_comes_back_exactly(tmp_path):
    make(tmp_path)[0].save(8, STATE.to_json())
    assert State(**make(tmp_path)[0].restore_newest()) == STATE


def test_the_newest_is_restored(tmp_path):
    save_two(tmp_path)
    checkpoints, (weights, step) = make(tmp_path)
    assert checkpoints.restore_newest() == {"step": 8}
    assert (weights.numpy().tolist(), step.numpy()) == ([2.0, 2.0, 2.0], 8)


def test_steps_are_ordered_as_numbers(tmp_path):
    checkpoints, _ = make(tmp_path)
    for step in (9, 10):
        checkpoints.save(step, {"step": step})
    assert make(tmp_path)[0].restore_newest() == {"step": 10}


def test_only_the_newest_are_kept(tmp_path):
    checkpoints, _ = make(tmp_path, keep=2)
    for step in (4, 8, 12):
        checkpoints.save(step, {})
    assert files(tmp_path, ".index") == ["step-12.index", "step-8.index"]
    assert len(files(tmp_path, "-00001")) == 2


def test_only_the_newest_are_kept_after_a_resume_too(tmp_path):
    save_two(tmp_path)
    checkpoints, _ = make(tmp_path, keep=2)
    checkpoints.restore_newest()
    checkpoints.save(12, {})
    assert files(tmp_path, ".index") == ["step-12.index", "step-8.index"]


def test_nothing_is_restored_where_nothing_is(tmp_path):
    checkpoints, (weights, _) = make(tmp_path / "checkpoints", (1.0, 2.0, 3.0))
    assert checkpoints.restore_newest() is None
    assert weights.numpy().tolist() == [1.0, 2.0, 3.0]


def test_a_file_of_another_name_does_no_harm(tmp_path):
    save_two(tmp_path)
    (tmp_path / "step-of-mine.index").touch()
    assert make(tmp_path)[0].restore_newest() == {"step": 8}


def shorten(path):
    path.write_bytes(path.read_bytes()[:10])


def invert(path):
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))


@pytest.mark.parametrize("file", ["step-8.index", "step-8.data-00000-of-00001"])
@pytest.mark.parametrize("damage", [shorten, invert])
def test_a_damaged_checkpoint_is_passed_over_and_said_so(tmp_path, capsys, file, damage):
    save_two(tmp_path)
    damage(tmp_path / file)
    checkpoints, (weights, step) = make(tmp_path)
    assert checkpoints.restore_newest() == {"step": 4}
    assert (weights.numpy().tolist(), step.numpy()) == ([1.0, 1.0, 1.0], 4)
    assert f"the checkpoint {tmp_path}/step-8 is damaged: " in capsys.readouterr().err


def test_when_all_are_damaged_there_is_nothing_to_resume_from(tmp_path):
    save_two(tmp_path)
    for path in tmp_path.glob("*.data*"):
        shorten(path)
    with pytest.raises(
        RunError, match=f"{re.escape(str(tmp_path))}/step-4 is damaged: .*start a new run"
    ):
        make(tmp_path)[0].restore_newest()


def test_variables_that_a_checkpoint_lacks_are_a_defect(tmp_path):
    make(tmp_path)[0].save(4, {})
    with pytest.raises(AssertionError):
        make(tmp_path, groups=("network", "average"))[0].restore_newest()
