import itertools

import numpy as np
import pytest

from hgtrain.data.dataset import HIDDEN, NOT_LABELLED, VISIBLE
from hgtrain.data.flies.anatomy import SKELETON, Axes, sample_fly
from hgtrain.data.flies.draw import FLIES, FliesSettings, draw_flies, draw_fly
from hgtrain.data.flies.painting import Canvas, paint_dome, paint_fly, paint_rod

K = 19
NAMES = SKELETON.keypoint_names


@pytest.fixture(scope="module")
def flies():
    """Return images `(N, H, W)` float, points `(N, K, 2)`, visibility `(N, K)` and groups `(N,)` of
    200 frames."""
    images, points, visibility, groups = zip(
        *itertools.islice(draw_flies(FLIES)[1], 200), strict=True
    )
    return (
        np.stack(images)[..., 0].astype(float),
        np.concatenate(points),
        np.concatenate(visibility),
        np.array(groups),
    )


def centroid(weight):
    row, column = np.indices(weight.shape)
    return (weight * column).sum() / weight.sum(), (weight * row).sum() / weight.sum()


def in_pixels(canvas):
    size = len(canvas.cover) // 2
    return canvas.cover.reshape(size, 2, size, 2).mean(axis=(1, 3))


def test_a_frame_has_the_documented_shapes_and_types():
    image, points, visibility, group = next(draw_flies(FLIES)[1])
    shapes = [(a.shape, a.dtype.name) for a in (image, points, visibility)]
    assert shapes == [((128, 128, 1), "uint8"), ((1, K, 2), "float32"), ((1, K), "uint8")]
    assert group == "arena0"


def test_as_many_frames_are_drawn_as_asked_for():
    assert len(list(draw_flies(FLIES._replace(frames=3))[1])) == 3


def test_no_frames_give_an_empty_iterator():
    assert list(draw_flies(FLIES._replace(frames=0))[1]) == []


def test_the_size_is_the_images_height_and_width():
    assert draw_fly(FliesSettings(version=1, frames=1, seed=0, size=96), 0)[0].shape == (96, 96, 1)


def test_a_frame_drawn_alone_equals_the_one_drawn_in_order():
    in_order = list(draw_flies(FLIES._replace(frames=7))[1])[6]
    alone = draw_fly(FLIES, 6)
    for a, b in zip(in_order, alone, strict=True):
        np.testing.assert_array_equal(a, b)


def test_another_seed_gives_other_points():
    assert not np.array_equal(draw_fly(FLIES, 0)[1], draw_fly(FLIES._replace(seed=1), 0)[1])


def test_frames_take_turns_among_five_arenas(flies):
    assert flies[3][:6].tolist() == ["arena0", "arena1", "arena2", "arena3", "arena4", "arena0"]


def test_keypoint_names_are_unique():
    assert len(set(NAMES)) == len(NAMES) == K


def test_the_edges_form_a_tree_over_all_keypoints():
    reached = {NAMES.index("thorax")}
    for start, end in SKELETON.edges:
        assert start in reached
        assert end not in reached
        reached.add(end)
    assert len(reached) == K


def test_partners_are_named_alike_but_for_the_side():
    assert [NAMES[a].replace("left", "right") for a, _ in SKELETON.symmetries] == [
        NAMES[b] for _, b in SKELETON.symmetries
    ]


def test_every_keypoint_off_the_midline_has_a_partner():
    paired = {k for pair in SKELETON.symmetries for k in pair}
    assert {NAMES[k] for k in set(range(K)) - paired} == {"head", "thorax", "abdomen_tip"}


@pytest.mark.parametrize(("left", "right"), SKELETON.symmetries, ids=lambda k: NAMES[k])
def test_left_keypoints_lie_to_the_left_of_their_partners(flies, left, right):
    _, points, _, _ = flies
    heading = points[:, NAMES.index("head")] - points[:, NAMES.index("thorax")]
    across = points[:, left] - points[:, right]
    # With y pointing down, the left of a heading (x, y) is (y, -x).
    to_the_left = across[:, 0] * heading[:, 1] - across[:, 1] * heading[:, 0]
    assert (to_the_left[np.isfinite(to_the_left)] > 0).all()


def test_headings_point_everywhere(flies):
    _, points, _, _ = flies
    x, y = (points[:, NAMES.index("head")] - points[:, NAMES.index("thorax")]).T
    assert np.histogram(np.arctan2(y, x), bins=8, range=(-np.pi, np.pi))[0].min() >= 10


def test_labelled_points_lie_inside_the_image(flies):
    _, points, visibility, _ = flies
    labelled = points[visibility != NOT_LABELLED]
    assert labelled.min() >= 0
    assert labelled.max() <= 127


def test_points_are_nan_exactly_where_not_labelled(flies):
    _, points, visibility, _ = flies
    np.testing.assert_array_equal(np.isnan(points).all(axis=-1), visibility == NOT_LABELLED)
    np.testing.assert_array_equal(np.isnan(points).any(axis=-1), visibility == NOT_LABELLED)


def test_some_but_at_most_one_in_a_hundred_points_are_outside(flies):
    assert 0 < (flies[2] == NOT_LABELLED).mean() <= 0.01


def test_some_but_at_most_one_in_ten_points_are_hidden(flies):
    assert 0.01 < (flies[2] == HIDDEN).mean() <= 0.1


def test_the_floor_is_darker_at_a_visible_foot_than_beyond_it(flies):
    images, points, visibility, _ = flies
    darker = []
    for side in ("left", "right"):
        knee, foot = NAMES.index(f"knee_mid_{side}"), NAMES.index(f"foot_mid_{side}")
        along = points[:, foot] - points[:, knee]
        beyond = points[:, foot] + 3 * along / np.linalg.norm(along, axis=-1, keepdims=True)
        for n in np.flatnonzero(visibility[:, foot] == VISIBLE):
            (x, y), (far_x, far_y) = (
                np.rint(points[n, foot]).astype(int),
                np.clip(np.rint(beyond[n]), 0, 127).astype(int),
            )
            darker.append(images[n, y, x] < images[n, far_y, far_x])
    assert np.mean(darker) > 0.98


def test_the_dark_blob_around_a_visible_eye_is_centred_on_it(flies):
    images, points, visibility, _ = flies
    errors = []
    for n, k in zip(*np.nonzero(visibility[:, 1:3] == VISIBLE), strict=True):
        x, y = points[n, k + 1]
        top, left = round(float(y)) - 4, round(float(x)) - 4
        window = images[n, top : top + 9, left : left + 9]
        blob_x, blob_y = centroid(window < (window.min() + np.median(images[n])) / 2.4)
        errors.append(np.hypot(blob_x + left - x, blob_y + top - y))
    assert np.median(errors) < 0.6
    assert np.percentile(errors, 95) < 1.2


def test_a_dome_is_centred_on_its_origin_to_a_twentieth_of_a_pixel():
    canvas = Canvas(64, np.zeros(0, complex), light=1)
    paint_dome(canvas, Axes(30.3 + 21.8j, 10j), (0.9, 0.5), lambda at: np.ones(at.shape))
    assert centroid(in_pixels(canvas)) == pytest.approx((30.3, 21.8), abs=0.05)


def test_a_rod_is_centred_between_its_ends_to_a_twentieth_of_a_pixel():
    canvas = Canvas(64, np.zeros(0, complex), light=1)
    paint_rod(canvas, (10.2 + 20.4j, 40.6 + 33.0j), (1.0, 1.0), 0.5)
    assert centroid(in_pixels(canvas)) == pytest.approx((25.4, 26.7), abs=0.05)


def test_a_rod_two_pixels_thick_and_twenty_long_covers_its_area():
    canvas = Canvas(64, np.zeros(0, complex), light=1)
    paint_rod(canvas, (20 + 30j, 40 + 30j), (1.0, 1.0), 0.5)
    assert in_pixels(canvas).sum() == pytest.approx(20 * 2 + np.pi, rel=0.02)


def test_what_is_painted_over_a_watched_landmark_takes_its_light():
    canvas = Canvas(64, np.array([30 + 30j, 30 + 50j]), light=1)
    canvas.watch([0, 1])
    paint_rod(canvas, (20 + 30j, 40 + 30j), (2.0, 2.0), 0.5)
    assert canvas.passing.tolist() == [0, 1]


def test_what_is_painted_before_a_landmark_is_watched_does_not_hide_it():
    canvas = Canvas(64, np.array([30 + 30j]), light=1)
    paint_rod(canvas, (20 + 30j, 40 + 30j), (2.0, 2.0), 0.5)
    canvas.watch(0)
    assert canvas.passing.tolist() == [1]


def test_a_part_outside_the_canvas_leaves_it_empty():
    canvas = Canvas(64, np.zeros(0, complex), light=1)
    paint_rod(canvas, (-40 - 40j, -20 - 30j), (2.0, 2.0), 0.5)
    paint_rod(canvas, (100 + 10j, 120 + 30j), (2.0, 2.0), 0.5)
    assert canvas.cover.max() == 0


def test_every_landmark_lies_on_the_painted_animal():
    for seed in range(20):
        fly = sample_fly(np.random.default_rng(seed), 63.5 + 63.5j, 60.0)
        canvas = Canvas(128, fly.landmarks, light=1)
        paint_fly(canvas, fly)
        around = in_pixels(canvas)
        for landmark in fly.landmarks:
            row, column = round(landmark.imag), round(landmark.real)
            assert around[row - 1 : row + 2, column - 1 : column + 2].max() > 0.15


def test_the_femurs_of_a_pair_of_legs_are_equally_long():
    legs = sample_fly(np.random.default_rng(3), 64 + 64j, 60.0).legs
    femurs = np.abs(legs[:, 1] - legs[:, 0])
    np.testing.assert_allclose(femurs[::2], femurs[1::2])
