"""Datasets of a million frames."""

import hashlib
import json
import subprocess
import sys
from contextlib import closing

import h5py
import numpy as np
import pytest

from hgtrain.data import fingerprint as fingerprint_module
from hgtrain.data.fingerprint import fingerprint
from hgtrain.data.open import open_dataset

FRAMES, KEYPOINTS = 1_000_000, 32


def write(path, frames, size=192, group=False):
    """Write a file with room for all images, of which a few are stored."""
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        chunk = (1, size, size, 1)
        images = file.create_dataset(
            "images", (frames, size, size, 1), "u1", chunks=chunk, compression="gzip"
        )
        images[: min(20, frames)] = 7
        file["keypoints"] = random.uniform(0, size, (frames, KEYPOINTS, 2)).astype(np.float32)
        if group:
            file["group"] = np.arange(frames) // 1000
    return path


OPENED = """
import json, pathlib, sys, time
from hgtrain.data.open import open_dataset
from hgtrain.data.split import make_split, split_to_json

def most_memory():
    # Not getrusage, which counts what the parent had.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024

before, memory = time.process_time(), most_memory()
dataset = open_dataset(sys.argv[1])
split = make_split(dataset, None, 0.1, "group" if sys.argv[2] == "group" else None, 0)
json.dumps(split_to_json(split))
print(json.dumps([len(dataset), time.process_time() - before, most_memory() - memory]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("by", ["frames", "group"])
def test_a_million_frames_are_opened_and_split_in_five_seconds_with_one_copy_of_the_labels(
    tmp_path, by
):
    path = write(tmp_path / "million.h5", FRAMES, group=by == "group")
    command = [sys.executable, "-c", OPENED, str(path), by]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    frames, seconds, grown = json.loads(done.stdout)
    assert frames == FRAMES
    # Of the processor: the machine may be busy with something else.
    assert seconds < 5
    labels = FRAMES * KEYPOINTS * (2 * 4 + 1)
    assert labels < grown < 1.75 * labels


def test_the_fingerprint_is_of_all_labels_however_many_are_hashed_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(fingerprint_module, "HASHED_AT_ONCE", 3)
    with closing(open_dataset(write(tmp_path / "a.h5", 10, size=8))) as dataset:
        header = json.dumps(
            [list(dataset.keypoint_names), [], [], [8, 8, 1], [10, 1, KEYPOINTS, 2]]
        )
        contents = [
            header.encode(),
            dataset.points,
            dataset.visibility,
            np.full((10, 8, 8, 1), 7, np.uint8),
        ]
        expected = hashlib.sha256(b"".join(bytes(part) for part in contents)).hexdigest()
        assert fingerprint(dataset) == expected
