"""Labels whose images are not beside them.

COCO's own layout, PoseTrack's, and projects that were moved.
"""

import json

import numpy as np
import pytest
from convert_cases import converted
from PIL import Image
from videos import write_video

from hgtrain.data.convert.convert import convert
from hgtrain.data.convert.sleap_io import to_foreign_video
from hgtrain.data.open import open_dataset
from hgtrain.errors import DatasetError

NAN = np.nan
sleap_io = pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")


def picture(path, grey):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (20, 10), grey).save(path)


def coco(path, *names):
    """Write COCO labels of one keypoint at x = 1, 2, ... in order of the images."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [
        {"id": i, "file_name": name, "height": 10, "width": 20} for i, name in enumerate(names, 1)
    ]
    labels = [
        {"id": i, "image_id": i, "category_id": 1, "keypoints": [i, 5, 2], "num_keypoints": 1}
        for i in range(1, len(names) + 1)
    ]
    category = {"id": 1, "name": "fly", "keypoints": ["head"], "skeleton": []}
    path.write_text(json.dumps({"images": images, "categories": [category], "annotations": labels}))
    return path


def pairs(dataset):
    """Return grey value and x of each frame."""
    return [
        (int(dataset.read_images([i])[0, 0, 0, 0]), int(dataset.points[i, 0, 0, 0]))
        for i in range(len(dataset))
    ]


@pytest.mark.parametrize(
    ("labels", "folder", "prefix"),
    [
        ("annotations/person_keypoints_val2017.json", "val2017", ""),
        ("annotations/x.json", "images/val2017", ""),
        ("annotations/val/000342.json", "", "images/val/000342/"),
        ("x.json", "", ""),
        ("x.json", "data/set/deep", ""),
    ],
)
def test_images_are_found_in_the_layouts_of_coco_and_posetrack(tmp_path, labels, folder, prefix):
    names = [f"{prefix}{i}.png" for i in (1, 2)]
    for grey, name in enumerate(names, 1):
        picture(tmp_path / folder / name, grey)
    found, dataset = converted(coco(tmp_path / labels, *names), tmp_path / "a.h5")
    assert found.notes == ()
    assert pairs(dataset) == [(1, 1), (2, 2)]
    dataset.close()


def test_of_images_with_one_name_that_of_the_folder_in_the_name_of_the_labels_is_taken(tmp_path):
    picture(tmp_path / "train2017/1.png", 9)
    picture(tmp_path / "val2017/1.png", 1)
    _, dataset = converted(
        coco(tmp_path / "annotations/person_val2017.json", "1.png"), tmp_path / "a.h5"
    )
    assert pairs(dataset) == [(1, 1)]
    dataset.close()


def test_an_image_of_the_same_name_in_a_neighbouring_project_is_not_taken(tmp_path):
    picture(tmp_path / "other/1.png", 9)
    picture(tmp_path / "mine/2.png", 2)
    _, dataset = converted(coco(tmp_path / "mine/x.json", "1.png", "2.png"), tmp_path / "a.h5")
    assert pairs(dataset) == [(2, 2)]
    dataset.close()


def test_missing_images_of_coco_are_counted(tmp_path):
    picture(tmp_path / "2.png", 2)
    found, dataset = converted(coco(tmp_path / "x.json", "1.png", "2.png"), tmp_path / "a.h5")
    assert found.notes == (f"Left out: 1 frame whose file is missing ({tmp_path}).",)
    assert pairs(dataset) == [(2, 2)]
    dataset.close()


def test_images_that_are_nowhere_are_an_error_that_says_where_they_were_looked_for(tmp_path):
    path = coco(tmp_path / "x.json", "gone/1.png")
    with pytest.raises(
        DatasetError, match=rf"1 frame whose file is missing \({tmp_path}/gone\); --images DIR says"
    ):
        converted(path, tmp_path / "a.h5")


def test_the_group_of_an_image_is_its_own_folder(tmp_path):
    names = ["mon/1.png", "tue/1.png", "mon/2.png"]
    for name in names:
        picture(tmp_path / name, 1)
    _, dataset = converted(coco(tmp_path / "x.json", *names), tmp_path / "a.h5")
    assert dataset.groups.tolist() == ["mon", "tue", "mon"]
    dataset.close()


def with_visibility(path, *values):
    """Write COCO labels of an image each with two keypoints, of which the second has this
    visibility."""
    coco(path, *[f"{i}.png" for i in range(1, len(values) + 1)])
    document = json.loads(path.read_text())
    document["categories"][0]["keypoints"] = ["head", "tail"]
    for label, (first, second) in zip(document["annotations"], values, strict=True):
        label["keypoints"] = [4, 5, first, 6, 7, second]
        picture(path.parent / f"{label['image_id']}.png", 1)
    path.write_text(json.dumps(document))
    return path


def test_a_hidden_point_of_coco_stays_hidden(tmp_path):
    path = with_visibility(tmp_path / "x.json", (2, 1), (2, 2), (2, 0))
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.notes == ("Left out: 1 point marked as not labelled (visibility 0).",)
    assert dataset.visibility[:, 0].tolist() == [[2, 1], [2, 2], [2, 0]]
    np.testing.assert_array_equal(dataset.points[:2, 0], [[[4, 5], [6, 7]]] * 2)
    dataset.close()


def test_where_no_point_has_visibility_2_the_value_1_means_visible(tmp_path):
    path = with_visibility(tmp_path / "x.json", (1, 1), (1, 0))
    _, dataset = converted(path, tmp_path / "a.h5")
    assert dataset.visibility[:, 0].tolist() == [[2, 2], [2, 0]]
    dataset.close()


def test_points_at_the_origin_and_animals_to_be_ignored_are_left_out_and_counted(tmp_path):
    path = with_visibility(tmp_path / "x.json", (2, 2), (2, 1))
    document = json.loads(path.read_text())
    first = document["annotations"][0]
    first["keypoints"][3:] = [0, 0, 2]
    others = [
        {"id": 3, "image_id": 1, "keypoints": [9, 9, 2, 8, 8, 2], "iscrowd": 1},
        {"id": 4, "image_id": 2, "keypoints": [9, 9, 2, 8, 8, 2], "ignore": True},
        {"id": 5, "image_id": 2, "keypoints": [0, 0, 0, 8, 8, 2], "iscrowd": 0, "ignore": False},
    ]
    document["annotations"] += [other | {"category_id": 1} for other in others]
    path.write_text(json.dumps(document))
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.notes == (
        "Left out: 1 point at 0, 0, which stands for none, 2 animals marked as crowd or to be "
        "ignored.",
    )
    assert dataset.visibility.tolist() == [[[2, 0], [0, 0]], [[2, 1], [0, 2]]]
    np.testing.assert_array_equal(dataset.points[1], [[[4, 5], [6, 7]], [[NAN, NAN], [8, 8]]])
    dataset.close()


@pytest.mark.parametrize("is_nested", [True, False])
def test_points_in_a_region_that_posetrack_ignores_are_left_out_and_counted(tmp_path, is_nested):
    path = with_visibility(tmp_path / "x.json", (1, 1), (1, 1))
    document = json.loads(path.read_text())
    # An L: 6, 7 is inside, 4, 5 in its notch.
    x, y = [3, 10, 10, 5, 5, 3], [9, 9, 2, 2, 6, 6]
    document["images"][1] |= {
        "ignore_regions_x": [x] if is_nested else x,
        "ignore_regions_y": [y] if is_nested else y,
    }
    document["images"][0] |= {"ignore_regions_x": [], "ignore_regions_y": []}
    path.write_text(json.dumps(document))
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.notes == (
        "Left out: 1 region to be ignored (animals there are not labelled), 1 point in a region "
        "to be ignored.",
    )
    assert dataset.visibility[:, 0].tolist() == [[2, 2], [2, 0]]
    np.testing.assert_array_equal(dataset.points[1, 0], [[4, 5], [NAN, NAN]])
    dataset.close()


def moved(source, folder, images):
    found = convert(str(source), folder / "a.h5", False, lambda frames, total: frames, images)
    return found, open_dataset(folder / "a.h5")


def test_images_elsewhere_are_found_in_a_folder_that_is_named(tmp_path):
    for grey in (1, 2):
        picture(tmp_path / f"elsewhere/{grey}.png", grey)
    found, dataset = moved(
        coco(tmp_path / "x.json", "a/1.png", "a/2.png"), tmp_path, tmp_path / "elsewhere"
    )
    assert found.notes == ()
    assert pairs(dataset) == [(1, 1), (2, 2)]
    dataset.close()


def test_an_image_that_two_labels_could_mean_is_not_taken(tmp_path):
    picture(tmp_path / "elsewhere/1.png", 1)
    picture(tmp_path / "elsewhere/b/2.png", 2)
    path = coco(tmp_path / "x.json", "a/1.png", "b/1.png", "b/2.png")
    found, dataset = moved(path, tmp_path, tmp_path / "elsewhere")
    assert pairs(dataset) == [(2, 3)]
    assert found.notes[0].count("whose file is missing") == 2
    dataset.close()


@pytest.mark.parametrize("name", ["/gone/film.mp4", "C:\\films\\film.mp4"])
def test_films_of_a_moved_project_are_found_in_a_folder_that_is_named(tmp_path, name):
    (tmp_path / "films").mkdir()
    write_video(tmp_path / "films" / "film.mp4", 8)
    video = to_foreign_video([str(tmp_path / "film.mp4")], "video", (8, 32, 48, 1), 25.0)
    video.replace_filename(name, open=False)
    skeleton = sleap_io.Skeleton(["nose"])
    animal = sleap_io.Instance.from_numpy(np.array([[1.0, 2.0]]), skeleton=skeleton)
    frame = sleap_io.LabeledFrame(video=video, frame_idx=6, instances=[animal])
    sleap_io.save_slp(sleap_io.Labels([frame]), str(tmp_path / "a.slp"), embed=False, verbose=False)
    found, dataset = moved(tmp_path / "a.slp", tmp_path, tmp_path / "films")
    assert found.frames == 1
    assert abs(dataset.read_images([0]).mean() - 120) < 3
    dataset.close()
