"""The SLEAP package format, `.pkg.slp`, as SLEAP 1.x and sleap-io write it.

`/videoN/video` holds a PNG or JPEG file a row, as variable-length bytes or padded to one length, or
raw images `(N, H, W, C)`; `/videoN/frame_numbers` says which frame of the video each row is.
`/frames` refers to rows of `/instances`, and those to rows of `/points`. The attribute `json` of
`/metadata` has the skeletons.

Only what users labelled counts: predicted instances, and frames without any other, are left out.
Before format 1.1 the corner of the first pixel was (0, 0), so half a pixel is taken off the points,
as sleap-io does. From format 2.3 on `/video_crops` says what part of the stored images a video
shows; its points are in that part's pixels.
"""

import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from hgtrain.data.dataset import NOT_LABELLED, VISIBLE, PoseDataset
from hgtrain.data.formats.base import FileDataset, Labels, make_labels
from hgtrain.data.formats.sleap_images import Crop, Row, Video, package_images
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import (
    as_text,
    check_table,
    get_dataset,
    get_item,
    hdf5_path,
    open_for_dataset,
    read_array,
)
from hgtrain.skeleton import Skeleton, check_skeleton

FORMAT = "SLEAP package"
NEWER_FORMAT = 3.0

USER = 0
EDGE, SYMMETRY = 1, 2

_FRAME_FIELDS = ("video", "frame_idx", "instance_id_start", "instance_id_end")
_INSTANCE_FIELDS = ("instance_type", "skeleton", "point_id_start", "point_id_end")
_POINT_FIELDS = ("x", "y", "visible")


def recognises(file: h5py.File) -> bool:
    """Return whether a file looks like SLEAP's.

    These have /metadata beside /frames, /instances or /points.
    """
    return "metadata" in file and bool({"frames", "instances", "points"} & set(file))


def open_file(path: str | Path, annotated_only: bool = True) -> PoseDataset:
    """Return the dataset of a SLEAP package.

    It has one frame for each that has user instances and an embedded image. Points that are not
    visible are NaN and not labelled. Groups are the videos, `video0` and so on. Notes count what is
    left out.

    Args:
        path: The file.
        annotated_only: Where False, points that are not visible but have coordinates count as
            visible.

    Raises:
        DatasetError: The file is without images or without user instances, it has several
            skeletons, its images differ in size or channels, or something else is out of order.
    """
    with open_for_dataset(path) as file:
        metadata, format_id = _read_metadata(file)
        frames = _read_rows(file, "frames", _FRAME_FIELDS)
        instances = _read_rows(file, "instances", _INSTANCE_FIELDS)
        videos = _read_videos(file, format_id, frames)
        kept, notes = _choose_frames(file, frames, instances, videos)
        users = [users for _, _, users in kept]
        skeleton = _read_skeleton(file, metadata, instances["skeleton"][np.concatenate(users)])
        labels = _read_labels(file, instances, users, len(skeleton.keypoint_names), annotated_only)
        if format_id < 1.1:
            labels = labels._replace(points=labels.points - np.float32(0.5))
        groups = np.array([row[0].images.name.split("/")[1] for row, _, _ in kept], dtype=str)
        images = package_images([row for row, _, _ in kept])
        labels = make_labels(labels._replace(groups=groups), annotated_only)
        return FileDataset(file, FORMAT, images, skeleton, labels, notes)


def _read_metadata(file: h5py.File) -> tuple[dict[str, Any], float]:
    group = get_item(file, "metadata")
    if "json" not in group.attrs:
        raise DatasetError(f"{hdf5_path(group)} has no attribute json, which holds the skeleton")
    try:
        value = group.attrs["json"]
        text = value.tobytes() if isinstance(value, np.ndarray) else value
        metadata = json.loads(text)
        format_id = float(group.attrs.get("format_id", 1.2))
    except (OSError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{hdf5_path(group)}: attributes json and format_id cannot be read: {error}"
        ) from error
    if format_id >= NEWER_FORMAT:
        raise DatasetError(
            f"{hdf5_path(group)} has format_id {format_id:g}, formats below {NEWER_FORMAT:g} are "
            "read: save the package "
            "with SLEAP 1.x"
        )
    return metadata, format_id


def _read_table(file: h5py.File, name: str, fields: tuple[str, ...]) -> np.ndarray:
    dataset = get_dataset(file, name, "V", (1,), f"a table with the fields {', '.join(fields)}")
    names = dataset.dtype.names or ()
    missing = [
        field for field in fields if field not in names or dataset.dtype[field].kind not in "biuf"
    ]
    if missing:
        raise DatasetError(
            f"{hdf5_path(dataset)} has no field {missing[0]} of numbers; its fields are "
            f"{', '.join(names)}"
        )
    check_table(dataset)
    return read_array(dataset)


def _read_rows(file: h5py.File, name: str, fields: tuple[str, ...]) -> np.ndarray:
    """Return a table whose fields are all whole numbers, whatever type they are stored as."""
    table = _read_table(file, name, fields)
    for field in fields:
        _check_whole(table[field], f"{file.filename}:/{name}[{{row}}].{field}")
    return table


def _check_whole(values: np.ndarray, place: str) -> None:
    """Check that numbers are whole ones, whatever type they are stored as.

    Args:
        values: `(rows,)`.
        place: Of a value, with `{row}` for its row.

    Raises:
        DatasetError: One is not.
    """
    wrong = np.flatnonzero(~np.isfinite(values) | (values != np.round(values)))
    if len(wrong):
        raise DatasetError(
            f"{place.format(row=wrong[0])} is {values[wrong[0]]}, expected a whole number"
        )


def _read_videos(file: h5py.File, format_id: float, frames: np.ndarray) -> dict[int, Video]:
    """Return the videos that have images, by the number that /frames uses for them."""
    # A name that is not UTF-8 comes as bytes.
    names = [name for name in file if isinstance(name, str)]
    groups = [int(match[1]) for name in names if (match := re.fullmatch(r"video(\d+)", name))]
    groups = [group for group in sorted(groups) if _holds_video(get_item(file, f"video{group}"))]
    if not groups:
        raise DatasetError(
            f"{file.filename} holds no images (no /video0/video): `hgtrain convert "
            f"{file.filename} NEW.h5` takes them from its videos, or save it with its images, in "
            'SLEAP by "Export Labels Package"'
        )
    numbers = _numbers_in_frames(file, frames, groups)
    crops = _read_crops(file)
    videos = {}
    for number, group in numbers.items():
        # What sleap-io writes for a video without any labelled frame.
        if getattr(get_item(file, f"video{group}/video"), "shape", None) != (0,):
            videos[number] = _read_video(file, group, format_id)._replace(crop=crops.get(group))
    return videos


def _holds_video(item: Any) -> bool:
    return isinstance(item, h5py.Group) and "video" in item


def _numbers_in_frames(file: h5py.File, frames: np.ndarray, groups: list[int]) -> dict[int, int]:
    """Return the group's number for each number in /frames.

    Some versions write positions in /videos_json, others the number in the group's name. sleap-io
    takes positions when the numbers in use are exactly those of all videos; so does this.
    """
    if "videos_json" not in file:
        return {group: group for group in groups}
    rows = read_array(get_dataset(file, "videos_json", "OS", (1,), "(videos,) JSON text"))
    used = {int(number) for number in frames["video"]}
    if len(used) != len(rows) or max(used, default=0) != len(rows) - 1:
        return {group: group for group in groups}
    numbers = {position: _group_of(file, position, row) for position, row in enumerate(rows)}
    return {position: group for position, group in numbers.items() if group in groups}


def _group_of(file: h5py.File, position: int, row: Any) -> int:
    """Return the number of the group that a row of /videos_json names, -1 where it names none."""
    try:
        dataset = str(json.loads(as_text(row))["backend"].get("dataset"))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{file.filename}:/videos_json[{position}] is not understood: {error!r}"
        ) from error
    match = re.fullmatch(r"/?video(\d+)/video", dataset)
    return int(match[1]) if match else -1


def _read_crops(file: h5py.File) -> dict[int, Crop]:
    """Return what the videos show of their stored images, by the group's number.

    The result is empty when they show all of them.
    """
    if "video_crops" not in file:
        return {}
    rows = read_array(get_dataset(file, "videos_json", "OS", (1,), "(videos,) JSON text"))
    where = f"{file.filename}:/video_crops"
    try:
        entries = json.loads(as_text(file["video_crops"][()]))
        found = {
            int(entry["video"]): Crop(*map(int, [*entry["crop"], entry.get("fill", 0)]))
            for entry in entries
        }
        crops = {_group_of(file, number, rows[number]): crop for number, crop in found.items()}
    except (LookupError, OSError, OverflowError, AttributeError, TypeError, ValueError) as error:
        raise DatasetError(f"{where} is not understood: {error!r}") from error
    for number, crop in found.items():
        if crop.right <= crop.left or crop.bottom <= crop.top or not 0 <= crop.fill <= 255:
            raise DatasetError(
                f"{where}: video {number} has {crop}, expected left < right, top < bottom, fill 0 "
                "to 255"
            )
    return crops


def _read_video(file: h5py.File, group: int, format_id: float) -> Video:
    layout = "PNG or JPEG files as bytes, or images (frames, height, width, 1 or 3) uint8"
    images = get_dataset(file, f"video{group}/video", "iuO", (1, 2, 4), layout)
    element = h5py.check_vlen_dtype(images.dtype) or images.dtype
    is_encoded = images.ndim < 4
    if element not in ((np.int8, np.uint8) if is_encoded else (np.uint8,)) or (
        images.ndim == 1
    ) != (images.dtype.kind == "O"):
        raise DatasetError(
            f"{hdf5_path(images)} is {images.dtype} of shape {images.shape}, expected {layout}"
        )
    numbers = get_dataset(
        file, f"video{group}/frame_numbers", "iuf", (1,), "(images,) frame numbers"
    )
    if len(numbers) != len(images):
        raise DatasetError(
            f"{hdf5_path(numbers)} has {len(numbers)} entries, but {hdf5_path(images)} has "
            f"{len(images)} images"
        )
    order = as_text(images.attrs.get("channel_order", "BGR" if format_id < 1.4 else "RGB"))
    frame_numbers = read_array(numbers)
    _check_whole(frame_numbers, f"{hdf5_path(numbers)}[{{row}}]")
    rows = {int(number): row for row, number in enumerate(frame_numbers)}
    # SLEAP gave its RGB images to OpenCV, which takes them for BGR: the files have red and blue
    # exchanged.
    return Video(images, rows, is_encoded, is_encoded and order == "BGR")


def _choose_frames(
    file: h5py.File, frames: np.ndarray, instances: np.ndarray, videos: dict[int, Video]
) -> tuple[list[tuple[Row, int, np.ndarray]], list[str]]:
    """Choose the frames that have both an image and user instances.

    Returns:
        Image, row of /frames and user instances of each frame, and what was left out.
    """
    kept, without_image, without_user, predicted = [], 0, 0, 0
    for index, frame in enumerate(frames):
        start, end = int(frame["instance_id_start"]), int(frame["instance_id_end"])
        if not start <= end <= len(instances):
            raise DatasetError(
                f"{file.filename}:/frames[{index}] refers to instances {start} to {end}, but "
                f"{file.filename}:/instances has {len(instances)}"
            )
        users = start + np.flatnonzero(instances["instance_type"][start:end] == USER)
        predicted += end - start - len(users)
        video = videos.get(int(frame["video"]))
        row = video.rows.get(int(frame["frame_idx"])) if video else None
        if not len(users):
            without_user += 1
        elif video is None or row is None:
            without_image += 1
        else:
            kept.append(((video, row), index, users))
    notes = _notes(file.filename, predicted, without_user, without_image)
    if not kept:
        raise DatasetError(
            f"{file.filename}: no frame has a user instance and an image. {' '.join(notes)}"
        )
    return kept, notes


def _notes(name: str, predicted: int, without_user: int, without_image: int) -> list[str]:
    notes = []
    if predicted:
        notes.append(f"{name}: {predicted} predicted instances are left out, they are not labels.")
    if without_user:
        notes.append(f"{name}: {without_user} frames without a user instance are left out.")
    if without_image:
        notes.append(f"{name}: {without_image} frames without an embedded image are left out.")
    return notes


def _read_labels(
    file: h5py.File,
    instances: np.ndarray,
    users: list[np.ndarray],
    keypoints: int,
    annotated_only: bool,
) -> Labels:
    table = _read_table(file, "points", _POINT_FIELDS)
    shape = (len(users), max(len(rows) for rows in users), keypoints)
    points = np.full((*shape, 2), np.nan, np.float32)
    visible = np.zeros(shape, bool)
    for frame, rows in enumerate(users):
        for slot, row in enumerate(rows):
            start, end = int(instances["point_id_start"][row]), int(instances["point_id_end"][row])
            if end - start != keypoints or not 0 <= start <= end <= len(table):
                raise DatasetError(
                    f"{file.filename}:/instances[{row}] refers to points {start} to {end}, "
                    f"expected {keypoints} out of "
                    f"the {len(table)} of {file.filename}:/points"
                )
            points[frame, slot] = np.stack([table["x"][start:end], table["y"][start:end]], -1)
            visible[frame, slot] = table["visible"][start:end]
    infinite = np.flatnonzero(np.isinf(table["x"]) | np.isinf(table["y"]))
    if len(infinite):
        raise DatasetError(
            f"{file.filename}:/points[{infinite[0]}] is infinite, expected numbers or NaN"
        )
    if annotated_only:
        points[~visible] = np.nan
    labelled = visible & ~np.isnan(points).any(-1)
    return Labels(points, np.where(labelled, np.uint8(VISIBLE), np.uint8(NOT_LABELLED)))


def _read_skeleton(file: h5py.File, metadata: dict[str, Any], used: np.ndarray) -> Skeleton:
    where = f"{file.filename}:/metadata"
    try:
        names = [str(node["name"]) for node in metadata["nodes"]]
        skeletons = [skeleton.get("nx_graph", skeleton) for skeleton in metadata["skeletons"]]
        different = sorted(set(used.tolist()))
        if len(different) > 1:
            called = ", ".join(repr(skeletons[index]["graph"].get("name")) for index in different)
            raise DatasetError(
                f"{where}: instances are of {len(different)} skeletons, {called}; expected one"
            )
        return check_skeleton(_parse_skeleton(skeletons[different[0]], names), where)
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: the skeleton in attribute json is not understood: {error!r}"
        ) from error


def _parse_skeleton(skeleton: dict[str, Any], names: list[str]) -> Skeleton:
    """Return the skeleton of SLEAP's JSON, where nodes are numbers in the list of all names.

    The first link of a type spells it out (`py/reduce`), later ones refer to the n-th that was
    spelt out (`py/id`); where that was in another part of the file, n is the type itself.
    """
    nodes = [node["id"] for node in skeleton["nodes"]]
    spelt: list[int] = []
    pairs: dict[int, list[tuple[int, int]]] = {EDGE: [], SYMMETRY: []}
    for link in skeleton["links"]:
        if "py/reduce" in link["type"]:
            kind = link["type"]["py/reduce"][1]["py/tuple"][0]
            spelt.append(kind)
        else:
            number = link["type"]["py/id"]
            kind = spelt[number - 1] if 1 <= number <= len(spelt) else number
        pair = (nodes.index(link["source"]), nodes.index(link["target"]))
        # Older files list a symmetry in both directions.
        if kind == EDGE or pair[::-1] not in pairs[kind]:
            pairs[kind].append(pair)
    return Skeleton(
        tuple(names[node] for node in nodes), tuple(pairs[EDGE]), tuple(pairs[SYMMETRY])
    )
