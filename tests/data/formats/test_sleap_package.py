import json
import pickle
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from hgtrain.data.dataset import PoseDataset
from hgtrain.data.formats import sleap_images
from hgtrain.data.formats.sleap_package import open_file, recognises
from hgtrain.errors import DatasetError

SHARED = Path(__file__).parents[3].parent / "shared" / "data"

FRAME = np.dtype(
    [
        ("frame_id", "u8"),
        ("video", "u4"),
        ("frame_idx", "u8"),
        ("instance_id_start", "u8"),
        ("instance_id_end", "u8"),
    ]
)
INSTANCE = np.dtype(
    [
        ("instance_type", "u1"),
        ("frame_id", "u8"),
        ("skeleton", "u4"),
        ("point_id_start", "u8"),
        ("point_id_end", "u8"),
    ]
)
POINT = np.dtype([("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")])

# Frame 5 has one user instance, frame 8 a predicted and a user instance, frame 9 only a predicted
# one.
FRAMES = np.array([(0, 0, 5, 0, 1), (1, 0, 8, 1, 3), (2, 0, 9, 3, 4)], FRAME)
INSTANCES = np.array([(0, 0, 0, 0, 2), (1, 1, 0, 0, 2), (0, 1, 0, 2, 4), (1, 2, 0, 2, 4)], INSTANCE)
POINTS = np.array(
    [(1, 2, True, True), (3, 4, True, True), (5, 6, True, True), (7, 8, False, True)], POINT
)
IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5, 1)
NEW_EDGE = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]}
NEW_SYMMETRY = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [2]}]}


def skeleton_json(links=(), nodes=(1, 0), names=("tail", "head")) -> dict:
    links = [dict(zip(("source", "target", "type"), link, strict=True)) for link in links]
    skeleton = {"graph": {"name": "fly"}, "links": links, "nodes": [{"id": node} for node in nodes]}
    return {"skeletons": [skeleton], "nodes": [{"name": name} for name in names]}


def encoded(image: np.ndarray, kind: str = "png") -> np.ndarray:
    buffer = BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, kind)
    return np.frombuffer(buffer.getvalue(), np.int8)


def add_video(
    file: h5py.File, group: str, images: list[np.ndarray], numbers: list[int], **attributes
) -> None:
    rows = file.create_dataset(f"{group}/video", (len(images),), h5py.vlen_dtype(np.int8))
    for row, image in enumerate(images):
        rows[row] = image
    rows.attrs.update({"format": "png", "height": 4, "width": 5, "channels": 1} | attributes)
    file[f"{group}/frame_numbers"] = np.array(numbers)


def make(
    path: Path, metadata: dict | None = None, format_id: float | None = 1.2, **changes
) -> Path:
    """Write a good package of 3 frames, 4 x 5; `changes` replace tables, None leaves one out.

    `video`: its images.
    """
    video = changes.pop("video", [encoded(image) for image in IMAGES])
    attributes = changes.pop("attributes", {})
    with h5py.File(path, "w") as file:
        for name, value in (
            {"frames": FRAMES, "instances": INSTANCES, "points": POINTS} | changes
        ).items():
            if value is not None:
                file[name] = value
        group = file.create_group("metadata")
        group.attrs["json"] = np.bytes_(json.dumps(metadata or skeleton_json()))
        if format_id is not None:
            group.attrs["format_id"] = format_id
        if video:
            add_video(file, "video0", video, [5, 8, 9][: len(video)], **attributes)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flies.pkg.slp"


def test_frames_with_user_instances_are_kept_with_their_images(path):
    with closing(open_file(make(path))) as dataset:
        assert isinstance(dataset, PoseDataset)
        assert (dataset.format, len(dataset), dataset.image_shape) == (
            "SLEAP package",
            2,
            (4, 5, 1),
        )
        np.testing.assert_array_equal(dataset.read_images([1, 0, 1]), IMAGES[[1, 0, 1]])
        np.testing.assert_array_equal(dataset[0].keypoints, [[[1, 2], [3, 4]]])
        assert dataset.location(1) == f"{path}:/video0/video[1]"


def test_what_is_left_out_is_counted(path):
    with closing(open_file(make(path))) as dataset:
        assert dataset.notes == (
            f"{path}: 2 predicted instances are left out, they are not labels.",
            f"{path}: 1 frames without a user instance are left out.",
        )


def test_user_frames_without_an_image_are_counted(path):
    with closing(open_file(make(path, video=[encoded(IMAGES[0])]))) as dataset:
        assert len(dataset) == 1
        assert dataset.notes[-1] == f"{path}: 1 frames without an embedded image are left out."


def test_a_point_that_is_not_visible_is_not_labelled(path):
    with closing(open_file(make(path))) as dataset:
        assert dataset.visibility[1].tolist() == [[2, 0]]
        assert np.isnan(dataset.points[1, 0, 1]).all()


def test_annotated_only_false_counts_it_as_visible(path):
    with closing(open_file(make(path), False)) as dataset:
        assert dataset.visibility[1].tolist() == [[2, 2]]
        assert dataset.points[1, 0, 1].tolist() == [7, 8]


@pytest.mark.parametrize(("format_id", "first"), [(1.0, [0.5, 1.5]), (1.1, [1, 2]), (None, [1, 2])])
def test_before_format_1_1_half_a_pixel_is_taken_off(path, format_id, first):
    with closing(open_file(make(path, format_id=format_id))) as dataset:
        assert dataset.points[0, 0, 0].tolist() == first


def test_names_follow_the_order_of_the_skeleton(path):
    with closing(open_file(make(path))) as dataset:
        assert dataset.keypoint_names == ("head", "tail")


def test_edges_and_symmetries_are_resolved_through_py_id(path):
    links = [(3, 2, NEW_EDGE), (2, 1, {"py/id": 1}), (1, 0, NEW_SYMMETRY), (0, 1, {"py/id": 2})]
    points = np.zeros(8, POINT)
    instances = INSTANCES[:1].copy()
    instances["point_id_end"] = 4
    metadata = skeleton_json(links, nodes=(3, 2, 1, 0), names="dcba")
    make(path, metadata, points=points, instances=instances, frames=FRAMES[:1])
    with closing(open_file(path)) as dataset:
        assert dataset.keypoint_names == ("a", "b", "c", "d")
        assert (dataset.edges, dataset.symmetries) == (((0, 1), (1, 2)), ((2, 3),))


def test_a_reference_to_a_type_spelt_out_elsewhere_is_the_type(path):
    links = [(1, 0, {"py/id": 2})]
    with closing(open_file(make(path, skeleton_json(links)))) as dataset:
        assert (dataset.edges, dataset.symmetries) == ((), ((0, 1),))


def test_skeletons_wrapped_by_sleap_1_3_are_read(path):
    metadata = skeleton_json()
    metadata["skeletons"] = [{"nx_graph": metadata["skeletons"][0], "description": ""}]
    with closing(open_file(make(path, metadata))) as dataset:
        assert dataset.keypoint_names == ("head", "tail")


def test_several_videos_are_groups(path):
    frames = np.array([(0, 0, 5, 0, 1), (1, 1, 70, 2, 3)], FRAME)
    make(path, frames=frames)
    with h5py.File(path, "a") as file:
        add_video(file, "video1", [encoded(IMAGES[2])], [70])
    with closing(open_file(path)) as dataset:
        assert dataset.groups.tolist() == ["video0", "video1"]
        np.testing.assert_array_equal(dataset.read_images([0, 1]), IMAGES[[0, 2]])


def test_pickled_images_are_opened_again_in_whatever_video_they_are(path):
    frames = np.array([(0, 0, 5, 0, 1), (1, 1, 70, 2, 3)], FRAME)
    make(path, frames=frames)
    with h5py.File(path, "a") as file:
        add_video(file, "video1", [encoded(IMAGES[2])], [70])
    with closing(open_file(path)) as dataset:
        again = pickle.loads(pickle.dumps(dataset.images))
        np.testing.assert_array_equal(again.read(np.array([0, 1])), IMAGES[[0, 2]])
        assert again.location(1) == dataset.location(1)


def test_frames_may_count_videos_by_position_or_by_name(path):
    rows = [
        json.dumps({"backend": {"dataset": name, "filename": "."}})
        for name in ("video3/video", "video0/video")
    ]
    make(
        path,
        frames=np.array([(0, 1, 5, 0, 1), (1, 0, 70, 2, 3)], FRAME),
        videos_json=np.array(rows, "S"),
    )
    with h5py.File(path, "a") as file:
        add_video(file, "video3", [encoded(IMAGES[2])], [70])
    with closing(open_file(path)) as dataset:
        assert dataset.groups.tolist() == ["video0", "video3"]
    with h5py.File(path, "a") as file:
        file["frames"][0] = (0, 0, 5, 0, 1)
        file["frames"][1] = (1, 3, 70, 2, 3)
    with closing(open_file(path)) as dataset:
        assert dataset.groups.tolist() == ["video0", "video3"]


def test_rows_padded_to_one_length_and_raw_images_are_read(path):
    make(path, video=[])
    with h5py.File(path, "a") as file:
        rows = np.zeros((3, 500), np.int8)
        for row, image in zip(rows, IMAGES, strict=True):
            row[: len(encoded(image))] = encoded(image)
        file["video0/video"] = rows
        file["video0/frame_numbers"] = [5, 8, 9]
    with closing(open_file(path)) as dataset:
        np.testing.assert_array_equal(dataset.read_images([0, 1]), IMAGES[:2])
    with h5py.File(path, "a") as file:
        del file["video0/video"]
        file["video0/video"] = IMAGES
    with closing(open_file(path)) as dataset:
        np.testing.assert_array_equal(dataset.read_images([0, 1]), IMAGES[:2])


@pytest.mark.parametrize(
    ("format_id", "attributes", "stored_is_bgr"),
    [
        (1.2, {}, True),
        (1.4, {}, False),
        (1.2, {"channel_order": "RGB"}, False),
        (1.4, {"channel_order": "BGR"}, True),
    ],
)
def test_red_and_blue_are_exchanged_where_opencv_wrote_the_file(
    path, format_id, attributes, stored_is_bgr
):
    stored = np.zeros((4, 5, 3), np.uint8)
    stored[..., 0] = 200
    make(
        path,
        format_id=format_id,
        video=[encoded(stored)] * 3,
        attributes={"channels": 3} | attributes,
    )
    with closing(open_file(path)) as dataset:
        assert dataset.read_images([0])[0, 0, 0].tolist() == (
            [0, 0, 200] if stored_is_bgr else [200, 0, 0]
        )


def test_jpeg_images_are_read(path):
    grey = np.full((4, 5, 1), 77, np.uint8)
    with closing(open_file(make(path, video=[encoded(grey, "jpeg")] * 3))) as dataset:
        np.testing.assert_allclose(dataset.read_images([0])[0], grey, atol=2)


def test_sizes_recorded_as_0_are_taken_from_the_images(path):
    with closing(
        open_file(make(path, attributes={"height": 0, "width": 0, "channels": 0}))
    ) as dataset:
        assert dataset.image_shape == (4, 5, 1)


def test_metadata_beside_any_of_the_tables_is_recognised(path):
    with h5py.File(make(path, points=None)) as file:
        assert recognises(file)
    with h5py.File(make(path, points=None, frames=None, instances=None)) as file:
        assert not recognises(file)


def replaced(table: np.ndarray, row: int, **values) -> np.ndarray:
    table = table.copy()
    for field, value in values.items():
        table[field][row] = value
    return table


def without(table: np.ndarray, field: str) -> np.ndarray:
    return table[[name for name in table.dtype.names if name != field]].copy()


def with_value(table: np.ndarray, field: str, value: float) -> np.ndarray:
    """Return a table whose field is stored as floats, with this value in its second row."""
    types = [(name, "f8" if name == field else table.dtype[name]) for name in table.dtype.names]
    changed = table.astype(types)
    changed[field][1] = value
    return changed


TWO_SKELETONS = {
    "skeletons": [*skeleton_json()["skeletons"], {"graph": {"name": "bee"}}],
    "nodes": [],
}
GREY = [encoded(image) for image in IMAGES]
BROKEN = {
    "no frames": (
        {"frames": None},
        r"flies\.pkg\.slp has no /frames: the file holds /instances, /metadata",
    ),
    "no points": ({"points": None}, r"flies\.pkg\.slp has no /points: the file holds"),
    "no images": (
        {"video": []},
        r"flies\.pkg\.slp holds no images \(no /video0/video\): `hgtrain convert .*flies\.pkg\.slp "
        r"NEW\.h5` "
        r"takes them from its videos",
    ),
    "table": (
        {"frames": np.zeros((3, 5))},
        r":/frames is float64, expected a table with the fields video, frame_idx",
    ),
    "infinite frame": (
        {"frames": with_value(FRAMES, "frame_idx", np.inf)},
        r":/frames\[1\]\.frame_idx is inf, expected a whole number",
    ),
    "half an instance": (
        {"instances": with_value(INSTANCES, "point_id_start", 0.5)},
        r":/instances\[1\]\.point_id_start is 0\.5, expected a whole number",
    ),
    "field": (
        {"frames": without(FRAMES, "frame_idx")},
        r":/frames has no field frame_idx of numbers; .* frame_id, video",
    ),
    "instances": (
        {"frames": replaced(FRAMES, 1, instance_id_end=9)},
        r":/frames\[1\] refers to instances 1 to 9, but",
    ),
    "points": (
        {"instances": replaced(INSTANCES, 2, point_id_end=5)},
        r":/instances\[2\] refers to points 2 to 5, exp",
    ),
    "infinite": (
        {"points": replaced(POINTS, 3, y=np.inf)},
        r":/points\[3\] is infinite, expected numbers or NaN",
    ),
    "no users": (
        {"instances": replaced(INSTANCES, slice(None), instance_type=1)},
        r"no frame has a user instance and an image\. .*4 predicted instances .*3 frames without "
        r"a user instance",
    ),
    "newer": ({"format_id": 3.0}, r":/metadata has format_id 3, formats below 3 are read"),
    "two skeletons": (
        {"metadata": TWO_SKELETONS, "instances": replaced(INSTANCES, 2, skeleton=1)},
        r":/metadata: instances are of 2 skeletons, 'fly', 'bee'; expected one",
    ),
    "skeleton": (
        {"metadata": {"nodes": [], "skeletons": []}},
        r":/metadata: the skeleton .* not understood: IndexError",
    ),
    "names": (
        {"metadata": skeleton_json(names=("a", "a"))},
        r":/metadata: the name 'a' of keypoint 1 is also keypoint 0",
    ),
    "link": (
        {"metadata": skeleton_json([(7, 0, NEW_EDGE)])},
        r":/metadata: the skeleton .* not understood: ValueError",
    ),
    "link type": (
        {"metadata": skeleton_json([(1, 0, {"py/id": 5})])},
        r":/metadata: the skeleton .*: KeyError\(5\)",
    ),
    "height": (
        {"attributes": {"height": 40}},
        r":/video0/video\[0\] is 4 x 5 .* with 1 channel, but the attribute height of "
        r".*:/video0/video is 40",
    ),
    "other size": (
        {
            "video": [GREY[0], encoded(np.zeros((6, 5, 1), "u1")), GREY[2]],
            "attributes": {"height": 0},
        },
        r":/video0/video\[1\] is 6 x 5 .* but .*:/video0/video\[0\] is 4 x 5 \(height x width\) "
        r".*`hgtrain convert`",
    ),
    "other channels": (
        {
            "video": [GREY[0], encoded(np.zeros((4, 5, 3), "u1")), GREY[2]],
            "attributes": {"channels": 0},
        },
        r":/video0/video\[1\] is 4 x 5 .* with 3 channels, but .*\[0\] is 4 x 5 .* with 1 channel:",
    ),
    "no image file": (
        {"video": [np.arange(50, dtype="i1")] * 3},
        r":/video0/video\[0\] is not a PNG or JPEG image",
    ),
    "gif": (
        {"video": [encoded(IMAGES[0], "gif")] * 3},
        r":/video0/video\[0\] is not a PNG or JPEG image",
    ),
    "alpha": (
        {"video": [encoded(np.zeros((4, 5, 4), "u1"))] * 3},
        r":/video0/video\[0\] has pixels of mode RGBA, expect",
    ),
    "videos_json": (
        {"videos_json": np.array([b"{}"])},
        r":/videos_json\[0\] is not understood: KeyError\('backend'\)",
    ),
}


@pytest.mark.parametrize(("changes", "message"), BROKEN.values(), ids=BROKEN)
def test_a_broken_package_is_refused_with_path_and_value(path, changes, message):
    make(path, **changes)
    with pytest.raises(DatasetError, match=message):
        open_file(path)


def floats(file: h5py.File) -> None:
    file["video0/video"], file["video0/frame_numbers"] = IMAGES / 255, [5, 8, 9]


def two_channels(file: h5py.File) -> None:
    file["video0/video"], file["video0/frame_numbers"] = IMAGES.repeat(2, -1), [5, 8, 9]


def too_few_numbers(file: h5py.File) -> None:
    file["video0/video"], file["video0/frame_numbers"] = IMAGES, [5, 8]


def strings(file: h5py.File) -> None:
    file["video0/video"], file["video0/frame_numbers"] = ["a", "b", "c"], [5, 8, 9]


def no_json(file: h5py.File) -> None:
    file["video0/video"], file["video0/frame_numbers"] = IMAGES, [5, 8, 9]
    del file["metadata"].attrs["json"]


def bad_json(file: h5py.File) -> None:
    no_json(file)
    file["metadata"].attrs["json"] = "{"


def numbers_of(*numbers: float) -> Callable[[h5py.File], None]:
    def write(file: h5py.File) -> None:
        file["video0/video"], file["video0/frame_numbers"] = IMAGES, list(numbers)

    return write


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            numbers_of(5, np.inf, 9),
            r":/video0/frame_numbers\[1\] is inf, expected a whole number",
        ),
        (
            numbers_of(5, 8, np.nan),
            r":/video0/frame_numbers\[2\] is nan, expected a whole number",
        ),
        (numbers_of(5, 8.5, 9), r":/video0/frame_numbers\[1\] is 8\.5, expected a whole number"),
        (floats, r":/video0/video is float64, expected PNG or JPEG files as bytes, or images"),
        (two_channels, r":/video0/video has shape \(3, 4, 5, 2\) with 2 channels"),
        (
            too_few_numbers,
            r":/video0/frame_numbers has 2 entries, but .*:/video0/video has 3 images",
        ),
        (strings, r":/video0/video is object of shape \(3,\), expected PNG or JPEG"),
        (no_json, r":/metadata has no attribute json, which holds the skeleton"),
        (
            bad_json,
            r":/metadata: attributes json and format_id cannot be read: Expecting property name",
        ),
    ],
)
def test_a_package_of_other_parts_is_refused(path, write, message):
    with h5py.File(make(path, video=[]), "a") as file:
        write(file)
    with pytest.raises(DatasetError, match=message):
        open_file(path)


def test_an_image_cut_off_is_reported_when_decoded(path):
    noise = np.random.default_rng(0).integers(0, 255, (4, 5, 1), np.uint8)
    make(path, video=[encoded(noise)[:-30]] * 3)
    with (
        closing(open_file(path)) as dataset,
        pytest.raises(DatasetError, match=r"/video0/video\[1\] cannot be decoded"),
    ):
        dataset.read_images([1])


def test_a_png_that_claims_an_enormous_size_is_refused_unread(path):
    bomb = GREY[0].copy()
    bomb[16:24] = np.frombuffer((50_000).to_bytes(4, "big") * 2, np.int8)
    with pytest.raises(
        DatasetError, match=r":/video0/video\[0\] is not a PNG or JPEG image that can be read"
    ):
        open_file(make(path, video=[bomb] * 3))


def test_in_large_files_images_are_compared_when_decoded(path, monkeypatch):
    monkeypatch.setattr(sleap_images, "HEADER_CHECK_BYTES", 0)
    odd = encoded(np.zeros((6, 5, 1), np.uint8))
    make(path, video=[GREY[0], odd, GREY[2]], attributes={"height": 0})
    message = r"/video0/video\[1\] is 6 x 5 .*\[0\] is 4 x 5"
    with closing(open_file(path)) as dataset, pytest.raises(DatasetError, match=message):
        dataset.read_images([0, 1])


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
def test_predictions_without_images_say_how_to_save_them():
    with pytest.raises(
        DatasetError, match=r"predictions\.slp holds no images .*Export Labels Package"
    ):
        open_file(SHARED / "centered_pair" / "centered_pair_predictions.slp")


CROP = '[{"video": 0, "crop": [4, 0, 1, 3]}]'


@pytest.mark.parametrize(
    ("crops", "message"),
    [
        ("no", " is not understood: JSOND"),
        (CROP.replace("4", "Infinity"), " is not understood: OverflowError"),
        ('[{"video": 1, "crop": [0, 0, 1, 1]}]', " is not understood: IndexError"),
        (CROP, r": video 0 has Crop\(left=4"),
    ],
)
def test_a_crop_that_makes_no_sense_is_refused(path, crops, message):
    with h5py.File(make(path), "a") as file:
        file["videos_json"] = [json.dumps({"backend": {"dataset": "video0/video"}})]
        file["video_crops"] = np.bytes_(crops)
    with pytest.raises(DatasetError, match="/video_crops" + message):
        open_file(path)
