import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_bench_gives_a_ratio_for_every_row():
    command = [sys.executable, ROOT / "scripts" / "bench.py", "--short", "--json"]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows = json.loads(done.stdout.splitlines()[-1])["rows"]
    assert {row["name"] for row in rows} == set("abcdefghmpx")
    assert all(row["ratio"] > 0 for row in rows)
