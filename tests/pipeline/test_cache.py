from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from hgtrain.data.formats.hgtrain_format import open_file
from hgtrain.pipeline.cache import available_memory, chunk_note, waiting_note

GIB = 2**30


@pytest.mark.parametrize(("fraction", "cache"), [(0.05, "none"), (0.0, "ram"), (0.9, "device")])
def test_little_waiting_is_not_mentioned(fraction, cache):
    assert waiting_note(fraction, cache, GIB, 8 * GIB) is None


@pytest.mark.parametrize(
    ("cache", "gib", "remedy"),
    [
        (
            "none",
            5,
            "go on with data.cache: ram, which takes 5.00 GiB of the 8.00 GiB of memory that are "
            "free",
        ),
        ("none", 7, "data.cache: ram takes 7.00 GiB, and 8.00 GiB of memory are free"),
        ("ram", 1, "go on with data.cache: device, which takes 1.00 GiB of the device's memory"),
        ("ram", 3, "data.cache: ram needs more cores; data.cache: device takes 3.00 GiB"),
    ],
)
def test_waiting_names_the_key_and_what_would_fit(cache, gib, remedy):
    note = waiting_note(0.123, cache, gib * GIB, 8 * GIB)
    assert note.startswith(
        "12% of the epoch was spent waiting for frames (data_wait_fraction 0.12): "
    )
    assert remedy in note


def write_memory(folder: Path, limit: str | None) -> int:
    (folder / "meminfo").write_text(
        "MemTotal:  1000 kB\nMemAvailable:  100 kB\nHugePages_Total:  0\n"
    )
    if limit is not None:
        (folder / "memory.max").write_text(limit + "\n")
        (folder / "memory.current").write_text("30000\n")
    return available_memory(folder / "meminfo", folder)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [(None, 102_400), ("max", 102_400), ("50000", 20_000), ("1000000", 102_400)],
)
def test_available_memory_is_what_the_machine_and_the_control_group_leave(
    tmp_path, limit, expected
):
    assert write_memory(tmp_path, limit) == expected


@pytest.mark.parametrize(
    ("cache", "frames", "is_said"),
    [("none", 8, True), ("none", 1, False), ("ram", 8, False), ("device", 8, False)],
)
def test_chunks_of_many_frames_are_named_where_frames_are_read_one_by_one(
    tmp_path, cache, frames, is_said
):
    path = tmp_path / "flies.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "images", (16, 4, 5, 1), "u1", chunks=(frames, 4, 5, 1), compression="gzip"
        )[:] = 1
        file["keypoints"] = np.zeros((16, 2, 2))
    with closing(open_file(path)) as dataset:
        note = chunk_note(dataset, cache)
    assert (note is not None) == is_said
    if is_said:
        assert "stores up to 8 frames in a compressed chunk" in note
        assert f"`hgtrain convert {path} new.h5`" in note
