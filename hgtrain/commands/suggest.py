"""`hgtrain suggest`, top to bottom."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hgtrain.commands.options import CENTROIDS, INPUTS
from hgtrain.errors import DatasetError, RunError
from hgtrain.files import check_outputs
from hgtrain.log import say
from hgtrain.signals import StopRequest

if TYPE_CHECKING:
    from hgtrain.data.media.frame_source import FrameSource
    from hgtrain.next_frames.doubts import Doubts
    from hgtrain.next_frames.labels_file import Suggestion
    from hgtrain.rundir.load import Run

SUFFIXES = (".slp", ".csv")


@click.command(
    "suggest",
    epilog="Example: hgtrain suggest runs/flies-20250102-101500 film.mp4 -o next.slp --count 20",
)
@click.argument("run", type=click.Path(path_type=Path))
@INPUTS
@click.option(
    "-o",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    required=True,
    help=".slp for SLEAP, with a .csv of the reasons beside it, or the .csv alone.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=50,
    show_default=True,
    help="How many frames, at most.",
)
@CENTROIDS
def command(
    run: Path, inputs: tuple[str, ...], out: Path, count: int, centroids: Path | None
) -> None:
    """Find the frames of videos that are worth labelling next.

    These are frames that RUN is unsure of, no two of them alike, with its predictions as a start
    for correction in SLEAP.
    """
    with StopRequest().listening():
        written = suggest(run, inputs, out, count, centroids)
    click.echo(f"{out}: {written} frames to label")


def suggest(
    folder: Path, inputs: Sequence[str], out: Path, count: int, centroids: Path | None = None
) -> int:
    """Write which frames to label next; return how many.

    Args:
        folder: The run directory.
        inputs: Videos, images, folders of images and datasets.
        out: A .slp, beside which a .csv is written, or a .csv alone.
        count: How many frames, at most.
        centroids: The run that finds the animals for one that sees crops around them.

    Raises:
        HgtrainError: For what cannot be used, before anything is written; and when an input ends
            too early or no frame of it can be read, with the frames of all others written.
    """
    from hgtrain.data.convert.sleap_io import import_sleap_io
    from hgtrain.predict.inputs import open_frames
    from hgtrain.predict.stream import predict_all
    from hgtrain.rundir.load import check_finds_animals, check_run, load_run

    table = _outputs(inputs, out)
    if out != table:
        import_sleap_io(f"to write {out}")
    checked = check_run(folder, centroids)
    check_finds_animals(folder, centroids)
    with ExitStack() as opened:
        sources = [open_frames(path, checked.channels) for path in inputs]
        for images in sources:
            opened.callback(images.close)
        run = load_run(folder, centroids=centroids)
        from hgtrain.next_frames.both_ways import BothWays
        from hgtrain.next_frames.doubts import DoubtsSink
        from hgtrain.next_frames.labels_file import write_slp, write_table

        model = BothWays(run.predictor, run.found_skeleton)
        sink = DoubtsSink(sources, run.predictor.head.several_animals)
        problems = predict_all(model, sources, sink)
        doubts = sink.doubts()
        suggestions = [] if doubts is None else _suggestions(doubts, sources, count, run)
        if suggestions:
            write_table(table, sources, suggestions)
            if out != table:
                write_slp(out, run.found_skeleton, sources, suggestions, str(folder))
    if problems:
        kept = f"; {len(suggestions)} frames of the rest are in {out}" if suggestions else ""
        raise DatasetError("\n".join(map(str, problems)) + kept) from problems[0]
    if len(suggestions) < count and doubts is not None:
        say(
            f"{len(suggestions)} of {len(doubts.number)} frames are worth labelling, --count is "
            f"{count}: the others look like one of these, or cannot be read"
        )
    return len(suggestions)


def _outputs(inputs: Sequence[str], out: Path) -> Path:
    """Return the path of the table.

    Raises:
        RunError: A file cannot be written, or is of another kind.
    """
    if out.suffix.lower() not in SUFFIXES:
        raise RunError(
            f"{out}: frames to label are written as .slp, with a table beside it, or as .csv, got "
            f"{out.suffix!r}"
        )
    table = out if out.suffix.lower() == ".csv" else out.with_suffix(".csv")
    check_outputs(inputs, [out, table])
    return table


def _suggestions(
    doubts: "Doubts", sources: Sequence["FrameSource"], count: int, run: "Run"
) -> list["Suggestion"]:
    import numpy as np

    from hgtrain.next_frames.choice import choose, reason, scores
    from hgtrain.next_frames.labels_file import Suggestion
    from hgtrain.poses import Poses

    is_video = np.array([source.kind == "video" for source in sources])
    score, ranks = scores(doubts)
    names = run.found_skeleton.keypoint_names
    return [
        Suggestion(
            int(doubts.source[frame]),
            int(doubts.number[frame]),
            float(score[frame]),
            reason(doubts, ranks, frame, names),
            (doubts.confidence[frame], doubts.jump.px[frame], doubts.flip.px[frame]),
            Poses(*(part[frame] for part in doubts.found)),
        )
        for frame in choose(doubts, is_video[doubts.source], count)
    ]
