import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from hgtrain import files
from hgtrain.errors import RunError
from hgtrain.rundir import layout

CLAIM_AND_WAIT = """
import sys, time
from pathlib import Path
from hgtrain.rundir.layout import lock_run_dir
with lock_run_dir(Path(sys.argv[1]), resume=True):
    print("claimed", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def other_process(folder):
    """A process that holds the folder."""
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM_AND_WAIT, str(folder)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"claimed\n"
        yield process
        process.kill()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# Whose folder it is


def test_the_default_folder_is_named_by_config_and_time():
    assert re.fullmatch(r"runs/flies-\d{8}-\d{6}", str(layout.default_run_dir("flies")))


def test_the_default_folder_is_another_where_there_is_one_of_this_second(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(layout.time, "strftime", lambda form: "20250102-101500")
    for expected in ("flies-20250102-101500", "flies-20250102-101500-2", "flies-20250102-101500-3"):
        assert layout.default_run_dir("flies") == Path("runs") / expected
        (tmp_path / "runs" / expected).mkdir(parents=True)


def test_a_default_folder_that_another_process_holds_is_left_for_the_next_name(
    folder, other_process
):
    with (
        layout.lock_run_dir(folder, resume=False, is_default=True) as second,
        layout.lock_run_dir(folder, resume=False, is_default=True) as third,
    ):
        assert (second, third) == (folder.with_name("run-2"), folder.with_name("run-3"))
        assert (third / "lock").read_text().startswith(f"process {os.getpid()} on ")
    assert (folder / "lock").read_text().startswith(f"process {other_process.pid} on ")


def test_a_default_folder_with_a_run_of_a_moment_ago_is_left_for_the_next_name(folder):
    folder.mkdir()
    (folder / "config.yaml").touch()
    with layout.lock_run_dir(folder, resume=False, is_default=True) as claimed:
        assert claimed == folder.with_name("run-2")


def test_a_folder_is_made_with_those_above_it(tmp_path):
    with layout.lock_run_dir(tmp_path / "a" / "b", resume=False) as folder:
        assert folder.is_dir()


@pytest.mark.parametrize("name", ["config.yaml", "metrics.jsonl", "best.keras", "checkpoints"])
@pytest.mark.parametrize(
    "look", [layout.check_free, lambda folder: layout.lock_run_dir(folder, False).__enter__()]
)
def test_a_folder_with_a_run_is_refused(folder, name, look):
    folder.mkdir()
    (folder / name).touch()
    with pytest.raises(
        RunError, match=f"^{re.escape(str(folder))} holds a run already: .*--resume.*--run-dir"
    ):
        look(folder)
    assert set(names(folder)) <= {name, "lock"}


def test_a_folder_with_a_run_is_claimed_to_resume_it(folder):
    folder.mkdir()
    (folder / "config.yaml").write_text("kept")
    with layout.lock_run_dir(folder, resume=True):
        assert (folder / "config.yaml").read_text() == "kept"


@contextmanager
def claimed_in_vain(folder):
    with (  # noqa: PT012
        pytest.raises(RunError, match="vain"),
        layout.lock_run_dir(folder, resume=False),
    ):
        yield
        raise RunError("in vain")


@pytest.mark.parametrize("error", [RunError, KeyboardInterrupt])
def test_a_folder_in_which_nothing_was_begun_goes_again_with_those_above(tmp_path, error):
    with pytest.raises(error), layout.lock_run_dir(tmp_path / "a" / "b", resume=False):
        raise error
    assert names(tmp_path) == []


def test_of_the_folders_above_those_that_others_use_stay(tmp_path):
    with claimed_in_vain(tmp_path / "a" / "b"):
        (tmp_path / "a" / "other").mkdir()
    assert names(tmp_path / "a") == ["other"]


def test_a_folder_in_which_something_was_written_stays(folder):
    with claimed_in_vain(folder):
        (folder / "split.json").touch()
    assert names(folder) == ["lock", "split.json"]


def test_a_folder_that_was_there_before_stays(folder):
    folder.mkdir()
    with claimed_in_vain(folder):
        pass
    assert names(folder) == ["lock"]


def test_a_folder_with_other_files_is_claimed(folder):
    folder.mkdir()
    (folder / "notes.txt").touch()
    layout.check_free(folder)
    with layout.lock_run_dir(folder, resume=False):
        assert names(folder) == ["lock", "notes.txt"]


def test_a_folder_that_another_process_holds_is_refused_and_names_it(folder, other_process):
    with pytest.raises(
        RunError,
        match=f"{folder} is locked by another training process \\(process {other_process.pid} on ",
    ):
        layout.lock_run_dir(folder, resume=True).__enter__()


def test_a_folder_held_in_this_process_is_refused_too(folder):
    with (
        layout.lock_run_dir(folder, resume=False),
        pytest.raises(RunError, match=f"training process \\(process {os.getpid()} on "),
        layout.lock_run_dir(folder, resume=True),
    ):
        pass


def test_the_lock_of_a_killed_process_is_taken_over(folder, other_process):
    os.kill(other_process.pid, signal.SIGKILL)
    other_process.wait()
    with layout.lock_run_dir(folder, resume=True):
        assert (folder / "lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_folder_can_be_claimed_again_after_the_block(folder):
    for _ in range(2):
        with layout.lock_run_dir(folder, resume=False):
            pass


def test_a_folder_below_a_file_is_refused_with_the_reason(tmp_path):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "run"
    layout.check_free(folder)
    with pytest.raises(
        RunError, match=f"{folder} cannot be used as a run directory: Not a directory"
    ):
        layout.lock_run_dir(folder, resume=False).__enter__()


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file cannot be used as a run directory: File exists"):
        layout.lock_run_dir(tmp_path / "file", resume=False).__enter__()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunError, match="run cannot be used as a run directory: Permission denied"):
        layout.lock_run_dir(tmp_path / "run", resume=False).__enter__()


@pytest.mark.skipif(
    not Path("/proc/self").exists(), reason="needs a file system that takes no folders"
)
def test_a_folder_where_none_can_be_made_is_refused():
    with pytest.raises(RunError, match="/proc/run cannot be used as a run directory: "):
        layout.lock_run_dir(Path("/proc/run"), resume=False).__enter__()


def test_a_name_that_is_too_long_is_refused(tmp_path):
    assert layout.default_run_dir("a" * 300)
    folder = tmp_path / ("a" * 300)
    layout.check_free(folder)
    with pytest.raises(RunError, match="cannot be used as a run directory: File name too long"):
        layout.lock_run_dir(folder, resume=False).__enter__()


def test_a_file_system_without_locks_is_refused(folder, monkeypatch):
    def flock(file, operation):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(layout.fcntl, "flock", flock)
    with pytest.raises(RunError, match="run/lock cannot be locked: No locks available"):
        layout.lock_run_dir(folder, resume=False).__enter__()


# Writing


def test_text_is_written_and_replaced(tmp_path):
    files.write_text(tmp_path / "a.txt", "old")
    files.write_text(tmp_path / "a.txt", "neu\n")
    assert (tmp_path / "a.txt").read_text() == "neu\n"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, OSError])
def test_a_write_that_fails_leaves_the_old_file_and_nothing_beside(tmp_path, error):
    path = tmp_path / "best.keras"
    path.write_text("old")

    def write():
        with files.atomic_path(path) as beside:
            beside.write_text("ne")
            raise error

    with pytest.raises(error):
        write()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["best.keras"]


def test_what_is_written_beside_keeps_its_suffix_and_folder(tmp_path):
    with files.atomic_path(tmp_path / "best.keras") as beside:
        beside.touch()
        assert beside.parent == tmp_path
        assert beside.suffix == ".keras"
        assert not (tmp_path / "best.keras").exists()


def test_nobody_writes_to_the_same_path_beside(tmp_path):
    path = tmp_path / "a.h5"
    with files.atomic_path(path) as one, files.atomic_path(path) as other:
        one.write_text("one")
        other.write_text("other")
        assert path not in (one, other)
    # The inner block ended first.
    assert path.read_text() == "one"
    assert names(tmp_path) == ["a.h5"]


def test_what_a_killed_process_was_writing_is_removed_when_the_folder_is_claimed(folder):
    code = """
import os, sys
from pathlib import Path
from hgtrain.files import atomic_path
with atomic_path(Path(sys.argv[1])) as beside:
    beside.touch()
    os._exit(0)
"""
    folder.mkdir()
    subprocess.run([sys.executable, "-c", code, folder / "best.keras"], check=True)
    assert len(names(folder)) == 1
    with layout.lock_run_dir(folder, resume=True):
        assert names(folder) == ["lock"]


def test_json_is_written_and_read(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": [1, None, "ä"]})
    assert files.read_json(tmp_path / "a.json") == {"a": [1, None, "ä"]}


def test_json_without_a_number_is_refused(tmp_path):
    with pytest.raises(ValueError, match="nan"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert names(tmp_path) == []


@pytest.mark.parametrize("content", [b"{", b"", b"\xff"])
def test_damaged_json_is_refused_with_its_path(tmp_path, content):
    (tmp_path / "split.json").write_bytes(content)
    with pytest.raises(RunError, match=f"{tmp_path}/split.json cannot be read: "):
        files.read_json(tmp_path / "split.json")


def test_missing_json_is_refused_with_its_path(tmp_path):
    with pytest.raises(RunError, match=r"split.json cannot be read: .*No such file"):
        files.read_json(tmp_path / "split.json")


def test_rows_replace_what_was_there_and_a_row_is_added_at_the_end(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("left over from a run that was killed")
    layout.write_rows(path, [{"step": 1}, {"step": 2}])
    layout.append_row(path, {"step": 3})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"step": 1},
        {"step": 2},
        {"step": 3},
    ]
