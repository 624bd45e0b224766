"""What TensorBoard is shown of a validation."""

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from terminals import terminal

from hgtrain import log
from hgtrain.config.schema import HeadConfig, TrainingConfig
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.media.drawing import COLOURS, PREDICTED_COLOUR, TRUTH_COLOUR
from hgtrain.data.open import open_all
from hgtrain.data.split import Subset
from hgtrain.pipeline.samples import Samples
from hgtrain.poses import Poses, no_poses
from hgtrain.skeleton import Skeleton
from hgtrain.train import observer as observer_module
from hgtrain.train.loop import State
from hgtrain.train.observer import TrainingObserver, best_row, epoch_header, epoch_line

FIRST, SECOND = ([[10, y], [40, y]] for y in (10, 40))
NOBODY = [[np.nan] * 2] * 2
LABELS = np.array([[FIRST, SECOND], [NOBODY, NOBODY], [NOBODY, FIRST]], np.float32)


@pytest.fixture
def side(tmp_path):
    frames = ((np.zeros((50, 50, 1), np.uint8), animals, None, None) for animals in LABELS)
    write_dataset(tmp_path / "a.h5", Skeleton(("a", "b"), ((0, 1),)), frames)
    with closing(open_all([str(tmp_path / "a.h5")])) as dataset:
        yield Subset(dataset, np.arange(3))


def pictures(folder, side, found, of_animals=False):
    """The pictures that TensorBoard gets after an epoch."""
    frames = SimpleNamespace(
        split=SimpleNamespace(validation=side), validation_samples=Samples(side, 1.0, of_animals)
    )
    head = SimpleNamespace(labelled=lambda points: points)
    networks = SimpleNamespace(head=head)
    trainer = SimpleNamespace(frames=frames, validation_poses=found, networks=networks)
    folder.mkdir()
    observer = TrainingObserver(trainer, folder, range(1), TrainingConfig(), HeadConfig(), True)
    row = {
        "epoch": 1,
        "step": 1,
        "loss": 1.0,
        "loss_per_stack": [1.0],
        "loss_per_output": {"confmaps": 1.0},
        "val_loss": 1.0,
        "val_error_px": None,
        "data_wait_fraction": None,
        "elapsed_s": 1.0,
    }
    observer.epoch_ended(State(step=1, history=[row]), row, {"val_confidence": None})
    observer.close()
    (path,) = (folder / "tensorboard").iterdir()
    events = map(
        tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    )
    return [
        tf.io.decode_png(value.image.encoded_image_string).numpy()
        for event in events
        for value in event.summary.value
        if value.tag.startswith("validation/")
    ]


def has(picture, colour):
    return bool((picture == colour).all(-1).any())


def test_overlays_have_all_animals_each_in_its_colour(tmp_path, side):
    found = no_poses(3, 2, 3)
    found.points[0, 1], found.points[0, 2] = FIRST, SECOND
    two, none, missed = pictures(tmp_path / "run", side, found)
    assert [has(two, COLOURS[place]) for place in (0, 1, 2)] == [False, True, True]
    assert not has(two, PREDICTED_COLOUR)
    # A picture is twice as large: the animals' edges are at 2 * 10.5 - 0.5 and 2 * 40.5 - 0.5.
    assert (two[20, 50] == COLOURS[1]).all()
    assert (two[80, 50] == COLOURS[2]).all()
    assert not none.any()
    assert has(missed, TRUTH_COLOUR)
    assert not any(has(missed, colour) for colour in COLOURS)


def test_where_a_sample_is_an_animal_each_is_shown_on_its_frame(tmp_path, side):
    points = LABELS[[0, 0, 2], [0, 1, 1]][:, None]
    found = Poses(points, np.ones((3, 1, 2)), np.ones((3, 1)))
    shown = pictures(tmp_path / "run", side, found, of_animals=True)
    # Rows of the middles of the red crosses.
    middles = [np.argwhere((picture == PREDICTED_COLOUR).all(-1))[:, 0].mean() for picture in shown]
    assert middles == pytest.approx([20.5, 80.5, 20.5], abs=0.5)
    assert all(has(picture, TRUTH_COLOUR) for picture in shown)


# What a person sees

ROW = {
    "epoch": 12,
    "step": 2400,
    "loss": 0.01234,
    "loss_per_stack": [0.01234],
    "val_loss": 0.0156,
    "val_error_px": 3.456,
    "data_wait_fraction": 0.0,
    "elapsed_s": 3725.0,
}
BEST = ROW | {"epoch": 11, "step": 2200, "val_error_px": 3.2149}


class FakeClock:
    """Stands for the module `time`."""

    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr(log, "time", fake)
    monkeypatch.setattr(observer_module, "time", fake)
    return fake


def watching(tmp_path, steps):
    return TrainingObserver(None, tmp_path, steps, TrainingConfig(), HeadConfig(), False)


def line_at(monkeypatch, clock, tmp_path, columns, history, loss=0.01234):
    """The line of a terminal 90 steps and 10 seconds after the first of an epoch."""
    with terminal(monkeypatch, columns) as screen:
        watched = watching(tmp_path, range(2400, 20000))
        watched._reporter._bar.mininterval = 0
        watched.stepped(State(step=2410, history=history), loss, None)
        clock.now += 10
        state = State(step=2500, history=history, epochs_without_best=1)
        watched.stepped(state, loss, 72.4)
        shown = screen.line
        watched.close()
    return shown


def test_epochs_are_those_that_fit_where_the_time_is_limited(tmp_path):
    # 2250 steps fit, of which the third epoch has the last 250.
    training = TrainingConfig(epochs=15, max_minutes=6, batch_size=4)
    trainer = SimpleNamespace(frames=SimpleNamespace(train_samples=range(4000)))
    watched = TrainingObserver(trainer, tmp_path, range(2250), training, HeadConfig(), False)
    shown = [watched._texts(State(step=step), 0.5, None)[0] for step in (1000, 1001, 2250)]
    assert [text.partition(",")[0] for text in shown] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    watched.close()


@pytest.mark.parametrize("columns", [80, 100, 120])
def test_the_bar_has_all_figures_in_80_columns_and_more(monkeypatch, clock, tmp_path, columns):
    shown = line_at(monkeypatch, clock, tmp_path, columns, [BEST, ROW])
    # 9 steps a second, and 17500 to go.
    for text in (
        "epoch 13/100",
        "step 2500/20000",
        "32:24 left",
        "loss 0.0123",
        "error 3.46 px",
        "best 3.21 px",
    ):
        assert text in shown
    assert len(shown) <= columns


def test_at_80_columns_figures_are_all_there_is_and_a_wide_terminal_has_speed_and_bar(
    monkeypatch, clock, tmp_path
):
    narrow, wide, wider = (
        line_at(monkeypatch, clock, tmp_path, columns, [BEST, ROW]) for columns in (80, 100, 120)
    )
    assert "images/s" not in narrow
    assert "|" not in narrow
    assert wide.count("/s") == wider.count("/s") == 1
    assert "72 images/s" in wide
    assert wider.endswith("|")


@pytest.mark.parametrize("columns", [80, 100])
def test_the_bar_of_a_long_run_of_several_animals_has_its_figures(
    monkeypatch, clock, tmp_path, columns
):
    history = [row | {"val_oks_map": row["val_error_px"] / 5} for row in (BEST, ROW)]
    shown = line_at(monkeypatch, clock, tmp_path, columns, history, loss=1.234e-5)
    for text in ("epoch 13/100", "step 2500", "32:24 left", "1.23e-05", "OKS mAP 0.691"):
        assert text in shown
    assert "best 0.643" in shown


def test_before_the_first_validation_the_bar_has_the_loss_alone(monkeypatch, clock, tmp_path):
    shown = line_at(monkeypatch, clock, tmp_path, 80, [])
    assert "loss 0.0123" in shown
    assert "best" not in shown


def test_lines_take_the_place_of_the_bar_in_a_file(clock, tmp_path, capsys):
    watched = watching(tmp_path, range(2400, 20000))
    watched.stepped(State(step=2410, history=[ROW]), 0.01234, None)
    assert capsys.readouterr().err.splitlines() == [
        "preparing the first step",
        "epoch 13/100, step 2410/20000, loss 0.0123, error 3.46 px, best 3.46 px",
    ]


def test_after_the_first_steps_it_is_said_once_how_long_it_takes(clock, tmp_path, capsys):
    watched = watching(tmp_path, range(0, 20000))
    for step in range(0, 100, 10):
        clock.now += 1
        watched.stepped(State(step=step), 0.5, None)
    lines = [line for line in capsys.readouterr().err.splitlines() if "takes about" in line]
    # 10 steps a second: 1995 seconds after the first 50.
    assert lines == ["training takes about 33 minutes, and validation comes on top"]


def test_what_takes_seconds_is_not_announced(clock, tmp_path, capsys):
    watched = watching(tmp_path, range(0, 200))
    for step in range(0, 200, 10):
        clock.now += 1
        watched.stepped(State(step=step), 0.5, None)
    assert "takes about" not in capsys.readouterr().err


def test_the_lines_of_epochs_are_a_table_and_the_best_is_marked():
    rows = [
        ROW | {"epoch": 1, "step": 200, "elapsed_s": 62.0, "loss": 1.5e-05},
        ROW | {"epoch": 100, "step": 20000, "val_error_px": None, "elapsed_s": 36000.0},
        ROW | {"val_error_px": 123.456},
    ]
    lines = [epoch_header(ROW), *(epoch_line(row, 100, False) for row in rows)]
    assert {len(line) for line in lines} == {60}
    assert lines[0].split() == ["epoch", "step", "loss", "val.", "loss", "val.", "error", "time"]
    assert lines[1].split() == ["1/100", "200", "1.5e-05", "0.0156", "3.46", "px", "1:02"]
    assert lines[2].split() == ["100/100", "20000", "0.0123", "0.0156", "-", "10:00:00"]
    assert epoch_line(ROW, 100, True) == epoch_line(ROW, 100, False) + "  best"


def test_the_table_of_several_animals_has_their_column():
    row = ROW | {"val_oks_map": 0.71251}
    assert "OKS mAP" in epoch_header(row)
    assert "0.713" in epoch_line(row, 100, False)
    assert len(epoch_line(row, 100, False)) == len(epoch_header(row)) <= 74


def test_the_best_stays_best_until_there_is_a_better_one():
    assert best_row([BEST, ROW], 1) is BEST
    assert best_row([BEST, ROW], 0) is ROW
    assert best_row([], 0) is None
