"""Checks an export against the network's own predictions on real frames."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain.coords import resized_points
from hgtrain.export.animals import compare_animals
from hgtrain.export.formats import FARTHEST
from hgtrain.export.served import ExportedFile, Loaded, Tolerance
from hgtrain.poses import Poses, joined
from hgtrain.predict.predictor import Predictor

BATCHES = (1, 7, 20)
OTHER_SIZE_PX = (8, -24)
"""By how much frames are made higher and wider to see that other sizes work."""


class Sample(NamedTuple):
    """Real frames.

    Attributes:
        images: `(n, H, W, C)` uint8.
        points: What is labelled of what the run finds, `(n, I, K, 2)` px, NaN where there is none.
        calibration: Images that int8's ranges are taken from, of the same shape.
        in_place: Gives the animals found in these frames at the places of the labelled ones that
            they are, NaN where one is missed; None where a frame has one animal.
    """

    images: np.ndarray
    points: np.ndarray
    calibration: np.ndarray
    in_place: Callable[[Poses], Poses] | None = None


def fitted(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Return images `(n, H, W, C)` brought to a size.

    They are cut, or continued by their last pixels, on the right and at the bottom.
    """
    if size is None:
        return images
    more = [max(0, wanted - side) for wanted, side in zip(size, images.shape[1:3], strict=True)]
    padded = np.pad(images, [(0, 0), (0, more[0]), (0, more[1]), (0, 0)], mode="edge")
    return np.ascontiguousarray(padded[:, : size[0], : size[1]])


def check(
    predictor: Predictor, sample: Sample, file: ExportedFile, folder: Path, any_size: bool
) -> dict[str, Any]:
    """Return how a file, loaded afresh, predicts against the run.

    It has a `problem` where the two differ.
    """
    predict = file.load(folder / file.name)
    found: dict[str, Any] = {"file": file.name or "SavedModel", "frames": len(sample.images)}
    if file.tolerance is not None:
        few = sample.images[: max(BATCHES)]
        compared = [
            _compare(predictor, predict, few, batch) for batch in BATCHES if batch <= len(few)
        ]
        if any_size:
            height, width = (
                max(side + more, side // 2)
                for side, more in zip(few.shape[1:3], OTHER_SIZE_PX, strict=True)
            )
            compared.append(_compare(predictor, predict, fitted(few, (height, width)), len(few)))
        found |= {
            key: max(one[key] for one in compared)
            for key in ("keypoints_px", "keypoints_p95_px", "confidence")
        }
        cell_px = predictor.head.stride / predictor.preprocessing.input_scale
        limit_px = file.tolerance.cells * cell_px
        limits = {"tolerance_px": FARTHEST * limit_px, "tolerance_p95_px": limit_px}
        found |= {"ties": sum(one["ties"] for one in compared), **limits}
        _note_difference(found, file.tolerance)
        if "problem" in found:
            return found
    exported, run = _in_batches(predict, sample.images, 8), predictor(sample.images)
    found["error_px"], found["run_error_px"] = (_mean_error(one, sample) for one in (exported, run))
    if predictor.head.several_animals:
        found["animals"], found["run_animals"] = (_count(one) for one in (exported, run))
        is_right = np.isfinite(exported.points).all(-1) == np.isfinite(exported.confidence)
    else:
        is_right = np.isfinite(exported.points)
    if not is_right.all():
        found["problem"] = f"{found['file']} predicts positions that are not numbers"
        # JSON has none.
        found["error_px"] = None
    elif found.get("animals") == 0 < found["run_animals"]:
        found["problem"] = (
            f"{found['file']} finds none of the {found['run_animals']} animals that the run finds"
        )
    return found


def _count(poses: Poses) -> int:
    return int(np.isfinite(poses.scores).sum())


def _compare(
    predictor: Predictor, predict: Loaded, images: np.ndarray, batch: int
) -> dict[str, Any]:
    """Return the differences between an exported model's predictions and the run's.

    They are the largest in position and in confidence, that of 95% of the positions, and the number
    of ties, which are left out of the differences.
    """
    run, exported = predictor(images), _in_batches(predict, images, batch)
    if any(a.shape != b.shape for a, b in zip(run, exported, strict=True)):
        return {"keypoints_px": np.inf, "keypoints_p95_px": np.inf, "confidence": np.inf, "ties": 0}
    if predictor.head.several_animals:
        return compare_animals(predictor, images, run, exported)
    apart = np.abs(exported.points - run.points).max(-1)
    of_confidence = float(np.abs(exported.confidence - run.confidence).max(initial=0))
    # NaN, which compares with nothing, is as wrong as it gets.
    apart = np.where(np.isfinite(apart), apart, np.inf)
    tied = np.zeros(apart.shape, bool)
    for frame, animal in np.unique(np.argwhere(apart > 0.5)[:, :2], axis=0):
        tied[frame, animal] = _are_ties(
            predictor,
            images[frame],
            run.points[frame, animal],
            exported.points[frame, animal],
            of_confidence,
        )
    tied &= apart > 0.5
    apart = np.where(tied, 0, apart)
    return {
        "keypoints_px": float(apart.max(initial=0)),
        # One of them and not between two, of which one may be infinite.
        "keypoints_p95_px": float(np.percentile(apart, 95, method="higher")) if apart.size else 0.0,
        "confidence": of_confidence,
        "ties": int(tied.sum()),
    }


def _are_ties(
    predictor: Predictor, image: np.ndarray, points: np.ndarray, others: np.ndarray, rounding: float
) -> np.ndarray:
    """Return for each keypoint `(K,)` whether two points are equally good.

    They are where the run's own map is as high at the other point as at its peak. Then rounding
    alone decides which of the two is found, in another batch size already.
    """
    maps = predictor.confmaps(tf.constant(image[None])).numpy()[0]
    heights = [_height_around(maps, at, predictor) for at in (points, others)]
    return heights[0] - heights[1] <= 2 * rounding + 1e-7


def _height_around(maps: np.ndarray, points: np.ndarray, predictor: Predictor) -> np.ndarray:
    """Return the highest of the 3x3 cells of each map around a point, `(K,)`."""
    scale = predictor.preprocessing.input_scale
    cells = np.nan_to_num(resized_points(points, scale) / predictor.head.stride)
    columns, rows = np.rint(cells).astype(int).T
    return np.array(
        [
            maps[max(row - 1, 0) : max(row, 0) + 2, max(column - 1, 0) : max(column, 0) + 2, k].max(
                initial=-np.inf
            )
            for k, (row, column) in enumerate(zip(rows, columns, strict=True))
        ]
    )


def _note_difference(found: dict[str, Any], tolerance: Tolerance) -> None:
    """Add a `problem` to what was found where it is beyond a tolerance.

    The numbers become such that JSON has.
    """
    limits = (("keypoints_px", "tolerance_px"), ("keypoints_p95_px", "tolerance_p95_px"))
    # NaN is beyond any.
    is_near = all(found[value] <= found[limit] for value, limit in limits)
    if is_near and found["confidence"] <= tolerance.confidence:
        return
    found["problem"] = (
        f"{found['file']} does not predict what the run predicts: positions differ by up to "
        f"{found['keypoints_px']:.3g} px (at most {found['tolerance_px']:g}), 95% of them by up to "
        f"{found['keypoints_p95_px']:.3g} px (at most {found['tolerance_p95_px']:g}), confidence "
        "by "
        f"{found['confidence']:.3g} (at most {tolerance.confidence:g}) on {found['frames']} frames"
    )
    for key in ("keypoints_px", "keypoints_p95_px", "confidence"):
        found[key] = found[key] if np.isfinite(found[key]) else None


def _in_batches(predict: Loaded, images: np.ndarray, batch: int) -> Poses:
    return joined(
        [predict(images[start : start + batch]) for start in range(0, len(images), batch)]
    )


def _mean_error(found: Poses, sample: Sample) -> float | None:
    found = found if sample.in_place is None else sample.in_place(found)
    distance = np.linalg.norm(found.points - sample.points, axis=-1)
    located = np.isfinite(distance)
    return float(distance[located].mean()) if located.any() else None
