"""Each mistake through the real command line: one message, at once, without TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
from mistakes import CONFIGS, DATASETS, MISTAKES

# Reaching TensorFlow is a failure that shows, instead of a training.
RUN_ALL = """
import contextlib, io, json, os, resource, sys, traceback

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "keras"):
            raise AssertionError(f"{name} was imported")

def processor_time():
    # Wall time depends on what else a machine does.
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)

sys.meta_path.insert(0, NoTensorFlow())
from hgtrain.cli import main

for folder, arguments in json.loads(sys.argv[1]):
    os.chdir(folder)
    sys.argv = ["hgtrain", "fit", "a.yaml", *arguments]
    out, err, status = io.StringIO(), io.StringIO(), 0
    started = processor_time()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main()
        except SystemExit as stopped:
            status = stopped.code
        except BaseException:
            status = traceback.format_exc()
    seconds = processor_time() - started
    print(json.dumps([status, out.getvalue(), err.getvalue(), seconds]), flush=True)
"""


class Outcome(NamedTuple):
    status: int | str
    out: str
    err: str
    seconds: float
    folder: Path
    new_files: set[str]


def files_in(folder):
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """What each mistake gave, by its name.

    All in one process, which is most of the time it takes.
    """
    folders = {}
    for mistake in MISTAKES:
        folders[mistake.name] = folder = tmp_path_factory.mktemp("mistake")
        mistake.prepare(folder)
        if mistake.config is not None:
            content = mistake.config
            (folder / "a.yaml").write_bytes(
                content if isinstance(content, bytes) else content.encode()
            )
    before = {name: files_in(folder) for name, folder in folders.items()}
    jobs = [[str(folders[mistake.name]), mistake.arguments] for mistake in MISTAKES]
    program = [sys.executable, "-c", RUN_ALL, json.dumps(jobs)]
    done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=120)
    results = map(json.loads, done.stdout.splitlines())
    return {
        name: Outcome(*result, folder, files_in(folder) - before[name])
        for (name, folder), result in zip(folders.items(), results, strict=True)
    }


by_name = pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)


def test_there_are_forty_and_each_is_named_once():
    assert min(len(CONFIGS), len(DATASETS)) >= 20
    assert len({mistake.name for mistake in MISTAKES}) == len(MISTAKES)


@by_name
def test_a_mistake_is_answered_with_one_message_that_says_it_all(mistake, outcomes):
    outcome = outcomes[mistake.name]
    assert (outcome.status, outcome.out) == (1, ""), outcome.err
    at = 0
    # On a busy machine the process that tries files out is spoken of first.
    lines = outcome.err.splitlines(keepends=True)
    told = "".join(line for line in lines if not line.endswith("checked in a separate process\n"))
    assert told.startswith("Error: ")
    for part in mistake.message:
        at = outcome.err.index(part.format(dir=outcome.folder), at)
    assert outcome.err.count("Error: ") == 1
    assert "Traceback" not in outcome.err


@by_name
def test_a_mistake_is_answered_in_less_than_a_second_and_leaves_nothing_behind(mistake, outcomes):
    assert outcomes[mistake.name].seconds < 1, outcomes[mistake.name].seconds
    assert outcomes[mistake.name].new_files == set()


def test_a_file_without_annotations_is_told_how_to_be_used(real_data, tmp_path):
    config = tmp_path / "a.yaml"
    config.write_text(f"data: {{train: {real_data / 'fly100.h5'}}}\n")
    program = [sys.executable, "-m", "hgtrain", "fit", str(config)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"Error: {real_data}/fly100.h5:/annotated marks every keypoint as not annotated, although "
        "3200 of "
        f"{real_data}/fly100.h5 have coordinates: set data.annotated_only: false to use them\n"
    )
    assert files_in(tmp_path) == {"a.yaml"}
