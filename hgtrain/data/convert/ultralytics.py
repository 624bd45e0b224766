"""Ultralytics pose datasets.

Both layouts are read, with all splits, left/right partners and labels without an image.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import Image

from hgtrain.data.convert.visibility import checked_visibility
from hgtrain.data.dataset import NOT_LABELLED, VISIBLE
from hgtrain.errors import DatasetError

MAX_KEYPOINTS = 10_000


def ultralytics_config(source: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the folder and the content of a data.yaml, None when the source is something else."""
    file = source / "data.yaml" if source.is_dir() else source
    if not file.name.endswith("data.yaml") or not file.is_file():
        return None
    from sleap_io.io.ultralytics import parse_data_yaml

    config = parse_data_yaml(file)
    return (file.parent, config) if isinstance(config, dict) else None


def _check_keypoints(root: Path, config: dict[str, Any]) -> None:
    """Raise DatasetError for a number of keypoints whose names alone would fill the memory."""
    shape = config.get("kpt_shape")
    count = shape[0] if isinstance(shape, list) and shape else 0
    if isinstance(count, int | float) and count > MAX_KEYPOINTS:
        raise DatasetError(
            f"{root}: kpt_shape in data.yaml claims {count:,} keypoints, expected at most "
            f"{MAX_KEYPOINTS:,}"
        )


def copied_ultralytics(
    root: Path,
    config: dict[str, Any],
    folder: Path,
    real: dict[str, str],
    left_out: Counter[str],
) -> list[list[list[int]]]:
    """Copy the labels of all splits into one, and link the images.

    sleap-io reads one split and knows one layout, and keypoints of three values alone.

    Args:
        root: The folder of data.yaml.
        config: Its content.
        folder: Where the copies go.
        real: Takes the image that each copy stands for.
        left_out: Counts keypoints that look labelled and are not used.

    Returns:
        The visibility of each keypoint of each animal of each image, in the order of the copies.

    Raises:
        DatasetError: It claims more keypoints than any animal has.
    """
    _check_keypoints(root, config)
    seen: list[list[list[int]]] = []
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
        seen.append([])
        if label.is_file():
            lines = [
                _checked_line(line, config, seen[-1], left_out)
                for line in label.read_text().splitlines()
            ]
            (labels / f"{number:07d}.txt").write_text("\n".join(lines))
    if not real:
        raise FileNotFoundError(
            f"no images found in {root} for train, val, valid or test of data.yaml"
        )
    return seen


def _checked_line(
    line: str, config: dict[str, Any], animals: list[list[int]], left_out: Counter[str]
) -> str:
    """Return the line of an animal with three values a keypoint, others as they are.

    Args:
        line: Class, box, and keypoints in fractions of the image.
        config: What data.yaml holds.
        animals: Gets the visibility of the animal's keypoints.
        left_out: Counts keypoints that look labelled and are not used.
    """
    parts = line.split()
    try:
        keypoints, values = map(int, config["kpt_shape"])
        int(parts[0])
        given = [float(part) for part in parts[1:]][4:]
    except (KeyError, IndexError, TypeError, ValueError):
        return line
    names = config.get("node_names") or range(keypoints)
    if values not in (2, 3) or not len(given) == keypoints * values > 0 or len(names) < keypoints:
        # sleap-io warns of such a line and leaves it out.
        return line
    written, animal = parts[:5], []
    for at in range(0, len(given), values):
        x, y = given[at : at + 2]
        # Without visibility Ultralytics takes what is negative for missing.
        seen = given[at + 2] if values == 3 else VISIBLE if min(x, y) >= 0 else NOT_LABELLED
        animal.append(checked_visibility(x, y, seen, left_out))
        written += [str(x), str(y), str(animal[-1])]
    animals.append(animal)
    return " ".join(written)


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
