"""What is in datasets and what is wrong with them, read in a separate process."""

import hashlib
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from hgtrain.data.animals import located_animals
from hgtrain.data.dataset import HIDDEN, NOT_LABELLED, PoseDataset
from hgtrain.data.inspection.animals import animals_report
from hgtrain.data.inspection.swaps import swapped_pairs
from hgtrain.data.open import open_all
from hgtrain.data.sandbox.process import Sandbox, answer_with, step_done
from hgtrain.data.selection import select_frames, suited_head
from hgtrain.data.split import make_split
from hgtrain.errors import DatasetError
from hgtrain.skeleton import partners_by_name

FRAMES_AT_ONCE = 32
LISTED = 10
BLANK_STD = 1.0
"""Grey values; a frame that varies less shows nothing."""

LEAST_KEYPOINTS, LEAST_ANIMALS = 4, 10
"""Known ones, for what is usual to be known."""

Problem = dict[str, str]


class ImageScan(NamedTuple):
    """What was seen of the images: a digest of each frame, and which are blank."""

    digests: list[bytes]
    blank: np.ndarray


def inspect_safely(paths: Sequence[str], step_s: float | None = None) -> dict[str, Any]:
    """Return the report of `inspect_datasets`, made in another process.

    Raises:
        DatasetError: The datasets cannot be opened or read, or reading them takes the process down.
    """
    return Sandbox(__name__, paths, step_s).answer()


def inspect_datasets(paths: Sequence[str]) -> dict[str, Any]:
    """Return counts, sizes, keypoints and `problems` of datasets opened as one.

    Each problem has a `level`, error where the data cannot be trained on, a `kind` and a `text`;
    `usable` says whether there is no error.

    Raises:
        DatasetError: The datasets cannot be opened, or an image cannot be read.
    """
    with closing(_opened(paths)) as dataset:
        step_done()
        scan = _scan(dataset)
        labels = _labels(dataset) | animals_report(dataset)
        step_done()
        problems: list[Problem] = []
        for found in (
            _selection_problems(dataset),
            _image_problems(dataset, scan),
            _label_problems(dataset, labels),
            _side_problems(dataset, paths),
            _edge_problems(dataset, labels, paths),
            _swap_problems(dataset),
        ):
            problems += found
            step_done()
        return {
            "files": list(paths),
            "format": dataset.format,
            "frames": len(dataset),
            "image_shape": [int(size) for size in dataset.image_shape],
            "image_bytes": len(dataset) * int(np.prod(dataset.image_shape)),
            "keypoint_names": list(dataset.keypoint_names),
            "edges": [[int(i) for i in edge] for edge in dataset.edges],
            "symmetries": [[int(i) for i in pair] for pair in dataset.symmetries],
            "groups": 0 if dataset.groups is None else len(set(dataset.groups.tolist())),
            **labels,
            "notes": list(dataset.notes),
            "problems": problems,
            "usable": all(problem["level"] != "error" for problem in problems),
        }


def _opened(paths: Sequence[str]) -> PoseDataset:
    """Return the datasets as one.

    Where nothing is marked as annotated, everything that has coordinates counts.
    """
    dataset = open_all(paths)
    if (dataset.visibility == NOT_LABELLED).all() and np.isfinite(dataset.points).any():
        dataset.close()
        dataset = open_all(paths, annotated_only=False)
        note = (
            f"{dataset.path} marks no keypoint as annotated: counted are all, as with "
            "data.annotated_only: false."
        )
        dataset.notes = (*dataset.notes, note)
    return dataset


def _scan(dataset: PoseDataset) -> ImageScan:
    digests: list[bytes] = []
    blank = []
    for start in range(0, len(dataset), FRAMES_AT_ONCE):
        images = dataset.read_images(np.arange(start, min(start + FRAMES_AT_ONCE, len(dataset))))
        digests += [hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images]
        blank.append(images.reshape(len(images), -1).std(1) < BLANK_STD)
        step_done(len(digests), len(dataset))
    return ImageScan(digests, np.concatenate(blank))


def _labels(dataset: PoseDataset) -> dict[str, Any]:
    """Return what is labelled, of how many animals, keypoint by keypoint.

    It says as well which keypoints are missing together.
    """
    labelled = (dataset.visibility != NOT_LABELLED) & ~np.isnan(dataset.points).any(-1)
    absent = (dataset.visibility != NOT_LABELLED) & np.isnan(dataset.points).any(-1)
    animals = (dataset.visibility != NOT_LABELLED).any(-1)
    outside = _outside(dataset) & labelled
    of_frame = labelled.sum((1, 2))
    per_keypoint = [
        {
            "name": name,
            "labelled": int(labelled[..., k].sum()),
            "hidden": int((labelled & (dataset.visibility == HIDDEN))[..., k].sum()),
            "absent": int(absent[..., k].sum()),
            "missing": int((animals & ~labelled[..., k] & ~absent[..., k]).sum()),
            "outside": int(outside[..., k].sum()),
        }
        for k, name in enumerate(dataset.keypoint_names)
    ]
    patterns = Counter(tuple(np.flatnonzero(~row).tolist()) for row in labelled[animals])
    counts = sorted(Counter(animals.sum(1).tolist()).items())
    return {
        "animals": {str(count): int(n) for count, n in counts},
        "keypoints_per_frame": {
            "min": int(of_frame.min()),
            "mean": float(of_frame.mean()),
            "max": int(of_frame.max()),
        },
        "per_keypoint": per_keypoint,
        "missing_together": [
            {"keypoints": [dataset.keypoint_names[k] for k in missing], "animals": count}
            for missing, count in patterns.most_common(LISTED)
            if missing
        ],
    }


def _outside(dataset: PoseDataset) -> np.ndarray:
    height, width, _ = dataset.image_shape
    x, y = dataset.points[..., 0], dataset.points[..., 1]
    # Pixel centres are at integers. NaN is not outside.
    return (x < -0.5) | (x > width - 0.5) | (y < -0.5) | (y > height - 0.5)


def _problem(level: str, kind: str, text: str) -> Problem:
    return {"level": level, "kind": kind, "text": text}


def _selection_problems(dataset: PoseDataset) -> Iterator[Problem]:
    try:
        selected = select_frames(dataset, suited_head(dataset))
    except DatasetError as error:
        yield _problem("error", "no_frames", str(error))
        return
    # What is said of frames that are used is no problem.
    for note in selected.notes if len(selected.frames) < len(dataset) else ():
        yield _problem("warning", "left_out", note)


def _image_problems(dataset: PoseDataset, scan: ImageScan) -> Iterator[Problem]:
    blank = np.flatnonzero(scan.blank)
    if len(blank):
        level = "error" if len(blank) == len(dataset) else "warning"
        yield _problem(level, "blank", f"{len(blank)} frames are blank: {_places(dataset, blank)}")
    same: dict[bytes, list[int]] = defaultdict(list)
    for frame, digest in enumerate(scan.digests):
        if not scan.blank[frame]:
            same[digest].append(frame)
    repeated = [frames for frames in same.values() if len(frames) > 1]
    if repeated:
        first = np.array([frame for frames in repeated for frame in frames])
        count = sum(len(frames) - 1 for frames in repeated)
        yield _problem(
            "warning",
            "duplicates",
            f"{count} frames repeat another pixel by pixel: {_places(dataset, first)}",
        )
        yield from _leaks(dataset, repeated)


def _leaks(dataset: PoseDataset, repeated: list[list[int]]) -> Iterator[Problem]:
    try:
        split = make_split(dataset, None, 0.1, None, 0, suited_head(dataset))
    except DatasetError:
        return
    held_out, trained_on = (set(side.frames.tolist()) for side in (split.validation, split.train))
    leaks = [
        frame
        for frames in repeated
        if not trained_on.isdisjoint(frames)
        for frame in frames
        if frame in held_out
    ]
    if leaks:
        text = (
            f"with data.validation: 0.1 and data.split_seed: 0, {len(leaks)} validation frames "
            "are trained on too: "
            f"{_places(dataset, np.array(leaks))}: remove them, or keep groups together with "
            "data.group_by"
        )
        yield _problem("warning", "duplicates_across_split", text)


def _far_off(dataset: PoseDataset) -> Iterator[Problem]:
    points = np.where((dataset.visibility != NOT_LABELLED)[..., None], dataset.points, np.nan)
    frames, animals, keypoints = points.shape[:3]
    far = np.any(
        far_off(points.reshape(-1, keypoints, 2)).reshape(frames, animals, keypoints), axis=1
    )
    for keypoint in np.flatnonzero(far.any(0)):
        where = np.flatnonzero(far[:, keypoint])
        text = f"{dataset.keypoint_names[keypoint]} is far off its animal in {len(where)} frames: "
        yield _problem("warning", "far_off", text + _places(dataset, where))


def far_off(points: np.ndarray) -> np.ndarray:
    """Return for each keypoint whether it lies far off its animal, `(n, K)`; False for NaN.

    A keypoint's distance from the middle of its animal is measured in the median distance of all of
    them. Far off is four times what nine of ten animals do not exceed with this keypoint. The
    result is never True where fewer than four keypoints, or ten animals with this one, are known.

    Args:
        points: `(n, K, 2)`.
    """
    distance = np.full(points.shape[:2], np.nan)
    enough = np.isfinite(points).all(-1).sum(1) >= LEAST_KEYPOINTS
    some = points[enough]
    if len(some) < LEAST_ANIMALS:
        return np.zeros(points.shape[:2], bool)
    from_middle = np.linalg.norm(some - np.nanmedian(some, axis=1, keepdims=True), axis=-1)
    distance[enough] = from_middle / np.maximum(np.nanmedian(from_middle, axis=1, keepdims=True), 1)
    far = np.zeros(distance.shape, bool)
    for keypoint, column in enumerate(distance.T):
        known = column[np.isfinite(column)]
        if len(known) >= LEAST_ANIMALS:
            far[:, keypoint] = column > 4 * max(np.quantile(known, 0.9, method="lower"), 1)
    return far


def _label_problems(dataset: PoseDataset, labels: dict[str, Any]) -> Iterator[Problem]:
    outside = _outside(dataset) & (dataset.visibility != NOT_LABELLED)
    frames = np.flatnonzero(outside.any((1, 2)))
    if len(frames):
        text = (
            f"{int(outside.sum())} keypoints lie outside of their image: {_places(dataset, frames)}"
        )
        yield _problem("warning", "outside", text)
    yield from _far_off(dataset)
    never = [row["name"] for row in labels["per_keypoint"] if not row["labelled"]]
    if never:
        level = "error" if len(never) == len(dataset.keypoint_names) else "warning"
        yield _problem(level, "never_labelled", f"never labelled: {', '.join(never)}")


def _side_problems(dataset: PoseDataset, paths: Sequence[str]) -> Iterator[Problem]:
    names = dataset.keypoint_names
    pairs = partners_by_name(names, dataset.symmetries)
    says_sides = all(any(side in name.lower() for name in names) for side in ("left", "right"))
    if not pairs and (dataset.symmetries or not says_sides):
        return
    kind, text = (
        ("missing_symmetries", "names say left and right of keypoints that are no partners")
        if dataset.symmetries
        else ("no_symmetries", "names say left and right, but no symmetries are stored")
    )
    options = [f"{names[left]},{names[right]}" for left, right in pairs] or ["LEFT,RIGHT"]
    words = [word for option in options for word in ("--symmetry", option)]
    command = shlex.join(["hgtrain", "convert", paths[0], "NEW.h5", *words])
    others = "" if len(paths) == 1 else ", and so for each file,"
    fix = f"a flipped left stays a left; `{command}`{others} stores them"
    yield _problem("warning", kind, f"{text}: {fix}")


def _edge_problems(
    dataset: PoseDataset, labels: dict[str, Any], paths: Sequence[str]
) -> Iterator[Problem]:
    most, keypoints = labels["animals_per_frame"]["max"], len(dataset.keypoint_names)
    if most < 2 or keypoints < 2 or dataset.edges:
        return
    command = shlex.join(["hgtrain", "convert", paths[0], "NEW.h5", "--edge", "A,B"])
    text = f"frames with several animals, but no edges to tell them apart along; `{command} ...`"
    others = "" if len(paths) == 1 else ", and so for each file,"
    yield _problem("warning", "no_edges", f"{text}{others} stores them")


def _swap_problems(dataset: PoseDataset) -> Iterator[Problem]:
    """Yield a problem for each left/right pair that looks exchanged in some frames.

    There the pair fits the average animal better when its two points are exchanged.
    """
    try:
        frames = select_frames(dataset, suited_head(dataset)).frames
    except DatasetError:
        return
    points = located_animals(dataset, frames)
    frames = np.repeat(frames, points.shape[1])
    points = points.reshape(-1, *points.shape[2:])
    for left, right in dataset.symmetries:
        swapped = np.unique(frames[swapped_pairs(points, left, right)])
        if len(swapped):
            names = dataset.keypoint_names
            where = f"{len(swapped)} frames: {_places(dataset, swapped)}"
            text = f"{names[left]} and {names[right]} look exchanged in {where}"
            yield _problem("warning", "swapped", text)


def _places(dataset: PoseDataset, frames: np.ndarray) -> str:
    listed = ", ".join(dataset.location(int(frame)) for frame in frames[:LISTED])
    return listed + (f" and {len(frames) - LISTED} more" if len(frames) > LISTED else "")


if __name__ == "__main__":
    answer_with(inspect_datasets)
