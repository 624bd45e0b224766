"""COCO and PoseTrack: images in their own layouts, hidden points."""

import json
import os
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image


def coco_document(source: Path) -> dict[str, Any] | None:
    """Return the document of a COCO file, None when `source` is none."""
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


def copied_coco(source: Path, document: dict[str, Any], folder: Path, real: dict[str, str]) -> Path:
    """Return a copy of a COCO file whose images are all there, one of 1x1 px for each.

    Args:
        source: The COCO file.
        document: Its contents; the names of images become those of the copies.
        folder: Where the copies go.
        real: Takes the image that each copy stands for, whether it is there or not.
    """
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


def mark_hidden(labels: Any, document: dict[str, Any]) -> None:
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
    """Return the image that a COCO file names.

    It is looked for in the folder of the labels, in the folder `annotations` lies in, and in the
    folders within these. Where several folders have such an image, the one that the labels are
    named after counts, as val2017 in COCO.
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
