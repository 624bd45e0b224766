"""Convert labels of other programs, as sleap-io reads them, to the hgtrain format.

Images are streamed.
"""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain.data.convert.added_pairs import NONE_ADDED, AddedPairs, pair_notes, with_pairs
from hgtrain.data.convert.labels import find_moved, load_labels
from hgtrain.data.convert.sleap_io import (
    FOREIGN_ERRORS,
    from_foreign_skeleton,
    import_sleap_io,
    reason,
)
from hgtrain.data.convert.source_images import (
    BEYOND,
    UNREADABLE,
    LabelledFrame,
    Shape,
    close_videos,
    common_shape,
    depth_of,
    read_images,
    with_files,
)
from hgtrain.data.convert.visibility import HIDDEN_KEPT, LEFT_OUT
from hgtrain.data.dataset import HIDDEN, NOT_LABELLED, VISIBLE, PoseDataset
from hgtrain.data.formats import sleap_package
from hgtrain.data.formats.hgtrain_format import LabelledImage
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.media.bit_depth import BitDepth
from hgtrain.data.sandbox.open import open_dataset
from hgtrain.data.sandbox.probe import probe_hdf5
from hgtrain.errors import DatasetError
from hgtrain.hdf5 import is_hdf5
from hgtrain.skeleton import Skeleton

Progress = Callable[[Iterable[LabelledImage], int], Iterable[LabelledImage]]


class Converted(NamedTuple):
    """What came of a conversion.

    Attributes:
        frames: How many were written.
        skeleton: The skeleton of the animals.
        notes: What was left out or changed and why, a sentence each.
    """

    frames: int
    skeleton: Skeleton
    notes: tuple[str, ...]


def convert(
    source: str,
    target: Path,
    predictions: bool,
    progress: Progress,
    images: Path | None = None,
    added: AddedPairs = NONE_ADDED,
) -> Converted:
    """Write the labels of `source` with their images to `target` in the hgtrain format.

    Images smaller than the largest are padded at the right and the bottom with 0.

    Args:
        source: Whatever sleap-io reads, or an HDF5 dataset that hgtrain reads.
        target: The file to write.
        predictions: Take predicted animals too, in frames that nobody labelled.
        progress: Shows how far the conversion is.
        images: A folder with the images or films that are not where the labels say.
        added: Partners and edges for the skeleton.

    Raises:
        DatasetError: There is nothing to convert, the files cannot be used, or the skeleton has no
            such keypoints.
    """
    own = _own_dataset(source)
    if own is not None:
        return _rewritten(own, target, progress, added)
    labels, notes = _load(source)
    try:
        if images is not None:
            find_moved(labels.videos, images)
        return _converted(source, labels, notes, target, predictions, progress, added)
    finally:
        close_videos(labels.videos)


def _converted(
    source: str,
    labels: Any,
    notes: list[str],
    target: Path,
    predictions: bool,
    progress: Progress,
    added: AddedPairs,
) -> Converted:
    left_out: Counter[str] = Counter(labels.provenance.get(LEFT_OUT))
    taken = _instances(labels, predictions, left_out)
    foreign = _most_used_skeleton(source, taken, left_out)
    own = from_foreign_skeleton(foreign, source)
    # Before the images are looked at, which takes a while.
    skeleton = with_pairs(own, added, source)
    keeps_hidden = bool(labels.provenance.get(HIDDEN_KEPT))
    with_image = with_files(list(_labelled(taken, foreign, left_out, keeps_hidden)), left_out)
    depth = depth_of(source, with_image)
    frames, shape = common_shape(with_image, depth, left_out)

    def images() -> Iterator[LabelledImage]:
        count = 0
        for image in _images(frames, shape, depth, left_out):
            yield image
            count += 1
        if not count:
            raise _nothing_left(source, left_out)

    count = write_dataset(target, skeleton, progress(images(), len(frames)))
    if padded := left_out.pop(_PADDED, 0):
        notes.append(
            f"{padded} frames smaller than {shape[0]}x{shape[1]} are padded at the right and the "
            "bottom."
        )
    if any(left_out.values()):
        notes.append(f"Left out: {_summary(left_out)}.")
    return Converted(count, skeleton, (*notes, *pair_notes(own, skeleton)))


REASONS = 10
"""Reasons that a summary names; each broken file is one."""

_PADDED = "padded"
_PREDICTED = (
    "animal predicted, not labelled (--predictions takes those of frames that nobody labelled)"
)


def _own_dataset(source: str) -> PoseDataset | None:
    """Return an HDF5 dataset that hgtrain reads itself, None where it does not.

    None for SLEAP's files too, of which sleap-io reads more.
    """
    if not is_hdf5(source):
        return None
    try:
        dataset = open_dataset(source)
    except DatasetError as error:
        if "is of no known format" in str(error) or Path(source).suffix.lower() == ".slp":
            return None
        raise
    if dataset.format == sleap_package.FORMAT:
        dataset.close()
        return None
    return dataset


def _rewritten(
    dataset: PoseDataset, target: Path, progress: Progress, added: AddedPairs
) -> Converted:
    own = Skeleton(dataset.keypoint_names, dataset.edges, dataset.symmetries)
    left_out: Counter[str] = Counter()

    def frames() -> Iterator[LabelledImage]:
        for i in range(len(dataset)):
            group = None if dataset.groups is None else str(dataset.groups[i])
            try:
                image = dataset.read_images([i])[0]
            except DatasetError as error:
                left_out[UNREADABLE.format(error)] += 1
                continue
            yield image, dataset.points[i], dataset.visibility[i], group
        if sum(left_out.values()) == len(dataset):
            raise _nothing_left(dataset.path, left_out)

    with closing(dataset):
        skeleton = with_pairs(own, added, dataset.path)
        count = write_dataset(target, skeleton, progress(frames(), len(dataset)))
    notes = (f"Left out: {_summary(left_out)}.",) if left_out else ()
    return Converted(count, skeleton, (*dataset.notes, *notes, *pair_notes(own, skeleton)))


def _load(source: str) -> tuple[Any, list[str]]:
    """Return sleap-io's labels of a file or folder, and what it warned of."""
    sleap_io = import_sleap_io(f"to read {source}")
    if not Path(source).exists():
        raise DatasetError(f"{source}: there is no such file or folder")
    if is_hdf5(source):
        probe_hdf5(source)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        try:
            labels = load_labels(source)
        except FOREIGN_ERRORS as error:
            raise DatasetError(
                f"{source}: sleap-io cannot read labels from it: {reason(error)}"
            ) from error
    if not isinstance(labels, sleap_io.Labels):
        raise DatasetError(
            f"{source}: holds no labels, sleap-io reads a {type(labels).__name__.lower()} from it"
        )
    return labels, [
        f"sleap-io: {warning.message}" for warning in caught if warning.category is UserWarning
    ]


def _instances(
    labels: Any, predictions: bool, left_out: Counter[str]
) -> list[tuple[Any, list[Any]]]:
    """Return each frame with the animals to take from it."""
    taken = []
    for frame in labels.labeled_frames:
        chosen = list(frame.user_instances)
        if not chosen and predictions:
            chosen = list(frame.predicted_instances)
        elif frame.predicted_instances:
            left_out[_PREDICTED] += len(frame.predicted_instances)
        taken.append((frame, chosen))
    return taken


def _most_used_skeleton(
    source: str, taken: list[tuple[Any, list[Any]]], left_out: Counter[str]
) -> Any:
    animals = [instance for _, instances in taken for instance in instances]
    if not taken:
        raise DatasetError(f"{source}: no labelled frame with an image was found in it")
    if not animals:
        why = f"; left out: {_summary(left_out)}" if left_out else ""
        raise DatasetError(f"{source}: nothing is labelled in its {len(taken)} frames{why}")
    most_used = Counter(id(animal.skeleton) for animal in animals).most_common(1)[0][0]
    return next(animal.skeleton for animal in animals if id(animal.skeleton) == most_used)


def _labelled(
    taken: list[tuple[Any, list[Any]]], skeleton: Any, left_out: Counter[str], keeps_hidden: bool
) -> Iterator[LabelledFrame]:
    names = list(skeleton.node_names)
    for frame, instances in taken:
        fitting = [
            instance for instance in instances if list(instance.skeleton.node_names) == names
        ]
        left_out["animal with another skeleton"] += len(instances) - len(fitting)
        kept, hidden = [], []
        for instance in fitting:
            visible, placed = (
                np.asarray(instance.numpy(invisible_as_nan=only_visible), np.float32)[:, :2]
                for only_visible in (True, False)
            )
            unseen = np.isfinite(placed).all(-1) & ~np.isfinite(visible).all(-1)
            if not keeps_hidden:
                left_out["point marked as not visible"] += int(unseen.sum())
            points = placed if keeps_hidden else visible
            if np.isfinite(points).any():
                kept.append(points)
                hidden.append(unseen)
        if kept:
            yield LabelledFrame(
                frame.video,
                int(frame.frame_idx),
                np.stack(kept),
                np.stack(hidden) if keeps_hidden else None,
            )
        else:
            left_out["frame without a labelled point"] += 1


def _visibility(frame: LabelledFrame) -> np.ndarray | None:
    if frame.hidden is None:
        return None
    is_labelled = np.isfinite(frame.points).all(-1)
    return np.where(is_labelled, np.where(frame.hidden, HIDDEN, VISIBLE), NOT_LABELLED).astype(
        np.uint8
    )


def _images(
    frames: list[LabelledFrame], shape: Shape, depth: BitDepth, left_out: Counter[str]
) -> Iterator[LabelledImage]:
    groups = _group_names(frames)
    for frame, image in read_images(frames, shape, depth, left_out):
        left_out[_PADDED] += image.shape[:2] != shape[:2]
        yield _fitted(image, shape), frame.points, _visibility(frame), groups[_group_path(frame)]


def _fitted(image: np.ndarray, shape: Shape) -> np.ndarray:
    """Return an image `(h, w, 1, 3 or 4)` as `shape`.

    Grey is repeated, transparency dropped, and the image padded with 0.
    """
    fitted = np.zeros(shape, np.uint8)
    fitted[: image.shape[0], : image.shape[1]] = image[..., : shape[2]]
    return fitted


def _group_names(frames: list[LabelledFrame]) -> dict[Path, str]:
    """Return a name for each film or folder of images.

    It is the name of the film or folder, with its path where two have the same name.
    """
    paths = {_group_path(frame) for frame in frames}
    short = Counter(path.name for path in paths)
    return {path: path.name if short[path.name] == 1 else path.as_posix() for path in paths}


def _group_path(frame: LabelledFrame) -> Path:
    files = frame.video.filename
    return (
        Path(files[frame.number]).parent
        if isinstance(files, list)
        else Path(_source_name(frame.video))
    )


def _source_name(video: Any) -> str:
    """Return the video that an embedded one was taken from, else its own file."""
    original = video.source_video
    if original is None or not isinstance(original.filename, str):
        dataset = getattr(video.backend, "dataset", None)
        return f"{video.filename}/{dataset}" if dataset else str(video.filename)
    return str(original.filename)


def _summary(left_out: Counter[str]) -> str:
    """Return what was left out and how often.

    For example `3 frames without a labelled point, 1 animal of a prediction`.
    """
    counted = [(what, number) for what, number in left_out.items() if number and what != _PADDED]
    named = [
        f"{number} {what if number == 1 else what.replace(' ', 's ', 1)}"
        for what, number in counted[:REASONS]
    ]
    rest = sum(number for _, number in counted[REASONS:])
    return ", ".join([*named, *([f"and {rest} more for other reasons"] if rest else [])])


def _nothing_left(source: str, left_out: Counter[str]) -> DatasetError:
    """Return the error that says why nothing is left, and what to do."""
    fixes = {
        "file is missing": "--images DIR says where the images or films are",
        BEYOND: "if the film is another one or was cut shorter, --images DIR says where the "
        "labelled one is",
        UNREADABLE.partition(" (")[0]: "copy what cannot be read again from where it is whole",
        "without a labelled point": "label some frames first",
    }
    way_on = "".join(
        f"; {fix}"
        for part, fix in fixes.items()
        if any(part in what for what, number in left_out.items() if number)
    )
    return DatasetError(
        f"{source}: no frame is left to convert; left out: {_summary(left_out)}{way_on}"
    )
