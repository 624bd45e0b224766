"""Good datasets of each format, and what `fuzz.py` does to HDF5 files."""

import json
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from fuzz_documents import odd_tree
from PIL import Image

from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.skeleton import Skeleton

SECRET = b"hgtrain-must-not-read-this-" * 64
"""What lies in other files, and must not come out of a dataset."""

IMAGES = np.random.default_rng(0).integers(0, 256, (4, 8, 6, 1), np.uint8)
POINTS = np.random.default_rng(1).uniform(0, 6, (4, 3, 2))


# Good files


def _native(path: Path, animals: int = 1) -> None:
    frames = []
    for i, (image, points) in enumerate(zip(IMAGES, POINTS, strict=True)):
        several = np.stack([points + animal for animal in range(min(animals, i + 1))])
        several[-1, i % 3] = np.nan
        frames.append((image, several.astype(np.float32), None, f"film{i % 2}"))
    write_dataset(path, Skeleton(("a", "b", "c"), ((0, 1), (0, 2)), ((1, 2),)), frames)


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


def _sleap(path: Path, animals: int = 1) -> None:
    fields = ("frame_id", "video", "frame_idx", "instance_id_start", "instance_id_end")
    frame = np.dtype([(name, "u8") for name in fields])
    instance = np.dtype(
        [
            ("instance_type", "u1"),
            ("frame_id", "u8"),
            ("skeleton", "u4"),
            ("point_id_start", "u8"),
            ("point_id_end", "u8"),
        ]
    )
    point = np.dtype([("x", "f8"), ("y", "f8"), ("visible", "?"), ("complete", "?")])
    nodes = [{"id": i} for i in range(3)]
    edge = {
        "source": 0,
        "target": 1,
        "type": {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]},
    }
    skeletons = [{"graph": {"name": "fly"}, "links": [edge], "nodes": nodes}]
    with h5py.File(path, "w") as file:
        n = animals
        file["frames"] = np.array([(i, 0, i, n * i, n * i + n) for i in range(4)], frame)
        file["instances"] = np.array(
            [(0, i // n, 0, 3 * i, 3 * i + 3) for i in range(4 * n)], instance
        )
        points = POINTS.repeat(n, axis=0).reshape(-1, 2)
        file["points"] = np.array([(x, y, True, True) for x, y in points], point)
        group = file.create_group("metadata")
        group.attrs["json"] = np.bytes_(
            json.dumps({"skeletons": skeletons, "nodes": [{"name": n} for n in "abc"]})
        )
        group.attrs["format_id"] = 1.2
        rows = file.create_dataset("video0/video", (4,), h5py.vlen_dtype(np.int8))
        for row, image in enumerate(IMAGES):
            buffer = BytesIO()
            Image.fromarray(image[..., 0]).save(buffer, "png")
            rows[row] = np.frombuffer(buffer.getvalue(), np.int8)
        rows.attrs.update({"format": "png", "height": 8, "width": 6, "channels": 1})
        file["video0/frame_numbers"] = np.arange(4)
        file["videos_json"] = np.array(
            [json.dumps({"backend": {"dataset": "video0/video"}}).encode()]
        )


FORMATS: dict[str, tuple[Callable[[Path], None], ...]] = {
    "hgtrain": (_native, partial(_native, animals=3)),
    "deepposekit": (_deepposekit,),
    "leap": (_leap,),
    "sleap": (_sleap, partial(_sleap, animals=2)),
}
"""Of each format one or more good files."""


# Mutations of bytes


def _flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 16)):
        data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        at, size = chance.randrange(len(data)), chance.choice((1, 2, 4, 8))
        value = chance.choice(
            (
                0,
                1,
                0x7F,
                2 ** (8 * size) - 1,
                2 ** (8 * size - 1),
                chance.randrange(2 ** (8 * size)),
            )
        )
        data[at : at + size] = value.to_bytes(size, "little")


def _cut(data: bytearray, chance: random.Random) -> None:
    del data[chance.randrange(len(data)) :]


def _move(data: bytearray, chance: random.Random) -> None:
    size = chance.randint(1, 256)
    at, to = (chance.randrange(len(data)) for _ in range(2))
    data[to : to + size] = data[at : at + size]


BYTES = (_flip, _flip, _overwrite, _overwrite, _cut, _move)


# Mutations that know the structure

TYPES = (
    "f2", "f4", "f8", "i1", "i8", "u2", "u8", "c16", "?", "S4", "V3", [("x", "f4")],
    h5py.string_dtype(),
    h5py.vlen_dtype("u1"), h5py.ref_dtype, h5py.regionref_dtype, h5py.enum_dtype({"A": 1}),
    h5py.vlen_dtype(h5py.string_dtype()),
)  # fmt: skip
VALUES = (
    np.nan,
    np.inf,
    -1,
    0,
    1e300,
    2**31,
    2**63 - 1,
    "",
    "x" * 70_000,
    b"\xff\xfe",
    "[[0, 9]]",
    "[",
    "null",
    "{}",
    [1, 2],
    [[0, 1]],
    np.zeros((3, 3)),
    h5py.Empty("f4"),
)


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
    file.create_dataset(
        name,
        shape,
        dtype,
        chunks=tuple(min(max(size, 1), 4) for size in shape) if shape and 0 not in shape else None,
    )


def _revalue(file: h5py.File, name: str, chance: random.Random) -> None:
    values = np.asarray(file[name][()]).copy()
    if values.dtype.kind == "O":
        raise TypeError("h5py crashes when it writes numbers there")
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
    links: tuple[Any, ...] = (
        h5py.SoftLink("/images"),
        h5py.SoftLink(f"/{name}"),
        h5py.ExternalLink(secret, f"/{name}"),
        h5py.ExternalLink(secret, "/images"),
    )
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
    layout[...] = h5py.VirtualSource(
        str(Path(file.filename).with_name("secret.h5")), "images", item.shape
    )
    del file[name]
    file.create_virtual_dataset(name, layout)


def _chunks(file: h5py.File, name: str, chance: random.Random) -> None:
    item = file[name]
    if (
        item.is_virtual
        or item.external
        or not isinstance(file.get(name, getlink=True), h5py.HardLink)
    ):
        raise TypeError(
            "it would copy the secret into the file itself, where reading it is no leak"
        )
    values = item[()]
    del file[name]
    chunk = tuple(chance.choice((1, 3, 2**12, 2**20)) for _ in values.shape)
    item = file.create_dataset(
        name,
        values.shape,
        values.dtype,
        chunks=chunk,
        maxshape=(None,) * values.ndim,
        compression=chance.choice((None, "gzip", "lzf")),
    )
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
    known = [
        *holder.attrs,
        "format",
        "version",
        "keypoint_names",
        "edges",
        "symmetries",
        "json",
        "height",
    ]
    attribute = chance.choice(known)
    with suppress(KeyError):
        del holder.attrs[attribute]
    if chance.random() < 0.8:
        holder.attrs[attribute] = chance.choice(VALUES)


def _document(file: h5py.File, name: str, chance: random.Random) -> None:
    """Change one of the JSON texts that SLEAP keeps in attributes and datasets."""
    texts = [(item, key) for item in (file, *file.values()) for key in item.attrs if key == "json"]
    texts += [(item, 0) for key, item in file.items() if key.endswith("_json") and len(item)]
    holder, key = chance.choice(texts)
    place = holder.attrs if isinstance(key, str) else holder
    tree = json.loads(place[key])
    for _ in range(chance.randint(1, 3)):
        tree = odd_tree(tree, chance)
    place[key] = np.bytes_(json.dumps(tree)) if isinstance(key, str) else json.dumps(tree)


STRUCTURE = (
    _retype,
    _reshape,
    _revalue,
    _revalue,
    _drop,
    _link,
    _external,
    _virtual,
    _chunks,
    _turn_into_group,
    _attribute,
    _attribute,
    _document,
)


def _mutate_structure(path: Path, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        with (
            suppress(Exception),
            h5py.File(path, "r+") as file,
        ):  # What HDF5 itself refuses is no case.
            names: list[str] = []
            file.visit(names.append)
            chance.choice(STRUCTURE)(file, chance.choice(names), chance)


def make_dataset(base: bytes, path: Path, chance: random.Random) -> None:
    """Write a mutated dataset."""
    data = bytearray(base)
    is_structured = chance.random() < 0.5
    if not is_structured and data:
        chance.choice(BYTES)(data, chance)
    path.write_bytes(data)
    if is_structured:
        _mutate_structure(path, chance)
