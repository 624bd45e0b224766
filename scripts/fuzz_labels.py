"""Good labels of other programs, films and images, and what `fuzz.py` does to them."""

import json
import random
import struct
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
import yaml
from fuzz_documents import ODD_TEXTS, mutated_text, odd_tree
from fuzz_mutations import BYTES, make_dataset
from PIL import Image

from hgtrain.data.convert.sleap_io import import_sleap_io, to_foreign_video

SIZE = 32
FRAMES = 8
NAMES = ("nose", "ear_l", "ear_r")
POINTS = np.random.default_rng(3).uniform(2, 30, (FRAMES, 2, 3, 2)).round(2)
PICTURES = np.random.default_rng(4).integers(0, 256, (FRAMES, SIZE, SIZE, 3), np.uint8)


# Good files: each function fills a folder and returns what can be converted of it


def _pictures(folder: Path, count: int = 4, mode: str = "L") -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"img{i}.png" for i in range(count)]
    for file, picture in zip(files, PICTURES, strict=False):
        Image.fromarray(picture).convert(mode).save(file)
    return files


def _rows(files: Sequence[str], animals: int) -> list[str]:
    return [
        ",".join([file, *(str(value) for value in POINTS[i, :animals].ravel())])
        for i, file in enumerate(files)
    ]


def _header(animals: int, columns: str = "") -> list[str]:
    """Return the lines above a table, with a line of individuals where there are two animals."""
    parts = [
        (f"m{animal}", name, axis) for animal in range(animals) for name in NAMES for axis in "xy"
    ]
    lines = [f"scorer{columns}," + ",".join("me" for _ in parts)]
    if animals > 1:
        lines.append(f"individuals{columns}," + ",".join(part[0] for part in parts))
    lines.append(f"bodyparts{columns}," + ",".join(part[1] for part in parts))
    return [*lines, f"coords{columns}," + ",".join(part[2] for part in parts)]


def _deeplabcut(folder: Path, animals: int, columns: str = "") -> list[Path]:
    names = [file.relative_to(folder).as_posix() for file in _pictures(folder / "labeled-data/mon")]
    names = [name.replace("/", ",") if columns else name for name in names]
    table = folder / "labeled-data/mon/CollectedData_me.csv"
    table.write_text("\n".join([*_header(animals, columns), *_rows(names, animals)]) + "\n")
    config = {
        "Task": "mice", "scorer": "me", "bodyparts": list(NAMES), "skeleton": [["nose", "ear_l"]],
        "video_sets": {"/films/mon.avi": {"crop": "0, 32, 0, 32"}},
        "multianimalproject": animals > 1,
        "individuals": ["m0", "m1"], "uniquebodyparts": [], "multianimalbodyparts": list(NAMES),
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    return [table, table, folder, folder / "config.yaml"]


def _lightning(folder: Path) -> list[Path]:
    names = [
        file.relative_to(folder).as_posix()
        for part in ("mon", "tue")
        for file in _pictures(folder / "labeled-data" / part, 2)
    ]
    table = folder / "CollectedData.csv"
    table.write_text("\n".join([*_header(1), *_rows(names, 1)]) + "\n")
    return [table]


def _coco(folder: Path, is_posetrack: bool) -> list[Path]:
    names = [file.relative_to(folder).as_posix() for file in _pictures(folder / "images")]
    region = {"ignore_regions_x": [[0, 4, 4]], "ignore_regions_y": [[0, 0, 4]]}
    document = {
        "images": [
            {"id": i, "file_name": name, "width": SIZE, "height": SIZE}
            | (region if is_posetrack else {})
            for i, name in enumerate(names)
        ],
        "annotations": [
            {
                "id": 2 * i + animal, "image_id": i, "category_id": 1, "bbox": [0, 0, 9, 9],
                "area": 81.0,
                "iscrowd": 0, "num_keypoints": 3,
                "keypoints": [v for x, y in POINTS[i, animal].tolist() for v in (x, y, 2 - animal)],
                **({"track_id": animal} if is_posetrack else {}),
            }
            for i in range(len(names)) for animal in range(2)
        ],
        "categories": [{"id": 1, "name": "mouse", "keypoints": list(NAMES),
                        "skeleton": [[1, 2], [1, 3]]}],
    }  # fmt: skip
    (folder / "labels.json").write_text(json.dumps(document))
    return [folder / "labels.json"]


def _ultralytics(folder: Path, values: int) -> list[Path]:
    for split, numbers in (("train", range(3)), ("val", range(3, 4))):
        _pictures(folder / split / "images", len(numbers))
        (folder / split / "labels").mkdir()
        for at, i in enumerate(numbers):
            lines = [
                " ".join(
                    ["0 .5 .5 .9 .9"]
                    + [f"{x / SIZE:.4f} {y / SIZE:.4f}" + " 2" * (values == 3) for x, y in animal]
                )
                for animal in POINTS[i]
            ]
            (folder / split / "labels" / f"img{at}.txt").write_text("\n".join(lines) + "\n")
    config = {
        "path": ".", "train": "train/images", "val": "val/images", "names": {0: "mouse"},
        "kpt_shape": [3, values], "flip_idx": [0, 2, 1], "node_names": list(NAMES),
    }  # fmt: skip
    (folder / "data.yaml").write_text(yaml.safe_dump(config))
    return [folder, folder / "data.yaml"]


def _slp(folder: Path, film: str) -> list[Path]:
    """Write labels in SLEAP's own file, of a film, of images (``) or with them (`embedded`)."""
    sleap_io = import_sleap_io("to write labels")
    if film.startswith("film"):
        video = to_foreign_video([str(write_film(folder / film))], "video", None, 25.0)
    else:
        files = [str(file) for file in _pictures(folder / "mon")]
        video = to_foreign_video(files, "images", (len(files), SIZE, SIZE, 1), None)
        if film == "embedded":
            video.open()
    skeleton = sleap_io.Skeleton(list(NAMES), edges=[(0, 1)], symmetries=[("ear_l", "ear_r")])
    track = sleap_io.Track("one")
    frames = [
        sleap_io.LabeledFrame(
            video=video,
            frame_idx=i,
            instances=[
                sleap_io.Instance.from_numpy(POINTS[i, 0], skeleton=skeleton, track=track),
                sleap_io.PredictedInstance.from_numpy(
                    POINTS[i, 1], skeleton=skeleton, point_scores=np.ones(3), score=1.0
                ),
            ],
        )
        for i in range(3)
    ]
    path = folder / ("labels.pkg.slp" if film == "embedded" else "labels.slp")
    sleap_io.save_slp(sleap_io.Labels(frames), str(path), embed=film == "embedded", verbose=False)
    return [path]


CODECS = {
    "film.mp4": ("mpeg4", "yuv420p"), "film_h264.mp4": ("libx264", "yuv420p"),
    "film.avi": ("mjpeg", "yuvj420p"),
    "film.mkv": ("ffv1", "gray16le"), "film.gif": ("gif", "rgb8"),
    "film_mpeg4.avi": ("mpeg4", "yuv420p"),
}  # fmt: skip


def write_film(path: Path) -> Path:
    """Write a film of 8 frames of 32x32 px, of the codec of its name."""
    codec, layout = CODECS[path.name]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width = stream.height = SIZE
        stream.pix_fmt = layout
        for picture in PICTURES:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def _one_film(folder: Path, name: str) -> list[Path]:
    """Write a film, and labels of it where sleap-io knows such films."""
    if name.endswith(".gif"):
        return [write_film(folder / name)]
    return [*_slp(folder, name), folder / name, folder / name]


def _save_image(path: Path) -> None:
    first, *others = (Image.fromarray(picture) for picture in PICTURES[:3])
    turned = Image.Exif()
    turned[0x0112] = 6
    image, options = IMAGES[path.name](first)
    if "exif" in options:
        options["exif"] = turned
    if "append_images" in options:
        options["append_images"] = others
    image.save(path, **options)


def _deep(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) << 4)


PAGES: dict[str, Any] = {"save_all": True, "append_images": ()}
IMAGES: dict[str, Callable[[Image.Image], tuple[Image.Image, dict[str, Any]]]] = {
    "deep.png": lambda image: (_deep(image), {}),
    "deep.tif": lambda image: (_deep(image), {}),
    "pages.tif": lambda image: (image, {"compression": "tiff_lzw", **PAGES}),
    "packed.tif": lambda image: (image, {"compression": "tiff_adobe_deflate"}),
    "jpeg.tif": lambda image: (image, {"compression": "jpeg"}),
    "film.gif": lambda image: (image, dict(PAGES)),
    "palette.png": lambda image: (image.convert("P"), {"transparency": 0}),
    "grey.bmp": lambda image: (image.convert("L"), {}),
    "turned.jpg": lambda image: (image, {"exif": None}),
    "turned.png": lambda image: (image, {"exif": None}),
    "progressive.jpg": lambda image: (image, {"progressive": True}),
    "cmyk.jpg": lambda image: (image.convert("CMYK"), {}),
    **{f"plain.{suffix}": lambda image: (image, {}) for suffix in ("bmp", "png", "jpg", "tiff")},
}
"""Names of images, to what is written there and how."""


def _one_image(folder: Path, name: str) -> list[Path]:
    """Write an image, and a table of labels of it and of others."""
    others = _pictures(folder / "labeled-data/mon", 2, "RGB" if len(name) % 2 else "L")
    image = folder / "labeled-data/mon" / name
    _save_image(image)
    names = [file.relative_to(folder).as_posix() for file in (others[0], image, others[1])]
    table = folder / "CollectedData.csv"
    table.write_text("\n".join([*_header(1), *_rows(names, 1)]) + "\n")
    return [table, image, image, image.parent]


KINDS: dict[str, dict[str, Callable[[Path], list[Path]]]] = {
    "deeplabcut": {
        "one": lambda folder: _deeplabcut(folder, 1),
        "two": lambda folder: _deeplabcut(folder, 2),
        "columns": lambda folder: _deeplabcut(folder, 1, ",,"),
    },
    "lightning": {"one": _lightning},
    "coco": {
        "coco": lambda folder: _coco(folder, False),
        "posetrack": lambda folder: _coco(folder, True),
    },
    "ultralytics": {
        "three": lambda folder: _ultralytics(folder, 3),
        "two": lambda folder: _ultralytics(folder, 2),
    },
    "slp": {
        name: lambda folder, name=name: _slp(folder, name) for name in ("", "film.mp4", "embedded")
    },  # type: ignore[misc]
    "film": {name: partial(_one_film, name=name) for name in CODECS},
    "image": {name: partial(_one_image, name=name) for name in IMAGES},
}
"""Of each kind some folders, and in each what `convert` gets, `predict` too of films and images."""


# Mutations

ODD_NUMBERS = (
    "-1",
    "0",
    "1e308",
    "-1e308",
    "nan",
    "inf",
    "99999999999999999999",
    "4294967296",
    "0.5",
    "1e-320",
)


def _mutated_json(data: bytes, chance: random.Random) -> bytes:
    tree = json.loads(data)
    for _ in range(chance.randint(1, 4)):
        tree = odd_tree(tree, chance)
    return json.dumps(tree).encode()


def _mutated_yaml(data: bytes, chance: random.Random) -> bytes:
    tree = yaml.safe_load(data)
    for _ in range(chance.randint(1, 3)):
        tree = odd_tree(tree, chance)
    return yaml.safe_dump(tree).encode("utf-8", "replace")


def _mutated_table(data: bytes, chance: random.Random) -> bytes:
    """Change rows and fields of a CSV table or a file of numbers."""
    text = data.decode()
    comma = "," if "," in text else " "
    rows = [line.split(comma) for line in text.splitlines()]
    for _ in range(chance.randint(1, 4)):
        if not rows:
            break
        at = chance.randrange(len(rows))
        row = rows[at]
        field = chance.randrange(len(row)) if row else 0
        match chance.randrange(8):
            case 0:
                del rows[at]
            case 1:
                rows.insert(chance.randrange(len(rows) + 1), list(row))
            case 2:
                del row[field : field + 1]
            case 3:
                row[field:field] = row[field : field + 1] * chance.choice((1, 2, 200))
            case 4:
                for other in rows:
                    del other[field : field + 1]
            case 5:
                row[field : field + 1] = [chance.choice(ODD_TEXTS)]
            case _:
                row[field : field + 1] = [chance.choice(ODD_NUMBERS)]
    return "\n".join(map(comma.join, rows)).encode()


def _mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(chance.randint(1, 3)):
        if changed:
            chance.choice(BYTES)(changed, chance)
    return b"" if chance.random() < 0.02 else bytes(changed)


def _huge(data: bytes, chance: random.Random) -> bytes:
    """Write a huge size where the file has its own."""
    size = chance.choice((2**14 - 1, 2**15 - 1, 2**16 - 1, 2**20, 2**31 - 1, 2**32 - 1))
    for layout in ("<H", ">H", "<I", ">I"):
        if size < 256 ** struct.calcsize(layout):
            old, new = struct.pack(layout, SIZE), struct.pack(layout, size)
            places = [at for at in range(len(data)) if data.startswith(old, at)]
            if places:
                at = chance.choice(places[:12])
                data = data[:at] + new + data[at + len(old) :]
    return data


def _mutated_as_text(data: bytes, chance: random.Random) -> bytes:
    text = data.decode("utf-8", "surrogateescape")
    for _ in range(chance.randint(1, 3)):
        text = mutated_text(text, chance)
    return text.encode("utf-8", "surrogatepass" if "\ud800" in text else "replace")


Change = Callable[[bytes, random.Random], bytes]
TEXT: dict[str, Change] = {
    ".json": _mutated_json, ".yaml": _mutated_yaml, ".csv": _mutated_table, ".txt": _mutated_table,
}  # fmt: skip


def _changed(name: str, data: bytes, chance: random.Random) -> bytes:
    own = TEXT.get(Path(name).suffix)
    if own is None:
        return (_huge if chance.random() < 0.15 else _mutated_bytes)(data, chance)
    number = chance.random()
    return (own if number < 0.7 else _mutated_as_text if number < 0.85 else _mutated_bytes)(
        data, chance
    )


def _to_mutate(kind: str, name: str) -> bool:
    if kind == "film":
        return Path(name).name in CODECS
    if kind == "image":
        return Path(name).name in IMAGES
    return Path(name).suffix in (*TEXT, ".slp")


class LabelFiles:
    """The good files of a kind, from which cases are made.

    Args:
        kind: A key of `KINDS`.
        folder: Where the good files and the cases are written; labels name files in it.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self._kind, self._case = kind, folder / "case"
        self._bases: list[tuple[dict[str, bytes], list[Path]]] = []
        for make in KINDS[kind].values():
            self._clear()
            self._case.mkdir()
            sources = make(self._case)
            files = [path for path in sorted(self._case.rglob("*")) if path.is_file()]
            self._bases.append(
                ({str(path.relative_to(self._case)): path.read_bytes() for path in files}, sources)
            )
        self.goods = [
            (files, source) for files, sources in self._bases for source in dict.fromkeys(sources)
        ]

    def _clear(self) -> None:
        for path in sorted(self._case.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
        if self._case.is_dir():
            self._case.rmdir()

    def write(self, files: dict[str, bytes]) -> None:
        """Write files in the place of those of the case before."""
        self._clear()
        for name, data in files.items():
            path = self._case / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)

    def make(self, chance: random.Random) -> Path:
        """Write a case and return the file or folder to open."""
        files, sources = chance.choice(self._bases)
        source, changed = chance.choice(sources), dict(files)
        names = [name for name in files if _to_mutate(self._kind, name)]
        slp = [name for name in names if name.endswith(".slp")]
        for name in [] if slp else chance.sample(names, min(chance.randint(1, 2), len(names))):
            changed[name] = _changed(name, changed[name], chance)
        if chance.random() < 0.03:
            name = chance.choice(sorted(changed))
            changed[name] = chance.choice((b"", b"\0" * 64, _mutated_bytes(changed[name], chance)))
        self.write(changed)
        for name in slp:
            make_dataset(changed[name], self._case / name, chance)
        return source
