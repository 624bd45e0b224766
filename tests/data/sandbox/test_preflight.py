import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest
from click.testing import CliRunner
from endless import make_endless
from tiny_run import NAMES, make_frames, write_data

from hgtrain.cli import commands
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.sandbox import open as open_module
from hgtrain.data.sandbox import process
from hgtrain.data.sandbox.open import (
    open_all,
    open_dataset,
    read_datasets,
    spread,
    start_preflight,
    try_out,
)
from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton

ENDLESS = (
    "the HDF5 library ran out of CPU time reading it: the file is damaged or malicious, do not use "
    "it"
)


@pytest.fixture
def config_file(tmp_path):
    return write_data(tmp_path)


@pytest.fixture
def started(monkeypatch):
    """The files each process that was started is to read."""
    seen = []

    class Noted(process.Sandbox):
        def __init__(self, module, paths, step_s=None):
            seen.append(tuple(paths))
            super().__init__(module, paths, step_s)

    monkeypatch.setattr(open_module, "Sandbox", Noted)
    return seen


def write(path, count=3):
    write_dataset(path, Skeleton(NAMES), make_frames(count))
    return str(path)


# What takes a process down


def test_fit_refuses_a_file_that_hdf5_reads_without_end(config_file):
    make_endless(config_file.with_name("flies.h5"))
    program = (
        "from hgtrain.data.sandbox import process; process.STEP_S = 1.0; from hgtrain.cli import "
        "main; main()"
    )
    before = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", program, "fit", str(config_file)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert time.monotonic() - before < 20
    assert (done.returncode, done.stdout) == (1, "")
    # On a busy machine a line before says what it takes so long for.
    expected = f"Error: {config_file}:1: data.train: {config_file.parent}/flies.h5: {ENDLESS}"
    assert done.stderr.splitlines()[-1] == expected
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "{}", "-o", "{}.yaml"],
        ["convert", "{}", "{}.h5"],
        ["inspect", "{}"],
        ["summarize", "{}.train.yaml"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_command_hangs_on_such_a_file(tmp_path, monkeypatch, arguments):
    monkeypatch.setattr(process, "STEP_S", 0.5)
    write(tmp_path / "a.h5")
    path = make_endless(tmp_path / "a.h5")
    (tmp_path / "a.h5.train.yaml").write_text("data: {train: a.h5}\n")
    result = CliRunner().invoke(commands, [argument.format(path) for argument in arguments])
    assert isinstance(result.exception, DatasetError)
    assert str(result.exception) == f"{path}: {ENDLESS}"


def test_of_several_files_the_one_that_is_at_fault_is_named(tmp_path):
    paths = [write(tmp_path / "a.h5"), write(tmp_path / "b.h5"), write(tmp_path / "c.h5")]
    make_endless(tmp_path / "b.h5")
    with pytest.raises(DatasetError, match=f"^{re.escape(paths[1])}: the HDF5 library ran out"):
        try_out(paths, step_s=0.5)


# What does not


def test_a_dataset_that_passes_is_opened_as_ever(tmp_path):
    path = write(tmp_path / "a.h5")
    dataset = open_dataset(path)
    assert (len(dataset), dataset.path) == (3, path)
    dataset.close()
    both = open_all([path, write(tmp_path / "b.h5")])
    assert len(both) == 6
    both.close()


def test_a_dataset_out_of_order_is_refused_with_its_own_message(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"no")
    with pytest.raises(DatasetError, match=r"^.*/a.h5 is not an HDF5 file$"):
        open_dataset(str(tmp_path / "a.h5"))


def test_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(DatasetError, match=r"a.h5 is a device or a pipe, expected an HDF5 file"):
        open_dataset(str(tmp_path / "a.h5"))


def test_an_image_that_cannot_be_read_is_no_reason_to_refuse_a_dataset(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5", count=20)
    read = []

    def fails(self, rows):
        read.extend(rows)
        raise DatasetError("damaged")

    monkeypatch.setattr("hgtrain.data.formats.base.FileDataset.read_images", fails)
    assert read_datasets([path]) == {}
    assert sorted(read) == list(range(20))


def test_a_file_is_tried_out_once(tmp_path, started):
    path = write(tmp_path / "a.h5")
    try_out([path])
    try_out([path])
    assert started == [(path,)]


def test_a_file_that_has_changed_is_tried_out_again(tmp_path, started):
    path = write(tmp_path / "a.h5")
    try_out([path])
    write(tmp_path / "a.h5", count=4)
    try_out([path])
    assert started == [(path,), (path,)]


def test_a_built_in_dataset_is_not_tried_out(started):
    try_out(["builtin:flies"])
    with start_preflight(["builtin:flies"]):
        pass
    assert started == []


# Begun early


def test_what_was_begun_early_is_waited_for(tmp_path, started):
    path = write(tmp_path / "a.h5")
    with start_preflight([path], ()):
        assert started == [(path,)]
        try_out([path])
    assert started == [(path,)]


def test_what_was_begun_and_nobody_waited_for_is_ended(tmp_path):
    write(tmp_path / "a.h5")
    path = make_endless(tmp_path / "a.h5")
    before = time.monotonic()
    with start_preflight([str(path)]):
        pass
    assert time.monotonic() - before < 5
    assert open_module._begun == {}


# How frames are spread


@pytest.mark.parametrize("count", [1, 2, 3, 7, 8, 9, 1000])
def test_every_frame_comes_once(count):
    rows = [row for rows in spread(count, 4) for row in rows]
    assert sorted(rows) == list(range(count))


def test_what_comes_first_is_spread_evenly():
    rows = []
    for some in spread(1_000_000, 8):
        rows += some
        if len(rows) > 100:
            break
    gaps = np.diff(np.sort([*rows, 1_000_000]))
    assert gaps.max() <= 2 * 1_000_000 / 64
