"""Inputs of other programs that once failed, made by the scripts in ../shared/cases."""

import subprocess
import sys
from pathlib import Path

import pytest

from hgtrain.data.convert.convert import convert
from hgtrain.data.open import open_dataset

CASES = Path(__file__).resolve().parents[2] / "shared" / "cases"


def make_case(name, folder):
    """Run the script in a folder of its own and return that."""
    script = CASES / f"{name}.py"
    if not script.is_file():
        pytest.skip(f"needs the script {name}.py in ../shared/cases")
    made = folder / "case"
    made.mkdir()
    subprocess.run([sys.executable, str(script)], cwd=made, check=True, capture_output=True)
    return made


def converted(source, target):
    """Convert and open what came of it."""
    found = convert(str(source), target, False, lambda frames, total: frames)
    return found, open_dataset(target)
