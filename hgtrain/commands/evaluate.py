"""`hgtrain evaluate`, top to bottom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgtrain.data.open_split import open_with_notes
from hgtrain.data.selection import select_frames
from hgtrain.data.split import Subset
from hgtrain.log import blocks_progress, say
from hgtrain.rundir.load import load_run, reopened_split
from hgtrain.skeleton import check_same_keypoints


def evaluate(
    folder: Path, files: Sequence[str], refinement: str, centroids: Path | None = None
) -> dict[str, Any]:
    """Return the metrics of a run's best model.

    Args:
        folder: The run directory.
        files: Datasets, all frames of which are taken; empty for the run's own validation frames.
        refinement: A key of `heads.decoding.peaks.DECODERS`.
        centroids: The run that finds the animals for one that sees crops; None for the labelled
            animals.

    Raises:
        HgtrainError: The run or the data cannot be used, or the keypoints differ in name or order.
    """
    run = load_run(folder, refinement, centroids)
    if run.predictor.needs_centroids:
        say(
            f"{folder} sees crops: measured around the labelled animals; --centroids RUN finds them"
        )
    from hgtrain.evaluate.predictions import evaluate_side, predict_side

    if not files:
        with reopened_split(run) as split:
            side = split.validation
            found = predict_side(run.predictor, side, blocks_progress("predicting"))
            return evaluate_side(*found, side, run.predictor.head)
    with open_with_notes(files, run.config.data.annotated_only) as dataset:
        names = run.skeleton.keypoint_names
        check_same_keypoints(dataset.keypoint_names, names, dataset.path, f"the run {folder}")
        selected = select_frames(dataset, run.config.model.head)
        for note in selected.notes:
            say(note)
        side = Subset(dataset, selected.frames)
        found = predict_side(run.predictor, side, blocks_progress("predicting"))
        return evaluate_side(*found, side, run.predictor.head)
