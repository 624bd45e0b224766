import json
import re
import shlex
from contextlib import closing

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hgtrain.cli import commands
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.inspection.checks import (
    far_off,
    inspect_datasets,
    inspect_safely,
)
from hgtrain.data.inspection.preview import keypoint_colours, write_preview
from hgtrain.data.inspection.report import report_text
from hgtrain.data.inspection.swaps import swapped_pairs
from hgtrain.data.media.drawing import COLOURS
from hgtrain.data.open import open_all
from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton, left_right_pairs

SKELETON = Skeleton(("nose", "tail", "ear_left", "ear_right"), ((0, 1),), ((2, 3),))
# A body along x; left is above.
SHAPE = np.array([[10.0, 8], [2, 8], [9, 5], [9, 11]])


def frames(count=20):
    random = np.random.default_rng(0)
    for _ in range(count):
        image = random.integers(0, 256, (16, 16, 1), np.uint8)
        yield [
            image,
            (SHAPE + random.uniform(-0.5, 0.5, SHAPE.shape)).astype(np.float32),
            None,
            None,
        ]


def write(path, changed=None, skeleton=SKELETON):
    made = list(frames())
    if changed:
        changed(made)
    write_dataset(path, skeleton, [tuple(frame) for frame in made])
    return str(path)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flies.h5"


def found(report):
    return {problem["kind"]: problem["text"] for problem in report["problems"]}


def test_a_good_dataset_has_no_problems(path):
    report = inspect_datasets([write(path)])
    assert (report["problems"], report["usable"]) == ([], True)
    assert (report["frames"], report["image_shape"], report["image_bytes"]) == (
        20,
        [16, 16, 1],
        20 * 256,
    )
    assert report["keypoints_per_frame"] == {"min": 4, "mean": 4.0, "max": 4}
    assert report["animals"] == {"1": 20}


def test_missing_keypoints_are_counted_and_their_patterns_listed(path):
    def changed(made):
        for frame in made[:3]:
            frame[1][[0, 2]] = np.nan
        made[3][1][1] = np.nan

    report = inspect_datasets([write(path, changed)])
    assert [row["missing"] for row in report["per_keypoint"]] == [3, 1, 3, 0]
    assert report["missing_together"] == [
        {"keypoints": ["nose", "ear_left"], "animals": 3}, {"keypoints": ["tail"], "animals": 1},
    ]  # fmt: skip


def test_keypoints_outside_of_the_image_are_named(path):
    def changed(made):
        # Pixel centres are at integers: the last pixel ends at 15.5.
        made[4][1][0] = (15.4, 8)
        made[5][1][0] = (15.6, 8)

    report = inspect_datasets([write(path, changed)])
    assert found(report)["outside"] == f"1 keypoints lie outside of their image: {path}:/images[5]"
    assert report["per_keypoint"][0]["outside"] == 1


def test_blank_frames_are_named(path):
    def changed(made):
        made[7][0][:] = 9

    assert (
        found(inspect_datasets([write(path, changed)]))["blank"]
        == f"1 frames are blank: {path}:/images[7]"
    )


def test_a_dataset_of_blank_frames_is_unusable(path):
    def changed(made):
        for frame in made:
            frame[0][:] = 0

    assert not inspect_datasets([write(path, changed)])["usable"]


def test_frames_that_repeat_are_named(path):
    def changed(made):
        made[9][0] = made[3][0]

    text = found(inspect_datasets([write(path, changed)]))["duplicates"]
    assert text == f"1 frames repeat another pixel by pixel: {path}:/images[3], {path}:/images[9]"


def test_frames_that_repeat_across_the_split_are_named(path):
    def changed(made):
        for frame in made[10:]:
            frame[0] = made[0][0]
        for frame in made[:10]:
            frame[0] = made[0][0]

    text = found(inspect_datasets([write(path, changed)]))["duplicates_across_split"]
    assert text.startswith(
        "with data.validation: 0.1 and data.split_seed: 0, 2 validation frames are trained on too: "
    )


def test_frames_that_repeat_in_another_file_are_named(path, tmp_path):
    first, second = write(path), write(tmp_path / "other.h5")
    assert found(inspect_datasets([first, second]))["duplicates"].startswith(
        "20 frames repeat another"
    )


def test_left_and_right_that_are_exchanged_are_named(path):
    def changed(made):
        made[6][1][[2, 3]] = made[6][1][[3, 2]]

    text = found(inspect_datasets([write(path, changed)]))["swapped"]
    assert text == f"ear_left and ear_right look exchanged in 1 frames: {path}:/images[6]"


def test_animals_that_are_turned_are_not_exchanged():
    angles = np.linspace(0, 2 * np.pi, 20)
    turns = np.stack(
        [
            np.stack([np.cos(angles), -np.sin(angles)], -1),
            np.stack([np.sin(angles), np.cos(angles)], -1),
        ],
        1,
    )
    points = np.einsum("nij,kj->nki", turns, SHAPE) * np.linspace(1, 3, 20)[:, None, None] + 50
    assert not swapped_pairs(points, 2, 3).any()
    points[5, [2, 3]] = points[5, [3, 2]]
    assert np.flatnonzero(swapped_pairs(points, 2, 3)).tolist() == [5]


def test_animals_with_too_few_keypoints_are_not_exchanged():
    points = np.repeat(SHAPE[None], 3, 0)
    points[:, 0] = np.nan
    assert not swapped_pairs(points, 2, 3).any()


def test_names_with_sides_but_no_symmetries_are_warned_of(path):
    report = inspect_datasets([write(path, skeleton=Skeleton(SKELETON.keypoint_names))])
    assert found(report)["no_symmetries"].startswith(
        "names say left and right, but no symmetries are stored"
    )
    assert found(report)["no_symmetries"].endswith(
        f"`hgtrain convert {path} NEW.h5 --symmetry ear_left,ear_right` stores them"
    )


def test_partners_that_some_names_tell_and_the_file_lacks_are_warned_of(path):
    names = ("ear_left", "ear_right", "eye_left", "eye_right")
    report = inspect_datasets([write(path, skeleton=Skeleton(names, (), ((0, 1),)))])
    assert found(report)["missing_symmetries"].endswith(
        f"`hgtrain convert {path} NEW.h5 --symmetry eye_left,eye_right` stores them"
    )


def test_the_offered_command_sets_the_partners(path, tmp_path):
    spaced = tmp_path / "my flies.h5"
    write(spaced, skeleton=Skeleton(SKELETON.keypoint_names))
    text = found(inspect_datasets([str(spaced)]))["no_symmetries"]
    command = shlex.split(text.split("`")[1].replace("NEW.h5", str(path)))
    assert CliRunner().invoke(commands, command[1:]).exit_code == 0
    report = inspect_datasets([str(path)])
    names = report["keypoint_names"]
    assert report["symmetries"] == [[names.index("ear_left"), names.index("ear_right")]]
    assert "no_symmetries" not in found(report)


def test_a_keypoint_that_is_never_labelled_is_named(path):
    def changed(made):
        for frame in made:
            frame[1][1] = np.nan

    assert (
        found(inspect_datasets([write(path, changed)]))["never_labelled"] == "never labelled: tail"
    )


def test_a_dataset_without_labels_is_unusable(path):
    def changed(made):
        for frame in made:
            frame[1][:] = np.nan

    report = inspect_datasets([write(path, changed)])
    assert not report["usable"]
    assert "no_frames" in found(report)


def test_a_dataset_that_marks_nothing_as_annotated_is_looked_through_all_the_same(path):
    with h5py.File(path, "w") as file:
        file["images"] = np.stack([frame[0] for frame in frames()])
        file["annotations"] = np.repeat(SHAPE[None], 20, 0)
        file["annotated"] = np.zeros((20, 4), bool)
        file["skeleton"] = np.full((4, 2), -1)
    report = inspect_datasets([str(path)])
    assert report["usable"]
    assert report["notes"][-1].endswith("counted are all, as with data.annotated_only: false.")


# In a process of its own


def test_the_report_from_another_process_is_the_same(path):
    write(path)
    assert inspect_safely([str(path)]) == inspect_datasets([str(path)])


def test_a_refused_dataset_is_refused_with_its_message(tmp_path):
    with pytest.raises(DatasetError, match=r"nothing.h5: there is no such file"):
        inspect_safely([str(tmp_path / "nothing.h5")])


# The command


def test_the_command_prints_one_json_document(path):
    write(path)
    result = CliRunner().invoke(commands, ["inspect", str(path), "--json"])
    assert (result.exit_code, json.loads(result.stdout)["frames"]) == (0, 20)


def test_the_command_ends_with_1_for_an_unusable_dataset(path):
    def changed(made):
        for frame in made:
            frame[1][:] = np.nan

    write(path, changed)
    result = CliRunner().invoke(commands, ["inspect", str(path)])
    assert result.exit_code == 1
    assert "error: never labelled: nose, tail" in result.stdout


def test_the_command_draws_a_preview(path, tmp_path):
    write(path)
    result = CliRunner().invoke(
        commands, ["inspect", str(path), "--plot", str(tmp_path / "look.png")]
    )
    assert result.exit_code == 0, result.output
    with Image.open(tmp_path / "look.png") as picture:
        # 12 frames, 4 in a row, and below them the legend.
        assert picture.width == 4 * 320
        assert 3 * 320 < picture.height < 3.5 * 320
        assert len(picture.convert("RGB").getcolors(2**24)) > 100


def test_the_preview_shows_all_animals(tmp_path):
    # Bones at x 4 and 24, from y 2 to 12; 320 px for 32 are ten for one.
    left, right = (np.array([[x, 2], [x, 12]], np.float32) for x in (4, 24))
    image = np.zeros((32, 32, 1), np.uint8)
    skeleton = Skeleton(("a", "b"), ((0, 1),))
    frames = [(image, points, None, None) for points in (np.stack([left, right]), left[None])]
    nobody = np.full((1, 2, 2), np.nan, np.float32)
    write_dataset(tmp_path / "a.h5", skeleton, [*frames, (image, nobody, None, None)])
    with closing(open_all([str(tmp_path / "a.h5")])) as dataset:
        write_preview(dataset, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        middles = [
            picture.getpixel((int(10 * (x + 0.5) - 0.5), 75)) for x in (4, 24, 36, 56, 68, 88)
        ]
    assert middles == [COLOURS[0], COLOURS[1], COLOURS[0], (0, 0, 0), (0, 0, 0), (0, 0, 0)]


def test_the_preview_keeps_the_shape_of_the_images(tmp_path):
    # 320 px for 40 are eight for one: 20 rows are 160 px.
    points = np.array([[[30, 15], [np.nan, np.nan]]], np.float32)
    frame = (np.zeros((20, 40, 1), np.uint8), points, None, None)
    write_dataset(tmp_path / "a.h5", Skeleton(("a", "b"), ()), [frame] * 5)
    with closing(open_all([str(tmp_path / "a.h5")])) as dataset:
        write_preview(dataset, tmp_path / "a.png")
    first, second = keypoint_colours(2)
    with Image.open(tmp_path / "a.png") as picture:
        # The point of the fifth frame, which is the first of the second row.
        assert picture.getpixel((8 * 30 + 4, 160 + 8 * 15 + 4)) == first
        legend = picture.crop((0, 320, picture.width, picture.height))
        assert {first, second} <= {colour for _, colour in legend.getcolors(2**24)}


@pytest.mark.parametrize("count", [1, 2, 10, 40])
def test_each_keypoint_has_a_colour_of_its_own(count):
    assert len(set(keypoint_colours(count))) == count


def test_a_preview_that_cannot_be_written_is_refused(path, tmp_path):
    write(path)
    result = CliRunner().invoke(
        commands, ["inspect", str(path), "--plot", str(tmp_path / "look.xyz")]
    )
    assert isinstance(result.exception, DatasetError)
    assert "look.xyz cannot be written" in str(result.exception)


def test_the_text_lists_keypoints_and_problems(path):
    def changed(made):
        made[7][0][:] = 9

    text = report_text(inspect_datasets([write(path, changed)]))
    assert "frames     20 of 16x16x1, 0.0 MiB" in text
    assert "ear_right  20        0       0       0        0" in text
    assert text.endswith(f"warning: 1 frames are blank: {path}:/images[7]")


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("eyeL", "eyeR"),
        ("forelegL1", "forelegR1"),
        ("Ear_L", "Ear_R"),
        ("L_Eye", "R_Eye"),
        ("paw1LH", "paw1RH"),
        ("leftEar", "rightEar"),
        ("LeftHip", "RightHip"),
        ("HIP_LEFT", "HIP_RIGHT"),
        ("l_knee", "r_knee"),
        ("legl2", "legr2"),
    ],
)
def test_names_of_left_and_right_are_pairs(left, right):
    assert left_right_pairs(["nose", right, "tail", left, "Lure"]) == [(left, right)]


def test_names_without_a_partner_are_no_pairs():
    assert (
        left_right_pairs(["tail", "Lip", "leftEar", "rightEye", "eyeL", "earR", "plow", "prow"])
        == []
    )


def test_no_name_is_in_two_pairs():
    names = ["left_l", "left_r", "right_l", "right_r"]
    assert left_right_pairs(names) == [("left_l", "right_l"), ("left_r", "right_r")]


def test_a_keypoint_far_off_its_animal_is_named_with_its_frames(path):
    def move(made):
        # 50 px and more from a body of 8 px.
        made[7][1][1] = [90, 8]
        made[12][1][1] = [9, 60]

    text = found(inspect_datasets([write(path, move)]))["far_off"]
    assert re.fullmatch(r"tail is far off its animal in 2 frames: .*\b7\b.*\b12\b.*", text)


def test_good_labels_have_nothing_far_off(path):
    assert "far_off" not in found(inspect_datasets([write(path)]))


def test_animals_of_any_size_place_and_pose_have_nothing_far_off():
    random = np.random.default_rng(0)
    turns = np.exp(1j * random.uniform(0, 2 * np.pi, (200, 1)))
    body = (SHAPE @ [1, 1j])[None] + 1j * random.uniform(-3, 3, (200, 4))
    shapes = turns * body * random.uniform(0.3, 10, (200, 1)) + random.uniform(0, 500, (200, 1))
    assert not far_off(np.stack([shapes.real, shapes.imag], -1)).any()


def test_too_few_animals_or_keypoints_have_nothing_far_off():
    points = np.tile(SHAPE, (20, 1, 1))
    points[3, 1] = 900
    assert far_off(points).sum() == 1
    assert not far_off(points[:9]).any()
    points[:, 0] = np.nan
    assert not far_off(points).any()
