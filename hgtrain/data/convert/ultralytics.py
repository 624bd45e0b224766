"""Ultralytics pose datasets.

Both layouts are read, with all splits, left/right partners and labels without an image.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image


def ultralytics_config(source: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder and the content of a data.yaml, None when the source is something else."""
    file = source / "data.yaml" if source.is_dir() else source
    if not file.name.endswith("data.yaml") or not file.is_file():
        return None
    from sleap_io.io.ultralytics import parse_data_yaml

    config = parse_data_yaml(file)
    return (file.parent, config) if isinstance(config, dict) else None


def copied_ultralytics(
    root: Path, config: dict[str, Any], folder: Path, real: dict[str, str]
) -> Path:
    """Copy the labels of all splits into one, and link the images.

    sleap-io reads one split and knows one layout.
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


def add_partners(labels: Any, flipped: Sequence[int]) -> None:
    """Give sleap-io's skeletons the left/right partners of `flip_idx`."""
    for skeleton in labels.skeletons:
        names = skeleton.node_names
        for left, right in enumerate(flipped):
            if left < right < len(names):
                skeleton.add_symmetry(names[left], names[right])
