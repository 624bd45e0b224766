"""Two processes on this machine that train one network together, as two machines would."""

import json
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from tiny_run import SMALL, json_of, rows_of, weights_of, without_times, write_data

pytestmark = [pytest.mark.slow, pytest.mark.multiprocess]

CLIPPED = (
    *SMALL,
    "training.optimizer=sgd",
    "training.learning_rate=1e-4",
    "training.min_learning_rate=0",
    "training.gradient_clip_norm=10.0",
    "training.synchronize_batch_norm=true",
)
"""The gradients are larger than that: what is compared is clipped."""


SLURM = {
    "SLURM_STEP_NODELIST": "127.0.0.1",
    "SLURM_STEP_TASKS_PER_NODE": "2",
    "SLURM_NODEID": "0",
    "SLURM_JOB_ID": str(os.getpid()),
}
"""A step of two tasks on this machine: the undisturbed run is of one, the others have TF_CONFIG."""


class Ended(NamedTuple):
    status: int
    out: str
    errors: str
    seconds: float


def free_ports() -> list[int]:
    with (
        socket.create_server(("127.0.0.1", 0)) as one,
        socket.create_server(("127.0.0.1", 0)) as two,
    ):
        return [one.getsockname()[1], two.getsockname()[1]]


def start(
    folder: Path, strategy: str, run: str, options: tuple[str, ...], **hooks: str
) -> subprocess.Popen[str]:
    program = [
        sys.executable,
        str(Path(__file__).parents[2] / "one_worker.py"),
        "fit",
        str(folder / "tiny.yaml"),
    ]
    settings = [
        part for text in (*CLIPPED, f"training.strategy={strategy}") for part in ("--set", text)
    ]
    environment = (
        os.environ | hooks | {"PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": "-1"}
    )
    command = [*program, *settings, "--run-dir", str(folder / run), *options]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait(process: subprocess.Popen[str]) -> Ended:
    started = time.monotonic()
    try:
        out, errors = process.communicate(timeout=150)
    finally:
        process.kill()
    return Ended(process.returncode, out, errors, time.monotonic() - started)


def train_together(
    folder: Path, run: str, *options: str, hooks: dict[int, dict[str, str]] | None = None
) -> list[Ended]:
    """Start two workers and return how each ended.

    `hooks`: index of a worker to variables of one_worker.py.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports()]
    processes = []
    for index in range(2):
        cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        own = {"TF_CONFIG": json.dumps(cluster), "WEIGHTS": str(folder / f"{run}-{index}")}
        if run == "whole":
            own |= {"TF_CONFIG": "", **SLURM, "SLURM_LOCALID": str(index)}
        processes.append(
            start(folder, "multi_worker", run, options, **own, **(hooks or {}).get(index, {}))
        )
    # First those that are to be killed, so that the seconds of the others count from there.
    order = sorted(range(2), key=lambda index: "DIES_AT" not in (hooks or {}).get(index, {}))
    ended = {index: wait(processes[index]) for index in order}
    return [ended[index] for index in range(2)]


def weights(folder: Path, name: str) -> list[np.ndarray]:
    with np.load(folder / f"{name}.npz") as file:
        return [file[key] for key in file.files]


def variables(folder: Path, name: str) -> list[np.ndarray]:
    return weights(folder, name) + weights(folder, f"{name}-statistics")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together")
    write_data(folder)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path) -> list[Ended]:
    """Return how the workers of an undisturbed run, `whole`, ended."""
    ended = train_together(folder, "whole")
    assert [one.status for one in ended] == [0, 0], ended
    return ended


@pytest.fixture(scope="module")
def lost(folder: Path) -> list[list[Ended]]:
    """Return how the workers of two runs ended, `lost0` and `lost1`, the number being who was
    killed."""
    return [
        train_together(folder, f"lost{victim}", hooks={victim: {"DIES_AT": "5"}})
        for victim in range(2)
    ]


def test_two_processes_have_the_same_weights(folder, whole):
    chiefs, others = variables(folder, "whole-0"), variables(folder, "whole-1")
    assert [one.tobytes() for one in chiefs] == [one.tobytes() for one in others]


def test_two_processes_equal_one(folder, whole):
    alone = wait(start(folder, "single", "alone", (), WEIGHTS=str(folder / "alone")))
    assert alone.status == 0, alone.errors
    moved = zip(weights(folder, "alone"), weights(folder, "alone-start"), strict=True)
    assert max(np.abs(end - first).max() for end, first in moved) > 1e-3
    for found, expected in zip(
        variables(folder, "whole-0"), variables(folder, "alone"), strict=True
    ):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    for found, expected in zip(rows_of(folder / "whole"), rows_of(folder / "alone"), strict=True):
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-5)
        assert found["val_loss"] == pytest.approx(expected["val_loss"], rel=1e-5)


def test_what_fits_into_the_time_by_the_chiefs_clock_is_what_both_do(folder):
    limits = ("training.max_minutes=0.5", "training.epochs=1000000")
    ended = train_together(folder, "timed", *[part for each in limits for part in ("--set", each)])
    assert [one.status for one in ended] == [0, 0], ended
    said = [" of 4,000,000 steps fit into 0.5 minutes (" in one.errors for one in ended]
    assert said == [True, False]
    chiefs, others = variables(folder, "timed-0"), variables(folder, "timed-1")
    assert [one.tobytes() for one in chiefs] == [one.tobytes() for one in others]


def test_the_chief_alone_reports(folder, whole):
    assert "error, mean" in whole[0].out
    assert whole[1].out == ""
    assert json_of(folder / "whole", "provenance.json")["workers"] == 2
    assert len(rows_of(folder / "whole")) == 2


@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_is_killed_the_other_ends_with_the_line_to_go_on(folder, lost, victim):
    left = lost[victim][1 - victim]
    assert (left.status, left.out) == (1, "")
    assert left.seconds < 60
    run = folder / f"lost{victim}"
    line = re.escape(f"hgtrain fit {run} --resume")
    assert re.search(
        rf"^Error: worker {victim} \(127.0.0.1:\d+\) is lost, so that all stop; go on with: "
        rf"{line}$",
        left.errors,
        re.M,
    )
    assert "Traceback" not in left.errors


def test_killed_then_stopped_by_a_signal_to_one_they_go_on_exactly(folder, whole, lost):
    # Killed at step 5, it goes on from the checkpoint of step 3.
    stopped = train_together(folder, "lost1", "--resume", hooks={1: {"STOPS_AT": "6"}})
    assert [one.status for one in stopped] == [143, 143], stopped
    for one in stopped:
        assert "resuming at step 3 of 8" in one.errors
        assert "stopped at step 7; go on with: hgtrain fit" in one.errors
    assert [one.status for one in train_together(folder, "lost1", "--resume")] == [0, 0]
    assert without_times(rows_of(folder / "lost1")) == without_times(rows_of(folder / "whole"))
    assert weights_of(folder / "lost1" / "best.keras") == weights_of(
        folder / "whole" / "best.keras"
    )
    for index in range(2):
        found, expected = (variables(folder, f"{name}-{index}") for name in ("lost1", "whole"))
        assert [one.tobytes() for one in found] == [one.tobytes() for one in expected]
