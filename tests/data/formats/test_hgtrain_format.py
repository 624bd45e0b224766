import json
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from hgtrain.data.dataset import PoseDataset
from hgtrain.data.formats.hgtrain_format import open_file, recognises
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton

NAMES = ("head", "left", "right")
IMAGES = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8, 1)
POINTS = np.arange(4 * 3 * 2, dtype=np.float32).reshape(4, 3, 2)


def make(path: Path, **changes) -> Path:
    """Write a good file of 4 frames, 6 x 8, 3 keypoints.

    `changes` replace datasets and attributes, None leaves out.
    """
    datasets = {"images": IMAGES, "keypoints": POINTS}
    attributes = {"keypoint_names": list(NAMES), "edges": [[0, 1], [0, 2]], "symmetries": [[1, 2]]}
    attributes |= {"format": "hgtrain", "version": 1}
    with h5py.File(path, "w") as file:
        for target, items in ((file, datasets), (file.attrs, attributes)):
            for name, value in items.items():
                value = changes.pop(name, value)
                if value is not None:
                    target[name] = value
        for name, value in changes.items():
            file[name] = value
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flies.h5"


def test_a_file_gives_its_images_points_and_skeleton(path):
    with closing(open_file(make(path))) as dataset:
        assert isinstance(dataset, PoseDataset)
        assert (len(dataset), dataset.image_shape, dataset.format) == (4, (6, 8, 1), "hgtrain")
        assert (dataset.keypoint_names, dataset.edges, dataset.symmetries) == (
            NAMES,
            ((0, 1), (0, 2)),
            ((1, 2),),
        )
        np.testing.assert_array_equal(dataset[2].image, IMAGES[2])
        np.testing.assert_array_equal(dataset[2].keypoints, [[[12, 13], [14, 15], [16, 17]]])
        assert (dataset.groups, dataset.notes) == (None, ())


def test_points_are_float32_and_one_instance_gets_its_axis(path):
    with closing(open_file(make(path, keypoints=POINTS.astype(np.float64)))) as dataset:
        assert dataset.points.dtype == np.float32
        assert dataset.points.shape == (4, 1, 3, 2)


def test_several_instances_are_kept(path):
    with closing(open_file(make(path, keypoints=np.stack([POINTS, POINTS + 1], 1)))) as dataset:
        np.testing.assert_array_equal(dataset.points[1, 1, 0], [7, 8])


def test_images_come_in_the_order_asked_for_with_repeats_and_from_the_end(path):
    with closing(open_file(make(path))) as dataset:
        np.testing.assert_array_equal(dataset.read_images([3, 0, 3, -3]), IMAGES[[3, 0, 3, 1]])


def test_no_indices_give_no_images(path):
    with closing(open_file(make(path))) as dataset:
        assert dataset.read_images([]).shape == (0, 6, 8, 1)


def test_negative_indices_count_from_the_end(path):
    with closing(open_file(make(path))) as dataset:
        np.testing.assert_array_equal(dataset[-1].image, IMAGES[3])


@pytest.mark.parametrize("index", [4, -5])
def test_an_index_outside_names_it_and_the_length(path, index):
    with (
        closing(open_file(make(path))) as dataset,
        pytest.raises(IndexError, match=rf"frame {index} .* has 4 frames"),
    ):
        dataset[index]


def test_a_location_is_file_path_and_row(path):
    with closing(open_file(make(path))) as dataset:
        assert dataset.location(-1) == f"{path}:/images[3]"


def test_after_close_the_labels_stay_and_images_are_an_error(path):
    dataset = open_file(make(path))
    dataset.close()
    assert dataset.points.shape == (4, 1, 3, 2)
    with pytest.raises(ValueError, match=r"flies\.h5 is closed"):
        dataset.read_images([0])


def test_without_visibility_nan_is_not_labelled_and_the_rest_visible(path):
    points = POINTS.copy()
    points[0, 1] = np.nan
    with closing(open_file(make(path, keypoints=points))) as dataset:
        assert dataset.visibility[0].tolist() == [[2, 0, 2]]


def test_one_missing_coordinate_makes_both_nan(path):
    points = POINTS.copy()
    points[0, 1, 0] = np.nan
    with closing(open_file(make(path, keypoints=points))) as dataset:
        assert np.isnan(dataset.points[0, 0, 1]).all()
        assert dataset.visibility[0].tolist() == [[2, 0, 2]]


def test_nan_with_a_visibility_is_absent_and_kept(path):
    points, visibility = POINTS.copy(), np.full((4, 3), 2, np.uint8)
    points[0, 1] = np.nan
    visibility[0] = [1, 2, 0]
    with closing(open_file(make(path, keypoints=points, visibility=visibility))) as dataset:
        assert dataset.visibility[0].tolist() == [[1, 2, 0]]
        assert np.isnan(dataset.points[0, 0, 1]).all()


def test_annotated_only_false_counts_finite_points_as_visible(path):
    points = POINTS.copy()
    points[0, 1] = np.nan
    with closing(
        open_file(make(path, keypoints=points, visibility=np.zeros((4, 3), np.uint8)), False)
    ) as dataset:
        assert dataset.visibility[0].tolist() == [[2, 0, 2]]


@pytest.mark.parametrize(
    "group",
    [["a", "b", "a", "b"], np.array([b"a", b"b", b"a", b"b"]), np.array([3, 4, 3, 4])],
    ids=["str", "S", "int"],
)
def test_groups_are_strings_however_stored(path, group):
    with closing(open_file(make(path, group=group))) as dataset:
        assert dataset.groups.tolist() == [
            str(g.decode() if isinstance(g, bytes) else g) for g in group
        ]


@pytest.mark.parametrize(
    "names", [json.dumps(NAMES), np.array(NAMES, "S8"), list(NAMES)], ids=["json", "S", "str"]
)
def test_names_are_read_however_stored(path, names):
    with closing(open_file(make(path, keypoint_names=names))) as dataset:
        assert dataset.keypoint_names == NAMES


def test_edges_may_be_json_or_empty(path):
    with closing(
        open_file(make(path, edges="[[0, 1]]", symmetries=np.empty((0, 2), int)))
    ) as dataset:
        assert (dataset.edges, dataset.symmetries) == (((0, 1),), ())


def test_a_file_without_names_numbers_them_and_says_so(path):
    with closing(open_file(make(path, keypoint_names=None))) as dataset:
        assert dataset.keypoint_names == ("keypoint0", "keypoint1", "keypoint2")
        assert "no attribute keypoint_names" in dataset.notes[0]


def test_compressed_images_with_known_filters_are_read(path):
    make(path, images=None)
    with h5py.File(path, "a") as file:
        file.create_dataset(
            "images", data=IMAGES, compression="gzip", shuffle=True, fletcher32=True
        )
    with closing(open_file(path)) as dataset:
        np.testing.assert_array_equal(dataset.read_images(range(4)), IMAGES)


def test_images_never_written_are_black_where_the_dataset_is_small(path):
    make(path, images=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("images", (4, 6, 8, 1), np.uint8)
    with closing(open_file(path)) as dataset:
        assert dataset.read_images(range(4)).max() == 0


@pytest.mark.parametrize(
    ("changes", "expected"), [({"format": None}, True), ({"keypoints": None}, True)]
)
def test_the_mark_or_the_datasets_are_enough_to_recognise_a_file(path, changes, expected):
    with h5py.File(make(path, **changes)) as file:
        assert recognises(file) is expected


def test_a_file_with_neither_mark_nor_keypoints_is_not_recognised(path):
    with h5py.File(make(path, format=None, keypoints=None)) as file:
        assert not recognises(file)


def visibility_with(value: int) -> np.ndarray:
    visibility = np.full((4, 3), 2)
    visibility[3, 1] = value
    return visibility


def infinite() -> np.ndarray:
    points = POINTS.copy()
    points[2, 1, 0] = np.inf
    return points


BROKEN = {
    "keypoints missing": (
        {"keypoints": None},
        r"flies\.h5 has no /keypoints: the file holds /images",
    ),
    "images missing": ({"images": None}, r"flies\.h5 has no /images: the file holds /keypoints"),
    "images float": (
        {"images": IMAGES.astype("f4")},
        r"flies\.h5:/images is float32, expected uint8: scale",
    ),
    "images uint16": (
        {"images": IMAGES.astype("u2")},
        r"flies\.h5:/images is uint16, expected uint8",
    ),
    "images rank": (
        {"images": IMAGES[..., 0]},
        r":/images has shape \(4, 6, 8\), expected \(frames, height",
    ),
    "images strings": ({"images": ["a", "b"]}, r":/images is object, expected"),
    "images two channels": (
        {"images": np.zeros((4, 6, 8, 2), "u1")},
        r":/images has shape \(4, 6, 8, 2\) with 2 channels, expected .*1 or 3\)$",
    ),
    "channels first": (
        {"images": IMAGES.transpose(0, 3, 1, 2)},
        r":/images .* 8 channels.* channels seem to come first",
    ),
    "no frames": (
        {"images": IMAGES[:0], "keypoints": POINTS[:0]},
        r":/images has shape \(0, 6, 8, 1\).* no empty axis",
    ),
    "no keypoints": (
        {"keypoints": POINTS[:, :0]},
        r":/keypoints has shape \(4, 0, 2\).* no empty axis",
    ),
    "frames differ": (
        {"keypoints": POINTS[:3]},
        r":/images has 4 frames \(4, 6, 8, 1\) but .*:/keypoints has 3 \(3, 3, 2\)",
    ),
    "keypoints rank": ({"keypoints": POINTS[:, 0]}, r":/keypoints has shape \(4, 2\), expected"),
    "keypoints 3d": (
        {"keypoints": np.zeros((4, 3, 3))},
        r":/keypoints has shape \(4, 3, 3\), expected 2 \(x, y\)",
    ),
    "keypoints text": (
        {"keypoints": np.full((4, 3, 2), "a", object)},
        r":/keypoints is object, expected .* float",
    ),
    "keypoints infinite": (
        {"keypoints": infinite()},
        r":/keypoints\[2, 1, 0\] is inf, expected a finite",
    ),
    "keypoints huge": (
        {"keypoints": POINTS.astype("f8") + 1e39},
        r":/keypoints\[0, 0, 0\] is 1e\+39, expected a finite",
    ),
    "keypoints group": (
        {"keypoints": None, "keypoints/x": POINTS},
        r":/keypoints is a group, expected a dataset",
    ),
    "visibility 7": (
        {"visibility": visibility_with(7)},
        r":/visibility\[3, 1\] is 7, expected one of \[0, 1, 2\]",
    ),
    "visibility negative": (
        {"visibility": visibility_with(-1)},
        r":/visibility\[3, 1\] is -1, expected one of",
    ),
    "visibility shape": (
        {"visibility": visibility_with(0)[:, :2]},
        r":/visibility has shape \(4, 2\), expected \(4, 3\) because .*:/keypoints has \(4, 3, 2\)",
    ),
    "visibility float": (
        {"visibility": np.ones((4, 3))},
        r":/visibility is float64, expected \(4, 3\) uint8",
    ),
    "group length": ({"group": ["a", "b"]}, r":/keypoints has 4 frames .* but .*:/group has 2"),
    "group float": (
        {"group": np.ones(4)},
        r":/group is float64, expected \(frames,\) strings or integers",
    ),
    "names count": (
        {"keypoint_names": ["a", "b"]},
        r"keypoint_names of / has 2 names, but .*:/keypoints has 3",
    ),
    "names repeated": (
        {"keypoint_names": ["a", "b", "a"]},
        r"name 'a' of keypoint 2 is also keypoint 0",
    ),
    "names empty": ({"keypoint_names": ["a", "", "c"]}, r"name '' of keypoint 1 is empty"),
    "names numbers": (
        {"keypoint_names": [1, 2, 3]},
        r"attribute keypoint_names of / holds .*1.*, expected strings",
    ),
    "names no list": (
        {"keypoint_names": "head"},
        r"attribute keypoint_names of / cannot be read as a list",
    ),
    "edge outside": (
        {"edges": [[0, 3]]},
        r"edge \(0, 3\) must join two different keypoints out of 0 to 2",
    ),
    "edge to itself": ({"edges": [[1, 1]]}, r"edge \(1, 1\) must join two different"),
    "edges float": (
        {"edges": [[0.5, 1.0]]},
        r"attribute edges of / is float64 of shape \(1, 2\), expected pairs",
    ),
    "edges shape": (
        {"edges": [0, 1, 2]},
        r"attribute edges of / is int64 of shape \(3,\), expected pairs",
    ),
    "symmetry twice": (
        {"symmetries": [[0, 1], [1, 2]]},
        r"keypoint 1 \(left\) is in more than one symmetry",
    ),
    "version newer": ({"version": 2}, r"flies\.h5 has version 2 .* reads up to 1: upgrade hgtrain"),
    "version array": (
        {"version": np.zeros((3, 3))},
        r"attribute version of / is array\(\[\[0\., 0\., 0\.\], \[0\., .*\]\]\), expected 1",
    ),
    "names array": (
        {"keypoint_names": np.zeros((3, 2, 2))},
        r"attribute keypoint_names of / holds array\(\[\[0\., 0\.\], .*\]\), expected str",
    ),
    "version text": ({"version": "new"}, r"attribute version of / is 'new', expected 1"),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_with_path_and_value(path, changes, message):
    make(path, **changes)
    with pytest.raises(DatasetError, match=message):
        open_file(path)


def test_groups_of_lists_are_refused(path):
    with h5py.File(make(path), "a") as file:
        file.create_dataset("group", (4,), h5py.vlen_dtype(np.int32))
    with pytest.raises(
        DatasetError, match=r":/group is object, expected \(frames,\) strings or integers"
    ):
        open_file(path)


def test_a_refused_file_is_not_kept_open(path):
    make(path, keypoints=None)
    with pytest.raises(DatasetError, match="no /keypoints"):
        open_file(path)
    with h5py.File(path, "a") as file:
        assert file.mode == "r+"


def frames(count: int = 4):
    return [(IMAGES[i], POINTS[i], None, None) for i in range(count)]


SKELETON = Skeleton(NAMES, ((0, 1),), ((1, 2),))


def test_what_is_written_is_read_again(path):
    assert write_dataset(path, SKELETON, iter(frames())) == 4
    with closing(open_file(path)) as dataset:
        np.testing.assert_array_equal(dataset.read_images(range(4)), IMAGES)
        np.testing.assert_array_equal(dataset.points[:, 0], POINTS)
        assert (dataset.keypoint_names, dataset.edges, dataset.symmetries) == SKELETON
        assert (dataset.groups, dataset.notes, dataset.visibility.min()) == (None, (), 2)


def test_more_frames_than_a_block_are_written(path):
    image = np.zeros((2, 2, 1), np.uint8)
    write_dataset(
        path, SKELETON, ((image + i % 7, POINTS[0], None, f"video{i % 3}") for i in range(600))
    )
    with closing(open_file(path)) as dataset:
        assert (len(dataset), dataset.groups[599], dataset.read_images([599]).max()) == (
            600,
            "video2",
            4,
        )


def test_frames_with_fewer_animals_are_padded_as_not_labelled(path):
    two = np.stack([POINTS[0], POINTS[1]])
    visibility = np.array([[1, 2, 0], [2, 2, 2]])
    write_dataset(path, SKELETON, [frames()[0], (IMAGES[1], two, visibility, None)])
    with closing(open_file(path)) as dataset:
        assert dataset.visibility.tolist() == [[[2, 2, 2], [0, 0, 0]], [[1, 2, 0], [2, 2, 2]]]
        assert np.isnan(dataset.points[0, 1]).all()


def test_an_image_is_one_compressed_chunk(path):
    write_dataset(path, SKELETON, frames())
    with h5py.File(path) as file:
        assert (file["images"].chunks, file["images"].compression) == ((1, 6, 8, 1), "gzip")
        assert (file.attrs["format"], file.attrs["version"]) == ("hgtrain", 1)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path):
    write_dataset(path, SKELETON, frames())
    before = path.read_bytes()

    def failing():
        yield from frames(2)
        raise RuntimeError("camera gone")

    with pytest.raises(RuntimeError, match="camera gone"):
        write_dataset(path, SKELETON, failing())
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["flies.h5"]


UNWRITABLE = {
    "no frames": (SKELETON, [], r"flies\.h5: there are no frames to write"),
    "edge": (Skeleton(NAMES, ((0, 9),)), frames(), r"flies\.h5: skeleton: edge \(0, 9\) must join"),
    "names": (
        Skeleton(("a", "a", "b")),
        frames(),
        r"skeleton: the name 'a' of keypoint 1 is also keypoint 0",
    ),
    "first image": (
        SKELETON,
        [(IMAGES[0, ..., 0], POINTS[0], None, None)],
        r"frame 0 has an image of shape \(6, 8\)",
    ),
    "image shape": (
        SKELETON,
        [*frames(1), (IMAGES[1, :5], POINTS[1], None, None)],
        r"frame 1: .* uint8 \(5, 8, 1\), exp",
    ),
    "image type": (
        SKELETON,
        [(IMAGES[0] / 255, POINTS[0], None, None)],
        r"frame 0: the image is float64 \(6, 8, 1\)",
    ),
    "keypoints": (
        SKELETON,
        [(IMAGES[0], POINTS[0, :2], None, None)],
        r"frame 0: .* shape \(1, 2, 2\), expected .* 3, 2\)",
    ),
    "nul": (
        Skeleton(("a", "b\0b", "c")),
        frames(),
        r"skeleton: the name 'b\\x00b' has a character that HDF5 cannot hold",
    ),
    "half a character": (
        Skeleton(("a", "b", "\ud800")),
        frames(),
        r"skeleton: the name '\\ud800' has a character that HDF5 cannot hold",
    ),
    "padding": (
        Skeleton(("a", "a ", "b")),
        frames(),
        r"skeleton: the name 'a' of keypoint 1 is also keypoint 0",
    ),
    "infinity": (
        SKELETON,
        [(IMAGES[0], np.where(POINTS[0] == 2, np.inf, POINTS[0]), None, None)],
        r"frame 0: a point is at infinity, expected finite coordinates or NaN",
    ),
    "visibility": (
        SKELETON,
        [(IMAGES[0], POINTS[0], np.array([0, 5, 2]), None)],
        r"frame 0: .* values \[0, 2, 5\]",
    ),
}


def test_a_group_named_after_a_file_in_another_encoding_is_written(path):
    write_dataset(path, SKELETON, [(IMAGES[0], POINTS[0], None, "caf\udce9.avi")])
    with closing(open_file(path, True)) as dataset:
        assert dataset.groups.tolist() == ["caf?.avi"]


@pytest.mark.parametrize(("skeleton", "written", "message"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_cannot_be_written_is_refused(path, skeleton, written, message):
    with pytest.raises(DatasetError, match=message):
        write_dataset(path, skeleton, written)
    assert not path.exists()


def test_a_missing_folder_is_named(path):
    with pytest.raises(DatasetError, match=r"no folder .*missing"):
        write_dataset(path.parent / "missing" / "flies.h5", SKELETON, frames())


def test_what_pads_a_name_is_left_out(path):
    write_dataset(path, Skeleton(("a\0", "b", "c")), frames())
    with closing(open_file(path)) as dataset:
        assert dataset.keypoint_names == ("a", "b", "c")
