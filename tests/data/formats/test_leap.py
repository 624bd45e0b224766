import pickle
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from hgtrain.data.dataset import PoseDataset
from hgtrain.data.formats.leap import open_file, recognises
from hgtrain.errors import DatasetError

# As MATLAB's box(row, column, 1, frame) and joints(joint, xy, frame) look from HDF5.
IMAGES = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5, 1)
BOX = IMAGES.transpose(0, 3, 2, 1)
JOINTS = np.array([[[1.0, 2, 3], [1, 4, 2]], [[5, 1, 2], [3, 3, 3]]])


def make(path: Path, **changes) -> Path:
    """Write a good file of 2 frames, 4 x 5, 3 joints.

    `changes` replace datasets, None leaves one out.
    """
    datasets = {"box": BOX, "joints": JOINTS, "exptID": np.array([[7.0, 9.0]])}
    datasets |= {"skeleton/edges": np.array([[1.0, 1.0], [2.0, 3.0]])}
    names = changes.pop("names", b"head\nleft\nright")
    with h5py.File(path, "w") as file:
        for name, value in (datasets | changes).items():
            if value is not None:
                file[name] = value
        if names is not None:
            file.require_group("skeleton").attrs["jointNames"] = names
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flies.h5"


def test_images_are_turned_to_height_width_channels(path):
    with closing(open_file(make(path))) as dataset:
        assert isinstance(dataset, PoseDataset)
        assert (dataset.format, len(dataset), dataset.image_shape) == ("LEAP", 2, (4, 5, 1))
        np.testing.assert_array_equal(dataset.read_images([1, 0]), IMAGES[[1, 0]])


@pytest.mark.parametrize(
    "as_stored", [lambda images: images, lambda images: images / np.float32(255)]
)
def test_pickled_images_are_opened_again(path, as_stored):
    with closing(open_file(make(path, box=as_stored(BOX)))) as dataset:
        again = pickle.loads(pickle.dumps(dataset.images))
        np.testing.assert_array_equal(again.read(np.array([0, 1])), IMAGES[[0, 1]])


def test_joints_become_x_y_counted_from_0(path):
    with closing(open_file(make(path))) as dataset:
        np.testing.assert_array_equal(dataset[0].keypoints, [[[0, 0], [1, 3], [2, 1]]])


def test_positions_are_read_where_there_are_no_joints(path):
    with closing(open_file(make(path, joints=None, positions=JOINTS))) as dataset:
        np.testing.assert_array_equal(dataset.points[1, 0, 0], [4, 2])


def test_names_and_edges_come_from_the_skeleton(path):
    with closing(open_file(make(path))) as dataset:
        assert dataset.keypoint_names == ("head", "left", "right")
        assert dataset.edges == ((0, 1), (0, 2))


def test_the_experiment_is_the_group(path):
    with closing(open_file(make(path))) as dataset:
        assert dataset.groups.tolist() == ["7", "9"]


def test_without_an_experiment_the_labelled_frame_is_the_group(path):
    with closing(open_file(make(path, exptID=None, labeledIdx=np.array([[3.0, 3.0]])))) as dataset:
        assert dataset.groups.tolist() == ["3", "3"]


def test_nan_is_not_labelled(path):
    joints = JOINTS.copy()
    joints[0, 0, 1] = np.nan
    with closing(open_file(make(path, joints=joints))) as dataset:
        assert dataset.visibility[0].tolist() == [[2, 0, 2]]


def test_float_images_become_uint8(path):
    with closing(open_file(make(path, box=(BOX / 255).astype(np.float32)))) as dataset:
        np.testing.assert_array_equal(dataset.read_images([0, 1]), IMAGES)


def test_files_in_pythons_order_are_counted_from_0(path):
    with closing(open_file(make(path, box=IMAGES, joints=JOINTS.transpose(0, 2, 1)))) as dataset:
        np.testing.assert_array_equal(dataset[0].image, IMAGES[0])
        np.testing.assert_array_equal(dataset.points[0, 0, 1], [2, 4])


def test_two_joints_follow_the_order_of_the_images(path):
    joints = np.array([[[1.0, 2], [3, 4]]] * 2)
    with closing(
        open_file(make(path, joints=joints, names="a\nb", **{"skeleton/edges": None}))
    ) as dataset:
        np.testing.assert_array_equal(dataset.points[0, 0], [[0, 2], [1, 3]])


def test_without_names_joints_are_numbered_with_a_note(path):
    with closing(open_file(make(path, names=None))) as dataset:
        assert dataset.keypoint_names[2] == "keypoint2"
        assert "no attribute jointNames" in dataset.notes[0]


def test_the_frames_set_aside_for_testing_are_noted(path):
    with closing(open_file(make(path, **{"testing/box": BOX}))) as dataset:
        assert dataset.notes == (f"The frames under {path}:/testing are left out.",)


def test_box_with_joints_or_positions_is_recognised(path):
    with h5py.File(make(path, joints=None, positions=JOINTS)) as file:
        assert recognises(file)
    with h5py.File(make(path, joints=None)) as file:
        assert not recognises(file)


BROKEN = {
    "no channels": (
        {"box": np.zeros((2, 4, 5, 6), "u1")},
        r":/box has shape \(2, 4, 5, 6\): no axis can be the chann",
    ),
    "two channels": (
        {"box": np.zeros((2, 3, 5, 1), "u1")},
        r":/box has shape \(2, 3, 5, 1\): two axes can be",
    ),
    "box rank": (
        {"box": BOX[:, 0]},
        r":/box has shape \(2, 5, 4\), expected \(frames, channels, width, height\)",
    ),
    "box type": ({"box": BOX.astype("u2")}, r":/box is uint16, expected uint8 or float in 0\.\.1"),
    "box range": (
        {"box": BOX.astype("f4")},
        r":/box\[0\] holds 2\.0, expected float images in 0\.\.1",
    ),
    "mixed order": (
        {"joints": JOINTS.transpose(0, 2, 1)},
        r":/joints has shape \(2, 3, 2\), expected \(frames, 2, keypoints\) because .*:/box has "
        r"\(2, 1, 5, 4\)",
    ),
    "frames": ({"joints": JOINTS[:1]}, r":/box has 2 frames .* but .*:/joints has 1 \(1, 2, 3\)"),
    "joints rank": (
        {"joints": JOINTS[0]},
        r":/joints has shape \(2, 3\), expected \(frames, 2, keypoints\)",
    ),
    "infinite": ({"joints": JOINTS + np.inf}, r":/joints\[0, 0, 0\] is inf, expected a finite"),
    "names": (
        {"names": "a\nb"},
        r":/skeleton names 2 joints in its attribute jointNames, but there are 3",
    ),
    "edge": (
        {"skeleton/edges": np.array([[1], [4]])},
        r":/skeleton: edge \(0, 3\) must join .* 0 to 2",
    ),
    "edge shape": (
        {"skeleton/edges": np.ones((3, 2))},
        r":/skeleton/edges has shape \(3, 2\), expected \(2, edges\)",
    ),
    "edge number": (
        {"skeleton/edges": np.array([[1.5], [2]])},
        r":/skeleton/edges holds \[\[1\.5\], \[2\.0\]\], exp",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_with_path_and_value(path, changes, message):
    make(path, **changes)
    with pytest.raises(DatasetError, match=message):
        open_file(path)


def test_a_later_frame_out_of_range_is_named(path):
    box = np.zeros((2, 1, 5, 4), np.float32)
    box[1, 0, 2, 3] = np.nan
    message = r":/box\[1\] holds nan, expected float images"
    with (
        closing(open_file(make(path, box=box))) as dataset,
        pytest.raises(DatasetError, match=message),
    ):
        dataset.read_images([0, 1])
