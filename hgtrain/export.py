"""A run's model in a form that needs no hgtrain: written beside, checked against the run's own predictions, renamed."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from hgtrain import rundir
from hgtrain.coords import resized_points
from hgtrain.errors import RunError
from hgtrain.export_formats import FORMATS, ExportedFile, Loaded, Served
from hgtrain.export_readme import readme
from hgtrain.predictor import Predictor

BATCHES = (1, 7, 20)
OTHER_SIZE_PX = (8, -24)
"""By how much frames are made higher and wider to see that other sizes work."""


class Sample(NamedTuple):
    """Real frames. images: `(n, H, W, C)` uint8. points: their labels `(n, K, 2)` px, NaN where there is none.

    calibration: images that int8's ranges are taken from, of the same shape.
    """

    images: np.ndarray
    points: np.ndarray
    calibration: np.ndarray


def export(
    predictor: Predictor,
    sample: Sample,
    folder: Path,
    format_name: str,
    size: tuple[int, int] | None,
    metadata: dict[str, Any],
) -> list[dict[str, Any]]:
    """Write a model to `folder`, which must not hold anything yet; return what the check of each file found.

    format_name: a key of FORMATS. size: height and width of the images where they are to be fixed. metadata: what
    metadata.json says of the run.
    Raises RunError when the folder is taken, the format cannot be written, or a written file does not predict what the
    run predicts; the folder is then as it was.
    """
    target = FORMATS[format_name]
    if size is None and target.needs_size:
        size = sample.images.shape[1:3]
    sample = Sample(fitted(sample.images, size), sample.points, fitted(sample.calibration, size))
    with rundir.new_folder(folder) as beside:
        served = Served(predictor, sample.images.shape[3], size)
        files = target.write(served, beside, sample.calibration)
        checks = [_check(predictor, sample, file, beside, size is None) for file in files]
        document: dict[str, Any] = {"format": format_name, "files": [file.name or "." for file in files]}
        shape = [None, *(size or (None, None)), sample.images.shape[3]]
        keypoints = sample.points.shape[1]
        document |= {
            "input": {"name": "image", "dtype": "uint8", "shape": shape},
            "outputs": {"keypoints": [None, keypoints, 2], "confidence": [None, keypoints]},
            **metadata,
            "check": checks,
        }
        rundir.write_json(beside / "metadata.json", document)
        rundir.write_text(beside / "README.md", readme(folder.name, document))
    return checks


def fitted(images: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Return images `(n, H, W, C)` cut, or continued by their last pixels, on the right and at the bottom to a size."""
    if size is None:
        return images
    more = [max(0, wanted - side) for wanted, side in zip(size, images.shape[1:3], strict=True)]
    padded = np.pad(images, [(0, 0), (0, more[0]), (0, more[1]), (0, 0)], mode="edge")
    return np.ascontiguousarray(padded[:, : size[0], : size[1]])


def _check(predictor: Predictor, sample: Sample, file: ExportedFile, folder: Path, any_size: bool) -> dict[str, Any]:
    """Return how the predictions of a file, loaded afresh, compare with the run's; RunError when they differ."""
    predict = file.load(folder / file.name)
    found: dict[str, Any] = {"file": file.name or "SavedModel", "frames": len(sample.images)}
    if file.tolerance is not None:
        few = sample.images[: max(BATCHES)]
        compared = [_compare(predictor, predict, few, batch) for batch in BATCHES if batch <= len(few)]
        if any_size:
            height, width = (
                max(side + more, side // 2) for side, more in zip(few.shape[1:3], OTHER_SIZE_PX, strict=True)
            )
            compared.append(_compare(predictor, predict, fitted(few, (height, width)), len(few)))
        found |= {key: max(one[key] for one in compared) for key in ("keypoints_px", "confidence")}
        found |= {"ties": sum(one["ties"] for one in compared), "tolerance_px": file.tolerance.keypoints_px}
        _refuse(found, file)
    exported = _in_batches(predict, sample.images, 8)[0]
    found["error_px"] = _mean_error(exported, sample.points)
    found["run_error_px"] = _mean_error(predictor(sample.images)[0], sample.points)
    if not np.isfinite(exported).all():
        raise RunError(f"{found['file']} predicts positions that are not numbers; the export was removed")
    return found


def _compare(predictor: Predictor, predict: Loaded, images: np.ndarray, batch: int) -> dict[str, Any]:
    """Return the largest difference in position and confidence, ties left out, and the number of ties."""
    points, confidence = predictor(images)
    exported_points, exported_confidence = _in_batches(predict, images, batch)
    if exported_points.shape != points.shape or exported_confidence.shape != confidence.shape:
        return {"keypoints_px": np.inf, "confidence": np.inf, "ties": 0}
    apart = np.abs(exported_points - points).max(-1)
    of_confidence = float(np.abs(exported_confidence - confidence).max(initial=0))
    # NaN, which compares with nothing, is as wrong as it gets.
    apart = np.where(np.isfinite(apart), apart, np.inf)
    tied = np.zeros(apart.shape, bool)
    for frame in np.unique(np.argwhere(apart > 0.5)[:, 0]):
        tied[frame] = _are_ties(predictor, images[frame], points[frame], exported_points[frame], of_confidence)
    tied &= apart > 0.5
    return {
        "keypoints_px": float(np.where(tied, 0, apart).max(initial=0)),
        "confidence": of_confidence,
        "ties": int(tied.sum()),
    }


def _are_ties(
    predictor: Predictor, image: np.ndarray, points: np.ndarray, others: np.ndarray, rounding: float
) -> np.ndarray:
    """Return for each keypoint `(K,)` whether the run's own map is as high at the other point as at its peak.

    Then rounding alone decides which of the two is found, in another batch size already.
    """
    maps = predictor.confmaps(tf.constant(image[None])).numpy()[0]
    heights = [_height_around(maps, at, predictor) for at in (points, others)]
    return heights[0] - heights[1] <= 2 * rounding + 1e-7


def _height_around(maps: np.ndarray, points: np.ndarray, predictor: Predictor) -> np.ndarray:
    """Return the highest of the 3x3 cells of each map around a point, `(K,)`."""
    geometry = predictor.geometry
    cells = np.nan_to_num(resized_points(points, geometry.input_scale) / geometry.stride)
    columns, rows = np.rint(cells).astype(int).T
    return np.array(
        [
            maps[max(row - 1, 0) : max(row, 0) + 2, max(column - 1, 0) : max(column, 0) + 2, k].max(initial=-np.inf)
            for k, (row, column) in enumerate(zip(rows, columns, strict=True))
        ]
    )


def _refuse(found: dict[str, Any], file: ExportedFile) -> None:
    """Raise RunError when what was found is beyond the tolerance of a file."""
    tolerance = file.tolerance
    if tolerance and (
        not found["keypoints_px"] <= tolerance.keypoints_px or not found["confidence"] <= tolerance.confidence
    ):
        raise RunError(
            f"{found['file']} does not predict what the run predicts: positions differ by up to "
            f"{found['keypoints_px']:.3g} px (at most {tolerance.keypoints_px:g}), confidence by "
            f"{found['confidence']:.3g} (at most {tolerance.confidence:g}) on {found['frames']} frames; the export was "
            "removed"
        )


def _in_batches(predict: Loaded, images: np.ndarray, batch: int) -> tuple[np.ndarray, np.ndarray]:
    parts = [predict(images[start : start + batch]) for start in range(0, len(images), batch)]
    points, confidence = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return points, confidence


def _mean_error(points: np.ndarray, truth: np.ndarray) -> float | None:
    distance = np.linalg.norm(points - truth, axis=-1)
    located = np.isfinite(distance)
    return float(distance[located].mean()) if located.any() else None
