"""`hgtrain evaluate`, top to bottom."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hgtrain.commands.options import AS_JSON, AVERAGE, CENTROIDS, DECODERS
from hgtrain.log import blocks_progress, say
from hgtrain.signals import StopRequest
from hgtrain.skeleton import check_same_keypoints

if TYPE_CHECKING:
    from hgtrain.data.split import Subset
    from hgtrain.rundir.load import CheckedRun


@click.command(
    "evaluate", epilog="Example: hgtrain evaluate runs/flies-20250102-101500 other.h5 --json"
)
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", nargs=-1)
@AS_JSON
@click.option(
    "--decode", type=DECODERS, default="unbiased", show_default=True, help="How peaks are refined."
)
@CENTROIDS
@AVERAGE
def command(
    run: Path,
    data: tuple[str, ...],
    as_json: bool,
    decode: str,
    centroids: Path | None,
    average: tuple[str, ...],
) -> None:
    """Measure the best network of a run on labelled frames.

    They are the validation frames of RUN, or all frames of the datasets DATA.
    """
    with StopRequest().listening():
        evaluation = evaluate(run, data, decode, centroids, average)
    if as_json:
        click.echo(json.dumps(evaluation, indent=1, allow_nan=False))
    else:
        from hgtrain.evaluate.table import evaluation_text

        click.echo(evaluation_text(run, evaluation))


def evaluate(
    folder: Path,
    files: Sequence[str],
    refinement: str,
    centroids: Path | None = None,
    average: Sequence[str] = (),
) -> dict[str, Any]:
    """Return the metrics of a run's best model.

    Args:
        folder: The run directory.
        files: Datasets, all frames of which are taken; empty for the run's own validation frames.
        refinement: A key of `heads.decoding.peaks.DECODERS`.
        centroids: The run that finds the animals for one that sees crops; None for the labelled
            animals.
        average: Of `predict.turns.AVERAGES`: over what predictions are averaged.

    Raises:
        HgtrainError: The run or the data cannot be used, or the keypoints differ in name or order.
    """
    from hgtrain.rundir.load import check_run, load_run

    with _side(check_run(folder, centroids), files) as side:
        run = load_run(folder, refinement, centroids, average)
        if run.predictor.needs_centroids:
            say(
                f"{folder} sees crops: measured around the labelled animals; --centroids RUN finds "
                "them"
            )
        from hgtrain.evaluate.predictions import evaluate_side, predict_side

        found = predict_side(run.predictor, side, blocks_progress("predicting"))
        return evaluate_side(*found, side, run.predictor.head)


@contextmanager
def _side(run: "CheckedRun", files: Sequence[str]) -> Iterator["Subset"]:
    """Give the frames to measure on: all of some datasets, or the run's own validation frames."""
    from hgtrain.data.open_split import open_with_notes
    from hgtrain.data.selection import select_frames
    from hgtrain.data.split import Subset
    from hgtrain.rundir.load import reopened_split

    if not files:
        with reopened_split(run) as split:
            yield split.validation
        return
    with open_with_notes(files, run.config.data.annotated_only) as dataset:
        names = run.skeleton.keypoint_names
        check_same_keypoints(dataset.keypoint_names, names, dataset.path, f"the run {run.folder}")
        selected = select_frames(dataset, run.config.model.head)
        for note in selected.notes:
            say(note)
        yield Subset(dataset, selected.frames)
