"""The DeepPoseKit format.

`/images (N, H, W, C)` uint8, `/annotations (N, K, 2)` x, y in pixels, `/annotated (N, K)` bool,
`/skeleton (K, 2)` int: parent and left/right partner of each keypoint, -1 none; optional
`/skeleton_names (K,)`. DeepPoseKit keeps names in a table beside the file, `<stem>.skeleton.csv`
or, where it has a row for each keypoint, `skeleton.csv`: columns `name`, `parent` and `swap`, the
latter two as names. Only what the file lacks is read from the table.
"""

import csv
from pathlib import Path

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE, PoseDataset
from hgtrain.data.formats.base import (
    FileDataset,
    Labels,
    check_same_length,
    make_labels,
    read_flags,
    read_points,
)
from hgtrain.data.formats.stored_images import stored_images
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import as_text, get_dataset, hdf5_path, open_for_dataset, read_array
from hgtrain.skeleton import Skeleton, check_skeleton, default_names

FORMAT = "DeepPoseKit"


def recognises(file: h5py.File) -> bool:
    """Return whether the file has /annotations."""
    return "annotations" in file


def open_file(path: str | Path, annotated_only: bool = True) -> PoseDataset:
    """Return the dataset of a DeepPoseKit file.

    Keypoints that are annotated are visible, or absent where they are NaN; the others are not
    labelled and keep their points, which are DeepPoseKit's predictions. Names that are nowhere
    become keypoint0, keypoint1, ... with a note.

    Args:
        path: The file.
        annotated_only: Where False, keypoints that are not annotated count as visible too.

    Raises:
        DatasetError: Something in the file is out of order.
    """
    with open_for_dataset(path) as file:
        images = stored_images(file, "images")
        annotations = get_dataset(file, "annotations", "fiu", (3,), "(frames, keypoints, 2) float")
        if annotations.shape[2] != 2:
            raise DatasetError(
                f"{hdf5_path(annotations)} has shape {annotations.shape}, expected (frames, "
                "keypoints, 2)"
            )
        check_same_length(images.dataset, annotations)
        annotated = get_dataset(file, "annotated", "biu", (2,), "(frames, keypoints) bool")
        flags = read_flags(annotated, annotations, largest=1)
        visibility = np.where(flags, np.uint8(VISIBLE), np.uint8(NOT_LABELLED))
        points = read_points(annotations)
        labels = Labels(points[:, None], visibility[:, None], None, hdf5_path(annotated))
        skeleton, notes = _read_skeleton(file, points.shape[1])
        return FileDataset(
            file, FORMAT, images, skeleton, make_labels(labels, annotated_only), notes
        )


def _read_skeleton(file: h5py.File, count: int) -> tuple[Skeleton, list[str]]:
    names, where, notes = _read_names(file, count)
    beside = _table_beside(file, count)
    if "skeleton" in file or beside is None:
        table, place_of_links = _stored_links(file, count), f"{file.filename}:/skeleton"
    else:
        table, place_of_links = np.full((count, 2), -1), str(beside)
    if beside is not None:
        missing = (table == -1).all(0)
        if missing.any():
            table = np.where(missing, _links_in_table(beside, names), table)
    parents, partners = table.T.tolist()
    pairs, odd = _pair_up(partners)
    if odd:
        notes.append(
            f"{place_of_links}: the partners of {', '.join(names[i] for i in odd)} contradict "
            "each other."
        )
    edges = tuple((parent, child) for child, parent in enumerate(parents) if parent >= 0)
    return check_skeleton(Skeleton(names, edges, pairs), where), notes


def _stored_links(file: h5py.File, count: int) -> np.ndarray:
    stored = get_dataset(
        file, "skeleton", "iu", (2,), "(keypoints, 2) int: parent and partner, -1 none"
    )
    if stored.shape != (count, 2):
        raise DatasetError(
            f"{hdf5_path(stored)} has shape {stored.shape}, expected ({count}, 2) because "
            f"{file.filename}:/annotations has "
            f"{count} keypoints"
        )
    table = read_array(stored).astype(np.int64)
    wrong = np.argwhere((table < -1) | (table >= count))
    if len(wrong):
        at = wrong[0].tolist()
        raise DatasetError(
            f"{hdf5_path(stored)}{at} is {table[tuple(at)]}, expected a keypoint out of 0 to "
            f"{count - 1}, or -1 for none"
        )
    return table


def _pair_up(partners: list[int]) -> tuple[tuple[tuple[int, int], ...], list[int]]:
    """Return the left/right pairs, and the keypoints whose entry contradicts their partner's.

    The lower index of a pair comes first. Published files have slips of one row. Pairs that both
    name are taken first, then those where the other names nobody, then what is left of the rest.
    """
    claims = [(i, j) for i, j in enumerate(partners) if j not in (-1, i)]
    taken: dict[int, int] = {}
    for agrees in (
        lambda i, j: partners[j] == i,
        lambda i, j: partners[j] == -1,
        lambda i, j: True,
    ):
        for i, j in claims:
            if agrees(i, j) and i not in taken and j not in taken:
                taken[i], taken[j] = j, i
    odd = [i for i, j in claims if partners[j] != i]
    return tuple(sorted((i, j) for i, j in taken.items() if i < j)), odd


def _read_names(file: h5py.File, count: int) -> tuple[tuple[str, ...], str, list[str]]:
    """Return the names, where they were found, and notes."""
    beside = _table_beside(file, count)
    notes = []
    if "skeleton_names" in file:
        stored = get_dataset(file, "skeleton_names", "OS", (1,), "(keypoints,) strings")
        names, where = tuple(as_text(name) for name in read_array(stored)), hdf5_path(stored)
    elif beside is not None:
        names, where = tuple(row["name"] for row in _rows_in_table(beside)), str(beside)
    else:
        names, where = default_names(count), hdf5_path(file)
        expected = Path(file.filename).with_suffix(".skeleton.csv")
        notes = [
            f"{file.filename} has no /skeleton_names and there is no {expected}; keypoints are "
            "numbered."
        ]
    if len(names) != count:
        raise DatasetError(
            f"{where} has {len(names)} names, but {file.filename}:/annotations has {count} "
            "keypoints"
        )
    return names, where, notes


def _table_beside(file: h5py.File, count: int) -> Path | None:
    own = Path(file.filename).with_suffix(".skeleton.csv")
    if own.is_file():
        return own
    shared = own.with_name("skeleton.csv")
    try:
        # It may be of another file of the folder.
        return shared if shared.is_file() and len(_rows_in_table(shared)) == count else None
    except DatasetError:
        return None


def _rows_in_table(path: Path) -> list[dict[str, str]]:
    """Return name, parent and swap of each row, empty where there is none."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return [
                {"name": row["name"].strip()}
                | {key: (row.get(key) or "").strip() for key in ("parent", "swap")}
                for row in csv.DictReader(file)
            ]
    except (KeyError, AttributeError, OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(
            f"{path} cannot be read as a table with a column 'name': {error!r}"
        ) from error


def _links_in_table(path: Path, names: tuple[str, ...]) -> np.ndarray:
    """Return parent and partner `(K, 2)` of each keypoint as the table has them, -1 none.

    All are -1 where the table is of other keypoints.
    """
    rows = _rows_in_table(path)
    if tuple(row["name"] for row in rows) != names:
        return np.full((len(names), 2), -1)
    number = {name: index for index, name in enumerate(names)} | {"": -1}
    for row in rows:
        for key in ("parent", "swap"):
            if row[key] not in number:
                raise DatasetError(
                    f"{path}: the {key} of {row['name']} is {row[key]!r}, which is no name in the "
                    "table"
                )
    return np.array([[number[row["parent"]], number[row["swap"]]] for row in rows])
