"""Labels and images that are damaged or make no sense: one message, or the rest without them."""

import json
import struct
import zlib

import h5py
import numpy as np
import pytest
from convert_cases import converted
from PIL import Image

from hgtrain.data.convert.sleap_io import to_foreign_video
from hgtrain.errors import DatasetError

sleap_io = pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")

SKELETON = sleap_io.Skeleton(["nose"])


def ultralytics(folder, config):
    """Write three images 20x10 px with a keypoint in the middle of each."""
    for part in ("images", "labels"):
        (folder / "train" / part).mkdir(parents=True)
    for i in range(3):
        Image.new("L", (20, 10), i).save(folder / f"train/images/{i}.png")
        (folder / f"train/labels/{i}.txt").write_text("0 .5 .5 1 1 .5 .5 2\n")
    (folder / "data.yaml").write_text(
        "kpt_shape: [1, 3]\nnames: [fly]\ntrain: train/images\n" + config
    )
    return folder / "data.yaml"


def coco(folder, names):
    Image.new("L", (20, 10), 7).save(folder / "0.png")
    points = [value for i in range(len(names)) for value in (i + 1, i + 2, 2)]
    label = {
        "id": 0,
        "image_id": 0,
        "category_id": 1,
        "keypoints": points,
        "num_keypoints": len(names),
    }
    document = {
        "images": [{"id": 0, "file_name": "0.png", "width": 20, "height": 10}],
        "annotations": [label | {"bbox": [0, 0, 9, 9], "area": 81, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "fly", "keypoints": names, "skeleton": []}],
    }
    (folder / "labels.json").write_text(json.dumps(document))
    return folder / "labels.json"


def labels(path, video, count, embed=False):
    frames = [
        sleap_io.LabeledFrame(
            video=video,
            frame_idx=i,
            instances=[sleap_io.Instance.from_numpy(np.array([[i, 2.0]]), skeleton=SKELETON)],
        )
        for i in range(count)
    ]
    sleap_io.save_slp(sleap_io.Labels(frames), str(path), embed=embed, verbose=False)
    return path


def pictures(folder, count):
    files = [str(folder / f"{i}.png") for i in range(count)]
    for i, file in enumerate(files):
        Image.new("RGB", (20, 10), (10 * i, 20, 30)).save(file)
    return files


def with_size(data, width, height):
    """Return a PNG whose header says another size, with a checksum that fits."""
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("flip_idx: [0\n", r"data\.yaml: sleap-io cannot read labels from it: while parsing"),
        ("flip_idx: \x01\n", r"data\.yaml: sleap-io cannot read labels from it: unacceptable"),
        (
            'node_names: ["a\\0b"]\n',
            r"a\.h5: skeleton: the name 'a\\x00b' has a character that HDF5 cannot hold",
        ),
        ('node_names: [" "]\n', r"a\.h5: skeleton: the name '' of keypoint 0 is empty"),
        ("flip_idx: [0, x]\n", "cannot read labels from it"),
    ],
)
def test_an_ultralytics_config_that_makes_no_sense_is_refused_in_one_line(
    tmp_path, config, message
):
    source = ultralytics(tmp_path, config)
    with pytest.raises(DatasetError, match=message) as caught:
        converted(source, tmp_path / "a.h5")
    assert "\n" not in str(caught.value)


def test_keypoints_with_numbers_for_names_are_read(tmp_path):
    _, dataset = converted(coco(tmp_path, [1, 2]), tmp_path / "a.h5")
    assert dataset.keypoint_names == ("1", "2")
    assert dataset.points[0, 0].tolist() == [[1, 2], [2, 3]]
    dataset.close()


def test_names_that_differ_by_padding_alone_are_refused(tmp_path):
    with pytest.raises(DatasetError, match="the name 'nose' of keypoint 1 is also keypoint 0"):
        converted(coco(tmp_path, ["nose", "nose "]), tmp_path / "a.h5")


def test_a_document_without_a_part_says_which(tmp_path):
    path = coco(tmp_path, ["nose"])
    document = json.loads(path.read_text())
    del document["images"][0]["id"]
    path.write_text(json.dumps(document))
    with pytest.raises(DatasetError, match=r"cannot read labels from it: 'id' is missing$"):
        converted(path, tmp_path / "a.h5")


def test_a_header_with_a_false_size_leaves_the_others_their_size(tmp_path):
    files = pictures(tmp_path, 4)
    damaged = tmp_path / "2.png"
    damaged.write_bytes(with_size(damaged.read_bytes(), 3000, 2000))
    path = labels(tmp_path / "a.slp", to_foreign_video(files, "images", None, None), 4)
    found, dataset = converted(path, tmp_path / "a.h5")
    assert dataset.image_shape == (10, 20, 3)
    assert dataset.points[:, 0, 0, 0].tolist() == [0, 1, 3]
    assert dataset.read_images([0, 1, 2])[:, 5, 5, 0].tolist() == [0, 10, 30]
    assert len(found.notes) == 1
    assert found.notes[0].startswith(f"Left out: 1 frame that cannot be read ({damaged}: ")
    dataset.close()


def test_an_embedded_image_with_a_damaged_header_costs_itself_alone(tmp_path):
    video = sleap_io.Video.from_filename(pictures(tmp_path, 3))
    path = labels(tmp_path / "a.pkg.slp", video, 3, embed=True)
    data = bytearray(path.read_bytes())
    second = data.index(b"IHDR", data.index(b"IHDR") + 4)
    data[second + 17] ^= 1
    path.write_bytes(data)
    found, dataset = converted(path, tmp_path / "a.h5")
    assert "1 frame that cannot be read" in found.notes[0]
    assert len(dataset) == 2
    dataset.close()


def test_stored_images_of_another_shape_are_named(tmp_path):
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["images"] = np.zeros((2, 10, 20, 5), np.uint8)
    video = to_foreign_video([str(tmp_path / "images.h5")], "dataset", (2, 10, 20, 5), None)
    path = labels(tmp_path / "a.slp", video, 2)
    with pytest.raises(
        DatasetError, match=r"has the shape \(10, 20, 5\), expected \(height, width, 1"
    ):
        converted(path, tmp_path / "a.h5")


def test_more_keypoints_than_any_animal_has_are_refused_before_they_are_named(tmp_path):
    source = ultralytics(tmp_path, "")
    source.write_text("kpt_shape: [99999999999, 3]\nnames: [fly]\ntrain: train/images\n")
    with pytest.raises(
        DatasetError, match=r"claims 99,999,999,999 keypoints, expected at most 10,000"
    ):
        converted(source, tmp_path / "out.h5")
