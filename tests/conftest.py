"""What every test file shares."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# The same examples each time, and no limit of time, which a busy machine would break.
settings.register_profile("hgtrain", deadline=None, derandomize=True)
settings.load_profile("hgtrain")

SHARED = Path(__file__).resolve().parents[2] / "shared"
FIXTURES_OF_SHARED = {"conformance", "real_data"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what asks for something in ../shared, so that `-m shared` chooses it."""
    for item in items:
        if FIXTURES_OF_SHARED & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.shared)


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


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    """The config of a run that takes seconds, with its data beside it."""
    from tiny_run import write_data

    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def whole(config_file, tmp_path_factory):
    """The directory of such a run that nothing happened to."""
    from faulty import undisturbed

    return undisturbed(config_file, tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def quick(monkeypatch):
    """Let runs do one step a call, and leave the evaluation out."""
    from faulty import make_quick

    make_quick(monkeypatch)
