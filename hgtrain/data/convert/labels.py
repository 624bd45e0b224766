"""Loads the labels of other programs through sleap-io, their images joined by name."""

import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgtrain.data.convert.coco import (
    clean_coco,
    coco_document,
    coco_visibilities,
    copied_coco,
)
from hgtrain.data.convert.deeplabcut import copied_tables, deeplabcut_tables
from hgtrain.data.convert.ultralytics import add_partners, copied_ultralytics, ultralytics_config
from hgtrain.data.convert.visibility import LEFT_OUT, mark_hidden


def load_labels(source: str) -> Any:
    """Return what sleap-io reads from a file or folder.

    In labels of DeepLabCut and COCO each row has the image that it names.
    """
    import sleap_io

    path = Path(source)
    tables = deeplabcut_tables(path)
    document = None if tables else coco_document(path)
    ultralytics = ultralytics_config(path)
    if not tables and document is None and ultralytics is None:
        return sleap_io.load_file(source)
    # It leaves missing images out, numbers frames by all rows all the same, and knows few layouts
    # and no backslashes: show it a copy with a tiny image for each row, and name the images
    # afterwards.
    with tempfile.TemporaryDirectory() as name:
        folder, real = Path(name).resolve(), dict[str, str]()
        copy, seen, left_out = folder, [], Counter[str]()
        if ultralytics is not None:
            seen = copied_ultralytics(*ultralytics, folder, real, left_out)
        elif document is not None:
            left_out = clean_coco(document)
            seen = coco_visibilities(document)
            copy = copied_coco(path, document, folder, real)
        else:
            copy = copied_tables(path, tables, folder, real)
        labels = sleap_io.load_file(str(copy))
        for video in labels.videos:
            video.close()
            video.replace_filename([real[str(file)] for file in _files(video)], open=False)
            video.backend_metadata.pop("shape", None)
    mark_hidden(labels, seen)
    labels.provenance[LEFT_OUT] = left_out
    if ultralytics is not None:
        add_partners(labels, ultralytics[1].get("flip_idx") or ())
    return labels


def find_moved(videos: Sequence[Any], folder: Path) -> None:
    """Look in a folder for the files of videos that are not where the labels say.

    They are found by the end of their path, the longest end first. A file that several names would
    lead to is not taken, as nobody can know which of them it is.
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
