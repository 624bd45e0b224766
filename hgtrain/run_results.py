"""What the commands on a finished run do, top to bottom; nothing here computes."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgtrain import rundir
from hgtrain.config import Config
from hgtrain.data import source
from hgtrain.data.dataset import PoseDataset
from hgtrain.opened_run import Run, load_run
from hgtrain.train.log import progress, say

if TYPE_CHECKING:
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


def report(folders: Sequence[Path], comparison: Path) -> list[Path]:
    """Write report.html of each run again, and for several runs the page `comparison`; return what was written.

    Raises HgtrainError when a run or its data cannot be used.
    """
    from hgtrain.device import import_tensorflow

    import_tensorflow()
    from hgtrain.report import write_comparison, write_report

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
    """Give the split a run was made with, on its datasets opened again; DatasetError when one has changed."""
    data, document = run.config.data, rundir.read_json(run.folder / rundir.SPLIT)
    own = data.validation_files
    with (
        _opened(run.config, data.train_files) as train,
        nullcontext() if own is None else _opened(run.config, own) as validation,
    ):
        yield source.split_from_json(document, train, validation)


@contextmanager
def _opened(config: Config, files: Sequence[str]) -> Iterator[PoseDataset]:
    with closing(source.open_all(files, config.data.annotated_only)) as dataset:
        for note in dataset.notes:
            say(note)
        yield dataset


def _reading(starts: range) -> Iterator[int]:
    return progress(starts, len(starts), "predicting", "blocks")
