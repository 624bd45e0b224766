import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.multiprocess

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_and_resume.py"


def figures_of(*options):
    program = [sys.executable, str(SCRIPT), *options, "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    return json.loads(done.stdout)


@pytest.mark.slow
def test_a_fit_that_is_killed_ten_times_ends_as_an_undisturbed_one(tmp_path):
    figures = figures_of("--kills", "10", "--folder", str(tmp_path))
    assert figures["failures"] == []
    assert (figures["kills"], figures["while_writing"] >= 3) == (10, True)
    assert figures["most_steps_lost"] <= 3


@pytest.mark.slow
@pytest.mark.parametrize("head", ["multi_instance", "centroid", "centered_instance"])
def test_of_every_head_too(tmp_path, head):
    figures = figures_of("--kills", "3", "--head", head, "--folder", str(tmp_path))
    assert figures["failures"] == []
    assert figures["kills"] == 3
    assert figures["most_steps_lost"] <= 3
