from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from hgtrain.data.dataset import PoseDataset
from hgtrain.data.formats.deepposekit import open_file, recognises
from hgtrain.errors import DatasetError

IMAGES = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5, 1)
POINTS = np.arange(2 * 3 * 2, dtype=np.float64).reshape(2, 3, 2)
SKELETON = np.array([[-1, -1], [0, 2], [0, 1]])
FLY100 = Path(__file__).parents[3].parent / "shared" / "data" / "fly100.h5"


def make(path: Path, **changes) -> Path:
    """Write a good file of 2 frames and 3 annotated keypoints.

    `changes` replace datasets, None leaves one out.
    """
    datasets = {
        "images": IMAGES,
        "annotations": POINTS,
        "annotated": np.ones((2, 3), bool),
        "skeleton": SKELETON,
    }
    datasets |= {"skeleton_names": np.array([b"head", b"left", b"right"])}
    with h5py.File(path, "w") as file:
        for name, value in (datasets | changes).items():
            if value is not None:
                file[name] = value
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flies.h5"


def test_a_file_gives_points_edges_and_partners(path):
    with closing(open_file(make(path))) as dataset:
        assert isinstance(dataset, PoseDataset)
        assert (dataset.format, len(dataset), dataset.image_shape) == ("DeepPoseKit", 2, (4, 5, 1))
        assert dataset.keypoint_names == ("head", "left", "right")
        assert (dataset.edges, dataset.symmetries, dataset.notes) == (
            ((0, 1), (0, 2)),
            ((1, 2),),
            (),
        )
        np.testing.assert_array_equal(dataset[1].keypoints, [[[6, 7], [8, 9], [10, 11]]])
        np.testing.assert_array_equal(dataset[1].image, IMAGES[1])


def test_not_annotated_is_not_labelled_and_keeps_its_point(path):
    with closing(
        open_file(make(path, annotated=np.array([[True, False, True], [True] * 3])))
    ) as dataset:
        assert dataset.visibility[0].tolist() == [[2, 0, 2]]
        assert dataset.points[0, 0, 1].tolist() == [2, 3]
        assert dataset.flags_path == f"{path}:/annotated"


def test_annotated_only_false_counts_all_points_as_visible(path):
    points = POINTS.copy()
    points[0, 2] = np.nan
    with closing(
        open_file(make(path, annotations=points, annotated=np.zeros((2, 3), bool)), False)
    ) as dataset:
        assert dataset.visibility[0].tolist() == [[2, 2, 0]]


def test_annotated_and_nan_is_absent(path):
    points = POINTS.copy()
    points[0, 1] = np.nan
    with closing(open_file(make(path, annotations=points))) as dataset:
        assert dataset.visibility[0].tolist() == [[2, 2, 2]]
        assert np.isnan(dataset.points[0, 0, 1]).all()


def test_flags_may_be_integers(path):
    with closing(
        open_file(make(path, annotated=np.array([[1, 0, 1], [1, 1, 1]], np.uint8)))
    ) as dataset:
        assert dataset.visibility[0].tolist() == [[2, 0, 2]]


def test_names_come_from_the_table_beside_the_file(path):
    make(path, skeleton_names=None)
    path.with_name("flies.skeleton.csv").write_text("name,parent,swap\na,,\nb,a,c\nc,a,b\n")
    with closing(open_file(path)) as dataset:
        assert dataset.keypoint_names == ("a", "b", "c")


TABLE = "name,parent,swap\nhead,,\nleft,head,right\nright,head,left\n"


@pytest.mark.parametrize("name", ["skeleton.csv", "flies.skeleton.csv"])
@pytest.mark.parametrize("stored", [None, np.full((3, 2), -1)])
def test_names_parents_and_partners_come_from_the_table_where_the_file_has_none(path, name, stored):
    make(path, skeleton_names=None, skeleton=stored)
    path.with_name(name).write_text(TABLE)
    with closing(open_file(path)) as dataset:
        assert dataset.keypoint_names == ("head", "left", "right")
        assert (dataset.edges, dataset.symmetries, dataset.notes) == (
            ((0, 1), (0, 2)),
            ((1, 2),),
            (),
        )


def test_what_the_file_has_goes_before_the_table(path):
    make(path, skeleton=np.array([[-1, -1], [0, -1], [1, -1]]))
    path.with_name("skeleton.csv").write_text(TABLE)
    with closing(open_file(path)) as dataset:
        assert (dataset.edges, dataset.symmetries) == (((0, 1), (1, 2)), ((1, 2),))


@pytest.mark.parametrize("table", ["name\na\nb\n", "x,y\n1,2\n"])
def test_a_table_of_another_file_in_the_folder_is_left_alone(path, table):
    make(path, skeleton_names=None)
    path.with_name("skeleton.csv").write_text(table)
    with closing(open_file(path)) as dataset:
        assert dataset.keypoint_names == ("keypoint0", "keypoint1", "keypoint2")


def test_a_parent_that_is_no_keypoint_is_refused(path):
    make(path, skeleton_names=None, skeleton=None)
    path.with_name("skeleton.csv").write_text(TABLE.replace("left,head", "left,haed"))
    with pytest.raises(
        DatasetError, match=r"skeleton\.csv: the parent of left is 'haed', which is no name"
    ):
        open_file(path)


def test_without_names_keypoints_are_numbered_with_a_note(path):
    with closing(open_file(make(path, skeleton_names=None))) as dataset:
        assert dataset.keypoint_names == ("keypoint0", "keypoint1", "keypoint2")
        assert "no /skeleton_names" in dataset.notes[0]


def test_a_partner_that_only_one_side_names_counts(path):
    with closing(open_file(make(path, skeleton=np.array([[-1, -1], [0, 2], [0, -1]])))) as dataset:
        assert dataset.symmetries == ((1, 2),)


def test_contradicting_partners_are_paired_once_and_noted(path):
    with closing(open_file(make(path, skeleton=np.array([[-1, 1], [0, 2], [0, 1]])))) as dataset:
        assert dataset.symmetries == ((1, 2),)
        assert dataset.notes == (f"{path}:/skeleton: the partners of head contradict each other.",)


def test_only_files_with_annotations_are_recognised(path):
    with h5py.File(make(path)) as file:
        assert recognises(file)
    with h5py.File(make(path, annotations=None)) as file:
        assert not recognises(file)


def infinite() -> np.ndarray:
    points = POINTS.copy()
    points[1, 2, 1] = -np.inf
    return points


BROKEN = {
    "no images": (
        {"images": None},
        r"flies\.h5 has no /images: the file holds /annotated, /annotations, /skeleton",
    ),
    "no flags": ({"annotated": None}, r"flies\.h5 has no /annotated"),
    "no skeleton": ({"skeleton": None}, r"flies\.h5 has no /skeleton: "),
    "float images": ({"images": IMAGES / 255}, r":/images is float64, expected uint8"),
    "frames": (
        {"annotations": POINTS[:1]},
        r":/images has 2 frames .* but .*:/annotations has 1 \(1, 3, 2\)",
    ),
    "axis": (
        {"annotations": POINTS.transpose(0, 2, 1)},
        r":/annotations has shape \(2, 2, 3\), expected",
    ),
    "infinite": (
        {"annotations": infinite()},
        r":/annotations\[1, 2, 1\] is -inf, expected a finite",
    ),
    "flag shape": (
        {"annotated": np.ones((2, 4), bool)},
        r":/annotated has shape \(2, 4\), expected \(2, 3\) because",
    ),
    "flag value": (
        {"annotated": np.full((2, 3), 3)},
        r":/annotated\[0, 0\] is 3, expected one of \[0, 1\]",
    ),
    "flag type": (
        {"annotated": np.ones((2, 3))},
        r":/annotated is float64, expected \(frames, keypoints\) bool",
    ),
    "skeleton shape": (
        {"skeleton": SKELETON[:2]},
        r":/skeleton has shape \(2, 2\), expected \(3, 2\) because",
    ),
    "parent": (
        {"skeleton": np.array([[8, -1]] * 3)},
        r":/skeleton\[0, 0\] is 8, expected a keypoint out of 0 to 2, or -1",
    ),
    "own parent": (
        {"skeleton": np.array([[0, -1]] * 3)},
        r":/skeleton_names: edge \(0, 0\) must join two different",
    ),
    "names": (
        {"skeleton_names": np.array([b"a", b"b"])},
        r":/skeleton_names has 2 names, but .*/annotations has 3",
    ),
    "names twice": (
        {"skeleton_names": np.array([b"a", b"b", b"a"])},
        r"'a' of keypoint 2 is also keypoint 0",
    ),
    "names type": (
        {"skeleton_names": np.arange(3)},
        r":/skeleton_names is int64, expected \(keypoints,\) strings",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_with_path_and_value(path, changes, message):
    make(path, **changes)
    with pytest.raises(DatasetError, match=message):
        open_file(path)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name\na\nb\n", r"flies\.skeleton\.csv has 2 names, but .*/annotations has 3 keypoints"),
        ("parent\na\nb\n", r"flies\.skeleton\.csv cannot be read as a table with a column 'name'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(path, table, message):
    make(path, skeleton_names=None)
    path.with_name("flies.skeleton.csv").write_text(table)
    with pytest.raises(DatasetError, match=message):
        open_file(path)


@pytest.mark.shared
@pytest.mark.skipif(not FLY100.exists(), reason="../shared/data/fly100.h5 is not there")
def test_the_published_flies_open_with_nothing_labelled_and_all_pairs():
    with closing(open_file(FLY100)) as dataset:
        assert (len(dataset), dataset.visibility.max(), dataset.keypoint_names[11]) == (
            100,
            0,
            "midlegR2",
        )
        # The file gives midlegR2, midlegR3 and midlegL2 partners that contradict each other.
        assert {(11, 23), (12, 24), (30, 31)} <= set(dataset.symmetries)
        assert len(dataset.symmetries) == 14
