"""Give hgtrain mutated datasets and configs, and see that it opens and reads them or refuses them with a message.

    python scripts/fuzz.py [--cases 20000] [--seed 0] [--only hgtrain,yaml] [--json]

Of each HDF5 format and of YAML configs, `cases` files are made from good ones: bytes flipped, overwritten, cut off, and
changes that know the structure (types, shapes, links, external storage, chunks, attributes). They are opened and read in
worker processes with limits on memory and processor time. Reported are how many were read, refused with a message,
ended in a traceback, took too long, killed the process, or let something of another file through. Where the HDF5 library
itself loops or crashes, nothing in the process can help: that is why `hgtrain inspect` looks at a file in a process of its
own, and the first of those cases are given to it. Exit status 1 unless every case was read or refused with a message, by
`inspect` where the library failed.
"""

import argparse
import faulthandler
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
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from PIL import Image

from hgtrain.config import load_config
from hgtrain.data.dataset import Skeleton
from hgtrain.data.native import write_dataset
from hgtrain.data.source import open_dataset
from hgtrain.errors import HgtrainError

CASE_S = 1.0
"""Processor time of a case, which takes milliseconds."""

STUCK_S = 60.0
INSPECTED = 10
IN_LIBRARY = "of HDF5, caught by inspect"
MEMORY_BYTES = 3 * 2**30
SECRET = b"hgtrain-must-not-read-this-" * 64
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 1), np.uint8)
POINTS = np.random.default_rng(1).uniform(0, 6, (4, 3, 2))


# Good files


def _native(path: Path) -> None:
    frames = [(image, points.astype(np.float32), None, f"film{i % 2}") for i, (image, points) in enumerate(zip(IMAGES, POINTS, strict=True))]
    write_dataset(path, Skeleton(("a", "b", "c"), ((0, 1),), ((1, 2),)), frames)


def _deepposekit(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["images"] = IMAGES
        file["annotations"] = POINTS
        file["annotated"] = np.ones((4, 3), bool)
        file["skeleton"] = np.array([[-1, -1], [0, 2], [0, 1]], np.int32)
        file["skeleton_names"] = np.array([b"a", b"b", b"c"])


def _leap(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["box"] = IMAGES.transpose(0, 3, 2, 1)
        file["joints"] = POINTS.transpose(0, 2, 1) + 1
        file["exptID"] = np.array([[1.0, 1, 2, 2]])
        file["skeleton/edges"] = np.array([[1.0, 1.0], [2.0, 3.0]])
        file["skeleton"].attrs["jointNames"] = b"a\nb\nc"


def _sleap(path: Path) -> None:
    fields = ("frame_id", "video", "frame_idx", "instance_id_start", "instance_id_end")
    frame = np.dtype([(name, "u8") for name in fields])
    instance = np.dtype(
        [("instance_type", "u1"), ("frame_id", "u8"), ("skeleton", "u4"), ("point_id_start", "u8"), ("point_id_end", "u8")]
    )
    point = np.dtype([("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")])
    nodes = [{"id": i} for i in range(3)]
    edge = {"source": 0, "target": 1, "type": {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]}}
    skeletons = [{"graph": {"name": "fly"}, "links": [edge], "nodes": nodes}]
    with h5py.File(path, "w") as file:
        file["frames"] = np.array([(i, 0, i, i, i + 1) for i in range(4)], frame)
        file["instances"] = np.array([(0, i, 0, 3 * i, 3 * i + 3) for i in range(4)], instance)
        file["points"] = np.array([(x, y, True, True) for x, y in POINTS.reshape(-1, 2)], point)
        group = file.create_group("metadata")
        group.attrs["json"] = np.bytes_(json.dumps({"skeletons": skeletons, "nodes": [{"name": n} for n in "abc"]}))
        group.attrs["format_id"] = 1.2
        rows = file.create_dataset("video0/video", (4,), h5py.vlen_dtype(np.int8))
        for row, image in enumerate(IMAGES):
            buffer = BytesIO()
            Image.fromarray(image[..., 0]).save(buffer, "png")
            rows[row] = np.frombuffer(buffer.getvalue(), np.int8)
        rows.attrs.update({"format": "png", "height": 8, "width": 6, "channels": 1})
        file["video0/frame_numbers"] = np.arange(4)
        file["videos_json"] = np.array([json.dumps({"backend": {"dataset": "video0/video"}}).encode()])


FORMATS: dict[str, Callable[[Path], None]] = {
    "hgtrain": _native, "deepposekit": _deepposekit, "leap": _leap, "sleap": _sleap,
}  # fmt: skip


# Mutations of bytes


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 16)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 8))
        value = chance.choice((0, 1, 0x7F, 2 ** (8 * size) - 1, 2 ** (8 * size - 1), chance.randrange(2 ** (8 * size))))
        data[at : at + size] = value.to_bytes(size, "little")


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _move(data: bytearray, chance: random.Random) -> None:
    size = chance.randint(1, 256)
    at, to = (chance.randrange(len(data)) for _ in range(2))
    data[to : to + size] = data[at : at + size]


BYTES = (_flip, _flip, _overwrite, _overwrite, _cut, _move)


# Mutations that know the structure

TYPES = ("f2", "f4", "f8", "i1", "i8", "u2", "u8", "c16", "?", "S4", "V3", [("x", "f4")], h5py.string_dtype(), h5py.vlen_dtype("u1"),
         h5py.ref_dtype, h5py.regionref_dtype, h5py.enum_dtype({"A": 1}), h5py.vlen_dtype(h5py.string_dtype()))  # fmt: skip
VALUES = (np.nan, np.inf, -1, 0, 1e300, 2**31, 2**63 - 1, "", "x" * 70_000, b"\xff\xfe", "[[0, 9]]", "[", "null", "{}", [1, 2], [[0, 1]], np.zeros((3, 3)), h5py.Empty("f4"))


def _shapes(chance: random.Random) -> tuple[int, ...]:
    sizes = (0, 1, 2, 3, 4, 6, 8, 2**16, 2**31, 2**40)
    return tuple(chance.choice(sizes) for _ in range(chance.randint(0, 5)))


def _retype(file: h5py.File, name: str, chance: random.Random) -> None:
    shape = getattr(file[name], "shape", (4,))
    del file[name]
    file.create_dataset(name, shape, chance.choice(TYPES))


def _reshape(file: h5py.File, name: str, chance: random.Random) -> None:
    dtype, shape = getattr(file[name], "dtype", "u1"), _shapes(chance)
    del file[name]
    file.create_dataset(name, shape, dtype, chunks=tuple(min(max(size, 1), 4) for size in shape) if shape and 0 not in shape else None)


def _revalue(file: h5py.File, name: str, chance: random.Random) -> None:
    values = np.asarray(file[name][()]).copy()
    for _ in range(chance.randint(1, 4)):
        at = tuple(chance.randrange(size) for size in values.shape)
        if values.dtype.names:
            field = chance.choice(values.dtype.names)
            values[field][at] = chance.choice((0, 1, 5, 200))
        else:
            values[at] = chance.choice((np.nan, np.inf, -1, 0, 1, 255, 1e300))
    file[name][...] = values


def _drop(file: h5py.File, name: str, chance: random.Random) -> None:
    del file[name]


def _link(file: h5py.File, name: str, chance: random.Random) -> None:
    del file[name]
    secret = str(Path(file.filename).with_name("secret.h5"))
    links: tuple[Any, ...] = (h5py.SoftLink("/images"), h5py.SoftLink(f"/{name}"), h5py.ExternalLink(secret, f"/{name}"), h5py.ExternalLink(secret, "/images"))
    file[name] = chance.choice(links)


def _external(file: h5py.File, name: str, chance: random.Random) -> None:
    item = file[name]
    shape, dtype = getattr(item, "shape", (4,)), getattr(item, "dtype", np.dtype("u1"))
    del file[name]
    secret = str(Path(file.filename).with_name("secret"))
    file.create_dataset(name, shape, dtype, external=[(secret, 0, h5py.h5f.UNLIMITED)])


def _virtual(file: h5py.File, name: str, chance: random.Random) -> None:
    item = file[name]
    layout = h5py.VirtualLayout(item.shape, item.dtype)
    layout[...] = h5py.VirtualSource(str(Path(file.filename).with_name("secret.h5")), "images", item.shape)
    del file[name]
    file.create_virtual_dataset(name, layout)


def _chunks(file: h5py.File, name: str, chance: random.Random) -> None:
    values = file[name][()]
    del file[name]
    chunk = tuple(chance.choice((1, 3, 2**12, 2**20)) for _ in values.shape)
    item = file.create_dataset(name, values.shape, values.dtype, chunks=chunk, maxshape=(None,) * values.ndim, compression=chance.choice((None, "gzip", "lzf")))
    if chance.random() < 0.5:
        item[...] = values


def _turn_into_group(file: h5py.File, name: str, chance: random.Random) -> None:
    del file[name]
    if chance.random() < 0.5:
        file.create_group(name)
    else:
        file[name] = np.dtype("f4")


def _attribute(file: h5py.File, name: str, chance: random.Random) -> None:
    holder = chance.choice((file, file[name], *file.values()))
    known = [*holder.attrs, "format", "version", "keypoint_names", "edges", "symmetries", "json", "height"]
    attribute = chance.choice(known)
    with suppress(KeyError):
        del holder.attrs[attribute]
    if chance.random() < 0.8:
        holder.attrs[attribute] = chance.choice(VALUES)


STRUCTURE = (_retype, _reshape, _revalue, _revalue, _drop, _link, _external, _virtual, _chunks, _turn_into_group, _attribute, _attribute)


def _mutate_structure(path: Path, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        with suppress(Exception), h5py.File(path, "r+") as file:  # What HDF5 itself refuses is no case.
            names: list[str] = []
            file.visit(names.append)
            chance.choice(STRUCTURE)(file, chance.choice(names), chance)


def make_dataset(base: bytes, path: Path, chance: random.Random) -> None:
    """Write a mutated dataset."""
    data = bytearray(base)
    is_structured = chance.random() < 0.5
    if not is_structured:
        chance.choice(BYTES)(data, chance)
    path.write_bytes(data)
    if is_structured:
        _mutate_structure(path, chance)


# Configs

TOKENS = ("&a ", "*a", "<<: *a", "!!python/object/apply:os.system ['true']", "!!binary ", "[" * 200, "{" * 30, "a: &b [*b]", "\t", "\0", "\x85",
          "---\n", "...\n", "? ", "- ", ": ", "|\n", ">-\n", '"', "'", "%YAML 9.9\n", "1e999", "9" * 5000, "0x7f", ".nan", "null", "on",
          "\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"), "\\UFFFFFFFF", '"\\ud800"', "key: value\n" * 50, "x" * 5000,
          "model: {backbone: {stacks: 99999999}}\n", "data: {train: /etc/passwd}\n", "training: []\n", "augmentation: {scale: [2, 1]}\n")  # fmt: skip


def make_config(base: str, path: Path, chance: random.Random) -> None:
    """Write a mutated config."""
    text = base
    for _ in range(chance.randint(1, 6)):
        at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        lines = text.splitlines(keepends=True) or [""]
        line = chance.randrange(len(lines))
        text = chance.choice(
            (
                lambda: text[:at] + chance.choice(TOKENS) + text[at:],
                lambda: text[:at] + chr(chance.choice((0, 9, 10, 32, 58, 91, 123, 0xFEFF, 0x1F600, chance.randrange(0xD7FF)))) + text[at + 1 :],
                lambda: text[:at] + text[min(to, at + 40) :],
                lambda: "".join((*lines[:line], lines[line] * chance.randint(2, 20), *lines[line + 1 :])),
                lambda: "".join((*lines[:line], "  " * chance.randint(0, 4) + chance.choice(lines), *lines[line:])),
                lambda: text[:to],
            )
        )()
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.2 and data:
        mutable = bytearray(data)
        _flip(mutable, chance)
        data = bytes(mutable)
    path.write_bytes(data)


# The worker


def _read_dataset(path: Path) -> bytes:
    with closing(open_dataset(path)) as dataset:
        images = dataset.read_images(range(min(len(dataset), 8)))
        dataset.location(0)
        texts = (*dataset.keypoint_names, *(dataset.groups if dataset.groups is not None else ()))
        return images.tobytes() + dataset.points[:8].tobytes() + "".join(texts).encode("utf-8", "replace")


def _read_config(path: Path) -> bytes:
    load_config(path)
    return b""


def work(kind: str, seed: int, first: int, last: int, folder: Path) -> None:
    """Run cases, write the number of the one that runs to `folder/at`, and a line of JSON for each result."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    warnings.simplefilter("ignore")
    # Both show the stack and then end the process, wherever it is.
    faulthandler.enable()
    faulthandler.register(signal.SIGPROF, chain=True)
    at = mmap.mmap(os.open(folder / "at", os.O_RDWR), 8)
    bases = [path.read_bytes() for path in sorted((folder / "base").iterdir())]
    path = folder / ("case.yaml" if kind == "yaml" else "case.h5")
    counts: Counter[str] = Counter()
    for number in range(first, last):
        at[:] = struct.pack("q", number)
        chance = random.Random(f"{kind}-{seed}-{number}")
        base = chance.choice(bases)
        path.unlink(missing_ok=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        if kind == "yaml":
            make_config(base.decode(), path, chance)
        else:
            make_dataset(base, path, chance)
        signal.setitimer(signal.ITIMER_PROF, CASE_S)
        result, text = _result(kind, path)
        counts[result] += 1
        if text:
            print(json.dumps({"case": number, "result": result, "text": text}), flush=True)
        if number + 1 == last or counts.total() == 10:
            print(json.dumps({"counts": counts}), flush=True)
            counts.clear()
    at[:] = struct.pack("q", last)


def _result(kind: str, path: Path) -> tuple[str, str]:
    try:
        content = (_read_config if kind == "yaml" else _read_dataset)(path)
    except HgtrainError as error:
        return ("refused", "") if str(error) else ("traceback", "an empty message")
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
    else:
        FORMATS[kind](folder / "base" / "base.h5")
    (folder / "secret").write_bytes(SECRET)
    with h5py.File(folder / "secret.h5", "w") as file:
        file["images"] = np.frombuffer((SECRET * 4)[:192], np.uint8).reshape(4, 8, 6, 1)
    (folder / "at").write_bytes(bytes(8))
    counts: Counter[str] = Counter()
    found: list[dict[str, Any]] = []
    number, seconds = 0, time.monotonic()
    while number < cases:
        number, how = _run_worker(kind, seed, (number, cases), folder, counts, found)
        if how is not None:
            if IN_LIBRARY in how and counts[how] < INSPECTED:
                how = _inspected(folder / "case.h5") or how
            counts[how] += 1
            found.append({"case": number - 1, "result": how, "text": (folder / "err").read_text()[-2000:]})
    return {"cases": cases, **counts, "seconds": round(time.monotonic() - seconds), "found": found}


def _run_worker(
    kind: str, seed: int, cases: tuple[int, int], folder: Path, counts: Counter[str], found: list[dict[str, Any]]
) -> tuple[int, str | None]:
    """Return where to go on, and how the worker ended when it did not come to its own end."""
    command = [sys.executable, __file__, "--worker", kind, str(seed), *map(str, cases), str(folder)]
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        how = _watch(process, folder / "at")
        (at,) = struct.unpack("q", (folder / "at").read_bytes())
        out.seek(0)
        reported = 0
        for line in out:
            document = json.loads(line)
            if "counts" in document:
                counts.update(document["counts"])
                reported += sum(document["counts"].values())
            else:
                found.append(document)
        if how is None and process.returncode == 0:
            return cases[1], None
        # Those since the last report: a worker says each hundred cases how they went.
        counts["read or refused"] += max(at - cases[0] - reported, 0)
        err.seek(0)
        return at + 1, how or _ending(process.returncode, err.read())


def _ending(returncode: int, stack: str) -> str:
    kinds = {-signal.SIGPROF: "loop", -signal.SIGSEGV: "crash", -signal.SIGABRT: "crash", -signal.SIGBUS: "crash", -signal.SIGFPE: "crash"}
    kind = kinds.get(returncode, f"exit status {returncode}")
    frames = [line for line in stack.splitlines() if line.lstrip().startswith("File ")]
    return f"{kind} {IN_LIBRARY}" if frames and "/h5py/" in frames[0] else f"{kind} outside HDF5"


def _inspected(path: Path) -> str | None:
    """Return what is wrong with how `hgtrain inspect` refuses a file; None when it does so with a message."""
    command = [sys.executable, "-m", "hgtrain", "inspect", str(path)]
    environment = os.environ | {"HGTRAIN_INSPECT_S": "5"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)
    is_good = done.returncode == 1 and done.stderr.startswith("Error: ") and "Traceback" not in done.stderr
    return None if is_good else f"not refused by inspect: exit status {done.returncode}, {done.stderr[-300:]}"


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
    kinds = (*FORMATS, "yaml")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default=",".join(kinds))
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    figures = {}
    for kind in arguments.only.split(","):
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
            figures[kind] = fuzz(kind, arguments.cases, arguments.seed, Path(folder) / kind)
        if not arguments.json:
            shown = {name: value for name, value in figures[kind].items() if name != "found"}
            print(f"{kind}: {shown}", *(f"  {found}" for found in figures[kind]["found"][:20]), sep="\n", flush=True)
    if arguments.json:
        print(json.dumps(figures, indent=1))
    good = {"cases", "seconds", "found", "read", "refused", "read or refused"}
    bad = {how for figure in figures.values() for how in figure if how not in good and IN_LIBRARY not in how}
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
