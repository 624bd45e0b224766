import csv
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image
from videos import write_video

from hgtrain.errors import RunError
from hgtrain.poses import Poses
from hgtrain.predict.inputs import open_frames
from hgtrain.predict.writers import CsvFile, Hdf5File, SlpFile, file_type
from hgtrain.skeleton import Skeleton

SKELETON = Skeleton(("nose", "left, ear", "right"), ((0, 1), (0, 2)), ((1, 2),))


def found(frames, animals=1, start=0):
    points = (
        np.arange(start, start + frames * animals * 6, dtype=np.float32).reshape(
            frames, animals, 3, 2
        )
        / 4
    )
    return Poses(points, points[..., 0] / 100, points[..., 0, 0] / 100)


@pytest.fixture
def film(tmp_path):
    return open_frames(str(write_video(tmp_path / "film.mp4", 5)), 1)


@pytest.fixture
def pictures(tmp_path):
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "b.png"):
        Image.new("L", (8, 8)).save(tmp_path / "pictures" / name)
    return open_frames(str(tmp_path / "pictures"), 1)


def write(kind, path, sources, parts, complete=True):
    file = kind(path, SKELETON, sources, "run")
    for source, first, part in parts:
        file.write(source, first, part)
    file.close(complete)
    return path


def test_h5_holds_points_confidence_and_scores(tmp_path, film):
    path = write(
        Hdf5File, tmp_path / "out.h5", [film], [(0, 0, found(2)), (0, 2, found(3, start=12))]
    )
    whole = found(5)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["points"], whole.points)
        np.testing.assert_array_equal(file["confidence"], whole.confidence)
        np.testing.assert_array_equal(file["instance_score"], whole.scores)


def test_h5_says_where_each_frame_lies(tmp_path, film, pictures):
    path = write(
        Hdf5File, tmp_path / "out.h5", [film, pictures], [(0, 0, found(2)), (1, 0, found(2))]
    )
    with h5py.File(path) as file:
        assert [Path(name.decode()).name for name in file["sources"]] == [
            "film.mp4",
            "a.png",
            "b.png",
        ]
        assert file["source"][:].tolist() == [0, 0, 1, 2]
        assert file["frame"][:].tolist() == [0, 1, 0, 0]


def test_h5_has_the_skeleton_and_whether_it_is_complete(tmp_path, film):
    path = write(Hdf5File, tmp_path / "out.h5", [film], [(0, 0, found(1))], complete=False)
    with h5py.File(path) as file:
        assert list(file.attrs["keypoint_names"]) == list(SKELETON.keypoint_names)
        assert file.attrs["edges"].tolist() == [[0, 1], [0, 2]]
        assert file.attrs["symmetries"].tolist() == [[1, 2]]
        assert not file.attrs["complete"]


def test_h5_grows_with_the_number_of_animals(tmp_path, film):
    path = write(Hdf5File, tmp_path / "out.h5", [film], [(0, 0, found(1, 1)), (0, 1, found(1, 3))])
    with h5py.File(path) as file:
        assert file["points"].shape == (2, 3, 3, 2)
        assert np.isnan(file["points"][0, 1:]).all()
        np.testing.assert_array_equal(file["points"][1], found(1, 3).points[0])


def test_csv_has_a_row_for_each_animal(tmp_path, film):
    path = write(CsvFile, tmp_path / "out.csv", [film], [(0, 3, found(1, 2))])
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["frame"], row["instance"]) for row in rows] == [("3", "0"), ("3", "1")]
    assert float(rows[1]["left, ear.x"]) == 2.0
    assert float(rows[1]["left, ear.y"]) == 2.25
    assert float(rows[1]["left, ear.confidence"]) == 0.02


def test_csv_leaves_missing_points_empty_and_missing_animals_out(tmp_path, film):
    part = found(1, 2)
    part.points[0, 0, 1] = np.nan
    part.points[0, 1] = np.nan
    path = write(CsvFile, tmp_path / "out.csv", [film], [(0, 0, part)])
    with path.open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["left, ear.x"] == ""
    assert row["nose.x"] == "0.0000"


def test_slp_opens_in_sleap_io_with_the_same_points(tmp_path, film):
    sleap_io = pytest.importorskip(
        "sleap_io", reason="needs sleap-io: pip install hgtrain[convert]"
    )
    path = write(
        SlpFile, tmp_path / "out.slp", [film], [(0, 0, found(2)), (0, 2, found(3, start=12))]
    )
    labels = sleap_io.load_slp(str(path), open_videos=False)
    np.testing.assert_allclose(labels.numpy()[:, 0], found(5).points[:, 0])
    np.testing.assert_allclose(labels[4].instances[0].points["score"], found(5).confidence[4, 0])
    assert labels.skeleton.edge_inds == [(0, 1), (0, 2)]
    assert [set(pair) for pair in labels.skeleton.symmetry_inds] == [{1, 2}]


def test_slp_refers_to_every_source(tmp_path, film, pictures):
    sleap_io = pytest.importorskip(
        "sleap_io", reason="needs sleap-io: pip install hgtrain[convert]"
    )
    path = write(
        SlpFile, tmp_path / "out.slp", [film, pictures], [(0, 4, found(1)), (1, 0, found(2))]
    )
    labels = sleap_io.load_slp(str(path), open_videos=False)
    assert [(labels.videos.index(frame.video), frame.frame_idx) for frame in labels] == [
        (0, 4),
        (1, 0),
        (1, 1),
    ]
    assert [Path(name).name for name in labels.videos[1].filename] == ["a.png", "b.png"]


def test_slp_takes_a_frame_in_which_nothing_was_found(tmp_path, film):
    sleap_io = pytest.importorskip(
        "sleap_io", reason="needs sleap-io: pip install hgtrain[convert]"
    )
    part = found(2)
    part.points[0] = np.nan
    path = write(SlpFile, tmp_path / "out.slp", [film], [(0, 0, part)])
    labels = sleap_io.load_slp(str(path), open_videos=False)
    assert [len(frame.instances) for frame in labels] == [0, 1]


@pytest.mark.parametrize("kind", [Hdf5File, CsvFile])
def test_a_file_without_a_frame_is_not_left_behind(tmp_path, film, kind):
    write(kind, tmp_path / "out.h5", [film], [])
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_the_name_is_taken_only_at_the_end(tmp_path, film):
    (tmp_path / "out.csv").write_text("old")
    file = CsvFile(tmp_path / "out.csv", SKELETON, [film], "run")
    file.write(0, 0, found(1))
    assert (tmp_path / "out.csv").read_text() == "old"
    file.close(True)
    assert (tmp_path / "out.csv").read_text().startswith("source,frame")


def test_another_suffix_is_refused():
    with pytest.raises(RunError, match=r"out\.txt: predictions are written as \.h5, .*got '\.txt'"):
        file_type(Path("out.txt"))


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path, film):
    with pytest.raises(RunError, match=r"none/out\.csv cannot be written: No such file"):
        CsvFile(tmp_path / "none" / "out.csv", SKELETON, [film], "run")
