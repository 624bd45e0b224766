from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from hgtrain.data.dataset import PoseDataset
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.open import open_all
from hgtrain.skeleton import Skeleton

SKELETON = Skeleton(("head", "tail"), ((0, 1),))


def make(path: Path, count: int, first: int = 0, groups=None) -> Path:
    """Write `count` frames; frame i is grey of value first + i, its points are at first + i."""
    shape, points = (4, 5, 1), np.ones((2, 2), np.float32)
    values = range(first, first + count)
    names = groups or [None] * count
    write_dataset(
        path,
        SKELETON,
        (
            (np.full(shape, i, np.uint8), points * i, None, g)
            for i, g in zip(values, names, strict=True)
        ),
    )
    return path


def test_several_files_are_one_dataset(tmp_path):
    paths = [make(tmp_path / "a.h5", 3), make(tmp_path / "b.h5", 2, first=100)]
    with closing(open_all(paths)) as dataset:
        assert isinstance(dataset, PoseDataset)
        assert len(dataset) == 5
        assert dataset.read_images([4, 0, -2])[:, 0, 0, 0].tolist() == [101, 0, 100]
        assert dataset[3].image.max() == 100
        assert dataset[-1].keypoints.tolist() == [[[101, 101], [101, 101]]]
        assert dataset.location(3) == f"{paths[1]}:/images[0]"
        assert dataset.read_images([]).shape == (0, 4, 5, 1)


def test_groups_of_several_files_carry_the_file(tmp_path):
    paths = [make(tmp_path / "a.h5", 2, groups=["x", "y"]), make(tmp_path / "b.h5", 1)]
    with closing(open_all(paths)) as dataset:
        assert dataset.groups.tolist() == [f"{paths[0]}/x", f"{paths[0]}/y", str(paths[1])]


def test_files_with_more_and_fewer_animals_are_padded(tmp_path):
    two = tmp_path / "two.h5"
    write_dataset(two, SKELETON, [(np.zeros((4, 5, 1), np.uint8), np.zeros((2, 2, 2)), None, None)])
    with closing(open_all([make(tmp_path / "one.h5", 1), two])) as dataset:
        assert dataset.visibility.tolist() == [[[2, 2], [0, 0]], [[2, 2], [2, 2]]]
        assert np.isnan(dataset.points[0, 1]).all()


def test_labels_of_several_files_are_in_memory_once(tmp_path):
    with closing(open_all([make(tmp_path / "a.h5", 3), make(tmp_path / "b.h5", 2)])) as dataset:
        for part in dataset._parts:
            assert np.shares_memory(part.points, dataset.points)
            assert np.shares_memory(part.visibility, dataset.visibility)


def test_one_file_stays_what_it_is(tmp_path):
    with closing(open_all([make(tmp_path / "a.h5", 1)])) as dataset:
        assert dataset.path == str(tmp_path / "a.h5")


@pytest.mark.parametrize("index", [5, -6])
def test_an_index_beyond_several_files_is_an_error(tmp_path, index):
    paths = [make(tmp_path / "a.h5", 3), make(tmp_path / "b.h5", 2)]
    with closing(open_all(paths)) as dataset:
        with pytest.raises(IndexError, match=f"frame {index} of .* have 5 frames"):
            dataset[index]
        with pytest.raises(IndexError, match=f"frame {index} of .* have 5 frames"):
            dataset.read_images([0, index])
