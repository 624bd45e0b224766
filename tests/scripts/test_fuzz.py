import json
import subprocess
import sys
from pathlib import Path

import h5py
import pytest

from hgtrain.errors import DatasetError
from hgtrain.hdf5 import hdf5_errors_as_dataset_error

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz.py"


FOREIGN = ["deeplabcut", "lightning", "coco", "ultralytics", "slp", "film", "image"]


def fuzzed(kind, cases, seed=1):
    """Return the exit status of the script and its figures."""
    program = [
        sys.executable,
        str(SCRIPT),
        "--cases",
        str(cases),
        "--seed",
        str(seed),
        "--only",
        kind,
    ]
    done = subprocess.run([*program, "--json"], capture_output=True, text=True, check=False)
    return done.returncode, json.loads(done.stdout)[kind]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hgtrain", "deepposekit", "leap", "sleap", "yaml", *FOREIGN])
def test_mutated_files_are_read_or_refused_with_a_message(kind):
    if kind in FOREIGN:
        pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")
    status, figures = fuzzed(kind, 150)
    # Where the HDF5 library itself loops or crashes, the trial before a command opens the file says
    # so.
    allowed = ("loop of HDF5, refused in the trial", "crash of HDF5, refused in the trial")
    assert [one for one in figures["found"] if one["result"] not in allowed] == []
    assert status == 0
    assert figures["refused"] > 0
    assert figures["read"] > 0
    assert figures["read"] + figures["refused"] + len(figures["found"]) == 150


@pytest.mark.parametrize("kind", ["yaml", "coco", "image"])
def test_a_few_mutated_files_of_each_sort_are_read_or_refused_with_a_message(kind):
    if kind in FOREIGN:
        pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")
    status, figures = fuzzed(kind, 60)
    assert (status, figures["found"]) == (0, [])
    assert figures["refused"] > 0
    assert figures["read"] > 0
    assert figures["read"] + figures["refused"] == 60


@pytest.mark.slow
def test_a_file_that_hdf5_reads_without_end_is_handed_to_the_trial():
    """The last of the first eight mutated files of this seed is such a one."""
    _, figures = fuzzed("hgtrain", 8, seed=777000)
    assert figures["loop of HDF5, refused in the trial"] == 1


def test_what_h5py_raises_is_a_damaged_file(tmp_path):
    with (
        h5py.File(tmp_path / "a.h5", "w") as file,
        pytest.raises(
            DatasetError, match=r"^a.h5 cannot be read, the file is damaged: .*doesn't exist"
        ),
        hdf5_errors_as_dataset_error("a.h5"),
    ):
        file["nothing"]


def test_what_hgtrain_raises_itself_is_a_defect():
    with pytest.raises(KeyError, match="own"), hdf5_errors_as_dataset_error("a.h5"):
        raise KeyError("own")
