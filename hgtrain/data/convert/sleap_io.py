"""What hgtrain asks of sleap-io, which reads and writes other programs' files.

An optional dependency.
"""

import csv
import shutil
import tempfile
from collections.abc import Sequence
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

    Each row of a DeepLabCut table has the image it names.
    """
    import sleap_io

    tables = _deeplabcut_tables(Path(source))
    if not tables:
        return sleap_io.load_file(source)
    # It drops missing images from its list, yet numbers frames by all rows, and knows no
    # backslashes: show it a copy with a tiny image for each row, and name the images afterwards.
    with tempfile.TemporaryDirectory() as folder:
        real: dict[str, str] = {}
        copy = _copied_tables(Path(source), tables, Path(folder).resolve(), real)
        labels = sleap_io.load_file(str(copy))
        for video in labels.videos:
            video.close()
            files = video.filename if isinstance(video.filename, list) else [video.filename]
            video.replace_filename([real[str(file)] for file in files], open=False)
            video.backend_metadata.pop("shape", None)
    return labels


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
        # One column, as sleap-io takes three only where the second row of labels has a path.
        row[:columns] = [name]
        image = copy.parent / name
        image.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pixel, image)
        real[str(image)] = str(_image_of_row(table, name))
    for row in rows[:body]:
        del row[1:columns]
    with copy.open("w", newline="", encoding="utf-8") as opened:
        csv.writer(opened).writerows(rows)


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
