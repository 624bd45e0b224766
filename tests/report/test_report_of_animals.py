"""Reports of runs whose frames may hold several animals."""

import json
import re
from contextlib import closing
from typing import NamedTuple

import numpy as np
import pytest

from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.open import open_all
from hgtrain.data.split import Split, Subset
from hgtrain.evaluate.predictions import evaluate_side, labels_of
from hgtrain.heads.multi_instance import MultiInstance
from hgtrain.poses import Poses, no_poses
from hgtrain.report import plots
from hgtrain.report.comparison import comparison_rows, write_comparison
from hgtrain.report.frames import compare, frame_animals, frame_caption, worst_first
from hgtrain.report.page import RunResults, augmented_tiles, write_report
from hgtrain.report.tiles import EXTRA, MISSED, PAIRED
from hgtrain.rundir.layout import METRICS, SPLIT
from hgtrain.skeleton import Skeleton

NAN = np.nan
SKELETON = Skeleton(("nose", "tail"), ((0, 1),))
ANIMAL, OTHER = np.array([[10, 10], [50, 10]], float), np.array([[10, 70], [50, 70]], float)
"""Each is 40 px long: a keypoint 20 px away may be its own, another animal's may not."""

NOBODY = np.full((2, 2), NAN)


def moved(animal, x, y):
    return animal + np.array([x, y])


TRUTH = np.array(
    [
        [ANIMAL, OTHER],  # both are found, in the other order, and 5 and 0 px off
        [ANIMAL, OTHER],  # the first is missed; two strays are extra
        [NOBODY, NOBODY],  # nothing is labelled and nothing found
        [NOBODY, OTHER],  # found, 2 px off, without its tail
        [ANIMAL, NOBODY],  # missed
    ]
)
FOUND = np.array(
    [
        [OTHER, moved(ANIMAL, 3, 4), NOBODY],
        [moved(ANIMAL, 150, 0), OTHER, moved(ANIMAL, 150, 90)],
        [NOBODY, NOBODY, NOBODY],
        [NOBODY, np.array([[12, 70], [NAN, NAN]]), NOBODY],
        [NOBODY, NOBODY, NOBODY],
    ]
)


def poses_of(points):
    confidence = np.where(np.isfinite(points).all(-1), 0.5, NAN)
    return Poses(points.astype(np.float32), confidence, confidence.max(-1))


def compared(truth=TRUTH, points=FOUND):
    visibility = np.where(np.isfinite(truth).all(-1), 2, 0)
    return compare(truth.astype(np.float32), visibility, poses_of(points), several=True)


class Evaluated(NamedTuple):
    evaluation: dict


@pytest.fixture
def dataset(tmp_path):
    frames = (
        (np.full((100, 100, 1), 10 * i, np.uint8), animals, None, None)
        for i, animals in enumerate(TRUTH)
    )
    write_dataset(tmp_path / "pairs.h5", SKELETON, frames)
    with closing(open_all([str(tmp_path / "pairs.h5")])) as opened:
        yield opened


def results_of(folder, dataset, found, history=()):
    side = Subset(dataset, np.arange(len(dataset)))
    folder.mkdir()
    (folder / METRICS).write_text("".join(json.dumps(row) + "\n" for row in history))
    head = MultiInstance(len(SKELETON.keypoint_names), SKELETON.edges, 2, 3.0, 4.0, 4)
    (folder / SPLIT).write_text(json.dumps({"validation": {"fingerprint": "a"}}))
    return RunResults(
        folder,
        {"output": {}},
        Split(side, side),
        labels_of(head, side),
        found,
        evaluate_side(found, 1.0, side, head),
        (np.zeros((2, 100, 100, 1), np.uint8), TRUTH[1:3]),
    )


def tiles_of(page):
    """The pictures and captions of a page, as text, in its order."""
    return re.findall(r'<figure class="card">(.*?)</figure>', page, re.DOTALL)


def test_what_is_missed_and_what_is_extra_is_known():
    frames = compared()
    assert frames.missed.tolist() == [
        [False, False],
        [True, False],
        [False, False],
        [False, False],
        [True, False],
    ]
    assert frames.extra.tolist() == [[False] * 3, [True, False, True], *[[False] * 3] * 3]


def test_errors_are_those_of_pairs():
    frames = compared()
    assert frames.mean_errors.tolist() == pytest.approx([2.5, 0, NAN, 2, NAN], nan_ok=True)
    assert frames.errors.located.sum() == 7


def test_of_one_animal_what_is_found_is_it_however_far():
    truth, far = ANIMAL[None, None], ANIMAL[None, None] + 1000
    frames = compare(truth, np.full((1, 1, 2), 2), poses_of(far), several=False)
    assert not frames.missed.any()
    assert not frames.extra.any()
    assert frames.mean_errors == pytest.approx([1000 * 2**0.5])


def test_frames_with_more_animals_wrong_are_worse_and_perfect_empty_ones_are_left_out():
    assert worst_first(compared()).tolist() == [1, 4, 0, 3]


def test_a_frame_has_its_pairs_then_what_was_missed_and_what_is_extra():
    animals = frame_animals(compared(), 1)
    assert [animal.mark for animal in animals] == [MISSED, PAIRED, EXTRA, EXTRA]
    assert np.isnan(animals[0].predicted).all()
    np.testing.assert_array_equal(animals[0].truth, ANIMAL)
    np.testing.assert_array_equal(animals[1].predicted, OTHER)
    assert np.isnan(animals[3].truth).all()
    np.testing.assert_array_equal(animals[3].predicted, moved(ANIMAL, 150, 90))


def test_pairs_are_drawn_together():
    for animal in frame_animals(compared(), 0):
        assert animal.mark == PAIRED
        assert np.abs(animal.truth - animal.predicted).max() <= 4


def test_a_frame_without_an_animal_has_none():
    assert frame_animals(compared(), 2) == []


def test_the_caption_says_what_is_wrong():
    assert frame_caption(compared(), 0, SKELETON.keypoint_names) == {
        "mean": 2.5,
        "worst_px": 5.0,
        "worst_name": "nose",
        "confidence": 0.5,
        "labelled": 2,
        "missed": 0,
        "extra": 0,
    }
    nothing = frame_caption(compared(), 2, SKELETON.keypoint_names)
    assert nothing["mean"] is nothing["worst_name"] is nothing["confidence"] is None
    assert (nothing["labelled"], nothing["missed"], nothing["extra"]) == (0, 0, 0)


def test_the_page_shows_all_animals_and_marks_what_is_wrong(tmp_path, dataset):
    page = write_report(results_of(tmp_path / "run", dataset, poses_of(FOUND))).read_text()
    frames, worst = tiles_of(page)[:5], tiles_of(page)[5:9]
    assert [frame.count("<circle") for frame in frames] == [4, 4, 0, 2, 2]
    assert [frame.count('<rect class="p missed"') for frame in frames] == [0, 1, 0, 0, 1]
    assert [frame.count('<rect class="p extra"') for frame in frames] == [0, 2, 0, 0, 0]
    assert "1 of 2 animals, <b>1 missed</b>, <b>2 extra</b>; <b>0.00 px</b>" in frames[1]
    assert "frame 2: nothing labelled<" in frames[2]
    assert "1 missed" in worst[0]
    assert "pairs.h5:/images[4]" in worst[1]


def test_the_page_has_the_figures_of_several_animals(tmp_path, dataset):
    page = write_report(results_of(tmp_path / "run", dataset, poses_of(FOUND))).read_text()
    assert "4 of 6 animals found on 5 validation frames, 2 missed, 2 extra;" in page
    assert "<dt>group purity</dt><dd>1.000</dd>" in page
    assert "Precision and recall of animals" in page
    # Of 6 noses 4 are found; the tail of one animal that is found is not.
    assert "<td>67%</td><td>4</td>" in page
    assert "<td>50%</td><td>3</td>" in page


def test_the_augmented_tiles_have_all_animals(tmp_path, dataset):
    page = write_report(results_of(tmp_path / "run", dataset, poses_of(FOUND))).read_text()
    assert [tile.count("<circle") for tile in tiles_of(page)[-2:]] == [4, 0]
    two, none = augmented_tiles(np.zeros((2, 100, 100, 1), np.uint8), TRUTH[1:3])
    assert [animal.truth for animal in two.animals] == [
        [(10.0, 10.0), (50.0, 10.0)],
        [(10.0, 70.0), (50.0, 70.0)],
    ]
    assert [animal.truth for animal in none.animals] == [[None, None]] * 2


def test_a_run_that_finds_nothing_has_a_page(tmp_path, dataset):
    page = write_report(results_of(tmp_path / "run", dataset, no_poses(3, 2, 5))).read_text()
    assert "0 of 6 animals found on 5 validation frames, 6 missed, 0 extra." in page
    assert "<dt>group purity</dt><dd>-</dd>" in page


def test_frames_without_any_animal_have_a_page(tmp_path):
    nobody = np.full((1, 2, 2), NAN)
    frames = ((np.zeros((20, 20, 1), np.uint8), nobody, None, None) for _ in range(2))
    write_dataset(tmp_path / "empty.h5", SKELETON, frames)
    with closing(open_all([str(tmp_path / "empty.h5")])) as dataset:
        found = no_poses(2, 2, 2)
        page = write_report(results_of(tmp_path / "run", dataset, found)).read_text()
    assert "0 of 0 animals found on 2 validation frames, 0 missed, 0 extra." in page
    assert "Precision and recall" not in page
    assert "The 0 worst frames" in page


def test_the_comparison_counts_animals_and_marks_the_best(tmp_path, dataset):
    good, bad = poses_of(FOUND), no_poses(3, 2, 5)
    history = [{"step": 4, "val_error_px": 2.0, "val_oks_map": 0.5, "elapsed_s": 1.0}]
    runs = [
        results_of(tmp_path / "bad", dataset, bad, history),
        results_of(tmp_path / "good", dataset, good, history),
    ]
    rows = {name: (values, best) for name, values, best in comparison_rows(runs, [(), ()])}
    assert rows["animals labelled"] == (["6", "6"], None)
    assert rows["animals found"] == (["0", "4"], 1)
    assert rows["animals missed"] == (["6", "2"], 1)
    assert rows["animals extra"] == (["0", "2"], 0)
    assert rows["group purity"] == (["-", "1.000"], None)
    page = write_comparison(tmp_path / "both.html", runs).read_text()
    assert "Validation OKS mAP" in page
    assert "Precision and recall of animals from OKS 0.75 on" in page


def test_a_run_for_one_animal_has_no_number_of_animals_in_a_comparison():
    one = {
        "frames": 1,
        "error_px": {"mean": 1.0, "median": 1.0, "p95": 1.0},
        "pck": {"5": 1.0},
        "oks": 1.0,
        "oks_map": 1.0,
    }
    instances = {"labelled": 2, "predicted": 2, "matched": 1, "missed": 1, "extra": 1}
    several = one | {"instances": instances, "group_purity": 0.5}
    rows = comparison_rows([Evaluated(one), Evaluated(several)], [(), ()])
    assert ("animals found", ["-", "1"], None) in rows
    only_one = comparison_rows([Evaluated(one), Evaluated(one)], [(), ()])
    assert not any(name.startswith("animals") for name, *_ in only_one)


def test_precision_over_recall_is_drawn_over_all_of_both():
    svg = plots.precision_recall({"a": np.zeros(101), "b": np.ones(101)}, "Animals")
    assert {">0.0<", ">1.0<"} <= set(re.findall(r">[01]\.0<", svg))
    assert ">a<" in svg
