"""The page of a run while it trains."""

import re

import pytest

from hgtrain import files
from hgtrain.report import live
from hgtrain.report.live import LivePage


def row(epoch, elapsed_s, **others):
    return {
        "epoch": epoch,
        "step": 200 * epoch,
        "loss": 0.5 / epoch,
        "loss_per_stack": [0.5 / epoch],
        "val_loss": 0.75 / epoch,
        "val_error_px": 8.0 / epoch,
        "learning_rate": 1e-3,
        "images_per_s": 100.0,
        "data_wait_fraction": 0.0,
        "elapsed_s": elapsed_s,
    } | others


def test_the_page_has_curves_epochs_and_the_best(tmp_path):
    rows = [row(1, 60.0), row(2, 120.0), row(3, 180.0, val_error_px=None)]
    LivePage(tmp_path, 100)(rows, rows[1])
    page = (tmp_path / "report.html").read_text()
    assert "In training: 3 of 100 epochs, 600 steps in 3:00." in page
    assert page.count("<svg") == 2
    cells = [re.findall(r"<td[^>]*>([^<]*)</td>", line) for line in re.findall("<tr>.*</tr>", page)]
    shown = {line[0]: (line[4], line[-1]) for line in cells if line}
    assert shown == {"1": ("8.00 px", ""), "2": ("4.00 px", "best"), "3": ("-", "")}


def test_the_page_loads_itself_again_and_nothing_else(tmp_path):
    LivePage(tmp_path, 100)([row(1, 60.0)], None)
    page = (tmp_path / "report.html").read_text()
    assert '<meta http-equiv="refresh" content="30">' in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_several_animals_have_their_column_and_curve(tmp_path):
    LivePage(tmp_path, 100)([row(1, 60.0, val_oks_map=0.625)], None)
    page = (tmp_path / "report.html").read_text()
    assert "<th>OKS mAP</th>" in page
    assert "<td>0.625</td>" in page
    assert page.count("<svg") == 3


class Clock:
    """Stands for the module `time`."""

    def __init__(self, seconds_a_look):
        self.now, self._step = 0.0, seconds_a_look

    def monotonic(self):
        self.now += self._step
        return self.now


@pytest.mark.parametrize(("drawing_s", "written"), [(0.5, [1, 2, 3, 4, 5, 6]), (1.0, [1, 4, 6])])
def test_drawing_takes_a_hundredth_of_the_time_at_most(tmp_path, monkeypatch, drawing_s, written):
    # An epoch is 50 seconds: half a second of drawing is as much as fits into each.
    monkeypatch.setattr(live, "time", Clock(drawing_s))
    monkeypatch.setattr(live, "render", lambda template, page: page["result"])
    page, rows, seen = LivePage(tmp_path, 6), [], []
    for epoch in range(1, 7):
        rows.append(row(epoch, 50.0 * epoch))
        page(rows, None)
        seen.append(int((tmp_path / "report.html").read_text().split()[2]))
    assert sorted(set(seen)) == written


def test_a_page_that_cannot_be_written_is_said_once_and_training_goes_on(
    tmp_path, monkeypatch, capsys
):
    def fail(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files, "write_text", fail)
    page = LivePage(tmp_path, 100)
    page([row(1, 1e6)], None)
    page([row(1, 1e6), row(2, 2e6)], None)
    err = capsys.readouterr().err
    assert err.count("report.html is not written while training goes on") == 1
    assert "No space left on device" in err
