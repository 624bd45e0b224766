import io
import time

import numpy as np
import pytest
from terminals import terminal

from hgtrain import log
from hgtrain.log import (
    Reporter,
    blocks_progress,
    coloured,
    doing,
    duration,
    format_seconds,
    progress,
    say,
)
from hgtrain.train.observer import EventFile


class FakeClock:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    fake = FakeClock()
    monkeypatch.setattr(log, "time", fake)
    return fake


def open_terminal(monkeypatch):
    # Not a fixture: pytest puts its own stderr in place between fixtures and test.
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    return terminal


def test_a_line_goes_to_stderr_alone(capsys):
    say("resuming at step 8")
    assert capsys.readouterr() == ("", "resuming at step 8\n")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"),
        (59.4, "0:59"),
        (59.6, "1:00"),
        (123, "2:03"),
        (3723, "1:02:03"),
        (90000, "25:00:00"),
    ],
)
def test_seconds_are_written_as_clocks_do(seconds, text):
    assert format_seconds(seconds) == text


def test_progress_passes_items_on():
    assert list(progress(iter("abc"), 3, "reading")) == ["a", "b", "c"]


def test_a_phase_of_less_than_two_seconds_shows_nothing(clock, capsys):
    for _ in progress(range(4), 4, "reading"):
        clock.now += 0.49
    assert capsys.readouterr() == ("", "")


def test_a_longer_phase_says_how_far_it_is_after_two_seconds_and_then_every_ten(clock, capsys):
    for _ in progress(range(30), 30, "reading"):
        clock.now += 1
    assert capsys.readouterr().err.splitlines() == [
        "reading: 2/30 frames, 1 frames/s, 0:28 left",
        "reading: 12/30 frames, 1 frames/s, 0:18 left",
        "reading: 22/30 frames, 1 frames/s, 0:08 left",
    ]


def test_blocks_are_counted_in_frames(clock, capsys):
    for _ in blocks_progress("reading")(range(0, 100, 32)):
        clock.now += 11
    assert [line.split(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "reading: 32/100 frames",
        "reading: 64/100 frames",
        "reading: 96/100 frames",
        "reading: 100/100 frames",
    ]


def test_the_time_left_counts_from_where_a_run_was_resumed(clock, capsys):
    reporter = Reporter(100, "training", "steps", done=50, delay_s=0)
    clock.now += 20
    reporter.update(60)
    assert capsys.readouterr().err == "training: 60/100 steps, 0.5 steps/s, 1:20 left\n"


def test_what_is_done_first_does_not_count_where_it_takes_long_to_prepare(clock, capsys):
    reporter = Reporter(100, "predicting", "frames", delay_s=0, counts_first=False)
    clock.now += 60
    reporter.update(8)
    clock.now += 10
    reporter.update(28)
    assert capsys.readouterr().err.splitlines() == [
        "predicting: 8/100 frames",
        # 20 frames in 10 seconds, and 72 to go.
        "predicting: 28/100 frames, 2 frames/s, 0:36 left",
    ]


def test_before_the_first_step_no_time_left_is_claimed(clock, capsys):
    Reporter(100, "training", "steps", done=50, delay_s=0).update(50)
    assert capsys.readouterr().err == "training: 50/100 steps\n"


@pytest.mark.parametrize("total", [0, 40])
def test_where_the_total_is_unknown_or_too_low_no_time_left_is_claimed(clock, capsys, total):
    reporter = Reporter(total, "predicting", "frames", delay_s=0)
    clock.now += 20
    reporter.update(60)
    assert capsys.readouterr().err == "predicting: 60 frames, 3 frames/s\n"


def test_a_terminal_gets_a_bar_without_an_end_where_the_total_is_unknown(monkeypatch):
    terminal = open_terminal(monkeypatch)
    reporter = Reporter(0, "predicting", "frames", delay_s=0)
    reporter._bar.mininterval = 0
    reporter.update(60)
    reporter.close()
    assert "predicting: 60 frames" in terminal.getvalue()
    assert "|" not in terminal.getvalue()


def bar_on(monkeypatch, columns, texts):
    """What is on a terminal of a width when half of 100 steps are done."""
    with terminal(monkeypatch, columns) as screen:
        reporter = Reporter(100, "training", "steps", delay_s=0)
        # Not so soon after the first that it is left out.
        reporter._bar.mininterval = 0
        reporter.show(50, texts)
        shown = screen.line
        reporter.close()
    return shown


def test_a_bar_fills_what_the_figures_leave_of_the_width(monkeypatch):
    shown = bar_on(monkeypatch, 41, ["step 50/100, loss 0.5"])
    figures, bar, _ = shown.split("|")
    assert figures == "step 50/100, loss 0.5 "
    # tqdm may leave the last column free.
    assert len(shown) in (40, 41)
    assert set(bar[: len(bar) // 2]) == {"█"}
    assert set(bar[len(bar) // 2 + 1 :]) == {" "}


def test_the_bar_gives_way_before_the_figures(monkeypatch):
    assert bar_on(monkeypatch, 30, ["step 50/100, loss 0.5"]) == "step 50/100, loss 0.5"


def test_a_bar_has_the_widest_figures_that_fit(monkeypatch):
    texts = ["step 50/100, loss 0.5, 12 images/s", "step 50/100, loss 0.5", "loss 0.5"]
    assert bar_on(monkeypatch, 35, texts) == texts[0]
    assert bar_on(monkeypatch, 33, texts).startswith(texts[1])
    assert bar_on(monkeypatch, 21, texts).startswith("loss 0.5 |")


def test_a_terminal_gets_no_bar_for_a_short_phase(monkeypatch):
    terminal = open_terminal(monkeypatch)
    list(progress(range(3), 3, "reading"))
    assert "reading" not in terminal.getvalue()


def test_a_line_stands_above_a_bar(monkeypatch):
    terminal = open_terminal(monkeypatch)
    reporter = Reporter(100, "training", "steps", delay_s=0)
    say("epoch 1")
    reporter.close()
    assert "epoch 1\n" in terminal.getvalue()


def test_what_takes_no_second_is_not_spoken_of(capsys):
    with doing("opening it", delay_s=60):
        pass
    assert capsys.readouterr() == ("", "")


def test_what_takes_longer_is_a_line(capsys):
    with doing("opening it", delay_s=0.01):
        deadline = time.monotonic() + 10
        while not (err := capsys.readouterr().err) and time.monotonic() < deadline:
            time.sleep(0.01)
    assert err == "opening it\n"


def test_on_a_terminal_the_line_goes_when_it_is_done(monkeypatch):
    terminal = open_terminal(monkeypatch)
    with doing("opening it", delay_s=0):
        assert terminal.getvalue().rstrip() == "\ropening it ..."
    assert terminal.getvalue().rsplit("\r", 2)[-2].strip() == ""


@pytest.mark.parametrize(
    ("environment", "is_coloured"),
    [
        ({}, True),
        ({"NO_COLOR": "1"}, False),
        ({"NO_COLOR": ""}, True),
        ({"TERM": "dumb"}, False),
    ],
)
def test_a_terminal_has_colours_unless_it_is_told_not_to(monkeypatch, environment, is_coloured):
    open_terminal(monkeypatch)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert coloured("best", "green") == ("\x1b[32mbest\x1b[0m" if is_coloured else "best")


def test_a_file_has_no_colours(monkeypatch):
    monkeypatch.setattr("sys.stderr", io.StringIO())
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert coloured("best", "green") == "best"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (9.9, "a few seconds"),
        (40, "40 seconds"),
        (90, "2 minutes"),
        (720, "12 minutes"),
        (5400, "1.5 hours"),
        (10800, "3 hours"),
        (172800, "2 days"),
    ],
)
def test_how_long_it_takes_is_said_in_words(seconds, text):
    assert duration(seconds) == text


# TensorBoard


def events_of(folder):
    import tensorflow as tf

    (path,) = folder.glob("events.out.tfevents.*")
    return [
        tf.compat.v1.Event.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]


def test_an_event_file_begins_with_its_version(tmp_path):
    EventFile(tmp_path / "tensorboard").close()
    (event,) = events_of(tmp_path / "tensorboard")
    assert event.file_version == "brain.Event:2"


def test_scalars_are_points_of_curves(tmp_path):
    events = EventFile(tmp_path)
    events.scalars(7, {"loss": 0.5, "val_loss": 0.25})
    events.close()
    event = events_of(tmp_path)[1]
    assert event.step == 7
    assert {value.tag: value.simple_value for value in event.summary.value} == {
        "loss": 0.5,
        "val_loss": 0.25,
    }


def test_images_come_back_as_they_were(tmp_path):
    import tensorflow as tf

    images = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 3)).astype(np.uint8)
    events = EventFile(tmp_path)
    events.images(3, "validation", images)
    events.close()
    values = events_of(tmp_path)[1].summary.value
    assert [value.tag for value in values] == ["validation/0", "validation/1"]
    assert [(value.image.height, value.image.width) for value in values] == [(5, 8)] * 2
    assert np.array_equal(
        [tf.io.decode_png(value.image.encoded_image_string) for value in values], images
    )


def test_what_is_written_can_be_read_while_the_run_goes_on(tmp_path):
    events = EventFile(tmp_path)
    events.scalars(1, {"loss": 0.5})
    assert len(events_of(tmp_path)) == 2
    events.close()
