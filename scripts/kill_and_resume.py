"""Kill `hgtrain fit` with SIGKILL again and again, resume it, and compare it with a quiet run.

    python scripts/kill_and_resume.py [--kills 100] [--seed 0] [--head TYPE] [--folder DIR] [--json]

Each `fit` is a new process of the console command, in a process group and on a terminal of its own,
whose progress bar says which step it is at; killed is the whole group. A third of the kills come
while a checkpoint is being written, a third at random instants of the training and evaluation, and
a third at random instants from the start of the process. Exit status 1 when a run did not go on,
lost more than one checkpoint interval, went on from another checkpoint than the newest, or ended
with other weights or other rows in metrics.jsonl.
"""

import argparse
import json
import os
import pty
import random
import re
import signal
import subprocess
import sys
import sysconfig
import tempfile
import termios
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import h5py
import numpy as np

from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.skeleton import Skeleton

COMMAND = str(Path(sysconfig.get_path("scripts")) / "hgtrain")
INTERVAL = 3
CONFIG = f"""\
data: {{train: flies.h5, validation: 0.25}}
model:
  backbone:
    {{stem_stride: 2, max_stride: 4, output_stride: 2, stem_filters: 4, filters: 4,
      filter_increase: 0, stacks: 1}}
  head: {{type: HEAD, sigma_px: 3}}
training:
  {{batch_size: 4, epochs: 40, steps_per_epoch: 4, learning_rate: 2e-3, ema: 0.9,
    deterministic: true, device: cpu}}
checkpoint: {{every_steps: {INTERVAL}}}
output: {{tensorboard: false}}
"""
TIMES = ("images_per_s", "data_wait_fraction", "elapsed_s", "checkpoint_s")
POLL_S = 1e-3
NOT_BEGUN = -1
PROGRESS = re.compile(r"epoch \d+/\d+,? step ([1-9]\d*)")


class Kill(NamedTuple):
    """When to kill: while a checkpoint is written, or so long after the start or first step."""

    writes: int | None = None
    delay_s: float = 0.0
    is_in_training: bool = False


class Outcome(NamedTuple):
    """What became of one `fit`.

    status: None when it was killed. reached: the step it was seen at; resumed: it began at; newest:
    checkpoint it left.
    """

    status: int | None
    reached: int
    resumed: int
    newest: int
    was_writing: bool
    log: str


class Fit:
    """One process of `hgtrain fit`, which begins or resumes the run in a folder."""

    def __init__(self, config: Path, folder: Path) -> None:
        self._checkpoints = folder / "checkpoints"
        self._log = b""
        self._terminal, end = pty.openpty()
        os.set_blocking(self._terminal, False)
        # One without a size shows no progress bar.
        termios.tcsetwinsize(end, (50, 200))
        self._process = subprocess.Popen(
            [COMMAND, "fit", str(config), "--run-dir", str(folder), "--resume"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=end,
            start_new_session=True,
        )
        os.close(end)

    def outcome(self, kill: Kill | None) -> Outcome:
        """Wait for the end of the process, and bring it about where it is to be killed."""
        is_killed = kill is not None and self._comes_to(kill)
        if is_killed:
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._wait()
        was_writing = is_killed and self._is_writing()
        text = self._log.decode(errors="replace")
        found = re.search(r"resuming at step (\d+)", text)
        reached = max(map(int, PROGRESS.findall(text)), default=NOT_BEGUN)
        # Without any checkpoint it starts over, at step 0.
        resumed = int(found[1]) if found else (0 if reached != NOT_BEGUN else NOT_BEGUN)
        return Outcome(
            None if is_killed else status, reached, resumed, self._newest(), was_writing, text
        )

    def _comes_to(self, kill: Kill) -> bool:
        """Wait for the moment to kill; return False when the process has ended before."""
        seen, is_writing, since = 0, False, time.monotonic()
        is_counting = not kill.is_in_training
        while self._process.poll() is None:
            self._read()
            if not is_counting and PROGRESS.search(self._log.decode(errors="replace")):
                is_counting, since = True, time.monotonic()
            was_writing, is_writing = is_writing, self._is_writing()
            seen += is_writing and not was_writing
            is_due = is_counting and time.monotonic() - since >= kill.delay_s
            if is_due if kill.writes is None else seen >= kill.writes:
                return True
            time.sleep(POLL_S)
        return False

    def _wait(self) -> int:
        while self._process.poll() is None:
            self._read()
            time.sleep(0.02)
        self._read()
        os.close(self._terminal)
        return self._process.returncode

    def _read(self) -> None:
        try:
            while part := os.read(self._terminal, 65536):
                self._log += part
        except OSError:
            # Nothing to read now, or nobody left who writes.
            return

    def _is_writing(self) -> bool:
        return any(self._checkpoints.glob(".partial*"))

    def _newest(self) -> int:
        return max(
            (int(path.stem.rpartition("-")[2]) for path in self._checkpoints.glob("step-*.index")),
            default=0,
        )


class Kills:
    """Starts, kills and resumes; `figures` are what is reported."""

    def __init__(self, folder: Path, seed: int, head: str) -> None:
        self._folder = folder
        self._random = random.Random(seed)
        self.figures: dict[str, Any] = {
            "kills": 0, "while_writing": 0, "runs": 0, "most_steps_lost": 0, "seconds": 0,
            "failures": []
        }  # fmt: skip
        write_data(folder, head)
        before = time.monotonic()
        self.undisturbed = self._fit(folder / "undisturbed", None)
        self._seconds = time.monotonic() - before
        if self.undisturbed.status != 0 or self.undisturbed.reached <= 0:
            raise SystemExit(f"the undisturbed run failed:\n{self.undisturbed.log}")

    def run(self, kills: int) -> None:
        """Kill `kills` times, over as many runs as it takes, and compare each run that ends."""
        before = time.monotonic()
        while self.figures["kills"] < kills and not self.figures["failures"]:
            self._one_run(self._folder / f"killed-{self.figures['runs']}", kills)
            self.figures["runs"] += 1
        self.figures["seconds"] = round(time.monotonic() - before)

    def _one_run(self, folder: Path, kills: int) -> None:
        before = Outcome(None, 0, 0, 0, False, "")
        while True:
            is_last = self.figures["kills"] >= kills
            outcome = self._fit(folder, None if is_last else self._next_kill())
            self._note(outcome, before)
            if self.figures["failures"]:
                return
            if outcome.status == 0:
                self._compare(folder)
                return
            # A process that was killed before its first step lost none.
            before = (
                outcome if outcome.reached != NOT_BEGUN else before._replace(newest=outcome.newest)
            )

    def _next_kill(self) -> Kill:
        number = self.figures["kills"] % 3
        if number == 0:
            return Kill(writes=self._random.randint(1, 20))
        share = self._random.uniform(0, 0.5)
        return Kill(delay_s=share * self._seconds, is_in_training=number == 1)

    def _note(self, outcome: Outcome, before: Outcome) -> None:
        figures = self.figures
        if outcome.resumed != NOT_BEGUN:
            lost = max(before.reached, before.resumed, 0) - outcome.resumed
            figures["most_steps_lost"] = max(figures["most_steps_lost"], lost)
            if lost > INTERVAL:
                figures["failures"].append(
                    f"{lost} steps were lost, an interval has {INTERVAL}\n{outcome.log}"
                )
            if outcome.resumed != before.newest:
                figures["failures"].append(
                    f"did not go on from {before.newest}, the newest checkpoint\n{outcome.log}"
                )
        if outcome.status is None:
            figures["kills"] += 1
            figures["while_writing"] += outcome.was_writing
            where = (
                "before training" if outcome.reached == NOT_BEGUN else f"at step {outcome.reached}"
            )
            print(f"kill {figures['kills']}: {where}", file=sys.stderr, flush=True)
        elif outcome.status != 0:
            figures["failures"].append(
                f"did not go on: exit status {outcome.status}\n{outcome.log}"
            )

    def _compare(self, folder: Path) -> None:
        for what, read in (
            ("weights", weights_of),
            ("metrics.jsonl", rows_of),
            ("checkpoint", last_checkpoint_of),
        ):
            if read(folder) != read(self._folder / "undisturbed"):
                self.figures["failures"].append(
                    f"{folder}: {what} differ from the undisturbed run's"
                )

    def _fit(self, folder: Path, kill: Kill | None) -> Outcome:
        return Fit(self._folder / "tiny.yaml", folder).outcome(kill)


def write_data(folder: Path, head: str) -> None:
    """Write a dataset of 12 small frames, of two animals each if the head is for several."""
    random_ = np.random.default_rng(0)
    animals = 1 if head == "single_instance" else 2
    frames = [
        (
            random_.integers(0, 256, (32, 32, 1), np.uint8),
            random_.uniform(6, 26, (animals, 3, 2)).astype(np.float32),
            None,
            None,
        )
        for _ in range(12)
    ]
    skeleton = Skeleton(("nose", "left", "right"), ((0, 1), (0, 2)), ((1, 2),))
    write_dataset(folder / "flies.h5", skeleton, frames)
    (folder / "tiny.yaml").write_text(CONFIG.replace("HEAD", head))


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
    """Return every variable of the newest checkpoint as bytes.

    Weights, moving average, optimizer, best.
    """
    import tensorflow as tf

    newest = max(
        (folder / "checkpoints").glob("step-*.index"),
        key=lambda path: int(path.stem.rpartition("-")[2]),
    )
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
    parser.add_argument("--head", default="single_instance", help="as model.head.type")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        kills = Kills(folder, arguments.seed, arguments.head)
        kills.run(arguments.kills)
    figures = kills.figures
    if arguments.json:
        print(json.dumps(figures))
    else:
        print("\n".join(f"{name.replace('_', ' ')}: {value}" for name, value in figures.items()))
    sys.exit(1 if figures["failures"] else 0)


if __name__ == "__main__":
    main()
