from types import SimpleNamespace

import numpy as np
import pytest

from hgtrain.config.head import HeadConfig
from hgtrain.config.schema import BackboneConfig
from hgtrain.data.split import Subset
from hgtrain.errors import ConfigError
from hgtrain.planning.head_from_labels import head_from_labels, head_notes
from hgtrain.skeleton import Skeleton

NAMES, EDGES = ("head", "thorax", "tail"), ((0, 1), (1, 2))
BACKBONE = BackboneConfig(max_stride=16)


def side_of(points: np.ndarray, edges: tuple = EDGES) -> Subset:
    points = np.asarray(points, np.float32)
    dataset = SimpleNamespace(
        path="a.h5",
        keypoint_names=NAMES[: points.shape[2]],
        edges=edges,
        symmetries=(),
        points=points,
        visibility=np.where(np.isfinite(points).all(-1), 2, 0).astype(np.uint8),
    )
    return Subset(dataset, np.arange(len(points)))


def line(x: float, length: float) -> list[list[float]]:
    """An animal whose ends lie `length` px from its middle."""
    return [[x - length, 50], [x, 50], [x + length, 50]]


NONE = [[np.nan, np.nan]] * 3
# The last animal is not labelled.
TWO = side_of([[line(60, 20), line(130, 24), NONE], [line(80, 20), NONE, NONE]])


def resolved(side: Subset = TWO, scale: float = 1.0, **keys: object) -> HeadConfig:
    return head_from_labels(HeadConfig(**keys), side, BACKBONE, scale, lambda key: f"a.yaml:{key}")


def test_the_most_animals_are_those_of_a_labelled_frame_and_two() -> None:
    assert resolved(type="multi_instance").max_instances == 4
    assert resolved(type="centroid").max_instances == 4
    assert resolved(type="centroid", max_instances=1).max_instances == 1


@pytest.mark.parametrize(
    ("keys", "scale", "size"),
    [
        # Twice the longest way from the middle, and a pixel: 49 px, up to a multiple of 16.
        ({}, 1.0, 64),
        ({"anchor": "thorax"}, 1.0, 64),
        # From an end it is twice as far: 97 px.
        ({"anchor": "head"}, 1.0, 112),
        ({}, 0.5, 32),
    ],
)
def test_a_crop_holds_the_animals_of_the_labels(keys: dict, scale: float, size: int) -> None:
    assert resolved(scale=scale, type="centered_instance", **keys).crop_size_px == size


def test_a_head_for_one_animal_takes_nothing_from_the_labels() -> None:
    assert resolved() == HeadConfig()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (
            {"type": "centroid", "anchor": "torax"},
            r"a.yaml:model.head.anchor: model.head.anchor must be a keypoint of a.h5, got 'torax' "
            r"\(nearest: thorax; they are head, thorax, tail\)",
        ),
        (
            {"type": "centered_instance", "crop_size_px": 60},
            r"crop_size_px must be a multiple of model.backbone.max_stride 16, got 60 "
            r"\(nearest: 48, 64\)",
        ),
        (
            # 48 px hold 47 px from end to end: one of 9 keypoints lies outside.
            {"type": "centered_instance", "crop_size_px": 48},
            r"crops of 48 px cut off 11.1% of the labelled keypoints, at most 1% may be: set it "
            r"to 64, or to null",
        ),
    ],
)
def test_a_head_that_does_not_fit_the_labels_is_refused(keys: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        resolved(**keys)


def test_without_edges_nothing_tells_animals_apart() -> None:
    side = side_of([[line(60, 20), line(130, 24)]], edges=())
    with pytest.raises(ConfigError, match=r"a.h5 has none: add them with `hgtrain convert a.h5"):
        resolved(side, type="multi_instance")
    one = side_of([[[[60, 50]], [[90, 50]]]], edges=())
    assert resolved(one, type="multi_instance").max_instances == 4


def test_edges_that_are_not_used_and_keypoints_at_none_are_named() -> None:
    circle = Skeleton(("a", "b", "c", "d"), ((0, 1), (1, 2), (2, 0)))
    notes = list(head_notes(HeadConfig(type="multi_instance"), circle))
    assert len(notes) == 2
    assert "are not used to tell animals apart: " in notes[0]
    assert "keypoints at no edge go to the nearest animal: d (" in notes[1]
    assert list(head_notes(HeadConfig(), circle)) == []
