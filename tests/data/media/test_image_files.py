"""Image files whose headers are damaged."""

import struct

import pytest
from PIL import Image

from hgtrain.data.media.bit_depth import BitDepth
from hgtrain.data.media.image_files import page_count, read_image
from hgtrain.errors import DatasetError

IMAGE_WIDTH = 256
"""The TIFF tag."""


def test_a_page_without_its_width_is_damaged_and_the_one_before_is_read(tmp_path):
    file = tmp_path / "a.tif"
    first, second = (Image.new("L", (20, 10), grey) for grey in (7, 8))
    first.save(file, save_all=True, append_images=[second])
    data = file.read_bytes()
    tag = struct.pack("<HHI", IMAGE_WIDTH, 4, 1)
    before, _, after = data.rpartition(tag)
    assert before.count(tag) == 1
    file.write_bytes(before + struct.pack("<HHI", IMAGE_WIDTH - 1, 4, 1) + after)
    assert page_count(file) == 1
    depth = BitDepth("a", 1, lambda: [])
    assert read_image(str(file), 1, depth)[..., 0].tolist() == [[7] * 20] * 10
    with pytest.raises(DatasetError, match=r"a\.tif: page 1: cannot be read as an image: \S"):
        read_image(str(file), 1, depth, 1)
