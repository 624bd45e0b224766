import json
from contextlib import closing

import av
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from tiny_run import NAMES, make_frames, write_data
from videos import damage_frame, write_video

from hgtrain.cli import commands
from hgtrain.data.convert.convert import convert
from hgtrain.data.convert.sleap_io import to_foreign_video
from hgtrain.data.dataset import HIDDEN, NOT_LABELLED, VISIBLE
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.open import open_dataset
from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton

sleap_io = pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")

SKELETON = sleap_io.Skeleton(
    ["nose", "ear_l", "ear_r"], edges=[("nose", "ear_l")], symmetries=[("ear_l", "ear_r")]
)
POINTS = np.array([[1, 2], [3, 4], [5, 6]], float)
NAN = np.nan


def converted(source, target, predictions=False):
    found = convert(str(source), target, predictions, lambda frames, total: frames)
    return found, open_dataset(target)


def animal(points=POINTS, skeleton=SKELETON):
    return sleap_io.Instance.from_numpy(np.array(points, float), skeleton=skeleton)


def prediction(points=POINTS):
    return sleap_io.PredictedInstance.from_numpy(
        points, skeleton=SKELETON, point_scores=np.ones(3), score=1.0
    )


def pictures(folder, sizes, mode="L"):
    folder.mkdir()
    files = []
    for i, size in enumerate(sizes):
        Image.new(mode, size, 10 if mode == "L" else (10, 20, 30)).save(folder / f"{i}.png")
        files.append(str(folder / f"{i}.png"))
    return to_foreign_video(
        files, "images", (len(files), *sizes[0][::-1], 1 if mode == "L" else 3), None
    )


def missing(folder):
    return to_foreign_video([str(folder / "gone" / "0.png")], "images", None, None)


def save(path, *frames):
    """Write an .slp with frames (video, index, animals)."""
    labelled = [
        sleap_io.LabeledFrame(video=v, frame_idx=i, instances=list(animals))
        for v, i, animals in frames
    ]
    sleap_io.save_slp(sleap_io.Labels(labelled), str(path), embed=False, verbose=False)
    return path


def test_points_names_edges_and_partners_arrive(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)] * 2)
    found, dataset = converted(save(tmp_path / "a.slp", (video, 1, [animal()])), tmp_path / "a.h5")
    assert found.frames == 1
    assert found.notes == ()
    assert dataset.keypoint_names == ("nose", "ear_l", "ear_r")
    assert (dataset.edges, dataset.symmetries) == (((0, 1),), ((1, 2),))
    np.testing.assert_array_equal(dataset.points[0, 0], POINTS)
    dataset.close()


def test_a_round_trip_through_slp_keeps_points_names_edges_and_partners(tmp_path):
    write_data(tmp_path)
    native = open_dataset(tmp_path / "flies.h5")
    skeleton = sleap_io.Skeleton(
        list(NAMES),
        edges=[(NAMES[a], NAMES[b]) for a, b in native.edges],
        symmetries=[(NAMES[a], NAMES[b]) for a, b in native.symmetries],
    )
    video = to_foreign_video([native.path], "dataset", (12, 32, 32, 1), None)
    frames = [(video, i, [animal(native.points[i, 0], skeleton)]) for i in range(len(native))]
    found, back = converted(save(tmp_path / "a.slp", *frames), tmp_path / "back.h5")
    assert found.frames == 12
    np.testing.assert_allclose(back.points, native.points, atol=1e-3)
    assert (back.keypoint_names, back.edges, back.symmetries) == (
        NAMES,
        native.edges,
        native.symmetries,
    )
    np.testing.assert_array_equal(back.read_images(range(12)), native.read_images(range(12)))
    back.close()
    native.close()


def test_the_group_of_a_frame_is_its_video(tmp_path):
    one, two = (pictures(tmp_path / name, [(20, 10)]) for name in ("mon", "tue"))
    path = save(tmp_path / "a.slp", (one, 0, [animal()]), (two, 0, [animal()]))
    dataset = converted(path, tmp_path / "a.h5")[1]
    assert dataset.groups.tolist() == ["mon", "tue"]
    dataset.close()


def test_videos_of_one_name_are_told_apart_by_their_paths(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    one, two = (pictures(tmp_path / folder / "film", [(20, 10)]) for folder in "xy")
    path = save(tmp_path / "a.slp", (one, 0, [animal()]), (two, 0, [animal()]))
    dataset = converted(path, tmp_path / "a.h5")[1]
    assert [group.rsplit("/", 2)[1:] for group in dataset.groups] == [["x", "film"], ["y", "film"]]
    dataset.close()


def test_frames_of_a_video_are_those_that_were_labelled(tmp_path):
    write_video(tmp_path / "film.mp4", 8)
    video = to_foreign_video([str(tmp_path / "film.mp4")], "video", (8, 32, 48, 1), 25.0)
    path = save(tmp_path / "a.slp", (video, 2, [animal()]), (video, 6, [animal()]))
    dataset = converted(path, tmp_path / "a.h5")[1]
    np.testing.assert_allclose(dataset.read_images([0, 1]).mean((1, 2, 3)), (40, 120), atol=3)
    dataset.close()


def test_labels_beyond_the_end_of_a_video_are_left_out(tmp_path):
    write_video(tmp_path / "film.mp4", 8)
    video = to_foreign_video([str(tmp_path / "film.mp4")], "video", (8, 32, 48, 1), 25.0)
    path = save(tmp_path / "a.slp", (video, 2, [animal()]), (video, 9, [animal()]))
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.notes == (
        f"Left out: 1 frame beyond the end of {tmp_path}/film.mp4, which has 8 frames (frame 9).",
    )
    dataset.close()


def test_labels_that_are_all_beyond_the_end_are_an_error_with_films_numbers_and_a_way_on(tmp_path):
    videos = []
    for name in ("a", "b"):
        write_video(tmp_path / f"{name}.mp4", 8)
        videos.append(
            to_foreign_video([str(tmp_path / f"{name}.mp4")], "video", (900, 32, 48, 1), 25.0)
        )
    frames = [(videos[0], 100 + i, [animal()]) for i in range(7)] + [(videos[1], 8, [animal()])]
    with pytest.raises(DatasetError) as raised:
        converted(save(tmp_path / "a.slp", *frames), tmp_path / "a.h5")
    assert str(raised.value) == (
        f"{tmp_path}/a.slp: no frame is left to convert; left out: 7 frames beyond the end of "
        f"{tmp_path}/a.mp4, which has 8 frames (frames 100, 101, 102, 103, 104 and 2 more), 1 "
        f"frame beyond the end of {tmp_path}/b.mp4, which has 8 frames (frame 8); if the film is "
        "another one or was cut shorter, --images DIR says where the labelled one is"
    )
    assert not (tmp_path / "a.h5").exists()


def test_a_label_on_a_damaged_frame_of_a_film_is_left_out_and_the_others_keep_their_images(
    tmp_path,
):
    film = damage_frame(write_video(tmp_path / "film.avi", 12, codec="mjpeg"), 5)
    video = to_foreign_video([str(film)], "video", (12, 32, 48, 1), 25.0)
    frames = [(video, i, [animal(POINTS + i)]) for i in (2, 5, 6, 11)]
    found, dataset = converted(save(tmp_path / "a.slp", *frames), tmp_path / "a.h5")
    assert found.notes == (
        f"Left out: 1 frame that cannot be read ({film}: frame 5 cannot be decoded: Invalid data "
        "found when processing input).",
    )
    assert (dataset.points[:, 0, 0, 0] - 1).tolist() == [2, 6, 11]
    np.testing.assert_allclose(
        dataset.read_images(range(3)).mean((1, 2, 3)), (40, 120, 220), atol=3
    )
    dataset.close()


def test_many_broken_images_are_counted_without_naming_them_all(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)] * 15)
    path = save(tmp_path / "a.slp", *[(video, i, [animal()]) for i in range(15)])
    for i in range(1, 15):
        (tmp_path / "film" / f"{i}.png").write_bytes(b"")
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.notes[0].count("is no image that can be read") == 10
    assert found.notes[0].endswith(", and 4 more for other reasons.")
    dataset.close()


def test_a_damaged_frame_of_an_own_dataset_is_left_out(tmp_path):
    frames = [(np.full((8, 8, 1), 10 * i, np.uint8), POINTS + i, None, None) for i in range(4)]
    write_dataset(tmp_path / "a.h5", Skeleton(NAMES), frames)
    with h5py.File(tmp_path / "a.h5") as file:
        chunk = file["images"].id.get_chunk_info(2)
    with (tmp_path / "a.h5").open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    found, dataset = converted(tmp_path / "a.h5", tmp_path / "b.h5")
    assert found.notes[0].startswith("Left out: 1 frame that cannot be read (")
    assert dataset.read_images(range(3))[:, 0, 0, 0].tolist() == [0, 10, 30]
    assert dataset.points[:, 0, 0, 0].tolist() == [1, 2, 4]
    dataset.close()


def test_smaller_images_are_padded_and_the_notes_say_so(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10), (16, 12)])
    found, dataset = converted(
        save(tmp_path / "a.slp", (video, 0, [animal()]), (video, 1, [animal()])), tmp_path / "a.h5"
    )
    assert dataset.image_shape == (12, 20, 1)
    images = dataset.read_images([0, 1])
    assert images[0, :10].min() == 10
    assert images[0, 10:].max() == images[1, :, 16:].max() == 0
    assert found.notes == ("2 frames smaller than 12x20 are padded at the right and the bottom.",)
    dataset.close()


def test_colour_stays_colour(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)], "RGB")
    dataset = converted(save(tmp_path / "a.slp", (video, 0, [animal()])), tmp_path / "a.h5")[1]
    np.testing.assert_array_equal(dataset[0].image[0, 0], (10, 20, 30))
    dataset.close()


def test_a_film_that_begins_black_keeps_its_colours(tmp_path):
    with av.open(str(tmp_path / "film.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for red in (0, 0, 200):
            image = np.zeros((32, 48, 3), np.uint8)
            image[..., 0] = red
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    video = to_foreign_video([str(tmp_path / "film.avi")], "video", (3, 32, 48, 3), 25.0)
    dataset = converted(save(tmp_path / "a.slp", (video, 2, [animal()])), tmp_path / "a.h5")[1]
    np.testing.assert_allclose(dataset[0].image.mean((0, 1)), (200, 0, 0), atol=8)
    dataset.close()


def test_several_animals_of_a_frame_are_kept(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)])
    path = save(tmp_path / "a.slp", (video, 0, [animal(), animal(POINTS + 1)]))
    dataset = converted(path, tmp_path / "a.h5")[1]
    np.testing.assert_array_equal(dataset.points[0], [POINTS, POINTS + 1])
    dataset.close()


def test_images_are_compressed_one_a_chunk(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)])
    converted(save(tmp_path / "a.slp", (video, 0, [animal()])), tmp_path / "a.h5")[1].close()
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["images"].chunks == (1, 10, 20, 1)
        assert file["images"].compression == "gzip"


def test_what_is_left_out_is_counted_with_its_reason(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)] * 5)
    gone = missing(tmp_path)
    other = sleap_io.Skeleton(["a"])
    frames = [
        (video, 0, [animal(), animal()]),
        (video, 1, [animal([[NAN, NAN]] * 3)]),
        (video, 2, [prediction()]),
        (gone, 0, [animal()]),
        (video, 3, [animal(), animal([[1, 1]], other)]),
    ]
    found, dataset = converted(save(tmp_path / "a.slp", *frames), tmp_path / "a.h5")
    assert found.frames == 2
    assert found.notes == (
        "Left out: 1 animal predicted, not labelled (--predictions takes those of frames that "
        "nobody labelled), "
        "1 animal with another skeleton, 2 frames without a labelled point, "
        f"1 frame whose file is missing ({tmp_path}/gone).",
    )
    dataset.close()


def test_a_broken_image_is_left_out_with_its_reason(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)] * 2)
    path = save(tmp_path / "a.slp", (video, 0, [animal()]), (video, 1, [animal()]))
    (tmp_path / "film" / "1.png").write_bytes(b"")
    found, dataset = converted(path, tmp_path / "a.h5")
    assert len(dataset) == 1
    assert found.notes[0].startswith("Left out: 1 frame that cannot be read (")
    dataset.close()


def test_predictions_are_taken_where_they_are_asked_for(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)] * 2)
    path = save(
        tmp_path / "a.slp",
        (video, 0, [prediction()]),
        (video, 1, [animal(), prediction(POINTS + 1)]),
    )
    found, dataset = converted(path, tmp_path / "a.h5", predictions=True)
    assert found.frames == 2
    np.testing.assert_array_equal(dataset.points[1], [POINTS])
    dataset.close()


def test_nothing_but_predictions_is_an_error_that_names_the_option(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)])
    path = save(tmp_path / "a.slp", (video, 0, [prediction()]))
    with pytest.raises(
        DatasetError,
        match=r"nothing is labelled in its 1 frames; left out: 1 animal .*--predictions",
    ):
        converted(path, tmp_path / "a.h5")


def test_no_frame_left_is_an_error_with_the_reasons(tmp_path):
    gone = missing(tmp_path)
    path = save(tmp_path / "a.slp", (gone, 0, [animal()]))
    with pytest.raises(
        DatasetError, match=r"no frame is left to convert; left out: 1 frame whose file is missing"
    ):
        converted(path, tmp_path / "a.h5")


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "x"), ("a.csv", "x,y\n1,2\n"), ("a.txt", "x"), ("a.slp", "x")]
)
def test_a_file_that_sleap_io_cannot_read_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(DatasetError, match=rf"{name}: sleap-io cannot read labels from it"):
        converted(tmp_path / name, tmp_path / "a.h5")


def test_a_video_has_no_labels(tmp_path):
    write_video(tmp_path / "film.mp4", 3)
    with pytest.raises(
        DatasetError, match=r"film\.mp4: holds no labels, sleap-io reads a video from it"
    ):
        converted(tmp_path / "film.mp4", tmp_path / "a.h5")


def test_a_missing_source_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.slp: there is no such file or folder"):
        converted(tmp_path / "none.slp", tmp_path / "a.h5")


def test_coco_is_converted(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "one.png")
    document = {
        "images": [{"id": 1, "file_name": "one.png", "height": 10, "width": 20}],
        "categories": [
            {"id": 1, "name": "fly", "keypoints": ["head", "tail"], "skeleton": [[1, 2]]}
        ],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "keypoints": [4, 5, 2, 0, 0, 0],
                "num_keypoints": 1,
            }
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(document))
    dataset = converted(tmp_path / "coco.json", tmp_path / "a.h5")[1]
    assert dataset.keypoint_names == ("head", "tail")
    assert dataset.edges == ((0, 1),)
    np.testing.assert_array_equal(dataset.points[0, 0], [[4, 5], [NAN, NAN]])
    assert dataset.visibility[0, 0].tolist() == [VISIBLE, NOT_LABELLED]
    dataset.close()


def test_an_own_dataset_is_written_anew_with_its_visibility(tmp_path):
    image, points, _, _ = next(make_frames(1))
    visibility = np.array([VISIBLE, HIDDEN, NOT_LABELLED], np.uint8)
    write_dataset(tmp_path / "a.h5", Skeleton(NAMES), [(image, points, visibility, "mon")])
    found, dataset = converted(tmp_path / "a.h5", tmp_path / "b.h5")
    assert found.frames == 1
    assert dataset.visibility[0, 0].tolist() == [VISIBLE, HIDDEN, NOT_LABELLED]
    assert dataset.groups.tolist() == ["mon"]
    dataset.close()


@pytest.mark.parametrize(("name", "block"), [("a.slp", 0), ("a.h5", 512)])
def test_an_own_dataset_is_known_by_its_content(tmp_path, name, block):
    write_data(tmp_path)
    with (
        h5py.File(tmp_path / "flies.h5") as old,
        h5py.File(tmp_path / name, "w", userblock_size=block) as new,
    ):
        new.attrs.update(old.attrs)
        for member in old:
            old.copy(member, new)
    found, dataset = converted(tmp_path / name, tmp_path / "b.h5")
    assert found.frames == len(dataset) == 12
    dataset.close()


def run_convert(*arguments):
    return CliRunner().invoke(commands, ["convert", *map(str, arguments)])


def test_the_command_adds_partners_and_edges_and_says_which(tmp_path):
    bare = sleap_io.Skeleton(["nose", "ear_l", "ear_r"])
    video = pictures(tmp_path / "film", [(20, 10)])
    path = save(tmp_path / "a.slp", (video, 0, [animal(skeleton=bare)]))
    done = run_convert(path, tmp_path / "a.h5", "--symmetry", "auto", "--edge", "nose,ear_r")
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines()[-2:] == [
        "Added left/right partners: ear_l,ear_r.",
        "Added edges: nose,ear_r.",
    ]
    with h5py.File(tmp_path / "a.h5") as file:
        assert file.attrs["symmetries"].tolist() == [[1, 2]]
        assert file.attrs["edges"].tolist() == [[0, 2]]


def test_the_command_adds_partners_to_an_own_dataset(tmp_path):
    image, points, _, group = next(make_frames(1))
    write_dataset(tmp_path / "a.h5", Skeleton(NAMES, ((0, 1),)), [(image, points, None, group)])
    option = ("--symmetry", "ear_left,ear_right")
    assert run_convert(tmp_path / "a.h5", tmp_path / "b.h5", *option).exit_code == 0
    with closing(open_dataset(tmp_path / "b.h5")) as dataset:
        assert (dataset.symmetries, dataset.edges) == (((1, 2),), ((0, 1),))
        np.testing.assert_array_equal(dataset.points[0, 0], points)
        np.testing.assert_array_equal(dataset[0].image, image)


def test_a_wrong_pair_is_refused_before_anything_is_written(tmp_path):
    video = pictures(tmp_path / "film", [(20, 10)])
    path = save(tmp_path / "a.slp", (video, 0, [animal()]))
    done = run_convert(path, tmp_path / "a.h5", "--edge", "nose,ear_right")
    assert isinstance(done.exception, DatasetError)
    assert f"{path} has no keypoint 'ear_right' (did you mean ear_r?)" in str(done.exception)
    assert not (tmp_path / "a.h5").exists()


@pytest.mark.slow
def test_a_deeplabcut_project_is_converted_whole(tmp_path, real_data):
    found, dataset = converted(real_data / "openfield", tmp_path / "a.h5")
    assert (found.frames, found.notes) == (116, ())
    assert set(dataset.keypoint_names) == {"snout", "leftear", "rightear", "tailbase"}
    snout = dataset.points[0, 0, dataset.keypoint_names.index("snout")]
    np.testing.assert_allclose(snout, (21.521, 265.428), atol=1e-3)
    assert set(dataset.groups) == {"m4s1"}
    dataset.close()


def test_labels_of_another_program_are_refused_with_the_command_that_reads_them(tmp_path):
    path = tmp_path / "x.json"
    path.write_text("{}")
    with pytest.raises(
        DatasetError,
        match=rf"x\.json is not an HDF5 file: `hgtrain convert {path} NEW.h5` reads labels",
    ):
        open_dataset(path)


def test_a_table_of_deeplabcut_is_refused_with_the_command_for_the_csv_beside_it(tmp_path):
    path = tmp_path / "CollectedData_X.h5"
    with h5py.File(path, "w") as file:
        # As pandas marks what it writes.
        file.create_group("df_with_missing").attrs["pandas_type"] = b"frame"
    command = f"`hgtrain convert {tmp_path / 'CollectedData_X.csv'} NEW.h5`"
    with pytest.raises(
        DatasetError, match=rf"holds labels of DeepLabCut without their images; .*{command}$"
    ):
        open_dataset(path)


def test_a_real_table_of_deeplabcut_is_known(real_data):
    with pytest.raises(DatasetError, match=r"hgtrain convert .*CollectedData_Pranav\.csv"):
        open_dataset(real_data / "openfield" / "labeled-data" / "m4s1" / "CollectedData_Pranav.h5")
