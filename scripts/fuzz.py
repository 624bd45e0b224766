"""Give hgtrain mutated files, and see that it opens and reads them or refuses them with a message.

    python scripts/fuzz.py [--cases 20000] [--seed 0] [--only hgtrain,yaml] [--json]

Of each HDF5 format, of YAML configs, of what `convert` reads (tables of DeepLabCut and Lightning
Pose, COCO, Ultralytics, .slp) and of films and images, `cases` files are made from good ones: bytes
flipped, overwritten, cut off, and changes that know the structure (types, shapes, links, external
storage, chunks, attributes, rows, fields, values of documents, declared sizes). They are opened and
read, and labels converted, in worker processes with limits on memory and processor time. Reported
are how many were read, refused with a message, ended in a traceback, took too long, killed the
process, or let something of another file through. Where the HDF5 library itself loops or crashes,
nothing in the process can help: each of those files is given to the trial in a process of its own
that every command makes before it opens a file, and reported is what came of that. Exit status 1
unless every case was read or refused with a message, by the trial where the library failed.
"""

import argparse
import faulthandler
import gc
import json
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz_documents import make_config
from fuzz_labels import KINDS, LabelFiles
from fuzz_mutations import FORMATS, SECRET, make_dataset

import hgtrain.data.convert.convert
import hgtrain.data.sandbox.open
from hgtrain.commands.convert import convert_dataset
from hgtrain.config.choices import HEAD_TYPES
from hgtrain.config.head import HeadConfig
from hgtrain.config.load import load_config
from hgtrain.data.open import open_dataset
from hgtrain.data.sandbox import probe
from hgtrain.data.sandbox.open import try_out
from hgtrain.data.sandbox.process import Sandbox
from hgtrain.data.selection import labels_of_frames, select_frames
from hgtrain.errors import ConfigError, DatasetError, HgtrainError
from hgtrain.predict.inputs import batches, open_frames

CASE_S = 0.5
"""Processor time of a case, which takes milliseconds."""

CONVERT_S = 5.0
"""The same where labels, films or images are read, through several libraries."""

TRIAL_S = 0.7
"""The same in the trial, which loads its libraries in that time."""

STUCK_S = 60.0
MEMORY_BYTES = 3 * 2**30
IN_LIBRARY = "of HDF5"
LOOKED_AT = (f"loop {IN_LIBRARY}", f"crash {IN_LIBRARY}")
REFUSED, READ = ", refused in the trial", ", read in the trial"
GOOD = {"read", "refused", *(how + REFUSED for how in LOOKED_AT), LOOKED_AT[0] + READ}
"""Large chunks to decompress are slow but come to an end, and look like a loop at first."""

HEADS = tuple(HeadConfig(type=type_) for type_ in HEAD_TYPES)

AT = struct.Struct("qqq")
"""The number of the case that runs, and how many the worker has read and refused."""

# The worker


def _read_dataset(path: Path) -> bytes:
    with closing(open_dataset(path)) as dataset:
        for head in HEADS:
            with suppress(DatasetError):
                labels_of_frames(dataset, select_frames(dataset, head).frames)
        images = dataset.read_images(range(min(len(dataset), 8)))
        dataset.location(0)
        texts = (*dataset.keypoint_names, *(dataset.groups if dataset.groups is not None else ()))
        return (
            images.tobytes()
            + dataset.points[:8].tobytes()
            + "".join(texts).encode("utf-8", "replace")
        )


def _read_config(path: Path) -> bytes:
    load_config(path).model_dump()
    return b""


def _read_frames(path: Path) -> bytes:
    """Read films and images as `predict` does."""
    for channels in (1, 3):
        with closing(open_frames(str(path), channels)) as frames:
            for batch in batches(frames, 4):
                assert batch.images.dtype == np.uint8
    return b""


def _convert(path: Path) -> bytes:
    """Convert labels as `convert` does, and read what came of it."""
    target = path.with_name("converted.h5")
    target.unlink(missing_ok=True)
    has_predictions = len(path.name) % 2 == 0
    convert_dataset(str(path), target, has_predictions, symmetries=("auto",) * has_predictions)
    try:
        return _read_dataset(target)
    except HgtrainError as error:
        raise RuntimeError("what was converted cannot be read") from error


def _read_labels(path: Path) -> bytes:
    is_labels = path.suffix in (".csv", ".json", ".yaml", ".slp") or any(path.glob("*.yaml"))
    return (_convert if is_labels else _read_frames)(path)


def _without_trials() -> None:
    """Try files out in this process, which says more of what goes wrong."""
    hgtrain.data.sandbox.open.try_out = lambda paths, step_s=None: None
    probe.begin_with = lambda path: None
    probe.SECONDS = 0.2
    hgtrain.data.convert.convert.probe_hdf5 = lambda path: probe.read_everything([path])


def work(kind: str, seed: int, first: int, last: int, folder: Path) -> None:
    """Run cases; write where it is to `folder/at`, and a line of JSON for each that went wrong."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    # Both show the stack and then end the process, wherever it is.
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    at = mmap.mmap(os.open(folder / "at", os.O_RDWR), AT.size)
    make, read, seconds = _labels(kind, folder) if kind in KINDS else _files(kind, folder)
    counts: Counter[str] = Counter()
    for number in range(first, last):
        at[:] = AT.pack(number, counts["read"], counts["refused"])
        signal.setitimer(signal.ITIMER_PROF, 0)
        path = make(random.Random(f"{kind}-{seed}-{number}"))
        if number % 16 == 0:
            # What libraries left open holds threads and memory, of which a worker has few.
            gc.collect()
        signal.setitimer(signal.ITIMER_PROF, seconds)
        result, text = _result(read, path)
        counts[result] += 1
        if text:
            print(json.dumps({"case": number, "result": result, "text": text}), flush=True)
    at[:] = AT.pack(last, counts["read"], counts["refused"])


Make = Callable[[random.Random], Path]
Read = Callable[[Path], bytes]


def _files(kind: str, folder: Path) -> tuple[Make, Read, float]:
    """Return what makes a case of a kind of one file, what reads it, and how long it may take."""
    bases = [path.read_bytes() for path in sorted((folder / "base").iterdir())]
    path = folder / ("case.yaml" if kind == "yaml" else "case.h5")

    def make(chance: random.Random) -> Path:
        base = chance.choice(bases)
        path.unlink(missing_ok=True)
        if kind == "yaml":
            make_config(base.decode(), path, chance)
        else:
            make_dataset(base, path, chance)
        return path

    return make, _read_config if kind == "yaml" else _read_dataset, CASE_S


def _labels(kind: str, folder: Path) -> tuple[Make, Read, float]:
    """Return the same for a kind of labels, films or images, whose good files were read once."""
    _without_trials()
    labels = LabelFiles(kind, folder)
    for files, source in labels.goods:
        labels.write(files)
        _read_labels(source)
    return labels.make, _read_labels, CONVERT_S


def _result(read: Read, path: Path) -> tuple[str, str]:
    try:
        content = read(path)
    except HgtrainError as error:
        text = str(error).strip()
        return (
            ("refused", "")
            if text and ("\n" not in text or isinstance(error, ConfigError))
            else ("traceback", f"a message of no line or several: {text!r}")
        )
    except BaseException:  # noqa: BLE001
        return "traceback", traceback.format_exc()
    return ("leaked", "the secret was read") if SECRET[:27] in content else ("read", "")


# The parent


def fuzz(kind: str, cases: int, seed: int, folder: Path) -> dict[str, Any]:
    """Return how many cases of a kind ended how, and what is to be looked at."""
    (folder / "base").mkdir(parents=True)
    if kind == "yaml":
        for path in sorted((Path(__file__).parents[1] / "configs").glob("*.yaml")):
            (folder / "base" / path.name).write_bytes(path.read_bytes())
    elif kind in FORMATS:
        for number, write in enumerate(FORMATS[kind]):
            write(folder / "base" / f"base{number}.h5")
    (folder / "secret").write_bytes(SECRET)
    with h5py.File(folder / "secret.h5", "w") as file:
        file["images"] = np.frombuffer((SECRET * 4)[:192], np.uint8).reshape(4, 8, 6, 1)
    (folder / "at").write_bytes(bytes(AT.size))
    counts: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    number, seconds = 0, time.monotonic()
    while number < cases:
        number, how = _run_worker(kind, seed, (number, cases), folder, counts, found)
        if how is not None:
            if how in LOOKED_AT:
                how += _tried_out(folder, kind)
            counts[how] += 1
            found.append(
                {"case": number - 1, "result": how, "text": (folder / "err").read_text()[-2000:]}
            )
    return {"cases": cases, **counts, "seconds": round(time.monotonic() - seconds), "found": found}


def _run_worker(
    kind: str,
    seed: int,
    cases: tuple[int, int],
    folder: Path,
    counts: Counter[str],
    found: list[dict[str, Any]],
) -> tuple[int, str | None]:
    """Return where to go on, and how the worker ended when it did not come to its own end."""
    command = [sys.executable, __file__, "--worker", kind, str(seed), *map(str, cases), str(folder)]
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        how = _watch(process, folder / "at")
        at, read, refused = AT.unpack((folder / "at").read_bytes())
        counts.update(read=read, refused=refused)
        out.seek(0)
        for line in out:
            found.append(json.loads(line))
            counts[found[-1]["result"]] += 1
        if how is None and process.returncode == 0:
            return cases[1], None
        err.seek(0)
        return at + 1, how or _ending(process.returncode, err.read())


def _ending(returncode: int, stack: str) -> str:
    kinds = {
        -signal.SIGPROF: "loop",
        -signal.SIGSEGV: "crash",
        -signal.SIGABRT: "crash",
        -signal.SIGBUS: "crash",
        -signal.SIGFPE: "crash",
    }
    kind = kinds.get(returncode, f"exit status {returncode}")
    frames = [line for line in stack.splitlines() if line.lstrip().startswith("File ")]
    return f"{kind} {IN_LIBRARY}" if frames and "/h5py/" in frames[0] else f"{kind} outside HDF5"


def _tried_out(folder: Path, kind: str) -> str:
    """Return what comes of a file on which the library failed in the trial of a command."""
    path = next((folder / "case").glob("*.slp")) if kind in KINDS else folder / "case.h5"
    try:
        if kind in KINDS:
            Sandbox(probe.__name__, [str(path)], TRIAL_S).answer()
        else:
            try_out([str(path)], step_s=TRIAL_S)
    except DatasetError as error:
        return (
            REFUSED
            if str(error).startswith(str(path))
            else f", refused in the trial without its name: {error}"
        )
    except RuntimeError as error:
        return f", traceback in the trial: {error}"
    return READ


def _watch(process: "subprocess.Popen[bytes]", at: Path) -> str | None:
    before, since = b"", time.monotonic()
    while process.poll() is None:
        time.sleep(0.05)
        now = at.read_bytes()
        if now != before:
            before, since = now, time.monotonic()
        elif time.monotonic() - since > STUCK_S:
            process.kill()
            process.wait()
            return "stuck outside HDF5"
    return None


def main() -> None:
    """Fuzz and report."""
    if sys.argv[1:2] == ["--worker"]:
        kind, seed, first, last, folder = sys.argv[2:]
        work(kind, int(seed), int(first), int(last), Path(folder))
        return
    kinds = (*FORMATS, "yaml", *KINDS)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(kinds))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = {}
    for kind in arguments.only.split(","):
        with tempfile.TemporaryDirectory(
            dir="/dev/shm" if Path("/dev/shm").is_dir() else None
        ) as folder:
            figures[kind] = fuzz(kind, arguments.cases, arguments.seed, Path(folder) / kind)
        if not arguments.json:
            shown = {name: value for name, value in figures[kind].items() if name != "found"}
            worth = [one for one in figures[kind]["found"] if one["result"] not in GOOD]
            print(f"{kind}: {shown}", *(f"  {one}" for one in worth[:20]), sep="\n", flush=True)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    bad = (
        {how for figure in figures.values() for how in figure}
        - GOOD
        - {"cases", "seconds", "found"}
    )
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
