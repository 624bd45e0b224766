"""The command lines of evaluate, predict, convert and report.

What they hand on and what they print.
"""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from hgtrain.cli import commands
from hgtrain.commands import predict

EVALUATION = {
    "frames": 3,
    "keypoints": 9,
    "error_px": {"mean": 2.5, "median": None, "p95": 4.0},
    "oks": 0.5,
    "pck": {"5": 0.75},
}


@pytest.fixture
def called(monkeypatch):
    """Return a function that runs a command line and gives its stdout and what the story was called
    with."""

    def call(story, result, *arguments):
        handed = []
        monkeypatch.setattr(
            f"hgtrain.commands.{arguments[0]}.{story}",
            lambda *values: handed.append(values) or result,
        )
        done = CliRunner().invoke(commands, arguments, catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout, *handed

    return call


def test_evaluate_prints_a_table(called):
    printed, handed = called("evaluate", EVALUATION, "evaluate", "runs/a", "b.h5", "c.h5")
    assert handed == (Path("runs/a"), ("b.h5", "c.h5"), "unbiased", None, ())
    assert "error, mean       2.50 px" in printed
    assert "error, median     -\n" in printed


def test_the_table_of_one_animal_counts_no_animals(called):
    printed, _ = called("evaluate", EVALUATION, "evaluate", "runs/a")
    assert "animals" not in printed
    assert "mAP" not in printed


def test_the_table_of_several_animals_counts_them(called):
    instances = {"labelled": 7, "predicted": 6, "matched": 4, "missed": 3, "extra": 2}
    several = {"instances": instances, "oks_map": 0.625, "group_purity": None}
    printed, _ = called("evaluate", EVALUATION | several, "evaluate", "runs/a")
    assert [line.split("  ", 1) for line in printed.splitlines()[3:8]] == [
        ["animals found", "   4 of 7"],
        ["animals missed", "  3"],
        ["animals extra", "   2"],
        ["OKS mAP", "         0.625"],
        ["group purity", "    -"],
    ]


def test_evaluate_prints_json_and_nothing_else(called):
    printed, handed = called(
        "evaluate", EVALUATION, "evaluate", "runs/a", "--json", "--decode", "none"
    )
    assert json.loads(printed) == EVALUATION
    assert handed == (Path("runs/a"), (), "none", None, ())


def test_predict_hands_on_its_options(called):
    line = [
        "predict",
        "runs/a",
        "b.mp4",
        "c",
        "-o",
        "d.csv",
        "--overlay",
        "e.mp4",
        "--decode",
        "local",
    ]
    printed, handed = called("predict", 7, *line, "--batch-size", "4")
    assert handed == (
        Path("runs/a"),
        ("b.mp4", "c"),
        Path("d.csv"),
        predict.PredictOptions(Path("e.mp4"), "local", 4),
    )
    assert printed == "d.csv: 7 frames\ne.mp4: the predictions drawn in\n"


def test_predict_names_no_overlay_where_there_is_none(called):
    printed, _ = called("predict", 7, "predict", "runs/a", "b.mp4", "-o", "d.csv")
    assert printed == "d.csv: 7 frames\n"


@pytest.mark.parametrize(
    "line",
    [
        ["evaluate", "runs/a"],
        ["predict", "runs/a", "b.mp4", "-o", "c.csv"],
        ["export", "runs/a", "-o", "d"],
    ],
)
def test_to_average_over_what_is_not_known_is_a_wrong_command_line(line):
    ended = CliRunner().invoke(commands, [*line, "--average", "flip"])
    assert ended.exit_code == 2
    assert (
        "Invalid value for '--average': must be flips, rotations or flips,rotations, got 'flip' "
        "(did you mean flips?)" in ended.output
    )


def test_what_to_average_over_is_handed_on(called):
    _, handed = called("evaluate", EVALUATION, "evaluate", "runs/a", "--average", "rotations,flips")
    assert handed[-1] == ("rotations", "flips")
    line = ("predict", "runs/a", "b.mp4", "-o", "c.csv", "--average", "flips")
    _, handed = called("predict", 7, *line)
    assert handed[-1] == predict.PredictOptions(average=("flips",))


def test_convert_says_what_was_written(called):
    converted = SimpleNamespace(frames=5, skeleton=SimpleNamespace(keypoint_names=("a", "b")))
    printed, handed = called(
        "convert_dataset", converted, "convert", "project", "b.h5", "--predictions",
        "--symmetry", "a,b", "--edge", "a,b", "--symmetry", "auto",
    )  # fmt: skip
    assert handed == ("project", Path("b.h5"), True, None, ("a,b", "auto"), ("a,b",))
    assert printed == "b.h5: 5 frames, 2 keypoints (a, b)\n"


def test_convert_hands_on_where_the_images_are(called, tmp_path):
    converted = SimpleNamespace(frames=5, skeleton=SimpleNamespace(keypoint_names=("a", "b")))
    _, handed = called(
        "convert_dataset", converted, "convert", "project", "b.h5", "--images", str(tmp_path)
    )
    assert handed == ("project", Path("b.h5"), False, tmp_path, (), ())


def test_report_prints_what_was_written(called):
    printed, handed = called("report", [Path("runs/a/report.html")], "report", "runs/a")
    assert handed == ((Path("runs/a"),), Path("comparison.html"))
    assert printed == "runs/a/report.html\n"


@pytest.mark.parametrize(
    "line", [["predict", "a"], ["predict", "a", "b"], ["report"], ["convert", "a"], ["evaluate"]]
)
def test_a_line_without_what_is_needed_is_a_wrong_command_line(line):
    assert CliRunner().invoke(commands, line).exit_code == 2
