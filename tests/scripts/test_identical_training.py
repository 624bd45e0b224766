import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from identical_training import difference  # noqa: E402


def test_the_last_bit_of_a_weight_is_a_difference():
    one = np.ones(3, np.float32)
    other = one.copy()
    other[1] = np.nextafter(other[1], np.float32(2))
    assert difference([("a", one)], [("b", one.copy())]) is None
    assert difference([("a", one)], [("a", other)]) == "a: up to 1.19e-07 apart"


def test_a_row_that_changed_is_named():
    found = difference([("row 0", {"loss": 1.0, "step": 2})], [("row 0", {"loss": 1.5, "step": 2})])
    assert found == "row 0: loss was 1.0, is 1.5"


def test_an_array_more_is_a_difference():
    assert difference([], [("a", np.ones(2))]) == "0 things before, 1 after"


def test_another_type_of_the_same_bytes_is_a_difference():
    found = difference([("a", np.zeros(2, np.float32))], [("a", np.zeros(2, np.int32))])
    assert found == "a: float32 before, int32 after"


def test_a_folder_that_is_no_checkout_is_refused(tmp_path):
    script = ROOT / "scripts" / "identical_training.py"
    command = [sys.executable, str(script), str(ROOT), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert f"{tmp_path} is no checkout of hgtrain" in done.stderr


@pytest.mark.slow
def test_a_checkout_trains_as_itself():
    script = ROOT / "scripts" / "identical_training.py"
    command = [sys.executable, str(script), str(ROOT), str(ROOT), "--only", "single"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("single: identical, ")
