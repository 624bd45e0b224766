"""Reading files in a separate process, within limits.

There the HDF5 library may loop or crash without harm. The module that does the reading is run as a
program: `MODULE SECONDS FILE...` prints one JSON document.
"""

import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from hgtrain.errors import DatasetError, HgtrainError

STEP_S = 20.0
"""Processor time for one step of reading, after which a file is treated as malicious."""

MEMORY_BYTES = 16 * 2**30

PROGRESS_INTERVAL_S = 0.5
"""How often the other process says how far it is."""

SILENT_S = 2.0
"""Reading that takes longer is spoken of."""


# Modules come from where this process has them, and not from the folder it happens to be in.
_RUN_MODULE = """\
import json, runpy, sys
sys.path[:] = json.loads(sys.argv.pop(1))
runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
"""


class Sandbox:
    """A module that reads files in a separate process, which runs from the moment this is made.

    Args:
        module: Its name; it calls `answer_with`.
        step_s: Processor time of one step, None for `STEP_S`.
    """

    def __init__(self, module: str, paths: Sequence[str], step_s: float | None = None) -> None:
        self._paths = paths
        # A file and not a pipe, which would fill up while nobody reads it.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        # A fresh process, never a fork of this one: where TensorFlow is loaded its threads may hold
        # locks that a fork keeps for ever. It starts in a fifth of a second, which who knows the
        # files early can use for something else.
        self._process = subprocess.Popen(
            [
                *(sys.executable, "-P", "-c", _RUN_MODULE, json.dumps(sys.path)),
                *(module, str(STEP_S if step_s is None else step_s), *paths),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            # Threads that would not be used, and take a third of the processor time until the first
            # file is opened.
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        )

    def answer(self) -> dict[str, Any]:
        """Wait for the module's document and return it.

        Raises:
            DatasetError: The module refuses the files, or they take its process down.
        """
        try:
            out, err = self._communicate()
        finally:
            self.close()
        status = self._process.returncode
        if status < 0:
            raise DatasetError(self._why_taken_down(-status, out))
        if status:
            raise RuntimeError(f"reading {', '.join(self._paths)} failed:\n{err}")
        document = json.loads(out.splitlines()[-1])
        if "refused" in document:
            raise DatasetError(document["refused"])
        return document

    def _why_taken_down(self, signum: int, out: str) -> str:
        # The module says which file it begins with, where it reads one after another.
        begun = [json.loads(line) for line in out.splitlines() if line.startswith('"')]
        what = (
            "ran out of CPU time"
            if signum == signal.SIGPROF
            else f"crashes ({signal.Signals(signum).name})"
        )
        named = begun[-1] if begun else ", ".join(self._paths)
        return (
            f"{named}: the HDF5 library {what} reading it: the file is damaged or malicious, "
            "do not use it"
        )

    def _communicate(self) -> tuple[str, str]:
        from hgtrain.log import Reporter, say

        files = ", ".join(self._paths)
        spoken_of = threading.Timer(
            SILENT_S, lambda: say(f"{files}: checked in a separate process")
        )
        spoken_of.start()
        lines: list[str] = []
        reporter: Reporter | None = None
        try:
            for line in self._process.stdout or ():
                if not line.startswith("["):
                    lines.append(line)
                    continue
                spoken_of.cancel()
                done, total = json.loads(line)
                reporter = reporter or Reporter(total, f"looking through {files}", "frames")
                reporter.update(done)
        finally:
            spoken_of.cancel()
            if reporter is not None:
                reporter.close()
        self._process.wait()
        self._stderr.seek(0)
        return "".join(lines), self._stderr.read()

    def close(self) -> None:
        """End the process, where it still runs."""
        self._process.kill()
        self._process.communicate()
        self._stderr.close()


def answer_with(read: Callable[[Sequence[str]], dict[str, Any]]) -> None:
    """Print what `read` gives for the files of the command line, or why it refused them.

    The process keeps to its limits while it reads.
    """
    global _step_s
    _step_s = float(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    signal.setitimer(signal.ITIMER_PROF, _step_s)
    try:
        document = read(sys.argv[2:])
    except HgtrainError as error:
        document = {"refused": str(error)}
    # The end of the process is a step too: the library closes what it has open.
    step_done()
    print(json.dumps(document, allow_nan=False))


def begin_with(path: str) -> None:
    """Say which file is read from here on, for the message when it takes the process down."""
    print(json.dumps(path), flush=True)


def step_done(done: int = 0, total: int = 0) -> None:
    """Give this process its processor time again, where it is one that `Sandbox` started.

    Args:
        done: Frames that are through, to be shown.
        total: All frames; nothing is shown where it is 0.
    """
    global _told
    if not signal.getitimer(signal.ITIMER_PROF)[0]:
        return
    signal.setitimer(signal.ITIMER_PROF, _step_s)
    if total and time.monotonic() - _told >= PROGRESS_INTERVAL_S:
        _told = time.monotonic()
        print(json.dumps([done, total]), flush=True)


_told = 0.0
_step_s = STEP_S
