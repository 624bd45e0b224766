"""DeepLabCut and Lightning Pose tables: each row with the image of its name."""

import csv
import shutil
from pathlib import Path, PurePosixPath

from PIL import Image

DLC_LEVELS = 4
"""Folders in which sleap-io looks for a DeepLabCut project's config.yaml.

The first is the table's own, the others are those above it.
"""


def deeplabcut_tables(source: Path) -> list[Path]:
    """Return the tables of a DeepLabCut project, or the one in this file.

    There are none in anything else.
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


def copied_tables(source: Path, tables: list[Path], folder: Path, real: dict[str, str]) -> Path:
    """Copy tables into a folder, with tiny images.

    Args:
        source: The file or project that the user named.
        tables: The tables to copy.
        folder: Where the copies go.
        real: Takes the real image that each tiny one stands for.

    Returns:
        What to load.
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
    """Return a row's image as `labeled-data/VIDEO/IMAGE`.

    An image that lies elsewhere becomes `FOLDER/IMAGE`.
    """
    parts = PurePosixPath(path.replace("\\", "/")).parts
    begin = parts.index("labeled-data") if "labeled-data" in parts else max(len(parts) - 2, 0)
    return "/".join(part for part in parts[begin:] if part not in ("/", ".."))


def _image_of_row(table: Path, name: str) -> Path:
    """Return the image of a row, found by its name from the table's folder.

    For a missing image this is where it would be.
    """
    places = [
        above / name for above in (table.parent, table.parent.parent, table.parent.parent.parent)
    ]
    beside = table.parent / PurePosixPath(name).name
    found = next((file for file in [places[0], beside, *places[1:]] if file.is_file()), None)
    return found or (beside if PurePosixPath(name).parent.name == table.parent.name else places[0])
