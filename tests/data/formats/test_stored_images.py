import pickle
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from hgtrain.data.dataset import read_in_order
from hgtrain.data.formats import stored_images
from hgtrain.data.formats.hgtrain_format import open_file
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.open import open_all
from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton

FRAMES, SHAPE = 40, (6, 8, 1)


def pictures(count: int = FRAMES, first: int = 0) -> np.ndarray:
    return np.stack([np.full(SHAPE, first + i, np.uint8) for i in range(count)])


def make(path: Path, frames: int = FRAMES, chunk_rows: int | None = 1, **options) -> Path:
    """Write frames of rising grey; without chunk_rows they are not in chunks."""
    with h5py.File(path, "w") as file:
        chunks = (
            {} if chunk_rows is None else {"chunks": (chunk_rows, *SHAPE), "compression": "gzip"}
        )
        file.create_dataset("images", data=pictures(frames), **(chunks | options))
        file["keypoints"] = np.zeros((frames, 2, 2), np.float32)
    return path


@pytest.mark.parametrize("chunk_rows", [None, 1, 7, 16])
def test_images_are_those_of_the_rows_however_they_are_stored(tmp_path, chunk_rows):
    rows = np.array([0, 1, 5, 6, 7, 20, 22, 39])
    with closing(open_file(make(tmp_path / "a.h5", chunk_rows=chunk_rows))) as dataset:
        np.testing.assert_array_equal(dataset.images.read(rows), pictures()[rows])
        assert dataset.images.read(np.empty(0, np.int64)).shape == (0, *SHAPE)


def test_rows_of_one_packed_chunk_are_read_at_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        stored_images, "read_array", lambda data, rows: read.append(rows) or data[rows]
    )
    with closing(open_file(make(tmp_path / "a.h5", chunk_rows=10))) as dataset:
        dataset.images.read(np.array([1, 8, 9, 10, 31, 35]))
    assert read == [slice(1, 10), slice(10, 11), slice(31, 36)]


def test_rows_between_are_not_read_where_chunks_are_not_packed(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(
        stored_images, "read_array", lambda data, rows: read.append(rows) or data[rows]
    )
    with closing(open_file(make(tmp_path / "a.h5", chunk_rows=10, compression=None))) as dataset:
        dataset.images.read(np.array([1, 8, 9]))
    assert read == [slice(1, 2), slice(8, 10)]


@pytest.mark.parametrize(("chunk_rows", "frames_a_chunk"), [(None, 1), (1, 1), (16, 16)])
def test_how_many_frames_are_unpacked_to_read_one(tmp_path, chunk_rows, frames_a_chunk):
    with closing(open_file(make(tmp_path / "a.h5", chunk_rows=chunk_rows))) as dataset:
        assert dataset.images.frames_a_chunk == frames_a_chunk


@pytest.mark.parametrize(("compression", "kept_bytes"), [("gzip", 32 * 256 * 256), (None, 2**20)])
def test_a_large_chunk_is_kept_once_unpacked_and_read_in_parts_where_it_is_not_packed(
    tmp_path, compression, kept_bytes
):
    with h5py.File(make(tmp_path / "a.h5"), "a") as file:
        del file["images"]
        shape, chunk = (FRAMES, 256, 256, 1), (32, 256, 256, 1)
        file.create_dataset("images", shape, "u1", chunks=chunk, compression=compression)[0] = 1
    with closing(open_file(tmp_path / "a.h5")) as dataset:
        assert dataset.images.dataset.id.get_access_plist().get_chunk_cache()[1] == kept_bytes


def test_rows_come_in_the_order_asked_for_and_repeat(tmp_path):
    rows = np.array([7, 2, 2, 39, 7])
    with closing(open_file(make(tmp_path / "a.h5"))) as dataset:
        np.testing.assert_array_equal(read_in_order(dataset.images, rows), pictures()[rows])


# Opened again


def test_pickled_images_are_where_they_lie(tmp_path):
    with closing(open_file(make(tmp_path / "a.h5", frames=250))) as dataset:
        pickled = pickle.dumps(dataset.images)
    assert len(pickled) < 500
    again = pickle.loads(pickled)
    with closing(again.dataset.file):
        np.testing.assert_array_equal(again.read(np.array([3, 200])), pictures(250)[[3, 200]])


def test_images_of_several_files_are_opened_again(tmp_path):
    paths = [tmp_path / "a.h5", tmp_path / "b.h5", tmp_path / "c.h5"]
    for path, first in zip(paths, (0, 10, 20), strict=True):
        frames = [(picture, np.zeros((2, 2)), None, None) for picture in pictures(10, first)]
        write_dataset(path, Skeleton(("head", "tail")), frames)
    with closing(open_all(paths)) as dataset:
        rows = np.array([0, 9, 20, 29])
        again = pickle.loads(pickle.dumps(dataset.images))
        np.testing.assert_array_equal(again.read(rows), pictures(30)[rows])
        np.testing.assert_array_equal(dataset.images.read(rows), dataset.read_images(rows))
        assert again.read(np.empty(0, np.int64)).shape == (0, *SHAPE)
        assert again.location(20) == dataset.location(20) == f"{paths[2]}:/images[0]"


def test_a_file_that_took_anothers_place_is_not_opened_again(tmp_path):
    with closing(open_file(make(tmp_path / "a.h5"))) as dataset:
        pickled = pickle.dumps(dataset.images)
        make(tmp_path / "other.h5").replace(tmp_path / "a.h5")
        with pytest.raises(DatasetError, match=r"a\.h5 was replaced while it was being opened"):
            pickle.loads(pickled)


def test_a_file_that_is_gone_is_named_when_opened_again(tmp_path):
    with closing(open_file(make(tmp_path / "a.h5"))) as dataset:
        pickled = pickle.dumps(dataset.images)
        (tmp_path / "a.h5").unlink()
        with pytest.raises(DatasetError, match=r"a\.h5: there is no such file"):
            pickle.loads(pickled)
