import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.multiprocess

SCRIPT = Path(__file__).parents[2] / "scripts" / "kill_and_resume.py"


@pytest.mark.slow
def test_a_fit_that_is_killed_ten_times_ends_as_an_undisturbed_one(tmp_path):
    program = [sys.executable, str(SCRIPT), "--kills", "10", "--folder", str(tmp_path), "--json"]
    figures = json.loads(
        subprocess.run(program, capture_output=True, text=True, check=False).stdout
    )
    assert figures["failures"] == []
    assert (figures["kills"], figures["while_writing"] >= 3) == (10, True)
    assert figures["most_steps_lost"] <= 3
