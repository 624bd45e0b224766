"""Kill a `fit` with SIGKILL again and again, resume it each time, and compare its end with an undisturbed run's.

    python scripts/kill_and_resume.py [--kills 100] [--seed 0] [--folder DIR] [--json]

Every third kill comes while a checkpoint is being written, the others at random instants, from the start of the process
to the evaluation. TensorFlow is imported once; each `fit` is a fork of that process, which saves ten seconds a kill,
and writes the step it is at into shared memory, so that the steps that a kill costs are known. Exit status 1 when a run
did not go on, lost more than one checkpoint interval, or ended with other weights or other rows in metrics.jsonl.
"""

import argparse
import json
import mmap
import os
import random
import re
import signal
import struct
import sys
import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import numpy as np

from hgtrain import cli, run  # noqa: F401
from hgtrain.data.dataset import Skeleton
from hgtrain.data.native import write_dataset
from hgtrain.record import Record
from hgtrain.train.loop import State

INTERVAL = 3
CONFIG = f"""\
data: {{train: flies.h5, validation: 0.25}}
model:
  backbone:
    {{stem_stride: 2, max_stride: 4, output_stride: 2, stem_filters: 4, filters: 4, filter_increase: 0, stacks: 1}}
  head: {{sigma_px: 3}}
training:
  {{batch_size: 4, epochs: 25, steps_per_epoch: 4, learning_rate: 2e-3, ema: 0.9, deterministic: true, device: cpu}}
checkpoint: {{every_steps: {INTERVAL}}}
output: {{tensorboard: false}}
"""
TIMES = ("images_per_s", "data_wait_fraction", "elapsed_s", "checkpoint_s")
POLL_S = 2e-4
NOT_BEGUN = -1


class Outcome(NamedTuple):
    """What became of one `fit`. status: None when it was killed. reached: the step it was at; resumed: it began at."""

    status: int | None
    reached: int
    resumed: int
    was_writing: bool
    log: str


class Kills:
    """Starts, kills and resumes; `figures` are what is reported."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self._step = mmap.mmap(-1, 8)
        self.figures: dict[str, Any] = {"kills": 0, "while_writing": 0, "runs": 0, "most_steps_lost": 0, "failures": []}
        write_data(folder)
        before = time.monotonic()
        self.undisturbed = self._fit(folder / "undisturbed", delay_s=None, writes=None)
        self._seconds = time.monotonic() - before
        if self.undisturbed.status != 0:
            raise SystemExit(f"the undisturbed run failed:\n{self.undisturbed.log}")

    def run(self, kills: int) -> None:
        """Kill `kills` times, over as many runs as it takes, and compare each run that comes to its end."""
        while self.figures["kills"] < kills and not self.figures["failures"]:
            self._one_run(self._folder / f"killed-{self.figures['runs']}", kills)
            self.figures["runs"] += 1

    def _one_run(self, folder: Path, kills: int) -> None:
        reached = 0
        while True:
            number = self.figures["kills"]
            writes = self._random.randint(1, 20) if number % 3 == 0 else None
            delay_s = self._random.uniform(0, 0.6 * self._seconds) if writes is None else None
            is_last = number >= kills
            outcome = self._fit(folder, None, None) if is_last else self._fit(folder, delay_s, writes)
            self._note(outcome, reached)
            if self.figures["failures"]:
                return
            if outcome.status == 0:
                self._compare(folder)
                return
            # A process that was killed before its first step lost none.
            reached = max(outcome.reached, outcome.resumed, 0) if outcome.reached != NOT_BEGUN else reached

    def _note(self, outcome: Outcome, reached: int) -> None:
        figures = self.figures
        if outcome.resumed != NOT_BEGUN:
            lost = reached - outcome.resumed
            figures["most_steps_lost"] = max(figures["most_steps_lost"], lost)
            if lost > INTERVAL:
                figures["failures"].append(f"{lost} steps were lost, an interval has {INTERVAL}\n{outcome.log}")
        if outcome.status is None:
            figures["kills"] += 1
            figures["while_writing"] += outcome.was_writing
            print(f"kill {figures['kills']}: at step {max(outcome.reached, 0)}", file=sys.stderr, flush=True)
        elif outcome.status != 0:
            figures["failures"].append(f"did not go on: exit status {outcome.status}\n{outcome.log}")

    def _compare(self, folder: Path) -> None:
        for what, read in (("weights", weights_of), ("metrics.jsonl", rows_of), ("checkpoint", last_checkpoint_of)):
            if read(folder) != read(self._folder / "undisturbed"):
                self.figures["failures"].append(f"{folder}: {what} differ from the undisturbed run's")

    def _fit(self, folder: Path, delay_s: float | None, writes: int | None) -> Outcome:
        """Run `fit`; kill it after `delay_s`, or in the middle of the writing of its `writes`th checkpoint."""
        self._step[:] = struct.pack("q", NOT_BEGUN)
        log = self._folder / "log"
        pid = os.fork()
        if pid == 0:
            self._become_fit(folder, log)
        status, was_writing = _wait(pid, folder / "checkpoints", delay_s, writes)
        text = log.read_text()
        (reached,) = struct.unpack("q", self._step[:])
        found = re.search(r"resuming at step (\d+)", text)
        # Without any checkpoint it starts over, at step 0.
        resumed = int(found[1]) if found else (0 if reached != NOT_BEGUN else NOT_BEGUN)
        return Outcome(status, reached, resumed, was_writing, text)

    def _become_fit(self, folder: Path, log: Path) -> None:
        status = 1
        try:
            with log.open("w") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            self._share_steps()
            sys.argv = ["hgtrain", "fit", str(self._folder / "tiny.yaml"), "--run-dir", str(folder), "--resume"]
            cli.main()
            status = 0
        except SystemExit as error:
            status = error.code if isinstance(error.code, int) else 1
        except BaseException:  # noqa: BLE001
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def _share_steps(self) -> None:
        stepped = Record.stepped

        def sharing(record: Record, state: State, loss: float, images_per_s: float | None) -> None:
            self._step[:] = struct.pack("q", state.step)
            stepped(record, state, loss, images_per_s)

        Record.stepped = sharing  # type: ignore[method-assign]


def _wait(pid: int, checkpoints: Path, delay_s: float | None, writes: int | None) -> tuple[int | None, bool]:
    """Return the exit status, None when the process was killed, and whether a checkpoint was then being written."""
    end = None if delay_s is None else time.monotonic() + delay_s
    seen, is_writing = 0, False
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), False
        was_writing, is_writing = is_writing, any(checkpoints.glob(".partial*"))
        seen += is_writing and not was_writing
        if (end is not None and time.monotonic() >= end) or (writes is not None and seen >= writes):
            os.kill(pid, signal.SIGKILL)
            _, status = os.waitpid(pid, 0)
            left = any(checkpoints.glob(".partial*"))
            return (None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)), left
        time.sleep(POLL_S)


def write_data(folder: Path) -> None:
    """Write a dataset of 12 small frames and a config."""
    random_ = np.random.default_rng(0)
    frames = [
        (random_.integers(0, 256, (32, 32, 1), np.uint8), random_.uniform(6, 26, (3, 2)).astype(np.float32), None, None)
        for _ in range(12)
    ]
    write_dataset(folder / "flies.h5", Skeleton(("nose", "left", "right"), (), ((1, 2),)), frames)
    (folder / "tiny.yaml").write_text(CONFIG)


def weights_of(folder: Path) -> dict[str, bytes]:
    """Return every array of best.keras as bytes."""
    arrays: dict[str, bytes] = {}

    def take(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            arrays[name] = item[()].tobytes()

    with zipfile.ZipFile(folder / "best.keras") as archive:
        content = BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content) as file:
        file.visititems(take)
    return arrays


def last_checkpoint_of(folder: Path) -> dict[str, bytes]:
    """Return every variable of the newest checkpoint as bytes: weights, moving average, optimizer, best."""
    import tensorflow as tf

    newest = max((folder / "checkpoints").glob("step-*.index"), key=lambda path: int(path.stem.rpartition("-")[2]))
    reader = tf.train.load_checkpoint(str(newest.with_suffix("")))
    names = [
        name
        for name in reader.get_variable_to_shape_map()
        if name.partition("/")[0] not in ("state", "_CHECKPOINTABLE_OBJECT_GRAPH")
    ]
    return {name: np.asarray(reader.get_tensor(name)).tobytes() for name in names}


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl but for times."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in rows]


def main() -> None:
    """Kill, resume, compare, report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    # Imported, but nothing of it used: what TensorFlow sets up on first use does not survive a fork.
    import hgtrain.evaluate
    import hgtrain.report
    import hgtrain.trainer  # noqa: F401

    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kills = Kills(folder, arguments.seed)
        kills.run(arguments.kills)
    figures = kills.figures
    if arguments.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()))
    sys.exit(1 if figures["failures"] else 0)


if __name__ == "__main__":
    main()
