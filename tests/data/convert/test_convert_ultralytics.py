"""Ultralytics pose datasets: all splits, left/right partners, and images that are missing."""

import numpy as np
import pytest
from convert_cases import converted
from PIL import Image

from hgtrain.errors import DatasetError

NAN = np.nan
pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")


def split(root, name, layout, *greys):
    """Write images 20x10 px, their grey value is x of the first keypoint in px."""
    images, labels = (root / layout.format(kind=kind, split=name) for kind in ("images", "labels"))
    images.mkdir(parents=True)
    labels.mkdir(parents=True)
    for grey in greys:
        Image.new("L", (20, 10), grey).save(images / f"{grey}.png")
        (labels / f"{grey}.txt").write_text(f"0 .5 .5 1 1 {grey / 20} .5 2 .75 .2 2 .25 .4 2\n")
    return images


def pairs(dataset):
    """Return grey value and x of each frame."""
    return [
        (int(dataset.read_images([i])[0, 0, 0, 0]), round(float(dataset.points[i, 0, 0, 0])))
        for i in range(len(dataset))
    ]


@pytest.mark.parametrize("layout", ["{split}/{kind}", "{kind}/{split}"])
def test_all_splits_and_partners_are_read(tmp_path, layout):
    config = "kpt_shape: [3, 3]\nflip_idx: [0, 2, 1]\nnames: [fly]\n"
    for name, greys in (("train", (1, 2)), ("val", (3,)), ("test", (4,))):
        split(tmp_path, name, layout, *greys)
        config += f"{name}: {layout.format(kind='images', split=name)}\n"
    (tmp_path / "data.yaml").write_text(config)
    found, dataset = converted(tmp_path, tmp_path / "a.h5")
    assert found.notes == ()
    assert pairs(dataset) == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert dataset.symmetries == ((1, 2),)
    dataset.close()


def test_labels_without_an_image_are_counted(tmp_path):
    images = split(tmp_path, "train", "{split}/{kind}", 1, 2)
    (images / "1.png").unlink()
    (tmp_path / "data.yaml").write_text("kpt_shape: [3, 3]\nnames: [fly]\ntrain: train/images\n")
    found, dataset = converted(tmp_path / "data.yaml", tmp_path / "a.h5")
    assert len(found.notes) == 1
    assert found.notes[0].startswith("Left out: 1 frame whose file is missing (")
    assert pairs(dataset) == [(2, 2)]
    dataset.close()


def test_a_dataset_without_images_is_an_error_that_says_where_they_were_looked_for(tmp_path):
    (tmp_path / "data.yaml").write_text("kpt_shape: [3, 3]\nnames: [fly]\ntrain: train/images\n")
    with pytest.raises(DatasetError, match=rf"no images found in {tmp_path} for train, val"):
        converted(tmp_path, tmp_path / "a.h5")


def lines_of(folder, *lines):
    """Write an image 20x10 px for each line of labels."""
    for part in ("images", "labels"):
        (folder / "train" / part).mkdir(parents=True)
    for i, line in enumerate(lines):
        Image.new("L", (20, 10), 10).save(folder / f"train/images/{i}.png")
        (folder / f"train/labels/{i}.txt").write_text(line + "\n")


def test_hidden_points_stay_hidden_and_those_not_labelled_are_left_out_and_counted(tmp_path):
    (tmp_path / "data.yaml").write_text("kpt_shape: [3, 3]\nnames: [fly]\ntrain: train/images\n")
    lines_of(
        tmp_path,
        "0 .5 .5 1 1  .1 .2 2  .3 .4 1  .5 .6 0",
        "0 .5 .5 1 1  .1 .2 1  0 0 2  0 0 0\n0 .5 .5 1 1  .2 .1 2.0  0.5 0 2  0 0.5 1",
    )
    found, dataset = converted(tmp_path, tmp_path / "a.h5")
    assert found.notes == (
        "Left out: 1 point marked as not labelled (visibility 0), 1 point at 0, 0, which stands "
        "for none.",
    )
    assert dataset.visibility.tolist() == [[[2, 1, 0], [0, 0, 0]], [[1, 0, 0], [2, 2, 1]]]
    none = [NAN, NAN]
    np.testing.assert_allclose(dataset.points[0], [[[2, 2], [6, 4], none], [none] * 3], rtol=1e-6)
    np.testing.assert_allclose(
        dataset.points[1], [[[2, 2], none, none], [[4, 1], [10, 0], [0, 5]]], rtol=1e-6
    )
    dataset.close()


def test_where_no_point_has_visibility_2_the_value_1_means_visible(tmp_path):
    (tmp_path / "data.yaml").write_text("kpt_shape: [2, 3]\nnames: [fly]\ntrain: train/images\n")
    lines_of(tmp_path, "0 .5 .5 1 1 .1 .2 1 .3 .4 1")
    _, dataset = converted(tmp_path, tmp_path / "a.h5")
    assert dataset.visibility[0, 0].tolist() == [2, 2]
    dataset.close()


@pytest.mark.parametrize("keypoints", [2, 3])
def test_keypoints_without_visibility_are_read(tmp_path, keypoints):
    shape = f"kpt_shape: [{keypoints}, 2]\nnames: [fly]\ntrain: train/images\n"
    (tmp_path / "data.yaml").write_text(shape)
    rest = " .1 .1" * (keypoints - 2)
    lines_of(tmp_path, "0 .5 .5 1 1 .1 .2 0 0" + rest, "0 .5 .5 1 1 .3 .4 -1 -1" + rest)
    found, dataset = converted(tmp_path, tmp_path / "a.h5")
    assert found.notes == (
        "Left out: 1 point at 0, 0, which stands for none, 1 point marked as not labelled "
        "(visibility 0).",
    )
    assert dataset.visibility[:, 0, :2].tolist() == [[2, 0], [2, 0]]
    np.testing.assert_allclose(dataset.points[:, 0, 0], [[2, 2], [6, 4]], rtol=1e-6)
    dataset.close()


def test_lines_that_are_no_animals_do_not_shift_the_visibility_of_others(tmp_path):
    (tmp_path / "data.yaml").write_text("kpt_shape: [2, 3]\nnames: [fly]\ntrain: train/images\n")
    lines_of(
        tmp_path,
        "# a comment\n0 .5 .5 1 1\n0.5 .5 .5 1 1 .1 .2 2 .3 .4 2\n0 .5 .5 1 1 .1 .2 2\n\n"
        "0 .5 .5 1 1 .1 .2 2 .3 .4 1",
    )
    _, dataset = converted(tmp_path, tmp_path / "a.h5")
    assert dataset.visibility.tolist() == [[[2, 1]]]
    dataset.close()
