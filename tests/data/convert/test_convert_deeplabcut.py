"""DeepLabCut and Lightning Pose tables: each row has the image it names."""

import shutil
from contextlib import closing

import numpy as np
import pytest
from convert_cases import converted, make_case
from PIL import Image

from hgtrain.data.convert.convert import convert
from hgtrain.data.open import open_dataset
from hgtrain.errors import DatasetError

pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")

HEADER = "scorer,me,me\nbodyparts,nose,nose\ncoords,x,y\n"


def table(path, *rows):
    """Write a table of one body part at x = 10 times the image's number, whose grey value is that
    number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(HEADER + "".join(f"{name},{10 * grey},1\n" for name, grey in rows))


def picture(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (64, 8), grey).save(path)


def pairs(dataset):
    """Return ten times the grey value and x of each frame.

    They agree where label and image belong together.
    """
    return [
        (10 * int(dataset.read_images([i])[0, 0, 0, 0]), dataset.points[i, 0, 0, 0])
        for i in range(len(dataset))
    ]


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("csv/labeled-data/vid1/CollectedData_me.csv", (0, 2, 3, 4)),
        ("crash/labeled-data/vid1/CollectedData_me.csv", (0, 2, 3, 4, 5)),
        ("project", (0, 2, 3, 4)),
        ("project/config.yaml", (0, 2, 3, 4)),
    ],
)
def test_labels_stay_with_their_images_where_an_image_was_deleted(tmp_path, source, kept):
    made = make_case("dlc_deleted_image", tmp_path) / "dlcdel" / source
    found, dataset = converted(made, tmp_path / "a.h5")
    assert "1 frame whose file is missing (" in found.notes[0]
    snout = dataset.points[:, 0, dataset.keypoint_names.index("snout")].astype(int)
    assert snout.tolist() == [[9 + 5 * i, 6 + 5 * i] for i in kept]
    assert [dataset.read_images([i])[0, y, x, 0] for i, (x, y) in enumerate(snout)] == [200] * len(
        kept
    )
    dataset.close()


def test_labels_of_a_lightning_pose_table_stay_with_their_images(tmp_path):
    names = [(f"labeled-data/{video}/img{i}.png", i) for i in (1, 2, 3) for video in ("1", "2")]
    for name, grey in names:
        picture(tmp_path / name, grey)
    (tmp_path / "labeled-data/1/img2.png").unlink()
    table(tmp_path / "CollectedData.csv", *names)
    found, dataset = converted(tmp_path / "CollectedData.csv", tmp_path / "a.h5")
    assert found.notes == (f"Left out: 1 frame whose file is missing ({tmp_path}/labeled-data/1).",)
    assert pairs(dataset) == [(10, 10), (30, 30), (10, 10), (20, 20), (30, 30)]
    assert dataset.groups.tolist() == ["1", "1", "2", "2", "2"]
    dataset.close()


def test_a_folder_without_its_images_is_counted(tmp_path):
    for video in ("mon", "tue"):
        names = [(f"labeled-data/{video}/img{i}.png", i) for i in (1, 2)]
        table(tmp_path / f"labeled-data/{video}/CollectedData_me.csv", *names)
        for name, grey in names:
            picture(tmp_path / name, grey)
    (tmp_path / "config.yaml").write_text(
        "Task: t\nscorer: me\nvideo_sets: {}\nbodyparts: [nose]\nskeleton: []\n"
    )
    shutil.rmtree(tmp_path / "labeled-data/mon")
    table(tmp_path / "labeled-data/mon/CollectedData_me.csv", ("labeled-data/mon/img1.png", 1))
    found, dataset = converted(tmp_path, tmp_path / "a.h5")
    assert found.notes == (
        f"Left out: 1 frame whose file is missing ({tmp_path}/labeled-data/mon).",
    )
    assert pairs(dataset) == [(10, 10), (20, 20)]
    dataset.close()


@pytest.mark.parametrize(
    "before", ["labeled-data\\mon\\", "C:\\lab\\labeled-data\\mon\\", "labeled-data,mon,"]
)
def test_paths_of_windows_and_in_three_columns_are_found(tmp_path, before):
    folder = tmp_path / "labeled-data/mon"
    for grey in (1, 2):
        picture(folder / f"img{grey}.png", grey)
    table(folder / "CollectedData_me.csv", *[(f"{before}img{grey}.png", grey) for grey in (1, 2)])
    if "," in before:
        text = (folder / "CollectedData_me.csv").read_text().splitlines()
        head = [line.replace(",", ",,,", 1) for line in text[:3]]
        (folder / "CollectedData_me.csv").write_text("\n".join(head + text[3:]) + "\n")
    found, dataset = converted(folder / "CollectedData_me.csv", tmp_path / "a.h5")
    assert found.notes == ()
    assert pairs(dataset) == [(10, 10), (20, 20)]
    assert dataset.groups.tolist() == ["mon", "mon"]
    dataset.close()


@pytest.mark.parametrize("case", ["ok", "backslash", "threecol", "order", "ma", "absent_part"])
def test_tables_as_people_have_them_are_converted(tmp_path, case):
    made = make_case("dlc_csvs", tmp_path) / "dlc" / case / "labeled-data/vid1/CollectedData_me.csv"
    found, dataset = converted(made, tmp_path / "a.h5")
    assert (found.frames, found.notes) == (6, ())
    snout = dataset.points[:, 0, dataset.keypoint_names.index("snout")]
    np.testing.assert_array_equal(snout, [(i + 9, i + 6) for i in range(6)])
    dataset.close()


def test_a_table_of_predictions_for_a_film_names_no_images(tmp_path):
    table(tmp_path / "filmDLC.csv", ("0", 1), ("1", 2))
    with pytest.raises(DatasetError, match=r"filmDLC\.csv: .*its row '0' names no image file"):
        converted(tmp_path / "filmDLC.csv", tmp_path / "a.h5")


def test_a_table_without_rows_has_no_labelled_frame(tmp_path):
    table(tmp_path / "CollectedData_me.csv")
    with pytest.raises(
        DatasetError,
        match=r"CollectedData_me\.csv: no labelled frame with an image was found in it",
    ):
        converted(tmp_path / "CollectedData_me.csv", tmp_path / "a.h5")


def test_images_of_a_moved_project_are_found_in_a_folder_that_is_named(tmp_path):
    picture(tmp_path / "new/labeled-data/mon/img1.png", 1)
    table(tmp_path / "old/CollectedData_me.csv", ("labeled-data\\mon\\img1.png", 1))
    convert(
        str(tmp_path / "old/CollectedData_me.csv"),
        tmp_path / "a.h5",
        False,
        lambda f, n: f,
        tmp_path / "new",
    )
    with closing(open_dataset(tmp_path / "a.h5")) as dataset:
        assert pairs(dataset) == [(10, 10)]


def test_a_first_row_without_labels_is_counted(tmp_path):
    made = make_case("dlc_csvs", tmp_path) / "dlc/firstempty/labeled-data/vid1/CollectedData_me.csv"
    found, dataset = converted(made, tmp_path / "a.h5")
    assert (found.frames, found.notes) == (5, ("Left out: 1 frame without a labelled point.",))
    snout = dataset.points[:, 0, dataset.keypoint_names.index("snout")]
    np.testing.assert_array_equal(snout, [(i + 9, i + 6) for i in range(1, 6)])
    dataset.close()
