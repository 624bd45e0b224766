"""The size of the animals and the root of their skeleton, on drawn and on real ones."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from crowds import BODY, SKELETON, write_crowd

from hgtrain.data.animals import animal_px, located_animals, root_keypoint
from hgtrain.data.open import open_dataset
from hgtrain.data.selection import suited_head
from hgtrain.skeleton import Skeleton

LABELLED = np.tile(BODY, (100, 1, 1))


def without(keypoint: int, animals: int) -> np.ndarray:
    points = LABELLED.copy()
    points[:animals, keypoint] = np.nan
    return points


@pytest.mark.parametrize(
    ("edges", "points", "root"),
    [
        (((0, 1), (0, 2)), LABELLED, 0),
        (((1, 0), (0, 2)), LABELLED, 1),
        # Two roots: 2 has more edges.
        (((1, 0), (2, 0), (2, 3)), LABELLED, 2),
        ((), LABELLED, None),
        # A circle has no root.
        (((0, 1), (1, 0)), LABELLED, None),
        # More than 95 in 100.
        (((0, 1), (0, 2)), without(0, 4), 0),
        (((0, 1), (0, 2)), without(0, 5), None),
        (((1, 0), (2, 0), (2, 3)), without(2, 5), 1),
        (((0, 1),), np.full((3, 5, 2), np.nan), None),
    ],
)
def test_the_root_begins_edges_and_is_labelled_in_nearly_all_animals(
    edges: tuple[tuple[int, int], ...], points: np.ndarray, root: int | None
) -> None:
    assert root_keypoint(Skeleton(SKELETON.keypoint_names, edges), points) == root


def test_slots_without_an_animal_do_not_count() -> None:
    points = np.stack([LABELLED, np.full(LABELLED.shape, np.nan)], axis=1)
    assert root_keypoint(SKELETON, points) == 0


def test_all_animals_of_a_frame_are_located(tmp_path: Path) -> None:
    with closing(open_dataset(write_crowd(tmp_path / "a.h5"))) as dataset:
        located = located_animals(dataset, np.array([0, 10, 11]))
        assert suited_head(dataset).several_animals
        assert animal_px(dataset) == 120
    assert located.shape == (3, 2, 5, 2)
    assert np.array_equal(located[0, 1], 140 - 2 * BODY)
    assert np.array_equal(
        np.isfinite(located).all((2, 3)), [[True, True], [True, False], [False] * 2]
    )


@pytest.mark.parametrize(
    ("file", "root"), [("flies2/flies2.train.pkg.slp", "thorax"), ("minimal_instance.pkg.slp", "A")]
)
def test_real_animals_have_a_root(real_data: Path, file: str, root: str) -> None:
    with closing(open_dataset(real_data / file)) as dataset:
        located = located_animals(dataset, np.arange(len(dataset)))
        skeleton = Skeleton(dataset.keypoint_names, dataset.edges)
        assert dataset.keypoint_names[root_keypoint(skeleton, located)] == root
