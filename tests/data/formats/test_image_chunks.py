import zlib

import h5py
import numpy as np
import pytest

from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.formats.image_chunks import IMAGES_A_TRIAL
from hgtrain.skeleton import Skeleton

SHAPE = (40, 60, 3)
POINTS = np.ones((1, 2), np.float32)
RANDOM = np.random.default_rng(0)
BLANK = np.full(SHAPE, 7, np.uint8)
# Nothing in it repeats, so that no packer makes it smaller.
NOISE = RANDOM.integers(0, 256, SHAPE, np.uint8)
# Noise of a few greys, as a camera's: short codes help, matches do not.
CAMERA = np.clip(RANDOM.normal(100, 3, SHAPE), 0, 255).astype(np.uint8)
# Rows that repeat: matches help, runs of one value are none.
ROWS = np.tile(RANDOM.integers(0, 256, (1, *SHAPE[1:]), np.uint8), (SHAPE[0], 1, 1))


def write(path, images):
    write_dataset(path, Skeleton(("nose",)), ((image, POINTS, None, None) for image in images))
    return path


def test_images_of_any_kind_come_back_through_plain_hdf5(tmp_path):
    kinds = [NOISE, BLANK, CAMERA, ROWS]
    images = [kinds[i % 4] ^ np.uint8(i % 3) for i in range(3 * IMAGES_A_TRIAL)]
    with h5py.File(write(tmp_path / "a.h5", images)) as file:
        assert file["images"].compression == "gzip"
        np.testing.assert_array_equal(file["images"][:], images)


def test_an_image_may_be_drawn_into_the_same_array_as_the_last(tmp_path):
    canvas = np.empty(SHAPE, np.uint8)

    def drawn():
        for i in range(50):
            canvas[:] = i
            yield canvas

    with h5py.File(write(tmp_path / "a.h5", drawn())) as file:
        assert file["images"][:, 0, 0, 0].tolist() == list(range(50))


def test_images_that_are_no_whole_array_are_written(tmp_path):
    with h5py.File(write(tmp_path / "a.h5", [NOISE[::-1, ::-1], NOISE[:, :, ::-1]])) as file:
        np.testing.assert_array_equal(file["images"][0], NOISE[::-1, ::-1])
        np.testing.assert_array_equal(file["images"][1], NOISE[:, :, ::-1])


def chunk_of(path, row):
    with h5py.File(path) as file:
        return file["images"].id.read_direct_chunk((row, 0, 0, 0))


def test_what_cannot_be_packed_is_stored_as_it_is(tmp_path):
    mask, chunk = chunk_of(write(tmp_path / "a.h5", [NOISE]), 0)
    assert (mask, chunk) == (1, NOISE.tobytes())


@pytest.mark.parametrize("image", [BLANK, CAMERA, ROWS], ids=["blank", "camera", "rows"])
def test_files_are_no_larger_than_zlib_makes_them(tmp_path, image):
    # The first images, as of a film that begins black, must not decide for all.
    images = [BLANK] * 3 + [image] * (2 * IMAGES_A_TRIAL)
    path = write(tmp_path / "a.h5", images)
    mask, chunk = chunk_of(path, len(images) - 1)
    assert (mask, zlib.decompress(chunk)) == (0, image.tobytes())
    assert len(chunk) <= len(zlib.compress(image.tobytes(), 1))


def test_every_row_is_there_whatever_the_number(tmp_path):
    # More than are packed at once, and none a multiple of the block that the datasets grow by.
    with h5py.File(
        write(tmp_path / "a.h5", [BLANK + np.uint8(i % 200) for i in range(257)])
    ) as file:
        assert file["images"].shape == (257, *SHAPE)
        assert (file["images"][:, 0, 0, 0] == 7 + np.arange(257) % 200).all()
