"""What the commands on a finished run do, top to bottom; nothing here computes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from hgtrain import rundir, trial
from hgtrain.config import Config
from hgtrain.data import source
from hgtrain.data.dataset import PoseDataset, Skeleton
from hgtrain.errors import DatasetError, RunError
from hgtrain.exported import MODEL_FILE, ExportedModel, is_export
from hgtrain.foreign import import_sleap_io
from hgtrain.frames import DatasetFrames, FrameSource, open_frames
from hgtrain.opened_run import Run, load_run
from hgtrain.overlay_video import OverlayVideo
from hgtrain.predict import Model, file_sink, predict_all
from hgtrain.prediction_files import SlpFile, file_type
from hgtrain.train.log import progress, say

if TYPE_CHECKING:
    from hgtrain.data.convert import Converted
    from hgtrain.report import RunResults


def evaluate(folder: Path, files: Sequence[str], refinement: str) -> dict[str, Any]:
    """Return the metrics of a run's best model on its own validation frames, or on all frames of `files`.

    Raises HgtrainError when the run or the data cannot be used, or the keypoints differ in name or order.
    """
    run = load_run(folder, refinement)
    from hgtrain.evaluate import check_keypoint_names, evaluate_side, predict_side

    if not files:
        with reopened_split(run) as split:
            return evaluate_side(predict_side(run.predictor, split.validation, _reading), split.validation)
    with _opened(run.config, files) as dataset:
        check_keypoint_names(dataset, run.skeleton.keypoint_names, f"the run {folder}")
        selected = source.select_single_instance(dataset)
        for note in selected.notes:
            say(note)
        side = source.Side(dataset, selected.frames)
        return evaluate_side(predict_side(run.predictor, side, _reading), side)


class PredictOptions(NamedTuple):
    """Options of `predict`. overlay: a video to draw into. refinement and batch_size: None for the model's own."""

    overlay: Path | None = None
    refinement: str | None = None
    batch_size: int | None = None


def predict(model_folder: Path, inputs: Sequence[str], out: Path, options: PredictOptions) -> int:
    """Return the number of frames whose predictions were written to `out`.

    Raises HgtrainError for what cannot be used, before anything is written; and when an input breaks on the way, with
    the predictions of all other frames written.
    """
    check_outputs(inputs, [out, *([] if options.overlay is None else [options.overlay])])
    write_as = file_type(out)
    if write_as is SlpFile:
        import_sleap_io(f"to write {out}")
    model, skeleton, channels = _predicting_model(model_folder, options)
    with ExitStack() as opened:
        sources = [open_frames(path, channels) for path in inputs]
        for images in sources:
            opened.callback(images.close)
        if is_export(model_folder):
            _check_channels(model_folder, channels, sources)
        if write_as is SlpFile:
            for images in sources:
                _say_what_slp_lacks(images)
        overlay = None if options.overlay is None else OverlayVideo(options.overlay, skeleton, sources)
        if overlay is not None:
            opened.callback(overlay.close)
        file = write_as(out, skeleton, sources, str(model_folder))
        problems: list[DatasetError] | None = None
        try:
            problems = predict_all(model, sources, file_sink(file, overlay.write if overlay else None))
        finally:
            file.close(complete=problems == [])
    if problems:
        kept = f"; the predictions of {file.frames} frames are in {out}" if file.frames else ""
        raise DatasetError("\n".join(map(str, problems)) + kept) from problems[0]
    return file.frames


def check_outputs(inputs: Sequence[str], outputs: Sequence[Path]) -> None:
    """Raise RunError when a file to write is one to read, or has no folder."""
    taken = {Path(path).resolve() for path in inputs}
    for path in outputs:
        if path.resolve() in taken:
            raise RunError(f"{path} is an input: choose another name for what is written")
        if path.is_dir() or not path.absolute().parent.is_dir():
            raise RunError(
                f"{path} cannot be written: {'it is a folder' if path.is_dir() else 'there is no such folder'}"
            )


def _say_what_slp_lacks(images: FrameSource) -> None:
    """Say where SLEAP will not find the images that points lie in."""
    if isinstance(images, DatasetFrames) and not images.are_at_images:
        say(
            f"{images.path}: the .slp has the points, but SLEAP will not find their images in a "
            f"{images.dataset.format} file; predict on what `hgtrain convert` makes of it to see them"
        )
    elif len(set(images.files)) < len(images.files):
        say(f"{images.path}: the .slp has the points of all pages, but SLEAP shows a file's first page alone")


def _predicting_model(folder: Path, options: PredictOptions) -> tuple[Model, Skeleton, int]:
    """Return what predicts, its skeleton, and the channels it takes."""
    if is_export(folder):
        if options.refinement not in (None, "unbiased"):
            raise RunError(f"--decode {options.refinement} needs a run: the export {folder} decodes as it was written")
        exported = ExportedModel(folder, options.batch_size or 8)
        return exported, exported.skeleton, exported.channels
    if not (folder / rundir.CONFIG).is_file():
        for name in ("model.onnx", "model_float32.tflite"):
            if (folder / name).is_file():
                raise RunError(
                    f"{folder} is an export as {name}: predict runs the run itself and exports as SavedModel; its "
                    "README.md shows how to run this one"
                )
        raise RunError(f"{folder} is neither a run directory (no {rundir.CONFIG}) nor an export (no {MODEL_FILE})")
    run = load_run(folder, options.refinement or "unbiased")
    run.predictor.batch_size = options.batch_size or run.predictor.batch_size
    return run.predictor, run.skeleton, run.predictor.geometry.channels


def _check_channels(folder: Path, channels: int, sources: Sequence[FrameSource]) -> None:
    for images in sources:
        if images.channels != channels:
            raise RunError(
                f"{images.path} has images of {images.channels} channels but the export {folder} takes {channels}: "
                "predict with the run, which converts them"
            )


def convert_dataset(source_path: str, target: Path, predictions: bool) -> "Converted":
    """Write what sleap-io reads from a file or folder to `target` in the hgtrain format; notes go to the log."""
    from hgtrain.data.convert import convert

    check_outputs([source_path], [target])
    converted = convert(source_path, target, predictions, lambda frames, total: progress(frames, total, "converting"))
    for note in converted.notes:
        say(note)
    return converted


def report(folders: Sequence[Path], comparison: Path) -> list[Path]:
    """Write report.html of each run again, and for several runs the page `comparison`; return what was written.

    Raises HgtrainError when a run or its data cannot be used.
    """
    from hgtrain.device import import_tensorflow

    import_tensorflow()
    from hgtrain.report import write_report
    from hgtrain.report_comparison import write_comparison

    with ExitStack() as opened:
        results = [_results(folder, opened) for folder in folders]
        pages = [write_report(one) for one in results]
        return [*pages, write_comparison(comparison, results)] if len(results) > 1 else pages


def _results(folder: Path, opened: ExitStack) -> "RunResults":
    """Return a run with its predictions made again; its datasets stay open as long as `opened`."""
    run = load_run(folder)
    from hgtrain.evaluate import evaluate_side, predict_side
    from hgtrain.report import RunResults

    split = opened.enter_context(reopened_split(run))
    predictions = predict_side(run.predictor, split.validation, _reading)
    return RunResults(folder, run.config, split, predictions, evaluate_side(predictions, split.validation))


@contextmanager
def reopened_split(run: Run) -> Iterator[source.Split]:
    """Give the split a run was made with, on its datasets opened again; HgtrainError when one has changed."""
    data, document = run.config.data, rundir.read_json(run.folder / rundir.SPLIT)
    if not {"train", "validation"} <= document.keys():
        raise RunError(
            f"{run.folder / rundir.SPLIT} names no frames, the labels were not at hand: give the data itself"
        )
    own = data.validation_files
    with (
        _opened(run.config, data.train_files) as train,
        nullcontext() if own is None else _opened(run.config, own) as validation,
    ):
        yield source.split_from_json(document, train, validation)


@contextmanager
def _opened(config: Config, files: Sequence[str]) -> Iterator[PoseDataset]:
    for file in files:
        if file.startswith(source.BUILTIN):
            source.builtin_file(file, lambda frames, total: progress(frames, total, "drawing the built-in dataset"))
    with closing(trial.open_all(files, config.data.annotated_only)) as dataset:
        for note in dataset.notes:
            say(note)
        yield dataset


def _reading(starts: range) -> Iterator[int]:
    return progress(starts, len(starts), "predicting", "blocks")
