"""What hgtrain asks of sleap-io, which reads and writes other programs' files.

An optional dependency.
"""

import csv
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from hgtrain.errors import RunError
from hgtrain.skeleton import Skeleton

FOREIGN_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    ImportError,
    RuntimeError,
)
"""What sleap-io raises for files it cannot read."""


def import_sleap_io(purpose: str) -> Any:
    """Return the module sleap_io, reading videos through PyAV.

    RunError with the fix when it is not installed.
    """
    try:
        import sleap_io
    except ImportError as error:
        raise RunError(f"sleap-io is needed {purpose}: pip install 'hgtrain[convert]'") from error
    # Its default seeks each frame anew through an FFmpeg process: twenty times slower.
    sleap_io.set_default_video_plugin("pyav")
    return sleap_io


def to_foreign_skeleton(skeleton: Skeleton) -> Any:
    """Return a skeleton as sleap-io's."""
    import sleap_io

    names = skeleton.keypoint_names
    edges, pairs = (
        [(names[a], names[b]) for a, b in part] for part in (skeleton.edges, skeleton.symmetries)
    )
    return sleap_io.Skeleton(list(names), edges=edges, symmetries=pairs)


def from_foreign_skeleton(skeleton: Any) -> Skeleton:
    """Return sleap-io's skeleton as hgtrain's.

    it does not order partners: the one of the lower index comes first.
    """
    edges = tuple((int(a), int(b)) for a, b in skeleton.edge_inds)
    pairs = {(min(a, b), max(a, b)) for a, b in skeleton.symmetry_inds}
    return Skeleton(
        tuple(skeleton.node_names), edges, tuple(sorted((int(a), int(b)) for a, b in pairs))
    )


def to_foreign_video(
    files: Sequence[str], kind: str, shape: tuple[int, ...] | None, rate: float | None
) -> Any:
    """Return image files (kind images), a video, or the /images of an HDF5 file (kind dataset) as sleap-io's video.

    shape: `(N, H, W, C)`, None where it is not known. Nothing is opened: the metadata is what sleap-io would write.
    """
    import sleap_io

    paths = [Path(file).resolve().as_posix() for file in files]
    known = {
        "filename": paths[0],
        "shape": shape,
        "grayscale": shape is not None and shape[-1] == 1,
        "fps": rate,
    }
    metadata = {key: value for key, value in known.items() if value is not None} | _KINDS[kind]
    if kind == "images":
        metadata["filenames"] = paths
        if shape is not None:
            metadata |= dict(zip(("height_", "width_", "channels_"), shape[1:], strict=True))
    return sleap_io.Video(
        filename=paths if kind == "images" else paths[0],
        backend_metadata=metadata,
        open_backend=False,
    )


_KINDS: dict[str, dict[str, Any]] = {
    "images": {"type": "ImageVideo"},
    "video": {"type": "MediaVideo", "bgr": True, "dataset": "", "input_format": ""},
    "dataset": {
        "type": "HDF5Video",
        "dataset": "images",
        "input_format": "channels_last",
        "convert_range": False,
        "has_embedded_images": False,
    },
}
"""What SLEAP wants to know of a video beside its name and shape."""


DLC_LEVELS = 4
"""Folders, from a table's own upwards, in which sleap-io looks for a DeepLabCut project's config.yaml."""


def load_labels(source: str) -> Any:
    """Return what sleap-io reads from a file or folder.

    Of DeepLabCut and COCO each row has the image it names.
    """
    import sleap_io

    path = Path(source)
    tables = _deeplabcut_tables(path)
    document = None if tables else _coco_document(path)
    ultralytics = _ultralytics_config(path)
    if not tables and document is None and ultralytics is None:
        return sleap_io.load_file(source)
    # It leaves missing images out, numbers frames by all rows all the same, and knows few layouts
    # and no backslashes: show it a copy with a tiny image for each row, and name the images
    # afterwards.
    with tempfile.TemporaryDirectory() as name:
        folder, real = Path(name).resolve(), dict[str, str]()
        if ultralytics is not None:
            copy = _copied_ultralytics(*ultralytics, folder, real)
        elif document is not None:
            copy = _copied_coco(path, document, folder, real)
        else:
            copy = _copied_tables(path, tables, folder, real)
        labels = sleap_io.load_file(str(copy))
        for video in labels.videos:
            video.close()
            video.replace_filename([real[str(file)] for file in _files(video)], open=False)
            video.backend_metadata.pop("shape", None)
    if document is not None:
        _mark_hidden(labels, document)
    if ultralytics is not None:
        _add_partners(labels, ultralytics[1].get("flip_idx") or ())
    return labels


def find_moved(videos: Sequence[Any], folder: Path) -> None:
    """Look in a folder for the files of videos that are not where labels say.

    By the end of the path, longest first.

    A file that several names would lead to is not taken: which of them it is cannot be known.
    """
    names = {str(file) for video in videos for file in _files(video) if not Path(file).is_file()}
    found = {name: _by_end(folder, name) for name in names}
    times = Counter(found.values())
    for video in videos:
        files = _files(video)
        there = [found.get(str(file)) for file in files]
        moved = [
            str(new) if new and times[new] == 1 else str(old)
            for new, old in zip(there, files, strict=True)
        ]
        if moved != [str(file) for file in files]:
            video.close()
            is_film = isinstance(video.filename, str)
            video.replace_filename(moved[0] if is_film else moved, open=is_film)


def _files(video: Any) -> list[Any]:
    return video.filename if isinstance(video.filename, list) else [video.filename]


def _by_end(folder: Path, name: str) -> Path | None:
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    places = (folder.joinpath(*parts[begin:]) for begin in range(len(parts)))
    return next((place for place in places if place.is_file()), None)


def _ultralytics_config(source: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder and the content of a data.yaml, None when the source is something else."""
    file = source / "data.yaml" if source.is_dir() else source
    if not file.name.endswith("data.yaml") or not file.is_file():
        return None
    from sleap_io.io.ultralytics import parse_data_yaml

    config = parse_data_yaml(file)
    return (file.parent, config) if isinstance(config, dict) else None


def _copied_ultralytics(
    root: Path, config: dict[str, Any], folder: Path, real: dict[str, str]
) -> Path:
    """Copy the labels of all splits into one, as sleap-io reads one and knows one layout.

    Link the images.
    """
    images, labels = folder / "train" / "images", folder / "train" / "labels"
    images.mkdir(parents=True)
    labels.mkdir()
    (folder / "data.yaml").write_text(json.dumps(config | {"train": "train/images"}, default=str))
    for number, (image, label) in enumerate(_ultralytics_pairs(root, config)):
        copy = images / f"{number:07d}.png"
        real[str(copy)] = str(image)
        if _header_size(image) is None:
            Image.new("L", (1, 1)).save(copy)
        else:
            copy.symlink_to(image.resolve())
        if label.is_file():
            shutil.copyfile(label, labels / f"{number:07d}.txt")
    if not real:
        raise FileNotFoundError(
            f"no images found in {root} for train, val, valid or test of data.yaml"
        )
    return folder


def _ultralytics_pairs(root: Path, config: dict[str, Any]) -> Iterator[tuple[Path, Path]]:
    """Give each image with its labels; labels without an image with where one would be."""
    done: set[Path] = set()
    for split in ("train", "val", "valid", "test"):
        stated = config.get(split) or f"{split}/images"
        for part in stated if isinstance(stated, list) else [stated]:
            folder = _ultralytics_folder(root, config, str(part))
            if folder is None or folder in done:
                continue
            done.add(folder)
            labels = _labels_folder(folder)
            found = {
                file.stem: file
                for file in sorted(folder.glob("*"))
                if file.suffix.lower() in _PICTURES
            }
            for stem in sorted({*found, *(file.stem for file in labels.glob("*.txt"))}):
                yield found.get(stem, folder / f"{stem}.jpg"), labels / f"{stem}.txt"


def _header_size(file: Path) -> tuple[int, int] | None:
    with suppress(OSError, ValueError, SyntaxError), Image.open(file) as image:
        return image.size
    return None


def _labels_folder(images: Path) -> Path:
    """Return images/... with the last folder of this name called labels."""
    above = [images, *images.parents]
    last = next((folder for folder in above if folder.name == "images"), None)
    return images if last is None else last.with_name("labels") / images.relative_to(last)


_PICTURES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp")


def _ultralytics_folder(root: Path, config: dict[str, Any], part: str) -> Path | None:
    """Return the folder of a split, from the stated path or from where data.yaml is."""
    stated = Path(str(config.get("path") or "."))
    places = [
        base / name for base in (root / stated, root) for name in (part, part.removeprefix("../"))
    ]
    return next((place for place in places if place.is_dir()), None)


def _add_partners(labels: Any, flipped: Sequence[int]) -> None:
    for skeleton in labels.skeletons:
        names = skeleton.node_names
        for left, right in enumerate(flipped):
            if left < right < len(names):
                skeleton.add_symmetry(names[left], names[right])


def _coco_document(source: Path) -> dict[str, Any] | None:
    if source.suffix.lower() != ".json" or not source.is_file():
        return None
    try:
        document = json.loads(source.read_bytes())
    except ValueError:
        return None
    has_parts = isinstance(document, dict) and all(
        isinstance(document.get(part), list) for part in ("images", "annotations", "categories")
    )
    return document if has_parts else None


def _copied_coco(
    source: Path, document: dict[str, Any], folder: Path, real: dict[str, str]
) -> Path:
    for seen in (_subfolders, _files_below):
        seen.cache_clear()
    names = [str(image["file_name"]).replace("\\", "/") for image in document["images"]]
    times = Counter(PurePosixPath(name).name for name in names)
    for number, (image, name) in enumerate(zip(document["images"], names, strict=True)):
        copy = folder / f"{number}.png"
        Image.new("L", (1, 1)).save(copy)
        file = _coco_image(source, name)
        if file is None and times[PurePosixPath(name).name] == 1:
            file = _lone_file_below(source.absolute().parent, PurePosixPath(name).name)
        real[str(copy)] = str(file or source.parent / name)
        image["file_name"] = copy.name
    (folder / source.name).write_text(json.dumps(document))
    return folder / source.name


HIDDEN_KEPT = "hidden points have places"
"""In a document's provenance: its points that are not visible are labelled all the same."""


def _mark_hidden(labels: Any, document: dict[str, Any]) -> None:
    """Mark the points of visibility 1 as not visible, which sleap-io takes for visible.

    Where no point has 2, visibility is written as 0 and 1, and 1 means visible.
    """
    skeletons = {kind["id"] for kind in document["categories"] if kind.get("keypoints")}
    by_image: dict[Any, list[list[float]]] = {}
    for label in document["annotations"]:
        if label.get("keypoints") and label["category_id"] in skeletons:
            by_image.setdefault(label["image_id"], []).append(label["keypoints"][2::3])
    if not any(2 in seen for animals in by_image.values() for seen in animals):
        return
    labels.provenance[HIDDEN_KEPT] = True
    # A frame of each image, in their order.
    for image, frame in zip(document["images"], labels.labeled_frames, strict=True):
        for animal, seen in zip(frame.instances, by_image.get(image["id"], []), strict=True):
            animal.points["visible"] &= [value != 1 for value in seen]


def _coco_image(source: Path, name: str) -> Path | None:
    """Return an image from the folder of its labels, of the folder annotations above it, or from a folder in these.

    Of several folders with such an image the one counts after which the labels are called, as val2017 in COCO.
    """
    above = list(source.absolute().parents)[:3]
    called_so = [
        i for i, folder in enumerate(above[:2]) if folder.name.lower() in ("annotations", "labels")
    ]
    for root in above[: called_so[0] + 2 if called_so else 1]:
        places = [root / prefix / name for prefix in ("", "images", "imgs", "data/images")]
        found = next((file for file in places if file.is_file()), None)
        if found is None:
            beside = [file for at in (root, root / "images") for file in _in_subfolders(at, name)]
            called = [file for folder, file in beside if folder in source.stem]
            fitting = called or [file for _, file in beside]
            found = fitting[0] if len(fitting) == 1 else None
        if found is not None:
            return found
    return None


def _lone_file_below(folder: Path, name: str) -> Path | None:
    found = _files_below(folder).get(name, [])
    return found[0] if len(found) == 1 else None


@lru_cache(maxsize=1)
def _files_below(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = {}
    for at, _, names in os.walk(folder):
        for name in names:
            found.setdefault(name, []).append(Path(at, name))
    return found


def _in_subfolders(folder: Path, name: str) -> list[tuple[str, Path]]:
    return [
        (sub, folder / sub / name) for sub in _subfolders(folder) if (folder / sub / name).is_file()
    ]


@lru_cache(maxsize=16)
def _subfolders(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        return ()
    with suppress(OSError):
        return tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    return ()


def _deeplabcut_tables(source: Path) -> list[Path]:
    """Return the tables of a DeepLabCut project or the one of this file.

    None when it is something else.
    """
    if source.is_file() and source.name != "config.yaml":
        return [source] if _is_deeplabcut_table(source) else []
    project = source if source.is_dir() else source.parent
    if not (project / "config.yaml").is_file():
        return []
    return [
        table
        for table in sorted(project.glob("labeled-data/*/*.csv"))
        if _is_deeplabcut_table(table)
    ]


def _is_deeplabcut_table(file: Path) -> bool:
    if file.suffix.lower() != ".csv":
        return False
    with file.open(newline="", encoding="utf-8-sig", errors="replace") as opened:
        begin = [row[0] for row, _ in zip(csv.reader(opened), range(4), strict=False) if row]
    return begin[:1] == ["scorer"] and "coords" in begin


def _copied_tables(source: Path, tables: list[Path], folder: Path, real: dict[str, str]) -> Path:
    """Copy tables into a folder with tiny images.

    Return what to load, and the real image of each in `real`.
    """
    if source.is_dir() or source.name == "config.yaml":
        project = source if source.is_dir() else source.parent
        shutil.copyfile(project / "config.yaml", folder / "config.yaml")
        for table in tables:
            _copy_table(table, folder / table.relative_to(project), real)
        return folder
    own = folder.joinpath(*map(str, range(DLC_LEVELS - 1)))
    own.mkdir(parents=True)
    for above, copy in zip(
        source.resolve().parents, [own, *own.parents][:DLC_LEVELS], strict=False
    ):
        if (above / "config.yaml").is_file():
            shutil.copyfile(above / "config.yaml", copy / "config.yaml")
    _copy_table(source, own / source.name, real)
    return own / source.name


def _copy_table(table: Path, copy: Path, real: dict[str, str]) -> None:
    with table.open(newline="", encoding="utf-8-sig") as opened:
        rows = list(csv.reader(opened))
    copy.parent.mkdir(parents=True, exist_ok=True)
    pixel = copy.parent / "pixel"
    # An empty file would do, but sleap-io opens it and leaves it open.
    Image.new("L", (1, 1)).save(pixel, "PNG")
    body = 1 + next(i for i, row in enumerate(rows) if row[:1] == ["coords"])
    columns = 3 if any(row[:1] == ["labeled-data"] for row in rows[body:]) else 1
    for row in filter(any, rows[body:]):
        name = _image_name("/".join(row[:columns]))
        if not PurePosixPath(name).suffix:
            raise ValueError(f"its row {name!r} names no image file")
        # One column, as sleap-io takes three only where the second row of labels has a path.
        row[:columns] = [name]
        image = copy.parent / name
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pixel, image)
        real[str(image)] = str(_image_of_row(table, name))
    for row in rows[:body]:
        del row[1:columns]
    with copy.open("w", newline="", encoding="utf-8") as opened:
        # pandas takes a first row without labels for a part of the header.
        csv.writer(opened).writerows(
            rows[:body] + sorted(rows[body:], key=lambda row: not any(row[1:]))
        )


def _image_name(path: str) -> str:
    """Return a row's image as `labeled-data/VIDEO/IMAGE`, or as `FOLDER/IMAGE` where it does not lie there."""
    parts = PurePosixPath(path.replace("\\", "/")).parts
    begin = parts.index("labeled-data") if "labeled-data" in parts else max(len(parts) - 2, 0)
    return "/".join(part for part in parts[begin:] if part not in ("/", ".."))


def _image_of_row(table: Path, name: str) -> Path:
    """Return the image of a row, found by its name from the table's folder.

    Where it would be when it is missing.
    """
    places = [
        above / name for above in (table.parent, table.parent.parent, table.parent.parent.parent)
    ]
    beside = table.parent / PurePosixPath(name).name
    found = next((file for file in [places[0], beside, *places[1:]] if file.is_file()), None)
    return found or (beside if PurePosixPath(name).parent.name == table.parent.name else places[0])
