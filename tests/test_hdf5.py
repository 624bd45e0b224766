import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from hgtrain.data.formats import base
from hgtrain.data.formats.hgtrain_format import open_file
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import child_names, get_dataset, get_item, open_hdf5

IMAGES = np.arange(4 * 6 * 8, dtype=np.uint8).reshape(4, 6, 8, 1)


def make(path: Path) -> Path:
    """Write a file in the hgtrain format that lacks its images."""
    with h5py.File(path, "w") as file:
        file["keypoints"] = np.zeros((4, 3, 2), np.float32)
        file.attrs["format"] = "hgtrain"
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "flies.h5"


def test_members_are_listed_up_to_twelve(path):
    with h5py.File(path, "w") as file:
        assert child_names(file) == "nothing"
        for i in range(14):
            file.create_group(f"g{i:02}")
        assert child_names(file).endswith("/g11 and 2 more")


def test_a_path_through_a_link_is_refused(path):
    with h5py.File(path, "w") as file:
        file["real/data"] = [1]
        file["alias"] = h5py.SoftLink("/real")
        assert get_item(file, "real/data").name == "/real/data"
        with pytest.raises(DatasetError, match=r"flies\.h5:/alias is a soft link to /real"):
            get_item(file, "alias/data")


def test_a_path_through_a_dataset_is_missing(path):
    with h5py.File(path, "w") as file:
        file["data"] = [1]
        with pytest.raises(
            DatasetError, match=r"flies\.h5 has no /data/more: the file holds /data"
        ):
            get_item(file, "data/more")


def test_a_dataset_without_values_is_refused(path):
    with h5py.File(path, "w") as file:
        file["data"] = h5py.Empty("f4")
        with pytest.raises(
            DatasetError, match=r":/data has shape None, expected numbers with no empty axis"
        ):
            get_dataset(file, "data", "f", (1,), "numbers")


def soft_link(file: h5py.File) -> None:
    file["images"] = h5py.SoftLink("/elsewhere")


def external_link(file: h5py.File) -> None:
    file["images"] = h5py.ExternalLink("other.h5", "/images")


def external_storage(file: h5py.File) -> None:
    file.create_dataset("images", (4, 6, 8, 1), "u1", external=[("secrets.bin", 0, 192)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 6, 8, 1), "u1")
    layout[:] = h5py.VirtualSource("other.h5", "images", (4, 6, 8, 1))
    file.create_virtual_dataset("images", layout)


def ten_terabytes(file: h5py.File) -> None:
    file.create_dataset("images", (10**7, 1000, 1000, 1), "u1", chunks=(1, 1000, 1000, 1))


def ten_terabytes_with_one_chunk(file: h5py.File) -> None:
    dataset = file.create_dataset(
        "images", (10**9, 100, 100, 1), "u1", chunks=(1, 100, 100, 1), compression="gzip"
    )
    dataset[0] = 0


def enormous_chunk(file: h5py.File) -> None:
    dataset = file.create_dataset(
        "images", (4, 6, 8, 1), "u1", maxshape=(None,) * 4, chunks=(2**10, 2**10, 2**11, 1)
    )
    assert dataset.id.get_storage_size() == 0


def unknown_filter(file: h5py.File) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk((1, 6, 8, 1))
    plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL)
    h5py.h5d.create(
        file.id, b"images", h5py.h5t.NATIVE_UINT8, h5py.h5s.create_simple((4, 6, 8, 1)), plist
    )


HOSTILE = {
    "soft link": (
        soft_link,
        r":/images is a soft link to /elsewhere: store the data in the file itself",
    ),
    "external link": (external_link, r":/images is an external link to /images: store the data"),
    "external storage": (external_storage, r":/images is stored in .*secrets\.bin: store the data"),
    "virtual": (virtual, r":/images is a virtual dataset: store the data"),
    "ten terabytes": (
        ten_terabytes,
        r":/images declares 10,000,000,000,000 bytes, but the file stores 0 of them",
    ),
    "one chunk of it": (
        ten_terabytes_with_one_chunk,
        r":/images declares 10,000,000,000,000 bytes, but .* stores",
    ),
    "enormous chunk": (
        enormous_chunk,
        r":/images has chunks of 2,147,483,648 bytes, at most 1,073,741,824",
    ),
    "unknown filter": (
        unknown_filter,
        r":/images needs HDF5 filter 32001 \(a plugin\).* `h5repack -f GZIP=4`",
    ),
}


@pytest.mark.parametrize(("write", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_before_it_is_read(path, write, message):
    make(path)
    with h5py.File(path, "a") as file:
        write(file)
    assert path.stat().st_size < 20_000
    with pytest.raises(DatasetError, match=message):
        open_file(path)


def write_sparse(path: Path, frames: int, stored: int = 1) -> Path:
    """Write images of 256 x 256, of which the first few are stored."""
    with h5py.File(path, "w") as file:
        images = file.create_dataset(
            "images", (frames, 256, 256, 1), "u1", chunks=(1, 256, 256, 1), compression="gzip"
        )
        images[:stored] = 7
        file["keypoints"] = np.zeros((frames, 1, 2), np.float32)
    return path


def test_a_file_with_room_for_more_images_is_read(path):
    with closing(open_file(write_sparse(path, 2**20))) as dataset:
        assert dataset.read_images([2**20 - 1, 0])[:, 0, 0, 0].tolist() == [0, 7]


@pytest.mark.parametrize(("frames", "stored"), [(2**20 + 1, 1), (2, 0)])
def test_images_beyond_64_gib_or_of_which_nothing_is_stored_are_refused(path, frames, stored):
    with pytest.raises(
        DatasetError, match=rf":/images declares {frames * 2**16:,} bytes, but the file stores"
    ):
        open_file(write_sparse(path, frames, stored))


def test_labels_must_be_stored(path):
    with h5py.File(write_sparse(path, 2**20), "a") as file:
        del file["keypoints"]
        file.create_dataset(
            "keypoints", (2**20, 16, 2), "f4", chunks=(256, 16, 2), compression="gzip"
        )[0] = 1
    with pytest.raises(
        DatasetError, match=r":/keypoints declares 134,217,728 bytes, but the file stores"
    ):
        open_file(path)


def test_labels_are_checked_in_every_block(path, monkeypatch):
    monkeypatch.setattr(base, "BLOCK_BYTES", 2 * 3 * 2 * 4)
    points = np.arange(24, dtype=np.float32).reshape(4, 3, 2)
    flags = np.full((4, 3), 2, np.uint8)
    with h5py.File(make(path), "a") as file:
        file["images"] = IMAGES
        file["keypoints"][:], file["visibility"] = points, flags
    with closing(open_file(path)) as dataset:
        np.testing.assert_array_equal(dataset.points[:, 0], points)
        np.testing.assert_array_equal(dataset.visibility[:, 0], flags)
    with h5py.File(path, "a") as file:
        file["visibility"][3, 1] = 9
    with pytest.raises(DatasetError, match=r":/visibility\[3, 1\] is 9"):
        open_file(path)
    with h5py.File(path, "a") as file:
        file["keypoints"][3, 2, 0] = np.inf
    with pytest.raises(DatasetError, match=r":/keypoints\[3, 2, 0\] is inf"):
        open_file(path)


def test_a_chunk_damaged_on_disk_is_reported_when_read(path):
    make(path)
    with h5py.File(path, "a") as file:
        dataset = file.create_dataset("images", data=IMAGES, chunks=(1, 6, 8, 1), fletcher32=True)
        offset = dataset.id.get_chunk_info(2).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff\xff\xff")
    with (
        closing(open_file(path)) as dataset,
        pytest.raises(DatasetError, match=r":/images cannot be read, .* damaged"),
    ):
        dataset.read_images([2])


def missing(path: Path) -> None:
    assert not path.exists()


def folder(path: Path) -> None:
    path.mkdir()


def text(path: Path) -> None:
    path.write_text("frame,x,y\n")


def empty(path: Path) -> None:
    path.touch()


def truncated(path: Path) -> None:
    make(path)
    with path.open("r+b") as file:
        file.truncate(3000)


UNOPENABLE = {
    missing: r"flies\.h5: there is no such file",
    folder: r"flies\.h5 is a directory, expected an HDF5 file",
    text: r"flies\.h5 is not an HDF5 file",
    empty: r"flies\.h5 is not an HDF5 file",
    truncated: r"flies\.h5 is truncated: it was cut off while it was written or copied",
}


@pytest.mark.parametrize(
    ("write", "message"), UNOPENABLE.items(), ids=lambda value: getattr(value, "__name__", "")
)
def test_a_file_that_cannot_be_opened_says_why(tmp_path, write, message):
    path = tmp_path / "flies.h5"
    write(path)
    with pytest.raises(DatasetError, match=message):
        open_hdf5(path)


def test_a_file_that_another_process_writes_is_locked(tmp_path):
    path = tmp_path / "flies.h5"
    code = (
        "import h5py, sys; file = h5py.File(sys.argv[1], 'w'); print('open', flush=True); "
        "sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout.readline() == b"open\n"
        with pytest.raises(
            DatasetError, match=r"flies\.h5 is locked: another program has it open for writing"
        ):
            open_hdf5(path)


def test_a_file_whose_writer_was_killed_says_how_to_clear_the_mark(tmp_path):
    path = tmp_path / "flies.h5"
    code = (
        "import h5py, os, sys; f = h5py.File(sys.argv[1], 'w', libver='latest'); f.flush(); "
        "os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
    with pytest.raises(
        DatasetError, match=r"flies\.h5 is open for writing, or its writer was killed: .*h5clear -s"
    ):
        open_hdf5(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path):
    path = make(tmp_path / "flies.h5")
    path.chmod(0)
    with pytest.raises(DatasetError, match=r"flies\.h5 cannot be read: permission denied"):
        open_hdf5(path)


def test_any_other_failure_gives_the_librarys_own_words(tmp_path):
    path = tmp_path / "flies.h5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + b"\xee" * 200)
    with pytest.raises(DatasetError, match=r"flies\.h5 cannot be opened: .*superblock"):
        open_hdf5(path)
