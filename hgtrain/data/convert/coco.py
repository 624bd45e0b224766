"""COCO and PoseTrack: images in their own layouts, hidden points."""

import json
import os
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from hgtrain.data.convert.visibility import checked_visibility
from hgtrain.data.dataset import NOT_LABELLED


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


def clean_coco(document: dict[str, Any]) -> Counter[str]:
    """Take out of a document what is not to be trained on.

    These are crowds and animals that are marked to be ignored, points in regions that PoseTrack
    ignores, as its evaluation does, and points that are not labelled.

    Returns:
        What was taken out, by the reason.
    """
    left_out: Counter[str] = Counter()
    regions = {image["id"]: _ignored_regions(image) for image in document["images"]}
    left_out["region to be ignored (animals there are not labelled)"] += sum(
        map(len, regions.values())
    )
    kept = []
    for label in document["annotations"]:
        points = label.get("keypoints") or []
        if points and (label.get("ignore") or label.get("iscrowd")):
            left_out["animal marked as crowd or to be ignored"] += 1
            continue
        for at in range(0, len(points) - 2, 3):
            x, y, seen = points[at : at + 3]
            seen = checked_visibility(x, y, seen, left_out)
            if seen and any(
                _is_within(x, y, region) for region in regions.get(label["image_id"], [])
            ):
                left_out["point in a region to be ignored"] += 1
                seen = NOT_LABELLED
            points[at + 2] = seen
        kept.append(label)
    document["annotations"] = kept
    return left_out


def coco_visibilities(document: dict[str, Any]) -> list[list[list[int]]]:
    """Return the visibility of each keypoint of each animal of each image."""
    skeletons = {kind["id"] for kind in document["categories"] if kind.get("keypoints")}
    by_image: dict[Any, list[list[int]]] = {}
    for label in document["annotations"]:
        if label.get("keypoints") and label["category_id"] in skeletons:
            by_image.setdefault(label["image_id"], []).append(label["keypoints"][2::3])
    return [by_image.get(image["id"], []) for image in document["images"]]


def _ignored_regions(image: dict[str, Any]) -> list[list[tuple[float, float]]]:
    """Return the corners of each region of an image that PoseTrack ignores."""
    x, y = (image.get(f"ignore_regions_{axis}") or [] for axis in "xy")
    # One region alone may be written without the list around it.
    x, y = ([part] if part and not isinstance(part[0], list) else part for part in (x, y))
    return [list(zip(xs, ys, strict=True)) for xs, ys in zip(x, y, strict=True) if xs]


def _is_within(x: float, y: float, corners: list[tuple[float, float]]) -> bool:
    """Return whether a point is inside a polygon: a ray from it crosses the outline oddly often."""
    is_inside = False
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
            is_inside = not is_inside
    return is_inside


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
