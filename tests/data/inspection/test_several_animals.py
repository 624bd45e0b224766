"""What `inspect` says of several animals in a frame, counted by hand and on real files."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from crowds import BODY, NAMES, write_crowd

from hgtrain.cli import commands
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.inspection.animals import boxes_overlap, keypoints_near
from hgtrain.data.inspection.checks import inspect_datasets
from hgtrain.data.inspection.report import report_text
from hgtrain.skeleton import Skeleton


def kinds(report: dict) -> set[str]:
    return {problem["kind"] for problem in report["problems"]}


def test_animals_of_a_frame_are_counted_and_none_is_left_out(tmp_path: Path) -> None:
    report = inspect_datasets([str(write_crowd(tmp_path / "a.h5"))])
    assert report["animals"] == {"0": 1, "1": 1, "2": 10}
    assert report["animals_per_frame"] == {"min": 0, "mean": 21 / 12, "max": 2}
    assert report["empty_frames"] == 1
    # The boxes are 20 to 80 and 100 to 220 px along x.
    assert report["overlaps"] == {"boxes": 0, "near": 0, "near_px": 6}
    # 2 * 80 px and 1 px.
    assert report["crop"] == {"size_px": 161, "anchor": "body", "keypoints": 105, "cut_off": 0}
    # An empty frame teaches, which is no problem; the tails of the larger ones lie outside.
    assert kinds(report) == {"outside"}
    lines = [" ".join(line.split()) for line in report_text(report).splitlines()]
    assert {
        "a frame 0 to 2 animals, 1.8 on average; 1 frames without any",
        "overlaps animals' bounding boxes in 0 frames; keypoints nearer than 6.0 px in 0",
        "crops of 161 px around body cut off 0 of 105 labelled keypoints",
    } <= set(lines)


def pairs(away: np.ndarray) -> np.ndarray:
    """Return frames of two animals, the second `away` `(n, 2)` px from the first."""
    first = np.broadcast_to(BODY, (len(away), *BODY.shape)).astype(float)
    return np.stack([first, first + away[:, None]], axis=1)


@pytest.mark.parametrize(
    ("away", "overlap"),
    [((59, 0), True), ((60, 0), True), ((61, 0), False), ((0, 20), True), ((0, 21), False)],
)
def test_boxes_overlap_by_their_keypoints(away: tuple[float, float], overlap: bool) -> None:
    # A body is 60 by 20 px.
    assert boxes_overlap(pairs(np.array([away]))).tolist() == [overlap]


@pytest.mark.parametrize(
    ("away", "distance", "near"),
    [
        # The nose of one and the tail of the other.
        ((63, 4), 5.1, True),
        ((63, 4), 4.9, False),
        # Their boxes overlap, and no keypoint is near: 10 px apart are body and ear.
        ((0, 5), 4.9, False),
        ((0, 5), 5.1, True),
    ],
)
def test_keypoints_are_near_whichever_they_are(
    away: tuple[float, float], distance: float, near: bool
) -> None:
    assert keypoints_near(pairs(np.array([away])), distance).tolist() == [near]


def test_what_is_missing_overlaps_nothing() -> None:
    points = pairs(np.zeros((2, 2)))
    points[0, 1] = np.nan
    points[1, 1, 1:] = np.nan
    assert boxes_overlap(points).tolist() == [False, True]
    assert keypoints_near(points, 1.0).tolist() == [False, True]


def test_near_animals_are_found_as_by_trying_all_pairs() -> None:
    random = np.random.default_rng(0)
    points = random.uniform(0, 300, (300, 4, 1, 2)) + random.uniform(-20, 20, (300, 4, 3, 2))
    points[random.random((300, 4, 3)) < 0.3] = np.nan

    def least(frame: np.ndarray) -> float:
        found = [
            np.hypot(*(frame[a, i] - frame[b, j]))
            for a in range(4)
            for b in range(a)
            for i in range(3)
            for j in range(3)
        ]
        return np.nanmin([*found, np.inf])

    expected = [least(frame) < 12 for frame in points]
    assert 20 < sum(expected) < 270
    assert keypoints_near(points, 12.0).tolist() == expected


def test_crops_that_cut_keypoints_off_are_counted(tmp_path: Path) -> None:
    # One animal in 400 has its tail far away: fewer than what may be cut.
    animals = np.tile(BODY + 100, (400, 1, 1))
    animals[7, 2] = (190, 190)
    image = np.zeros((200, 200, 1), np.uint8)
    image[::2] = 99
    skeleton = Skeleton(NAMES, ((0, 1), (0, 2)))
    write_dataset(tmp_path / "a.h5", skeleton, [(image, at, None, None) for at in animals])
    crop = inspect_datasets([str(tmp_path / "a.h5")])["crop"]
    assert crop == {"size_px": 81, "anchor": "body", "keypoints": 2000, "cut_off": 1}


def test_several_animals_without_edges_are_warned_of(tmp_path: Path) -> None:
    path = write_crowd(tmp_path / "a.h5", Skeleton(NAMES, (), ((3, 4),)))
    report = inspect_datasets([str(path)])
    text = next(one["text"] for one in report["problems"] if one["kind"] == "no_edges")
    assert f"`hgtrain convert {path} NEW.h5 --edge A,B ...` stores them" in text
    assert report["usable"]
    assert report["crop"]["anchor"] is None


def test_exchanged_sides_are_found_in_any_animal_of_a_frame(tmp_path: Path) -> None:
    skeleton = Skeleton(NAMES, ((0, 1),), ((3, 4),))
    random = np.random.default_rng(0)
    frames = []
    for number in range(12):
        both = np.stack([BODY + 60, BODY + 130]) + random.uniform(-1, 1, (2, 5, 2))
        if number == 5:
            both[1, [3, 4]] = both[1, [4, 3]]
        image = random.integers(0, 256, (200, 200, 1), np.uint8)
        frames.append((image, both.astype(np.float32), None, None))
    write_dataset(tmp_path / "a.h5", skeleton, frames)
    (problem,) = inspect_datasets([str(tmp_path / "a.h5")])["problems"]
    assert problem["text"].endswith(f"look exchanged in 1 frames: {tmp_path}/a.h5:/images[5]")


def test_one_animal_a_frame_is_reported_as_ever(tmp_path: Path) -> None:
    frames = [(np.full((64, 64, 1), i, np.uint8), BODY + 40, None, None) for i in range(3)]
    write_dataset(tmp_path / "a.h5", Skeleton(NAMES), frames)
    report = inspect_datasets([str(tmp_path / "a.h5")])
    assert report["animals_per_frame"] == {"min": 1, "mean": 1, "max": 1}
    assert report["overlaps"] == {"boxes": 0, "near": 0, "near_px": 3}
    names = [line.split("  ")[0] for line in report_text(report).splitlines()[:6]]
    assert names == ["files", "format", "frames", "groups", "animals", "keypoints"]


@pytest.mark.parametrize(
    ("file", "animals", "overlaps", "crop"),
    [
        (
            "flies2/flies2.train.pkg.slp",
            {"min": 2, "mean": 2, "max": 2},
            {"boxes": 27, "near": 4, "near_px": pytest.approx(5.8)},
            {"size_px": 143, "anchor": "thorax", "keypoints": 3636, "cut_off": 0},
        ),
        (
            "minimal_instance.pkg.slp",
            {"min": 2, "mean": 2, "max": 2},
            {"boxes": 0, "near": 0, "near_px": pytest.approx(3.603, abs=1e-3)},
            {"size_px": 150, "anchor": "A", "keypoints": 4, "cut_off": 0},
        ),
    ],
)
def test_real_files_with_several_animals_are_usable(
    real_data: Path, file: str, animals: dict, overlaps: dict, crop: dict
) -> None:
    done = CliRunner().invoke(commands, ["inspect", str(real_data / file), "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert (report["animals_per_frame"], report["overlaps"], report["crop"]) == (
        animals,
        overlaps,
        crop,
    )
    assert report["usable"]
    assert "left_out" not in kinds(report)
