import numpy as np
import pytest

from hgtrain.data.split import Subset
from hgtrain.errors import DatasetError
from hgtrain.evaluate.predictions import evaluate_side, predict_side
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.poses import Poses
from hgtrain.skeleton import check_same_keypoints


class Dataset:
    """Frames whose one keypoint lies at (frame, frame), and images of that brightness."""

    path = "a.h5"
    keypoint_names = ("nose",)

    def __init__(self, frames, groups=None):
        self.points = np.arange(frames, dtype=np.float32)[:, None, None, None].repeat(2, axis=3)
        self.visibility = np.full((frames, 1, 1), 2, np.uint8)
        self.groups = groups

    def read_images(self, indices):
        return np.array([np.full((2, 2, 1), i) for i in indices], np.uint8)


class Brightness:
    """Finds the keypoint 3 px beside where it is."""

    needs_centroids = False

    def __call__(self, images):
        at = images.mean((1, 2, 3), dtype=np.float32)
        points = np.stack([at, at + 3], -1)[:, None, None]
        return Poses(points, np.full(points.shape[:3], 0.5), np.full(points.shape[:2], 0.5))


brightness, HEAD = Brightness(), SingleInstance(1, 4, 5.0)


def test_every_frame_of_a_side_is_predicted_in_its_order():
    frames = np.arange(3, 80)
    found, images_per_s = predict_side(brightness, Subset(Dataset(100), frames))
    np.testing.assert_array_equal(found.points[:, 0, 0, 0], frames)
    assert (found.confidence.shape, found.scores.shape) == ((77, 1, 1), (77, 1))
    assert images_per_s > 0


def test_progress_passes_over_the_blocks():
    seen = []
    predict_side(
        brightness,
        Subset(Dataset(100), np.arange(70)),
        lambda starts: (seen.append(i) or i for i in starts),
    )
    assert seen == [0, 32, 64]


def test_errors_are_those_of_the_sides_frames():
    groups = np.array(["a"] * 50 + ["b"] * 50)
    side = Subset(Dataset(100, groups), np.array([10, 60, 61]))
    evaluation = evaluate_side(*predict_side(brightness, side), side, HEAD)
    assert evaluation["frames"] == 3
    assert evaluation["error_px"]["mean"] == 3.0
    assert [(group["name"], group["frames"]) for group in evaluation["per_group"]] == [
        ("a", 1),
        ("b", 2),
    ]


def test_the_speed_is_kept():
    side = Subset(Dataset(2), np.arange(2))
    found = brightness(side.dataset.read_images([0, 1]))
    assert evaluate_side(found, 12.5, side, HEAD)["images_per_s"] == 12.5


def test_the_same_keypoints_in_the_same_order_are_accepted():
    check_same_keypoints(("a", "b"), ["a", "b"], "a.h5", "the run r")


@pytest.mark.parametrize("names", [("b", "a"), ("a",), ("a", "B")])
def test_other_keypoints_are_refused(names):
    with pytest.raises(DatasetError, match=r"a\.h5"):
        check_same_keypoints(names, ["a", "b"], "a.h5", "the run r")
