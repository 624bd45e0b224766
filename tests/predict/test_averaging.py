"""Averaging over turned images, with networks that see nothing but the pixel of each cell.

Such a network gives the same whatever way an image is turned, exactly, so that each cell must come
back to its own place and each value as it went.
"""

import re

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.config.schema import HeadConfig
from hgtrain.coords import Turn
from hgtrain.heads import make_head
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.predict.averaging import Averaging, turned, turned_back
from hgtrain.predict.predictor import Predictor
from hgtrain.predict.turns import ALL, AVERAGES, FLIPS, ROTATIONS, read_averages, turns_of
from hgtrain.skeleton import Skeleton

NAMES = ("nose", "left ear", "right ear", "tail")
EDGES = ((0, 1), (0, 2), (0, 3))
SKELETON = Skeleton(NAMES, EDGES, ((1, 2),))
SIZES = [(13, 18), (16, 16), (17, 9), (15, 24), (1, 7)]


def images_of(height, width, channels=1):
    random = np.random.default_rng(0)
    return tf.constant(random.uniform(1, 255, (2, height, width, channels)), tf.float32)


# Where pixels go


def test_left_becomes_right_about_a_cell():
    image = tf.reshape(tf.range(1.0, 7.0), (1, 1, 6, 1))
    # Cells of stride 4 are at pixels 0 and 4; the first cell beyond the last pixel, 5, is at 8.
    mirrored = turned(image, Turn(mirrors_x=True), 4)
    assert mirrored[0, 0, :, 0].numpy().tolist() == [0, 0, 0, 6, 5, 4, 3, 2, 1]


def test_no_column_is_added_where_the_last_pixel_is_a_cell():
    image = tf.reshape(tf.range(1.0, 6.0), (1, 1, 5, 1))
    mirrored = turned(image, Turn(mirrors_x=True), 4)
    assert mirrored[0, 0, :, 0].numpy().tolist() == [5, 4, 3, 2, 1]


def test_a_quarter_turn_is_numpys():
    image = images_of(5, 9)
    # Clockwise, whose columns are the rows from the bottom; 5 and 9 px need no more at stride 4.
    found = turned(image, Turn(transposes=True, mirrors_x=True), 4)
    assert np.array_equal(found, np.rot90(image, -1, axes=(1, 2)))
    found = turned(image, Turn(transposes=True, mirrors_y=True), 4)
    assert np.array_equal(found, np.rot90(image, 1, axes=(1, 2)))


@pytest.mark.parametrize("stride", [1, 2, 4])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("turn", ALL)
def test_each_cell_comes_back_to_its_place(turn, size, stride):
    image = images_of(*size)
    maps = turned(image, turn, stride)[:, ::stride, ::stride]
    back = turned_back(maps, size, turn, stride)
    assert np.array_equal(back, image[:, ::stride, ::stride])


# What is mirrored, and what is a rotation


def test_rotations_are_those_by_quarters():
    assert len(set(ROTATIONS)) == 4
    assert not any(turn.is_mirrored for turn in ROTATIONS)
    assert sum(turn.is_mirrored for turn in ALL) == 4


@pytest.mark.parametrize("turn", ALL)
def test_vectors_turn_with_the_image(turn):
    # The way from one bright pixel to another, in the image and turned.
    image = np.zeros((1, 9, 9, 1), np.float32)
    image[0, 1, 2], image[0, 4, 8] = 1, 2
    seen = turned(tf.constant(image), turn, 1).numpy()[0, ..., 0]
    (first,), (second,) = (np.argwhere(seen == value)[:, ::-1] for value in (1, 2))
    way = second - first
    found = [sign * way[axis] for axis, sign in map(turn.component, (0, 1))]
    assert found == [6, 3]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("flips", ("flips",)),
        ("rotations", ("rotations",)),
        ("flips,rotations", AVERAGES),
        ("rotations, flips,flips", ("rotations", "flips")),
    ],
)
def test_what_is_averaged_over_is_a_list(text, names):
    assert read_averages(text) == names


@pytest.mark.parametrize(
    ("text", "hint"), [("flip", " (did you mean flips?)"), ("", ""), ("flips,scales", "")]
)
def test_what_is_not_known_is_refused(text, hint):
    expected = f"must be flips, rotations or flips,rotations, got {text!r}{hint}"
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        read_averages(text)


@pytest.mark.parametrize(
    ("averages", "flip", "count", "mirrored"),
    [
        (("flips",), "none", 2, 1),
        (("flips",), "vertical", 2, 1),
        (("flips",), "both", 4, 2),
        (("rotations",), "both", 4, 0),
        (("rotations", "flips"), "horizontal", 8, 4),
        ((), "both", 1, 0),
    ],
)
def test_flips_are_those_of_the_training(averages, flip, count, mirrored):
    turns = turns_of(averages, flip)
    assert (turns[0], len(set(turns))) == (Turn(), count)
    assert sum(turn.is_mirrored for turn in turns) == mirrored
    assert FLIPS["vertical"][1] == Turn(mirrors_y=True)


# A network that is alike all ways


HEADS = {
    "single_instance": {"offsets": True},
    "multi_instance": {"offsets": True, "max_instances": 2},
    "centroid": {"offsets": True, "max_instances": 2},
    "centered_instance": {"offsets": True, "crop_size_px": 16},
}


def head_of(kind, skeleton=SKELETON, stride=2, **keys):
    section = HeadConfig.model_validate({"type": kind, "sigma_px": 3} | HEADS[kind] | keys)
    return make_head(section, skeleton, stride)


class Drawn:
    """Draws a head's targets where bright pixels of an image say that keypoints are.

    The image's channels are keypoints, whose brightest pixel is the point. Of a mirrored image it
    gives what a network gives that was trained with partners exchanged: there a left ear is a right
    one.
    """

    def __init__(self, head, mirrored):
        self.head, self.mirrored = head, mirrored

    def __call__(self, images):
        height, width, keypoints = images.shape[1:]
        order = [0, 2, 1, 3] if self.mirrored else [0, 1, 2, 3]
        flat = np.reshape(images, (len(images), -1, keypoints)).argmax(1)[:, order]
        points = np.stack([flat % width, flat // width], -1).astype(np.float32)[:, None]
        weights = np.ones(points.shape[:-1], np.float32)
        targets = self.head.targets(tf.constant(points), tf.constant(weights), height, width)
        return {name: target.values for name, target in targets.items()}


def alike(head):
    """Return what computes outputs, told by a call's place in the order whether it is mirrored."""
    calls = iter(ALL)
    return lambda images: Drawn(head, next(calls).is_mirrored)(images)


def marked(height, width, points):
    images = np.zeros((1, height, width, 4), np.float32)
    for keypoint, (x, y) in enumerate(points):
        images[0, y, x, keypoint] = 255
    return tf.constant(images)


@pytest.mark.parametrize("stride", [2, 4])
@pytest.mark.parametrize("size", [(31, 38), (32, 40), (33, 25)])
@pytest.mark.parametrize("kind", HEADS)
def test_a_network_that_is_alike_all_ways_gives_the_same(kind, size, stride):
    head = head_of(kind, stride=stride)
    content = marked(*size, [(5, 7), (20, 11), (13, 22), (24, 24)])
    rows, columns = (-(-side // 16) * 16 for side in size)
    images = tf.pad(content, [[0, 0], [0, rows - size[0]], [0, columns - size[1]], [0, 0]])
    averaged = Averaging(ALL, SKELETON.symmetries).outputs(alike(head), images, size, head, 16)
    plain = Drawn(head, False)(images)
    cells = [-(-side // stride) for side in size]
    for name, maps in plain.items():
        within = np.s_[:, : cells[0], : cells[1]]
        # Offsets in cells near a point alone: there they are taught.
        near = np.abs(maps[within]) < 3 if name == "offsets" else np.ones(maps[within].shape, bool)
        apart = np.abs(averaged[name][within] - maps[within])[near]
        assert apart.max() < 1e-5
        assert averaged[name].shape == maps.shape


def test_without_partners_exchanged_it_would_not_be_the_same():
    head = head_of("single_instance")
    images = marked(32, 32, [(5, 7), (20, 11), (13, 22), (24, 24)])
    averaged = Averaging(ALL, ()).outputs(alike(head), images, (32, 32), head, 16)
    plain = Drawn(head, False)(images)
    assert np.abs(averaged["confmaps"] - plain["confmaps"])[..., 1:3].max() > 0.4


def test_what_a_network_adds_on_one_side_cancels():
    head = head_of("single_instance", Skeleton(("a",)), offsets=False)

    def slanting(images):
        height, width = images.shape[1] // 2, images.shape[2] // 2
        slope = tf.range(width, dtype=tf.float32)[None, None, :, None]
        return {"confmaps": images[:, ::2, ::2] + tf.tile(slope, (1, height, 1, 1))}

    # Pixels 0 to 30: cells 0 to 15 are mirrored upon one another, so that slopes add up to 15.
    images = tf.constant(np.random.default_rng(0).uniform(0, 1, (1, 16, 32, 1)), tf.float32)
    averaging = Averaging((Turn(), Turn(mirrors_x=True)), ())
    averaged = averaging.outputs(slanting, images, (16, 31), head, 16)["confmaps"]
    expected = images[:, ::2, ::2] + 7.5
    assert np.abs(averaged - expected).max() < 1e-5


def test_an_edge_whose_partner_is_lacking_has_the_views_that_are_not_mirrored():
    skeleton = Skeleton(NAMES, ((0, 1), (0, 3)), ((1, 2),))
    head = head_of("multi_instance", skeleton, offsets=False)
    views = [
        (turn, {"confmaps": tf.zeros((1, 1, 1, 4)), "pafs": tf.fill((1, 1, 1, 4), value)})
        for turn, value in ((Turn(), 1.0), (Turn(mirrors_x=True), 5.0))
    ]
    fields = head.averaged(views, skeleton.symmetries)["pafs"][0, 0, 0].numpy()
    # Of the edge to the tail x is turned around, y is not.
    assert fields.tolist() == [1, 1, -2, 3]


def test_an_edge_that_leads_back_in_a_mirrored_image_is_turned_around():
    skeleton = Skeleton(NAMES, ((1, 2),), ((1, 2),))
    head = head_of("multi_instance", skeleton, offsets=False)
    views = [
        (turn, {"confmaps": tf.zeros((1, 1, 1, 4)), "pafs": tf.constant(value, shape=(1, 1, 1, 2))})
        for turn, value in ((Turn(), (3.0, 1.0)), (Turn(mirrors_x=True), (3.0, -1.0)))
    ]
    fields = head.averaged(views, skeleton.symmetries)["pafs"][0, 0, 0].numpy()
    assert fields.tolist() == [3, 1]


def test_a_centroid_with_a_partner_is_not_found_in_mirrored_images():
    sided, middle = (head_of("centroid", offsets=False, anchor=NAMES[i]) for i in (1, 0))
    views = [
        (turn, {"confmaps": tf.fill((1, 1, 1, 1), value)})
        for turn, value in ((Turn(), 1.0), (Turn(mirrors_x=True), 0.0))
    ]
    found = [head.averaged(views, SKELETON.symmetries)["confmaps"] for head in (sided, middle)]
    assert [float(maps[0, 0, 0, 0]) for maps in found] == [1.0, 0.5]


# All around it


class Pixels:
    """A network of one keypoint whose map is the image at each cell."""

    name, layers, variables = "pixels", (), ()

    def __call__(self, images, training):
        return images[:, ::2, ::2] / 255


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
@pytest.mark.parametrize("size", [(31, 45), (32, 64)])
def test_points_are_the_same_with_and_without(monkeypatch, size, input_scale):
    monkeypatch.setattr("hgtrain.predict.predictor.any_size", lambda model: model)
    rows, columns = np.mgrid[: size[0], : size[1]]
    spot = np.exp(-((columns - 20.3) ** 2 + (rows - 11.6) ** 2) / (2 * 6.0**2))
    images = np.round(255 * spot).astype(np.uint8)[None, ..., None]
    head = head_of("single_instance", Skeleton(("a",)), offsets=False, sigma_px=6 * input_scale)
    found = [
        Predictor(Pixels(), head, Preprocessing(1, input_scale, 16), 1, "unbiased", averaging)
        for averaging in (None, Averaging(ALL, ()))
    ]
    plain, averaged = (predictor(images).points[0, 0, 0] for predictor in found)
    assert np.abs(plain - averaged).max() < 1e-3
    assert np.abs(averaged - (20.3, 11.6)).max() < 0.2
