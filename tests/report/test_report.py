import re

import numpy as np
import pytest

from hgtrain.evaluate.keypoint_errors import keypoint_errors
from hgtrain.report import plots
from hgtrain.report.page import flat_rows, keypoint_rows, number, training_figures
from hgtrain.report.tiles import crop_box, jpeg_uri, whole_tile

NAN = np.nan


def row(step, stacks=(2.0,), error=5.0):
    return {
        "step": step,
        "loss_per_stack": list(stacks),
        "val_loss": sum(stacks),
        "val_error_px": error,
        "learning_rate": 1e-3,
        "images_per_s": 100.0,
        "data_wait_fraction": 0.01,
    }


def test_a_figure_is_an_svg_without_size_and_without_fixed_colours():
    svg = plots.lines("Loss", {"training": ([1, 2], [3.0, 1.0])}, "loss")
    assert svg.startswith("<svg")
    assert not re.search(r"<svg[^>]* (width|height)=", svg)
    assert set(re.findall(r"#[0-9a-f]{6}", svg)) == set()
    assert "var(--s0)" in svg


def test_figures_of_one_page_share_no_ids():
    one, two = (plots.lines(title, {"a": ([1, 2], [3.0, 1.0])}, "y") for title in ("One", "Two"))
    ids = [set(re.findall(r' id="([^"]+)"', svg)) for svg in (one, two)]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_a_missing_value_is_a_gap():
    assert "<svg" in plots.lines("Error", {"a": ([1, 2, 3], [3.0, None, 1.0])}, "y")


def test_the_names_of_lines_are_shown_where_there_are_several():
    curves = {"first run": ([1, 2], [3.0, 1.0]), "second run": ([1, 2], [3.0, 1.0])}
    assert "second run" in plots.lines("Error", curves, "y")


def test_every_stack_has_its_curve():
    (loss, *_) = training_figures([row(1, (2.0, 3.0)), row(2, (1.0, 1.5))])
    assert "training, stack 1" in loss
    assert "training, stack 2" in loss


def test_several_animals_have_a_curve_of_their_precision():
    rows = [row(1) | {"val_oks_map": 0.25}, row(2) | {"val_oks_map": None}]
    figures = training_figures(rows)
    assert len(figures) == len(training_figures([row(1)])) + 1
    assert sum("Validation OKS mAP" in figure for figure in figures) == 1


def test_what_no_epoch_has_is_not_drawn():
    figures = training_figures([row(1, error=None) | {"val_oks_map": None}])
    assert not any("Validation error" in figure or "OKS" in figure for figure in figures)


def test_a_run_without_an_epoch_has_no_curves():
    assert training_figures([]) == []


@pytest.mark.parametrize("errors", [[0.0], [0.0, 0.0], [1e6, 2.0]])
def test_a_distribution_of_few_or_extreme_errors_is_drawn(errors):
    assert "median" in plots.error_histogram(np.array(errors))
    assert "<svg" in plots.pck_curves({"": (np.array(errors), len(errors))})


def test_the_crop_is_a_square_around_the_points_with_a_margin():
    # 100 px wide with a fifth on each side: 140 px around (150, 150)
    assert crop_box(np.array([[100, 140], [200, 160]]), 400, 400) == (80, 80, 220, 220)


def test_the_crop_stays_in_the_image():
    left, top, right, bottom = crop_box(np.array([[5, 5], [105, 25]]), 60, 400)
    assert (top, bottom) == (0, 60)
    assert (left, right) == (0, 140)


def test_without_points_the_crop_is_the_image():
    assert crop_box(np.full((3, 2), NAN), 60, 40) == (0, 0, 40, 60)


def test_an_image_is_a_small_jpeg_in_the_page():
    uri = jpeg_uri(np.zeros((2000, 1000, 1), np.uint8))
    assert uri.startswith("data:image/jpeg;base64,")
    assert len(uri) < 5000


def test_a_missing_point_is_not_drawn():
    shown = whole_tile(np.zeros((8, 8, 3), np.uint8), np.array([[[1.004, 2], [NAN, 3]]]))
    assert shown.animals[0].truth == [(1.0, 2.0), None]
    assert shown.box == (-0.5, -0.5, 8.0, 8.0)


def test_the_rows_of_the_keypoints_have_bars_and_the_part_within_5_px():
    truth = np.zeros((4, 1, 2), np.float32)
    predicted = np.array([[[1, 0]], [[2, 0]], [[30, 0]], [[NAN, 0]]], np.float32)
    errors = keypoint_errors(truth, np.full((4, 1), 2), predicted)
    evaluation = {"per_keypoint": [{"name": "nose", "count": 3, "mean": 11.0, "median": 2.0}]}
    (found,) = keypoint_rows(evaluation, errors)
    assert found["within"] == 0.5
    assert sum(found["bars"]) == 3.0


def test_a_keypoint_that_was_never_measured_has_no_bars():
    errors = keypoint_errors(np.full((2, 1, 2), NAN), np.zeros((2, 1)), np.zeros((2, 1, 2)))
    evaluation = {"per_keypoint": [{"name": "nose", "count": 0, "mean": None, "median": None}]}
    (found,) = keypoint_rows(evaluation, errors)
    assert (found["within"], found["bars"]) == (None, [])


def test_numbers_that_do_not_exist_are_dashes():
    assert number(None) == "-"
    assert number(1.234, ".1f") == "1.2"


def test_documents_are_flattened_to_dotted_keys():
    document = {"a": {"b": 1, "c": ["fit", "a.yaml"]}, "d": (0.9, 1.1)}
    assert flat_rows(document) == [("a.b", "1"), ("a.c", "fit a.yaml"), ("d", "[0.9, 1.1]")]
