"""What every test file shares."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def conformance() -> Path:
    folder = SHARED / "conformance"
    if not folder.is_dir():
        pytest.skip("needs the reference figures in ../shared/conformance")
    return folder


@pytest.fixture(scope="session")
def real_data() -> Path:
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("needs the real datasets in ../shared/data")
    return folder


@pytest.fixture(autouse=True, scope="module")
def indeterminate_again() -> Iterator[None]:
    """Undo what a run with `deterministic: true` sets for the whole process."""
    yield
    if "tensorflow" in sys.modules:
        from tensorflow.python.framework import config

        config.disable_op_determinism()
