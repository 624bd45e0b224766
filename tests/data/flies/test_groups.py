import itertools
from contextlib import closing

import numpy as np
import pytest

from hgtrain.config.fields import BUILTIN_NAMES
from hgtrain.data import builtin_datasets
from hgtrain.data.builtin_datasets import BUILTINS, builtin_file
from hgtrain.data.dataset import HIDDEN, NOT_LABELLED, VISIBLE
from hgtrain.data.flies.anatomy import SKELETON, sample_fly
from hgtrain.data.flies.groups import FLY_GROUPS, draw_group, draw_groups
from hgtrain.data.flies.scene import photograph
from hgtrain.data.open import open_dataset

K, SIZE = 19, 224
NAMES = SKELETON.keypoint_names
THORAX, EYES, FOOT = NAMES.index("thorax"), (1, 2), NAMES.index("foot_mid_left")


@pytest.fixture(scope="module")
def frames():
    """Return the first 200 frames: image, points, visibility and group of each."""
    return list(itertools.islice(draw_groups(FLY_GROUPS)[1], 200))


@pytest.fixture(scope="module")
def flies(frames):
    """Return points `(n, K, 2)` and visibility `(n, K)` of all flies."""
    return np.concatenate([frame[1] for frame in frames]), np.concatenate(
        [frame[2] for frame in frames]
    )


def pairs_in(frames):
    """Return the points of every two flies that share a frame, the lower one first."""
    return [pair for frame in frames for pair in itertools.combinations(frame[1], 2)]


def crosses(one, other):
    """Whether a line of one skeleton crosses a line of the other."""

    def side(a, b, c):
        return np.sign((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    segments = itertools.product(SKELETON.edges, SKELETON.edges)
    for a, b, c, d in ((one[i], one[j], other[m], other[n]) for (i, j), (m, n) in segments):
        if side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0:
            return True
    return False


def smallest_distance(one, other):
    return np.nanmin(np.linalg.norm(one[:, None] - other, axis=-1))


def centroid(weight):
    row, column = np.indices(weight.shape)
    return (weight * column).sum() / weight.sum(), (weight * row).sum() / weight.sum()


def two_flies(foot_under_the_other):
    """Return two flies, a foot of the lower or else of the upper one at the other's thorax."""
    middle = 112 + 112j
    other = sample_fly(np.random.default_rng(4), middle, 50.0)
    away = other.thorax.origin - sample_fly(np.random.default_rng(3), middle, 50.0).landmarks[FOOT]
    one = sample_fly(np.random.default_rng(3), middle + away, 50.0)
    return [one, other] if foot_under_the_other else [other, one]


def test_a_frame_has_the_documented_shapes_and_types(frames):
    for image, points, visibility, group in frames[:20]:
        count = len(points)
        assert (image.shape, image.dtype.name) == ((SIZE, SIZE, 1), "uint8")
        assert (points.shape, points.dtype.name) == ((count, K, 2), "float32")
        assert (visibility.shape, visibility.dtype.name) == ((count, K), "uint8")
        assert group in {f"arena{i}" for i in range(5)}


def test_none_to_five_flies_are_as_frequent_as_promised(frames):
    shares = np.bincount([len(frame[1]) for frame in frames]) / len(frames)
    # Three standard deviations of the largest of these shares in 200 frames are 0.088.
    np.testing.assert_allclose(shares, (0.08, 0.16, 0.22, 0.22, 0.18, 0.14), atol=0.088)


def test_a_frame_drawn_alone_equals_the_one_drawn_in_order(frames):
    for index in (0, 2, 131):
        for a, b in zip(frames[index], draw_group(FLY_GROUPS, index), strict=True):
            np.testing.assert_array_equal(a, b)


def test_another_seed_gives_other_pictures(frames):
    other = draw_group(FLY_GROUPS._replace(seed=1), 0)
    assert not np.array_equal(frames[0][0], other[0])


def test_an_empty_frame_shows_the_floor_alone(frames):
    empty = [frame[0][..., 0].astype(float) for frame in frames if not len(frame[1])]
    full = [frame[0][..., 0].astype(float) for frame in frames if len(frame[1]) == 5]
    # Legs, eyes and bands are the only dark things; walls and specks are brighter than these.
    assert np.mean([(image < 60).mean() for image in empty]) < 0.001
    assert np.mean([(image < 60).mean() for image in full]) > 0.01


def test_labelled_points_lie_inside_the_image_and_the_rest_is_nan(flies):
    points, visibility = flies
    labelled = visibility != NOT_LABELLED
    assert points[labelled].min() >= 0
    assert points[labelled].max() <= SIZE - 1
    assert np.isnan(points[~labelled]).all()


def test_some_but_few_points_are_outside(flies):
    assert 0.002 < (flies[1] == NOT_LABELLED).mean() <= 0.03


def test_every_fly_shows_more_than_half_of_its_keypoints(flies):
    assert ((flies[1] == VISIBLE).sum(axis=1) > K // 2).all()


def test_thoraces_lie_more_than_a_body_width_apart(frames):
    body_width_px = 0.3 * 0.29 * SIZE
    distances = [np.linalg.norm(a[THORAX] - b[THORAX]) for a, b in pairs_in(frames)]
    assert min(distances) > body_width_px


def test_many_flies_touch_and_many_stand_alone(frames):
    touching, alone = 0, 0
    for frame in frames:
        for number, points in enumerate(frame[1]):
            others = np.delete(frame[1], number, axis=0)
            near = min((smallest_distance(points, other) for other in others), default=np.inf)
            touching += near < 3
            alone += near > 10
    total = sum(len(frame[1]) for frame in frames)
    assert touching / total > 0.25
    assert alone / total > 0.2


def test_in_some_frames_the_legs_and_bodies_of_flies_cross(frames):
    several = [frame for frame in frames if len(frame[1]) > 1]
    crossing = [
        any(crosses(a, b) for a, b in itertools.combinations(frame[1], 2)) for frame in several
    ]
    assert 0.25 < np.mean(crossing) < 0.9


def test_the_dark_blob_around_a_visible_eye_is_centred_on_it(frames):
    errors = []
    for image, points, visibility, _ in frames:
        for number, eye in itertools.product(range(len(points)), EYES):
            others = np.delete(points, number, axis=0).reshape(-1, 2)
            x, y = points[number, eye]
            is_covered = visibility[number, eye] != VISIBLE
            is_near_another = (np.linalg.norm(others - (x, y), axis=-1) < 12).any()
            is_near_border = min(x, y) < 5 or max(x, y) > SIZE - 6
            if is_covered or is_near_another or is_near_border:
                continue
            top, left = round(float(y)) - 3, round(float(x)) - 3
            window = image[top : top + 7, left : left + 7, 0].astype(float)
            blob_x, blob_y = centroid(window < (window.min() + np.median(image)) / 2.4)
            errors.append(np.hypot(blob_x + left - x, blob_y + top - y))
    assert len(errors) > 200
    assert np.median(errors) < 0.7
    assert np.percentile(errors, 95) < 1.4


def test_a_foot_under_another_fly_is_hidden_and_stays_where_it_is():
    lower, upper = two_flies(foot_under_the_other=True)
    _, points, visibility = photograph(FLY_GROUPS, 0, np.random.default_rng(0), [lower, upper])
    assert visibility[0, FOOT] == HIDDEN
    assert complex(*points[0, FOOT]) == pytest.approx(lower.landmarks[FOOT], abs=1e-4)


def test_a_foot_on_top_of_another_fly_is_visible_and_hides_its_thorax():
    lower, upper = two_flies(foot_under_the_other=False)
    _, _, visibility = photograph(FLY_GROUPS, 0, np.random.default_rng(0), [lower, upper])
    assert visibility[1, FOOT] == VISIBLE
    assert visibility[0, THORAX] == HIDDEN


def test_the_picture_shows_the_fly_that_lies_on_top():
    pair = two_flies(foot_under_the_other=True)
    images = [
        photograph(FLY_GROUPS, 0, np.random.default_rng(0), flies)[0].astype(int)
        for flies in (pair, pair[1:])
    ]
    thorax = pair[1].thorax.origin
    row, column = round(thorax.imag), round(thorax.real)
    beneath = np.abs(images[0] - images[1])[row - 3 : row + 4, column - 3 : column + 4]
    assert np.abs(images[0] - images[1]).max() > 80
    assert beneath.max() <= 3


def test_a_topmost_fly_is_hidden_no_more_than_a_single_one(frames):
    lowest = [frame[2][0] for frame in frames if len(frame[2]) > 1]
    topmost = [frame[2][-1] for frame in frames if len(frame[2]) > 1]
    single = [frame[2][0] for frame in frames if len(frame[2]) == 1]
    low, top, alone = (np.mean(np.array(v) == HIDDEN) for v in (lowest, topmost, single))
    assert top == pytest.approx(alone, abs=0.015)
    assert low > 1.5 * top


def test_the_dataset_is_drawn_once_into_a_file_padded_with_nan(tmp_path, monkeypatch):
    monkeypatch.setattr(builtin_datasets, "FLY_GROUPS", FLY_GROUPS._replace(frames=16))
    monkeypatch.setenv("HGTRAIN_CACHE", str(tmp_path))
    with closing(open_dataset("builtin:fly-groups")) as dataset:
        drawn = [draw_group(FLY_GROUPS, index) for index in range(16)]
        most = max(len(frame[1]) for frame in drawn)
        assert dataset.points.shape == (16, most, K, 2)
        assert dataset.keypoint_names == NAMES
        for index, (image, points, visibility, group) in enumerate(drawn):
            np.testing.assert_array_equal(dataset[index].image, image)
            np.testing.assert_array_equal(dataset.points[index, : len(points)], points)
            np.testing.assert_array_equal(dataset.visibility[index, : len(points)], visibility)
            assert np.isnan(dataset.points[index, len(points) :]).all()
            assert not dataset.visibility[index, len(points) :].any()
            assert dataset.groups[index] == group
    (file,) = tmp_path.iterdir()
    written = file.stat().st_mtime_ns
    assert builtin_file("builtin:fly-groups") == file
    assert file.name == "fly-groups-v1-seed0-224px-500.h5"
    assert file.stat().st_mtime_ns == written


def test_a_file_may_begin_with_an_empty_frame(tmp_path, monkeypatch):
    frames = [draw_group(FLY_GROUPS, index) for index in (2, 0)]
    assert [len(frame[1]) for frame in frames] == [0, 1]
    monkeypatch.setattr(builtin_datasets, "draw_groups", lambda _: (SKELETON, iter(frames)))
    monkeypatch.setenv("HGTRAIN_CACHE", str(tmp_path))
    with closing(open_dataset("builtin:fly-groups")) as dataset:
        assert np.isnan(dataset.points[0]).all()
        np.testing.assert_array_equal(dataset.points[1], frames[1][1])


def test_a_config_may_name_every_built_in_dataset():
    assert set(BUILTIN_NAMES) == set(BUILTINS)
