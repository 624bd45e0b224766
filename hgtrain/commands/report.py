"""`hgtrain report`, top to bottom."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hgtrain.files import check_outputs
from hgtrain.log import blocks_progress, doing
from hgtrain.signals import StopRequest

if TYPE_CHECKING:
    from hgtrain.data.split import Split
    from hgtrain.report.page import RunResults


@click.command("report", epilog="Example: hgtrain report runs/a runs/b -o a-against-b.html")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("comparison.html"),
    show_default=True,
    help="The page that compares several runs.",
)
def command(runs: tuple[Path, ...], output: Path) -> None:
    """Write the page of a run again, or compare several.

    Each of RUNS has its report.html; several are compared on one page more.
    """
    with StopRequest().listening():
        written = report(runs, output)
    click.echo("\n".join(map(str, written)))


def report(folders: Sequence[Path], comparison: Path) -> list[Path]:
    """Write report.html of each run again, and for several runs the page `comparison`.

    Returns:
        The files that were written.

    Raises:
        HgtrainError: A run or its data cannot be used.
    """
    from hgtrain.rundir.load import check_run, reopened_split

    if len(folders) > 1:
        check_outputs([], [comparison])
    with ExitStack() as opened:
        splits = [opened.enter_context(reopened_split(check_run(folder))) for folder in folders]
        results = [_results(*one) for one in zip(folders, splits, strict=True)]
        with doing("writing pages"):
            from hgtrain.report.comparison import write_comparison
            from hgtrain.report.page import write_report

            pages = [write_report(one) for one in results]
            return [*pages, write_comparison(comparison, results)] if len(results) > 1 else pages


def _results(folder: Path, split: "Split") -> "RunResults":
    """Return a run with its predictions made again."""
    from hgtrain.rundir.load import load_run

    run = load_run(folder)
    from hgtrain.evaluate.predictions import evaluate_side, labels_of, predict_side
    from hgtrain.pipeline.preview import augmented_batch
    from hgtrain.report.page import RunResults

    side, config = split.validation, run.config
    found, images_per_s = predict_side(run.predictor, side, blocks_progress("predicting"))
    return RunResults(
        folder,
        config.model_dump(),
        split,
        labels_of(run.predictor.head, side),
        found,
        evaluate_side(found, images_per_s, side, run.predictor.head),
        augmented_batch(
            split.train,
            run.predictor.preprocessing,
            config.augmentation,
            config.training,
            run.predictor.head.crop,
        ),
    )
