"""The images behind labels that sleap-io read.

Finds out whether they are there and of what shape, and gives them one by one.

Films are decoded from their first frame on by `data.media.video`: seeking, as sleap-io does, is off
by a frame for some codecs, and `predict` numbers frames by decoding too.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain.data.convert.sleap_io import FOREIGN_ERRORS, reason
from hgtrain.data.media.bit_depth import BitDepth
from hgtrain.data.media.frame_source import Image, Place
from hgtrain.data.media.image_files import image_size, largest_value, page_count, read_image
from hgtrain.data.media.video import VideoFrames
from hgtrain.errors import DatasetError

FILM_SUFFIXES = (".mp4", ".avi", ".mov", ".mj2", ".mkv", ".m4v", ".mpg", ".wmv")
UNREADABLE = "frame that cannot be read ({})"
BEYOND = "frame beyond the end of"
LISTED = 5
"""Numbers of frames that a message lists."""

LOOKED_AT = 100
"""Frames of a film that are all grey before it counts as grey: many begin black."""

Shape = tuple[int, int, int]


class LabelledFrame(NamedTuple):
    """The labels of one frame.

    Attributes:
        video: sleap-io's video.
        number: The frame's number in the video.
        points: `(I, K, 2)` px, of its animals.
        hidden: `(I, K)`, which points are hidden; None where none is.
    """

    video: Any
    number: int
    points: np.ndarray
    hidden: np.ndarray | None = None


def with_files(frames: Sequence[LabelledFrame], left_out: Counter[str]) -> list[LabelledFrame]:
    """Return the frames whose file exists, videos one after another and their frames in order.

    The other frames are counted in `left_out`.
    """
    for seen in (_pages, _film_depth):
        seen.cache_clear()
    exists: dict[str, bool] = {}
    kept = []
    beyond: dict[int, list[LabelledFrame]] = {}
    for frame in frames:
        length = _length(frame.video)
        if length is not None and not 0 <= frame.number < length:
            beyond.setdefault(id(frame.video), []).append(frame)
            continue
        file = _file_of(frame)
        if file not in exists:
            exists[file] = Path(file).is_file()
        if exists[file]:
            kept.append(frame)
        else:
            missing = Path(file).parent if isinstance(frame.video.filename, list) else file
            left_out[f"frame whose file is missing ({missing})"] += 1
    for of_video in beyond.values():
        video = of_video[0].video
        files = video.filename
        name = (Path(files[0]).parent if files else "a list") if isinstance(files, list) else files
        _count_beyond(of_video, name, f"{_length(video)} images", left_out)
    order = {id(video): i for i, video in reversed(list(enumerate(frame.video for frame in kept)))}
    return sorted(kept, key=lambda frame: (order[id(frame.video)], frame.number))


def _count_beyond(
    frames: Sequence[LabelledFrame], name: object, length: str, left_out: Counter[str]
) -> None:
    """Count labels of frames that a film or list does not have, with their numbers."""
    numbers = sorted(frame.number for frame in frames)
    listed = ", ".join(map(str, numbers[:LISTED]))
    more = f" and {len(numbers) - LISTED} more" if len(numbers) > LISTED else ""
    which = "frame" if len(numbers) == 1 else "frames"
    left_out[f"{BEYOND} {name}, which has {length} ({which} {listed}{more})"] += len(numbers)


def _length(video: Any) -> int | None:
    """Return how many images a list or a file of pages has, None of others."""
    if isinstance(video.filename, list):
        return len(video.filename)
    return _pages(video.filename) if _pages(video.filename) > 1 else None


def _file_of(frame: LabelledFrame) -> str:
    name = frame.video.filename
    return str(name[frame.number] if isinstance(name, list) else name)


def _image_place(frame: LabelledFrame) -> Place | None:
    """Return the image file and page of a frame, None where sleap-io has to read it.

    It leaves broken files open and does not name them, and takes the pages of a TIFF file that are
    not square for the rows of its images.
    """
    if isinstance(frame.video.filename, list):
        return Place(_file_of(frame), 0)
    if getattr(frame.video, "is_cropped", False) or _pages(frame.video.filename) < 2:
        return None
    return Place(_file_of(frame), frame.number)


@lru_cache(maxsize=256)
def _pages(file: str) -> int:
    return page_count(Path(file)) if Path(file).suffix.lower() in (".tif", ".tiff") else 1


def _is_film(video: Any) -> bool:
    is_one_file = (
        isinstance(video.filename, str) and Path(video.filename).suffix.lower() in FILM_SUFFIXES
    )
    return is_one_file and not getattr(video, "is_cropped", False)


def close_videos(videos: Sequence[Any]) -> None:
    """Close what sleap-io may have opened; not films, which it opens anew to close them."""
    for video in videos:
        if not _is_film(video):
            video.close()


def common_shape(
    frames: Sequence[LabelledFrame], depth: BitDepth, left_out: Counter[str]
) -> tuple[list[LabelledFrame], Shape]:
    """Return the frames whose image can be looked at, and the shape they need.

    A shape that labels state is not trusted.

    Args:
        frames: In the order of `with_files`.
        depth: Of images of 16 bits.
        left_out: Counts the other frames.

    Returns:
        The frames, and the largest height, width and number of channels among them.
    """
    kept: list[LabelledFrame] = []
    shapes: list[Shape] = []
    for _, of_video in groupby(frames, key=lambda frame: id(frame.video)):
        looks_colour = any(shape[2] > 1 for shape in shapes)
        for frame, found in _shapes_of(list(of_video), depth, looks_colour):
            if isinstance(found, str):
                left_out[UNREADABLE.format(found)] += 1
            else:
                kept.append(frame)
                shapes.append(found)
    false = _false_headers(kept, shapes, depth, left_out)
    kept = [frame for i, frame in enumerate(kept) if i not in false]
    shapes = [shape for i, shape in enumerate(shapes) if i not in false]
    height, width, channels = (
        max((shape[axis] for shape in shapes), default=0) for axis in range(3)
    )
    return kept, (height, width, 3 if channels > 1 else 1)


def _false_headers(
    frames: Sequence[LabelledFrame],
    shapes: Sequence[Shape],
    depth: BitDepth,
    left_out: Counter[str],
) -> set[int]:
    """Return which of the largest images cannot be read, and count them in `left_out`.

    A damaged header may state any size, to which all other images would be padded.
    """
    false: set[int] = set()
    for axis in (0, 1):
        for i in sorted(range(len(frames)), key=lambda i: -shapes[i][axis]):
            place = None if _is_film(frames[i].video) else _image_place(frames[i])
            if i in false:
                continue
            try:
                if place is not None:
                    read_image(place.file, 3, depth, place.number)
                break
            except DatasetError as error:
                left_out[UNREADABLE.format(error)] += 1
                false.add(i)
    return false


def _shapes_of(
    frames: list[LabelledFrame], depth: BitDepth, looks_colour: bool
) -> Iterator[tuple[LabelledFrame, Shape | str]]:
    """Give each frame of a video with its shape, or with the reason why it has none."""
    video = frames[0].video
    if _is_film(video):
        found = _film_shape(str(video.filename))
        yield from ((frame, found) for frame in frames)
        return
    for frame in frames:
        shape: Shape | str
        try:
            place = _image_place(frame)
            if place is not None:
                shape = _file_shape(place, depth, looks_colour)
            else:
                height, width, channels = _from_sleap_io(frame).shape
                shape = height, width, channels
        except DatasetError as error:
            shape = str(error)
        looks_colour = looks_colour or (not isinstance(shape, str) and shape[2] > 1)
        yield frame, shape


def _file_shape(place: Place, depth: BitDepth, looks_colour: bool) -> Shape:
    """Return the shape of an image file.

    Its pixels are read only to find out whether it is the first with colours.
    """
    size = image_size(place.file) if place.number == 0 else None
    if size is not None and looks_colour:
        return size[1], size[0], 3
    image = read_image(place.file, 3, depth, place.number)
    return image.shape[0], image.shape[1], 1 if _is_grey(image) else 3


def _film_shape(file: str) -> Shape | str:
    try:
        with closing(iter(VideoFrames(file, 3, _film_depth(file)))) as images:
            readable = _readable(images)
            first = next(readable, None)
            if first is None:
                return f"{file}: no frame can be decoded"
            is_grey = all(map(_is_grey, chain([first], _begin(readable, LOOKED_AT - 1))))
    except DatasetError as error:
        return str(error)
    return first.shape[0], first.shape[1], 1 if is_grey else 3


@lru_cache(maxsize=256)
def _film_depth(file: str) -> BitDepth:
    """Return the depth of a film, which is looked at for its shape and read for its images."""
    return VideoFrames(file, 3).depth


def _readable(images: Iterator[Image]) -> Iterator[np.ndarray]:
    return (image for image in images if not isinstance(image, DatasetError))


def _begin(images: Iterator[np.ndarray], count: int) -> Iterator[np.ndarray]:
    """Give up to `count` images, fewer where the film breaks: what lies before is still good."""
    with suppress(DatasetError):
        yield from islice(images, count)


def _is_grey(image: np.ndarray) -> bool:
    # Channel by channel it takes a quarter of the time.
    return all(np.array_equal(image[..., 0], image[..., c]) for c in range(1, image.shape[2]))


def read_images(
    frames: Sequence[LabelledFrame], shape: Shape, depth: BitDepth, left_out: Counter[str]
) -> Iterator[tuple[LabelledFrame, np.ndarray]]:
    """Give each frame with its image `(h, w, C)` uint8.

    Args:
        frames: In the order of `with_files`.
        shape: The common shape, which sets C.
        depth: Of images of 16 bits.
        left_out: Counts the frames that cannot be read.
    """
    for _, of_video in groupby(frames, key=lambda frame: id(frame.video)):
        mine = list(of_video)
        read = _film_images if _is_film(mine[0].video) else _stored_images
        for frame, image in read(mine, shape[2], depth, left_out):
            if image.dtype != np.uint8 or image.shape[0] > shape[0] or image.shape[1] > shape[1]:
                left_out[
                    f"frame with an image {image.dtype} {image.shape} (expected uint8 up to "
                    f"{shape})"
                ] += 1
            else:
                yield frame, image


def _film_images(
    frames: list[LabelledFrame], channels: int, depth: BitDepth, left_out: Counter[str]
) -> Iterator[tuple[LabelledFrame, np.ndarray]]:
    file = str(frames[0].video.filename)
    by_number = {
        number: list(of_number)
        for number, of_number in groupby(frames, key=lambda frame: frame.number)
    }
    why, length = "", 0
    with closing(iter(VideoFrames(file, channels, _film_depth(file)))) as images:
        try:
            for number, image in enumerate(images):
                wanted, length = by_number.pop(number, []), number + 1
                if isinstance(image, DatasetError):
                    left_out[UNREADABLE.format(image)] += len(wanted)
                else:
                    yield from ((frame, image) for frame in wanted)
                if not by_number:
                    return
        except DatasetError as error:
            why = str(error)
    left = [frame for of_number in by_number.values() for frame in of_number]
    if why:
        left_out[UNREADABLE.format(why)] += len(left)
    else:
        _count_beyond(left, file, f"{length} frames", left_out)


def _stored_images(
    frames: list[LabelledFrame], channels: int, depth: BitDepth, left_out: Counter[str]
) -> Iterator[tuple[LabelledFrame, np.ndarray]]:
    for frame in frames:
        try:
            place = _image_place(frame)
            image = (
                _from_sleap_io(frame)
                if place is None
                else read_image(place.file, channels, depth, place.number)
            )
        except DatasetError as error:
            left_out[UNREADABLE.format(error)] += 1
            continue
        yield frame, depth.upper_8(image) if image.dtype == np.uint16 else image


def _from_sleap_io(frame: LabelledFrame) -> np.ndarray:
    """Return the image of a frame `(h, w, C)`; DatasetError names the one that cannot be read."""
    where = f"{frame.video.filename}: frame {frame.number}"
    try:
        image = np.asarray(frame.video[frame.number])
    except FOREIGN_ERRORS as error:
        raise DatasetError(f"{where}: {reason(error)}") from error
    if image.ndim != 3 or 0 in image.shape or image.shape[2] not in (1, 3, 4):
        raise DatasetError(
            f"{where} has the shape {image.shape}, expected (height, width, 1, 3 or 4)"
        )
    return image


def depth_of(source: str, frames: Sequence[LabelledFrame]) -> BitDepth:
    """Return the bit depth of the images of all frames but those of films, which have their own."""
    stored = [frame for frame in frames if not _is_film(frame.video)]
    return BitDepth(source, len(stored), lambda: map(_largest_value, stored))


def _largest_value(frame: LabelledFrame) -> int:
    place = _image_place(frame)
    if place is not None:
        return largest_value(place.file, place.number)
    with suppress(DatasetError):
        image = _from_sleap_io(frame)
        return int(image.max()) if image.dtype == np.uint16 and image.size else 0
    return 0
