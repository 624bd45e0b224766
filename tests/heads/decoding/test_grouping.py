from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.heads.decoding.grouping import (
    LineScoring,
    Rules,
    group_peaks,
    line_scores,
)
from hgtrain.heads.decoding.peaks import Peaks, local_maxima
from hgtrain.heads.targets.confidence_maps import multi_confidence_maps
from hgtrain.heads.targets.part_affinity import part_affinity_fields
from hgtrain.poses import Poses
from hgtrain.skeleton import tree_edges

NAN = float("nan")
ROOM = 10

SCENES = [
    *("clean", "tree", "noisy", "missing_peaks", "missing_root", "spurious", "crossing"),
    *("parallel", "opposite", "border", "crowd", "reversed_edges", "min_instance_peaks"),
    *("min_instance_fraction", "min_line_scores_high", "min_line_scores_off", "dist_penalty"),
    *("few_line_points", "wide", "batch", "mixed0", "mixed1", "two_parents", "two_roots"),
]
FAULTS = ("two_parents", "two_roots")
"""Where the reference leaves edges out."""


class Scene(NamedTuple):
    """A scene of the reference, with its own figures by name and the place of each of its peaks."""

    figures: dict[str, np.ndarray]
    fields: tf.Tensor
    peaks: Peaks
    places: dict[tuple[int, int], tuple[int, int]]
    edges: list[tuple[int, int]]
    stride: int
    rules: Rules


def padded_peaks(points: np.ndarray, values: np.ndarray, at: np.ndarray, shape: tuple) -> Peaks:
    """Return peaks listed with their frame and keypoint `at (n, 2)` in `shape`, (B, K)."""
    peaks = np.zeros((*shape, ROOM, 2), np.float32), np.zeros((*shape, ROOM), np.float32)
    valid = np.zeros((*shape, ROOM), bool)
    for point, value, (frame, keypoint) in zip(points, values, at, strict=True):
        place = frame, keypoint, valid[frame, keypoint].sum()
        peaks[0][place], peaks[1][place], valid[place] = point, value, True
    return Peaks(*(tf.constant(each) for each in (*peaks, valid)))


def scene_of(conformance: Path, name: str, assignment: str = "exact") -> Scene:
    file = np.load(conformance / "multi" / "grouping.npz")
    prefix = f"{file['names'].tolist().index(name)}_"
    figures = {key.removeprefix(prefix): file[key] for key in file if key.startswith(prefix)}
    keypoints, stride, longest, penalty, points, min_keypoints, min_score = figures["meta"][:7]
    fields = figures["pafs"].astype(np.float32)
    # The reference takes the number of channels for a side of the image; so does `longest` here.
    sides = fields.shape[1:3]
    longest *= max(fields.shape[1:]) / max(sides)
    at = np.stack([figures["peak_samples"], figures["peak_channels"]], axis=-1)
    peaks = padded_peaks(figures["peaks"], figures["peak_vals"], at, (len(fields), int(keypoints)))
    places: dict[tuple[int, int], tuple[int, int]] = {}
    for index, (frame, keypoint) in enumerate(at):
        its = sum(1 for other in places if other[0] == frame)
        places[frame, its] = keypoint, (at[:index] == [frame, keypoint]).all(axis=1).sum()
    rules = Rules(
        12,
        float(min_score),
        max(int(min_keypoints), 1),
        assignment,
        LineScoring(int(points), float(longest), float(penalty)),
    )
    edges = [(int(first), int(second)) for first, second in figures["edges"]]
    return Scene(figures, tf.constant(fields), peaks, places, edges, int(stride), rules)


def grouped(scene: Scene) -> Poses:
    tree = tree_edges(scene.edges, scene.peaks.points.shape[1])
    return group_peaks(scene.fields, scene.peaks, tree, scene.stride, scene.rules)


def as_sets(points: np.ndarray, frames: np.ndarray | None = None) -> list[tuple[Any, ...]]:
    """Return animals `(n, K, 2)` with their frames, sorted; or those of `(B, I, K, 2)`."""
    if frames is None:
        frames = np.repeat(np.arange(len(points)), points.shape[1])
        points = points.reshape(-1, *points.shape[2:])
    there = np.isfinite(points).any(axis=(1, 2))
    rounded = np.nan_to_num(np.round(points[there], 4), nan=-99)
    rounded = rounded.reshape(there.sum(), 2 * points.shape[1])
    return sorted((int(f), *row) for f, row in zip(frames[there], rounded.tolist(), strict=True))


def check_padding(animals: Poses) -> None:
    there = np.isfinite(animals.points)
    np.testing.assert_array_equal(there[..., 0], there[..., 1])
    np.testing.assert_array_equal(there[..., 0], np.isfinite(animals.confidence))
    np.testing.assert_array_equal(there.any(axis=(2, 3)), np.isfinite(animals.scores))
    scores = np.nan_to_num(animals.scores, nan=-1.0)
    assert (scores <= 1).all()
    assert (np.diff(scores, axis=1) <= 0).all()


@pytest.mark.parametrize("name", SCENES)
def test_line_scores_equal_the_reference(conformance: Path, name: str) -> None:
    scene = scene_of(conformance, name)
    scores, candidates = line_scores(
        scene.fields, scene.peaks, scene.edges, scene.stride, scene.rules.lines
    )
    listed = [scene.figures[f"candidate_{key}"] for key in ("samples", "edges", "peaks", "scores")]
    assert candidates.numpy().sum() == len(listed[0])
    for frame, edge, (first, second), expected in zip(*listed, strict=True):
        (start, row), (end, column) = scene.places[frame, first], scene.places[frame, second]
        assert (start, end) == scene.edges[edge]
        assert candidates[frame, edge, row, column]
        assert float(scores[frame, edge, row, column]) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("name", [name for name in SCENES if name not in FAULTS])
def test_animals_are_those_of_the_reference(conformance: Path, name: str) -> None:
    scene = scene_of(conformance, name)
    animals = grouped(scene)
    check_padding(animals)
    expected = as_sets(scene.figures["instances"], scene.figures["instance_samples"])
    assert as_sets(animals.points.numpy()) == expected


@pytest.mark.parametrize("name", FAULTS)
def test_all_edges_are_used_where_the_reference_leaves_some_out(
    conformance: Path, name: str
) -> None:
    scene = scene_of(conformance, name)
    reference = np.unique(scene.figures["sorted_edges"])
    assert len(reference) < len(scene.edges) == len(tree_edges(scene.edges, 5).order)
    found = grouped(scene).points.numpy()[0]
    # An animal of two trees is two animals, each with the keypoints of a tree.
    trees = [[0, 1, 2, 3]] if name == "two_parents" else [[0, 1, 2], [3, 4]]
    true = scene.figures["true"]
    parts = np.full((len(trees), *true.shape), NAN)
    for part, keypoints in zip(parts, trees, strict=True):
        part[:, keypoints] = true[:, keypoints]
    parts = parts.reshape(-1, *true.shape[1:])
    there = found[np.isfinite(found).any(axis=(1, 2))]
    assert len(there) == len(parts)
    for part in parts:
        away = [np.abs(np.nan_to_num(each) - np.nan_to_num(part)).max() for each in there]
        assert min(away) < 2


@pytest.mark.parametrize("name", SCENES)
def test_the_greedy_assignment_gives_animals_too(conformance: Path, name: str) -> None:
    scene = scene_of(conformance, name, "greedy")
    animals = grouped(scene)
    check_padding(animals)
    # Where candidates do not compete both give the same.
    if name in ("clean", "tree", "noisy", "border", "batch", "missing_peaks"):
        expected = as_sets(scene.figures["instances"], scene.figures["instance_samples"])
        assert as_sets(animals.points.numpy()) == expected


@pytest.mark.parametrize("case", [0, 1])
@pytest.mark.parametrize("refinement", ["None", "local", "integral"])
def test_maps_and_fields_give_the_animals_of_the_reference(
    conformance: Path, case: int, refinement: str
) -> None:
    figures = np.load(conformance / "multi" / "bottomup.npz")
    _, _, keypoints, stride, fields_stride = (int(value) for value in figures[f"{case}_meta"])
    maps, fields = (figures[f"{case}_{key}"].astype(np.float32) for key in ("confmaps", "pafs"))
    peaks = local_maxima(tf.constant(maps), 6, 0.2, refinement=refinement.lower())
    peaks = peaks._replace(points=peaks.points * stride)
    tree = tree_edges(figures[f"{case}_edges"].tolist(), keypoints)
    animals = group_peaks(tf.constant(fields), peaks, tree, fields_stride, Rules(4))
    expected = figures[f"{case}_{refinement}_instances"]
    for found, wanted in zip(
        as_sets(animals.points.numpy()), as_sets(expected, np.zeros(len(expected))), strict=True
    ):
        assert found == pytest.approx(wanted, abs=2e-4)
    values = np.sort(animals.confidence.numpy()[np.isfinite(animals.confidence)])
    expected_values = figures[f"{case}_{refinement}_peak_vals"]
    np.testing.assert_allclose(
        values, np.sort(np.clip(expected_values[np.isfinite(expected_values)], 0, 1)), atol=1e-5
    )


def drawn(
    points: object, edges: list[tuple[int, int]], rules: Rules, room: int = 5, size: int = 64
) -> Poses:
    """Return the animals found in maps and fields drawn from points `(B, I, K, 2)`."""
    points = tf.constant(points, tf.float32)
    maps = multi_confidence_maps(points, size, size, 2, 3.0)
    fields = part_affinity_fields(points, edges, size, size, 2, 4.0) if edges else None
    peaks = local_maxima(maps, room, 0.2, 3)
    peaks = peaks._replace(points=peaks.points * 2)
    animals = group_peaks(fields, peaks, tree_edges(edges, points.shape[2]), 2, rules)
    check_padding(animals)
    return animals


ONE = [[10, 10], [24, 12], [36, 20], [30, 30]]
TWO = [[50, 54], [38, 50], [26, 44], [30, 58]]
CHAIN = [(0, 1), (1, 2), (1, 3)]


def test_drawn_animals_are_found_with_scores_near_one() -> None:
    animals = drawn([[ONE, TWO]], CHAIN, Rules(3))
    found = animals.points.numpy()[0]
    order = np.argsort(found[:2, 0, 0])
    np.testing.assert_allclose(found[:2][order], [ONE, TWO], atol=0.05)
    assert np.isnan(found[2]).all()
    assert (animals.scores.numpy()[0, :2] > 0.85).all()


def test_an_animals_score_is_the_mean_of_value_times_line_score() -> None:
    # Fields that are 0.5 and 0.8 to the right, wherever they are read.
    fields = np.zeros((1, 16, 16, 4), np.float32)
    fields[..., 0], fields[..., 2] = 0.5, 0.8
    points = np.array([[2, 4], [8, 4], [14, 4]])
    values = np.array([0.9, 0.6, 1.3])
    peaks = padded_peaks(points, values, np.array([[0, 0], [0, 1], [0, 2]]), (1, 3))
    tree = tree_edges([(0, 1), (1, 2)], 3)
    lines = LineScoring(penalty=0.0)
    animals = group_peaks(tf.constant(fields), peaks, tree, 4, Rules(2, lines=lines))
    # Of the one in the middle the lines have 0.65 on average; values count up to 1.
    expected = (0.9 * 0.5 + 0.6 * 0.65 + 1.0 * 0.8) / 3
    np.testing.assert_allclose(animals.scores, [[expected, NAN]], rtol=1e-6)
    np.testing.assert_allclose(animals.confidence[0, 0], [0.9, 0.6, 1.0])


def test_a_long_line_is_worth_less() -> None:
    fields = np.zeros((1, 4, 10, 2), np.float32)
    fields[..., 0] = 1
    peaks = padded_peaks(
        np.array([[0, 4], [30, 4]]), np.ones(2), np.array([[0, 0], [0, 1]]), (1, 2)
    )
    # Up to 0.25 * 10 cells * 4 px = 10 px nothing is lost; the line has 30 px.
    scores, _ = line_scores(tf.constant(fields), peaks, [(0, 1)], 4)
    assert float(scores[0, 0, 0, 0]) == pytest.approx(1 + 10 / 30 - 1)


def test_a_line_beyond_the_border_reads_the_outermost_cells() -> None:
    fields = np.zeros((1, 8, 8, 2), np.float32)
    fields[:, :, -1, 1] = 1
    # Column 31 would be cell 7.75, rounded 8: there is none. Row -1 would be the last.
    points = np.array([[31, -3], [31, 34]])
    peaks = padded_peaks(points, np.ones(2), np.array([[0, 0], [0, 1]]), (1, 2))
    scores, _ = line_scores(tf.constant(fields), peaks, [(0, 1)], 4, LineScoring(penalty=0.0))
    assert float(scores[0, 0, 0, 0]) == pytest.approx(1)


def test_two_peaks_on_one_pixel_are_no_line_and_spoil_nothing() -> None:
    fields = np.ones((1, 8, 8, 2), np.float32)
    points = np.array([[8, 8], [20, 20], [8, 8], [26, 26]])
    peaks = padded_peaks(points, np.ones(4), np.array([[0, 0], [0, 0], [0, 1], [0, 1]]), (1, 2))
    scores, candidates = line_scores(tf.constant(fields), peaks, [(0, 1)], 4)
    assert candidates[0, 0, 0, 0]
    assert float(scores[0, 0, 0, 0]) == 0
    animals = group_peaks(tf.constant(fields), peaks, tree_edges([(0, 1)], 2), 4, Rules(3))
    check_padding(animals)
    assert np.isfinite(animals.scores).any()


def test_no_frames_and_no_peaks_give_no_animals() -> None:
    assert drawn(np.zeros((0, 2, 4, 2)), CHAIN, Rules(3)).points.shape == (0, 3, 4, 2)
    assert np.isnan(drawn(np.full((2, 2, 4, 2), NAN), CHAIN, Rules(3)).points).all()


def test_the_best_animals_are_kept() -> None:
    animals = drawn([[ONE, TWO]], CHAIN, Rules(1))
    assert animals.points.shape == (1, 1, 4, 2)
    both = drawn([[ONE, TWO]], CHAIN, Rules(3))
    np.testing.assert_array_equal(animals.points[:, 0], both.points[:, 0])
    assert float(both.scores[0, 0]) >= float(both.scores[0, 1])


def test_there_may_be_room_for_more_animals_than_peaks() -> None:
    animals = drawn([[[[20, 20], [30, 30]]]], [(0, 1)], Rules(9), room=1)
    assert animals.scores.shape == (1, 9)
    assert np.isfinite(animals.scores).sum() == 1


def test_animals_with_too_few_keypoints_are_left_out() -> None:
    part = [*TWO[:2], [NAN, NAN], [NAN, NAN]]
    assert np.isfinite(drawn([[ONE, part]], CHAIN, Rules(3, min_keypoints=2)).scores).sum() == 2
    assert np.isfinite(drawn([[ONE, part]], CHAIN, Rules(3, min_keypoints=3)).scores).sum() == 1


def test_a_lone_peak_of_a_skeleton_with_edges_is_no_animal() -> None:
    lone = [TWO[0], *[[NAN, NAN]] * 3]
    assert np.isfinite(drawn([[ONE, lone]], CHAIN, Rules(3)).scores).sum() == 1


def test_without_edges_each_peak_is_an_animal() -> None:
    animals = drawn([[[[10, 10]], [[40, 20]]]], [], Rules(3))
    found = animals.points.numpy()[0, :, 0]
    np.testing.assert_allclose(found[np.argsort(found[:, 0])][:2], [[10, 10], [40, 20]], atol=0.05)
    np.testing.assert_allclose(animals.scores[0], animals.confidence[0, :, 0])


def test_a_keypoint_at_no_edge_goes_to_the_nearest_animal() -> None:
    # The last but one is near ONE alone, the last near both.
    one, two = [*ONE, [14, 16], [32, 38]], [*TWO, [NAN, NAN], [30, 50]]
    found = drawn([[one, two]], CHAIN, Rules(3)).points.numpy()[0]
    order = np.argsort(found[:2, 0, 0])
    np.testing.assert_allclose(found[:2][order], [one, two], atol=0.1)
    assert np.isnan(found[2]).all()


def test_a_keypoint_farther_away_than_an_animal_is_long_belongs_to_none() -> None:
    found = drawn([[[[4, 4], [12, 4], [60, 60]]]], [(0, 1)], Rules(1)).points.numpy()
    np.testing.assert_array_equal(np.isfinite(found[0, 0, :, 0]), [True, True, False])


@pytest.mark.parametrize(
    ("edges", "keypoints", "order", "backwards", "unused", "lone"),
    [
        ([(0, 1), (1, 2)], 3, (0, 1), (False, False), (), ()),
        # In the order in which they can be followed, whatever the order in which they are listed.
        ([(2, 3), (0, 1), (1, 2)], 4, (1, 2, 0), (False,) * 3, (), ()),
        # A second parent joins: it is reached from its child.
        ([(0, 2), (1, 2)], 3, (0, 1), (False, True), (), ()),
        # Two ways to the same keypoint: the second is not needed.
        ([(0, 1), (0, 2), (1, 3), (2, 3)], 4, (0, 1, 2), (False,) * 3, (3,), ()),
        # A circle begins at its first keypoint; one edge closes it.
        ([(1, 2), (2, 3), (3, 1)], 4, (0, 2), (False, True), (1,), (0,)),
        # Two trees.
        ([(3, 4), (0, 1)], 5, (1, 0), (False, False), (), (2,)),
        # The same edge twice, and there and back.
        ([(0, 1), (0, 1), (1, 0)], 2, (0,), (False,), (1, 2), ()),
        ([], 2, (), (), (), (0, 1)),
    ],
)
def test_edges_are_followed_as_a_tree(edges, keypoints, order, backwards, unused, lone) -> None:
    tree = tree_edges(edges, keypoints)
    assert (tree.order, tree.backwards, tree.unused, tree.lone) == (order, backwards, unused, lone)


def test_edges_that_are_not_used_change_nothing() -> None:
    with_circle = drawn([[ONE, TWO]], [*CHAIN, (2, 3)], Rules(3))
    np.testing.assert_array_equal(with_circle.points, drawn([[ONE, TWO]], CHAIN, Rules(3)).points)


@pytest.mark.parametrize("assignment", ["exact", "greedy"])
def test_noise_gives_no_errors_and_no_nan_scores(assignment: str) -> None:
    random = np.random.default_rng(3)
    maps = tf.constant(random.normal(0, 1, (4, 9, 7, 4)), tf.float32)
    fields = tf.constant(random.normal(0, 2, (4, 9, 7, 6)), tf.float32)
    peaks = local_maxima(maps, 6, 0.2)
    peaks = peaks._replace(points=peaks.points * 4)
    for flaw in (0.0, NAN, np.inf):
        flawed = tf.where(random.random(fields.shape) < 0.2, flaw, fields)
        tree = tree_edges(CHAIN, 4)
        animals = group_peaks(flawed, peaks, tree, 4, Rules(4, assignment=assignment))
        check_padding(animals)
        assert np.isfinite(animals.scores).any()
