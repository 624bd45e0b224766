"""Images behind foreign labels.

Each is looked at by itself, and what cannot be looked at is counted.
"""

import re

import av
import h5py
import numpy as np
import pytest
from convert_cases import converted, make_case
from PIL import Image

from hgtrain.data.convert.sleap_io import to_foreign_video
from hgtrain.errors import DatasetError

sleap_io = pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")

SKELETON = sleap_io.Skeleton(["nose"])


def save(path, *frames):
    labelled = [
        sleap_io.LabeledFrame(
            video=video,
            frame_idx=number,
            instances=[sleap_io.Instance.from_numpy(np.array([[1.0, 2.0]]), skeleton=SKELETON)],
        )
        for video, number in frames
    ]
    sleap_io.save_slp(sleap_io.Labels(labelled), str(path), embed=False, verbose=False)
    return path


def stored(folder, *images):
    files = [str(folder / f"{i}.png") for i in range(len(images))]
    for file, image in zip(files, images, strict=True):
        image.save(file)
    return files


def test_a_grey_first_image_leaves_the_others_their_colours(tmp_path):
    files = stored(tmp_path, Image.new("L", (20, 10), 7), Image.new("RGB", (20, 10), (200, 20, 30)))
    video = to_foreign_video(files, "images", (2, 10, 20, 1), None)
    _, dataset = converted(save(tmp_path / "a.slp", (video, 0), (video, 1)), tmp_path / "a.h5")
    assert dataset.read_images([0, 1])[:, 3, 4].tolist() == [[7, 7, 7], [200, 20, 30]]
    dataset.close()


def test_the_size_is_that_of_the_images_and_not_of_the_metadata(tmp_path):
    files = stored(tmp_path, Image.new("L", (20, 10), 7))
    video = to_foreign_video(files, "images", (1, 99, 77, 3), None)
    found, dataset = converted(save(tmp_path / "a.slp", (video, 0)), tmp_path / "a.h5")
    assert dataset.image_shape == (10, 20, 1)
    assert found.notes == ()
    dataset.close()


def test_a_frame_beyond_an_image_list_is_counted(tmp_path):
    files = stored(tmp_path, Image.new("L", (20, 10), 7))
    video = to_foreign_video(files, "images", (1, 10, 20, 1), None)
    found, dataset = converted(save(tmp_path / "a.slp", (video, 0), (video, 3)), tmp_path / "a.h5")
    assert found.notes == (
        f"Left out: 1 frame beyond the end of {tmp_path}, which has 1 images (frame 3).",
    )
    dataset.close()


def test_only_broken_images_are_an_error_that_says_why(tmp_path):
    files = stored(tmp_path, Image.new("L", (20, 10), 7))
    video = to_foreign_video(files, "images", (1, 10, 20, 1), None)
    path = save(tmp_path / "a.slp", (video, 0))
    (tmp_path / "0.png").write_bytes((tmp_path / "0.png").read_bytes()[:50])
    with pytest.raises(
        DatasetError, match=r"no frame is left .*0\.png: cannot be read as an image"
    ):
        converted(path, tmp_path / "a.h5")


def test_colours_in_a_deeplabcut_folder_with_a_grey_first_image_stay(tmp_path):
    folder = make_case("dlc_mixed_channels", tmp_path)
    _, dataset = converted(
        folder / "dlcmix/labeled-data/vid1/CollectedData_me.csv", tmp_path / "a.h5"
    )
    assert dataset.keypoint_names == ("bluemark", "redmark")
    assert dataset.read_images([1])[0, 44, 44].tolist() == [20, 20, 240]
    assert dataset.read_images([1])[0, 14, 14].tolist() == [240, 20, 20]
    dataset.close()


def test_a_first_image_that_is_cut_off_is_counted_and_the_rest_converted(tmp_path):
    folder = make_case("dlc_first_image_broken", tmp_path)
    found, dataset = converted(
        folder / "dlcfirst/labeled-data/vid1/CollectedData_me.csv", tmp_path / "a.h5"
    )
    assert found.notes[0].startswith("Left out: 1 frame that cannot be read (")
    snout = dataset.points[:, 0, dataset.keypoint_names.index("snout")].astype(int)
    assert snout.tolist() == [[9 + 5 * i, 6 + 5 * i] for i in range(1, 6)]
    assert [dataset.read_images([i])[0, y, x, 0] for i, (x, y) in enumerate(snout)] == [200] * 5
    dataset.close()


@pytest.mark.parametrize(
    ("case", "path", "frames", "reason"),
    [
        ("broken_film", "broken/labels.slp", 6, r"b\.mp4: is no video that can be read"),
        ("film_without_frames", "nofr/labels.slp", 3, r"headonly\.mkv: ends after 0 "),
    ],
)
def test_a_film_that_cannot_be_read_does_not_stop_the_others(
    tmp_path, monkeypatch, case, path, frames, reason
):
    folder = make_case(case, tmp_path)
    monkeypatch.chdir(folder)
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.frames == frames
    assert len(found.notes) == 1
    assert re.match(rf"Left out: 3 frames that cannot be read \(.*{reason}", found.notes[0])
    place = dataset.points[:, 0, 0].astype(int)
    assert place[:3].tolist() == [[12, 9], [21, 18], [30, 27]]
    marks = [dataset.read_images([i])[0, y, x, 0] for i, (x, y) in enumerate(place)]
    np.testing.assert_allclose(marks, 219, atol=6)
    dataset.close()


@pytest.mark.parametrize(("most", "bits"), [(4095, 12), (1000, 10), (60000, 16)])
def test_16_bit_images_of_a_camera_of_fewer_bits_are_scaled_alike(tmp_path, capsys, most, bits):
    values = (most // 16, most, most // 2)
    files = []
    for i, value in enumerate(values):
        files.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(np.full((10, 20), value, np.uint16)).save(files[-1])
    video = to_foreign_video(files, "images", (3, 10, 20, 1), None)
    path = save(tmp_path / "a.slp", *[(video, i) for i in range(3)])
    found, dataset = converted(path, tmp_path / "a.h5")
    assert (found.frames, dataset.image_shape) == (3, (10, 20, 1))
    step = 2 ** (bits - 8)
    assert dataset.read_images(range(3))[:, 0, 0, 0].tolist() == [v // step for v in values]
    assert (f"use {bits} bits (the largest value is {most})" in capsys.readouterr().err) == (
        bits < 16
    )
    dataset.close()


def test_16_bit_frames_of_an_hdf5_video_and_of_a_stack_of_pages_are_scaled_too(tmp_path):
    frames = np.stack([np.full((10, 20), 100 + 1000 * i, np.uint16) for i in range(4)])
    with h5py.File(tmp_path / "film.h5", "w") as file:
        file["images"] = frames[..., None]
    pages = [Image.fromarray(frame) for frame in frames]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    videos = [
        to_foreign_video([str(tmp_path / "film.h5")], "dataset", (4, 10, 20, 1), None),
        sleap_io.Video.from_filename(str(tmp_path / "stack.tif")),
    ]
    path = save(tmp_path / "a.slp", *[(video, i) for video in videos for i in (0, 3)])
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.notes == ()
    assert dataset.read_images(range(4)).max((1, 2, 3)).tolist() == [6, 193, 6, 193]
    dataset.close()


def test_the_pages_of_a_tiff_file_are_the_frames_of_their_numbers(tmp_path):
    pages = [Image.new("L", (20, 10), 10 * i) for i in range(6)]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    video = sleap_io.Video.from_filename(str(tmp_path / "stack.tif"))
    path = save(tmp_path / "a.slp", *[(video, i) for i in (1, 4, 6)])
    found, dataset = converted(path, tmp_path / "a.h5")
    assert found.notes == (
        f"Left out: 1 frame beyond the end of {tmp_path}/stack.tif, which has 6 images (frame 6).",
    )
    assert dataset.image_shape == (10, 20, 1)
    assert dataset.read_images([0, 1])[:, 0, 0, 0].tolist() == [10, 40]
    dataset.close()


def test_a_film_of_12_bits_is_scaled_and_its_depth_told_once(tmp_path, capsys):
    with av.open(str(tmp_path / "film.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = 20, 10, "gray16le"
        for value in (255, 2047, 4095):
            pixels = np.full((10, 20), value, np.uint16)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="gray16le")))
        container.mux(stream.encode())
    video = to_foreign_video([str(tmp_path / "film.mkv")], "video", (3, 10, 20, 1), 10.0)
    path = save(tmp_path / "a.slp", *[(video, i) for i in range(3)])
    _, dataset = converted(path, tmp_path / "a.h5")
    assert dataset.read_images(range(3))[:, 0, 0, 0].tolist() == [15, 127, 255]
    dataset.close()
    told = capsys.readouterr().err
    assert told.count("film.mkv: its 16-bit images use 12 bits (the largest value is 4095)") == 1
