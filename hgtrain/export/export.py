"""A run's model in a form that needs no hgtrain.

It is written beside, checked against the run's own predictions, and renamed.
"""

from pathlib import Path
from typing import Any

from hgtrain.errors import RunError
from hgtrain.export.check import Sample, check, fitted
from hgtrain.export.formats import FORMATS
from hgtrain.export.readme import readme
from hgtrain.export.served import ExportedFile, Served
from hgtrain.files import new_folder, write_json, write_text
from hgtrain.predict.predictor import Predictor
from hgtrain.predict.saved_model import SCORES


def export(
    predictor: Predictor,
    sample: Sample,
    folder: Path,
    format_name: str,
    size: tuple[int, int] | None,
    metadata: dict[str, Any],
) -> list[dict[str, Any]]:
    """Write a model to `folder` and check it against the run's predictions.

    A file that does not predict what the run predicts is removed, and its check says so as
    `problem`.

    Args:
        predictor: Of the run.
        sample: Frames for the check and for int8's ranges.
        folder: Must not hold anything yet.
        format_name: A key of FORMATS.
        size: Height and width of the images where they are to be fixed.
        metadata: What metadata.json says of the run.

    Returns:
        What the check of each file found.

    Raises:
        RunError: The folder is taken, the format cannot be written, or no file is left; the folder
            is then as it was.
    """
    target = FORMATS[format_name]
    if size is None and target.needs_size:
        size = sample.images.shape[1:3]
    images, calibration = (fitted(each, size) for each in (sample.images, sample.calibration))
    sample = sample._replace(images=images, calibration=calibration)
    with new_folder(folder) as beside:
        served = Served(predictor, sample.images.shape[3], size, metadata)
        files = target.write(served, beside, sample.calibration)
        checks = [check(predictor, sample, file, beside, size is None) for file in files]
        kept = _without_failed(files, checks, beside)
        document: dict[str, Any] = {
            "format": format_name,
            "files": [file.name or "." for file in kept],
        }
        shape = [None, *(size or (None, None)), sample.images.shape[3]]
        document |= {
            "input": {"name": "image", "dtype": "uint8", "shape": shape},
            "outputs": _output_shapes(predictor),
            **metadata,
            "check": checks,
        }
        write_json(beside / "metadata.json", document)
        write_text(beside / "README.md", readme(folder.name, document))
    return checks


def _output_shapes(predictor: Predictor) -> dict[str, list[int | None]]:
    """Return the shapes of the outputs by name, None for the number of images."""
    keypoints = predictor.keypoints
    if not predictor.head.several_animals:
        return {"keypoints": [None, keypoints, 2], "confidence": [None, keypoints]}
    animals = predictor.max_instances
    return {
        "keypoints": [None, animals, keypoints, 2],
        "confidence": [None, animals, keypoints],
        SCORES: [None, animals],
    }


def _without_failed(
    files: list[ExportedFile], checks: list[dict[str, Any]], folder: Path
) -> list[ExportedFile]:
    """Return the files that passed their checks, and remove the others.

    Raises:
        RunError: None passed.
    """
    passed = [file for file, checked in zip(files, checks, strict=True) if "problem" not in checked]
    problems = [checked["problem"] for checked in checks if "problem" in checked]
    if not passed:
        raise RunError(
            "; ".join(problems)
            + "; the export was removed: check on other frames with --data, or choose another "
            "--format"
        )
    for file in files:
        if file not in passed:
            (folder / file.name).unlink()
    instead = " or ".join(file.name for file in passed)
    for checked in checks:
        if "problem" in checked:
            checked["problem"] += (
                f"; it was removed: use {instead}, or check on other frames with --data"
            )
    return passed
