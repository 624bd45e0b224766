"""What `sleap_package` reads, held against what sleap-io reads and writes."""

import pickle
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hgtrain.data.formats.sleap_package import open_file

sio = pytest.importorskip("sleap_io", reason="sleap-io is not installed")

SHARED = Path(__file__).parents[3].parent / "shared" / "data"


def points_by_sleap_io(labels) -> np.ndarray:
    return np.array(
        [[instance.numpy() for instance in frame.user_instances] for frame in labels], np.float32
    )


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["fly100.train.pkg.slp", "minimal_instance.pkg.slp"])
def test_packages_of_sleap_read_as_sleap_io_reads_them(name):
    labels = sio.load_slp(str(SHARED / name))
    with closing(open_file(SHARED / name)) as dataset:
        np.testing.assert_array_equal(dataset.points, points_by_sleap_io(labels))
        np.testing.assert_array_equal(dataset.read_images([0])[0], labels[0].image)
        assert list(dataset.keypoint_names) == labels.skeleton.node_names
        assert [list(edge) for edge in dataset.edges] == [
            list(edge) for edge in labels.skeleton.edge_inds
        ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_package_written_by_sleap_io_gives_its_points_pixels_and_skeleton(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (3, 8, 10, 3), np.uint8)
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    skeleton = sio.Skeleton(
        ["a", "b", "c"], edges=[("a", "b"), ("a", "c")], symmetries=[("b", "c")]
    )
    videos = [
        sio.Video.from_filename([str(file) for file in files[:2]]),
        sio.Video.from_filename([str(files[2])]),
    ]
    points = rng.uniform(0, 8, (3, 3, 2))
    points[1, 2] = np.nan
    frames = [
        sio.LabeledFrame(
            video=video, frame_idx=index, instances=[sio.Instance.from_numpy(xy, skeleton=skeleton)]
        )
        for video, index, xy in zip(
            [videos[0], videos[0], videos[1]], [0, 1, 0], points, strict=True
        )
    ]
    path = tmp_path / "written.pkg.slp"
    sio.Labels(frames).save(str(path), embed=True, verbose=False)
    with closing(open_file(path)) as dataset:
        np.testing.assert_allclose(dataset.points[:, 0], points, atol=1e-5)
        np.testing.assert_array_equal(dataset.read_images(range(3)), images)
        assert dataset.visibility[:, 0].tolist() == [[2, 2, 2], [2, 2, 0], [2, 2, 2]]
        assert dataset.groups.tolist() == ["video0", "video0", "video1"]
        assert (dataset.keypoint_names, dataset.edges) == (("a", "b", "c"), ((0, 1), (0, 2)))
        assert {frozenset(pair) for pair in dataset.symmetries} == {frozenset((1, 2))}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("crop", [(10, 5, 50, 35), (-4, -3, 30, 20), (40, 30, 70, 50)])
def test_the_crop_of_a_package_is_what_is_read(tmp_path, crop):
    stored = np.random.default_rng(0).integers(1, 255, (2, 40, 60), np.uint8)
    files = [str(tmp_path / f"{i}.png") for i in range(2)]
    for file, image in zip(files, stored, strict=True):
        Image.fromarray(image).save(file)
    video, skeleton = sio.Video.from_filename(files).crop(crop), sio.Skeleton(["a", "b"])
    points = np.array([[2.0, 3.0], [20.0, 10.0]])
    frames = [
        sio.LabeledFrame(
            video=video, frame_idx=i, instances=[sio.Instance.from_numpy(points, skeleton=skeleton)]
        )
        for i in range(2)
    ]
    path = tmp_path / "cropped.pkg.slp"
    sio.Labels(frames, videos=[video], skeletons=[skeleton]).save(
        str(path), embed=True, verbose=False
    )
    # What lies outside the stored image is black.
    left, top, right, bottom = crop
    shown = np.pad(stored, ((0, 0), (50, 50), (50, 50)))[
        :, top + 50 : bottom + 50, left + 50 : right + 50, None
    ]
    with closing(open_file(path)) as dataset:
        np.testing.assert_array_equal(dataset.read_images(range(2)), shown)
        np.testing.assert_array_equal(dataset.points[:, 0], [points] * 2)
        again = pickle.loads(pickle.dumps(dataset.images))
        np.testing.assert_array_equal(again.read(np.arange(2)), shown)
