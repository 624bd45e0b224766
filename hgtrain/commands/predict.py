"""`hgtrain predict`, top to bottom."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from hgtrain.commands.options import AVERAGE, CENTROIDS, DECODERS, INPUTS
from hgtrain.errors import DatasetError, RunError
from hgtrain.files import check_outputs
from hgtrain.log import say
from hgtrain.rundir import layout
from hgtrain.signals import StopRequest

if TYPE_CHECKING:
    from hgtrain.data.media.frame_source import FrameSource
    from hgtrain.predict.stream import Model
    from hgtrain.skeleton import Skeleton


class PredictOptions(NamedTuple):
    """Options of `predict`.

    Attributes:
        overlay: A video to draw into.
        refinement: None for the model's own.
        batch_size: The same.
        centroids: The run that finds the animals for one that sees crops around them.
        average: Of `predict.turns.AVERAGES`: over what predictions are averaged.
    """

    overlay: Path | None = None
    refinement: str | None = None
    batch_size: int | None = None
    centroids: Path | None = None
    average: tuple[str, ...] = ()


@click.command(
    "predict",
    epilog="Example: hgtrain predict runs/flies-20250102-101500 film.mp4 -o film.slp --overlay "
    "look.mp4",
)
@click.argument("run_or_export", type=click.Path(path_type=Path))
@INPUTS
@click.option(
    "-o",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    required=True,
    help=".h5, .csv or .slp.",
)
@click.option(
    "--overlay", type=click.Path(path_type=Path), help="A video to draw the predictions into."
)
@click.option("--decode", type=DECODERS, help="How peaks are refined [default: unbiased].")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Images at once [default: the run's, 8 for exports].",
)
@CENTROIDS
@AVERAGE
def command(
    run_or_export: Path,
    inputs: tuple[str, ...],
    out: Path,
    decode: str | None,
    **others: Any,
) -> None:
    """Find the keypoints in datasets, images and videos.

    An INPUT may be a folder of images too.
    """
    with StopRequest().listening():
        options = PredictOptions(refinement=decode, **others)
        frames = predict(run_or_export, inputs, out, options)
    click.echo(f"{out}: {frames} frames")
    if options.overlay is not None:
        click.echo(f"{options.overlay}: the predictions drawn in")


def predict(model_folder: Path, inputs: Sequence[str], out: Path, options: PredictOptions) -> int:
    """Return the number of frames whose predictions were written to `out`.

    Raises:
        HgtrainError: For what cannot be used, before anything is written; and when an input ends
            too early or no frame of it can be read, with the predictions of all other frames
            written.
    """
    from hgtrain.data.convert.sleap_io import import_sleap_io
    from hgtrain.predict.inputs import open_frames
    from hgtrain.predict.overlay_video import OverlayVideo, check_video
    from hgtrain.predict.stream import file_sink, predict_all
    from hgtrain.predict.writers import SlpFile, file_type

    check_outputs(inputs, [out, *([] if options.overlay is None else [options.overlay])])
    write_as = file_type(out)
    if write_as is SlpFile:
        import_sleap_io(f"to write {out}")
    if options.overlay is not None:
        check_video(options.overlay)
    channels = _channels(model_folder, options)
    with ExitStack() as opened:
        sources = [open_frames(path, channels) for path in inputs]
        for images in sources:
            opened.callback(images.close)
        _check_channels(model_folder, channels, sources)
        model, skeleton = _predicting_model(model_folder, options)
        if write_as is SlpFile:
            for images in sources:
                _say_what_slp_lacks(images)
        overlay = (
            None if options.overlay is None else OverlayVideo(options.overlay, skeleton, sources)
        )
        if overlay is not None:
            opened.callback(overlay.close)
        file = write_as(out, skeleton, sources, str(model_folder))
        problems: list[DatasetError] | None = None
        try:
            problems = predict_all(
                model, sources, file_sink(file, overlay.write if overlay else None)
            )
        finally:
            file.close(complete=problems == [])
    if problems:
        kept = f"; the predictions of {file.frames} frames are in {out}" if file.frames else ""
        raise DatasetError("\n".join(map(str, problems)) + kept) from problems[0]
    return file.frames


def _say_what_slp_lacks(images: "FrameSource") -> None:
    """Say where SLEAP will not find the images that points lie in."""
    from hgtrain.predict.inputs import DatasetFrames

    if isinstance(images, DatasetFrames) and not images.are_at_images:
        say(
            f"{images.path}: the .slp has the points, but SLEAP will not find their images in a "
            f"{images.dataset.format} file; predict on what `hgtrain convert` makes of it to see "
            "them"
        )
    elif len(set(images.files)) < len(images.files):
        say(
            f"{images.path}: the .slp has the points of all pages, but SLEAP shows a file's first "
            "page alone"
        )


def _channels(folder: Path, options: PredictOptions) -> int:
    """Return the channels of the images that a model takes, which is a run or an export.

    Raises:
        HgtrainError: It is neither, or the options do not fit it.
    """
    from hgtrain.predict.saved_model import MODEL_FILE, described_channels, is_export
    from hgtrain.rundir.load import check_finds_animals, check_run

    if is_export(folder):
        if options.centroids is not None:
            raise RunError(f"--centroids belongs to a run, and {folder} is an export: leave it out")
        if options.average:
            raise RunError(
                f"--average {','.join(options.average)} needs a run: the export {folder} averages "
                "as it was written, with `hgtrain export --average`"
            )
        if options.refinement not in (None, "unbiased"):
            raise RunError(
                f"--decode {options.refinement} needs a run: the export {folder} decodes as it "
                "was written"
            )
        return described_channels(folder)
    if not (folder / layout.CONFIG).is_file():
        for name in ("model.onnx", "model_float32.tflite"):
            if (folder / name).is_file():
                raise RunError(
                    f"{folder} is an export as {name}: predict runs the run itself and exports as "
                    "SavedModel; its "
                    "README.md shows how to run this one"
                )
        raise RunError(
            f"{folder} is neither a run directory (no {layout.CONFIG}) nor an export (no "
            f"{MODEL_FILE})"
        )
    check_finds_animals(folder, options.centroids)
    return check_run(folder, options.centroids).channels


def _predicting_model(folder: Path, options: PredictOptions) -> tuple["Model", "Skeleton"]:
    """Return what predicts, and its skeleton."""
    from hgtrain.predict.saved_model import SavedModelPredictor, is_export
    from hgtrain.rundir.load import load_run

    if is_export(folder):
        exported = SavedModelPredictor(folder, options.batch_size or 8)
        return exported, exported.skeleton
    run = load_run(folder, options.refinement or "unbiased", options.centroids, options.average)
    run.predictor.batch_size = options.batch_size or run.predictor.batch_size
    return run.predictor, run.found_skeleton


def _check_channels(folder: Path, channels: int, sources: Sequence["FrameSource"]) -> None:
    """Raise RunError where an export, which converts nothing, gets images of other channels."""
    from hgtrain.predict.saved_model import is_export

    for images in sources:
        if is_export(folder) and images.channels != channels:
            raise RunError(
                f"{images.path} has images of {images.channels} channels but the export {folder} "
                f"takes {channels}: "
                "predict with the run, which converts them"
            )
