"""`hgtrain fit`, top to bottom; nothing here computes.

TensorFlow is imported only after everything the user gave has been checked, so that a mistake is
answered at once.
"""

import os
import shlex
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hgtrain import files
from hgtrain.commands.options import OVERRIDES
from hgtrain.errors import RunError
from hgtrain.log import blocks_progress, doing, say
from hgtrain.rundir import layout
from hgtrain.signals import StoppedError, StopRequest

if TYPE_CHECKING:
    from hgtrain.config.schema import Config
    from hgtrain.data.dataset import PoseDataset
    from hgtrain.data.split import Split, Subset
    from hgtrain.planning.input_spec import InputSpec
    from hgtrain.train.distributed.devices import Compute
    from hgtrain.train.failures import FileWatch
    from hgtrain.train.initial_weights import InitialWeights
    from hgtrain.train.loop import State
    from hgtrain.train.observer import NullObserver, TrainingObserver
    from hgtrain.train.trainer import Trainer


@click.command("fit", epilog="Example: hgtrain fit configs/quickstart.yaml --set training.epochs=3")
@click.argument("config_or_run", type=click.Path(path_type=Path))
@OVERRIDES
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Where results go [default: runs/<config>-<time>].",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Go on with a run from its newest checkpoint: that in RUN, or in --run-dir.",
)
def command(
    config_or_run: Path, overrides: tuple[str, ...], run_dir: Path | None, resume: bool
) -> None:
    """Train a network from a config, or go on with a run.

    The best network is kept, and evaluated on the validation frames. CONFIG_OR_RUN is a config, or
    with --resume the directory of a run.
    """
    with StopRequest().listening() as stop:
        from hgtrain.config.load import load_config
        from hgtrain.rundir.resume import config_and_run

        config, run_dir = config_and_run(config_or_run, run_dir, resume)
        loaded = load_config(config, overrides)
        from hgtrain.data.sandbox.open import start_preflight

        # While what `fit` needs is imported.
        with start_preflight(loaded.data.train_files, loaded.data.validation_files or ()):
            folder, evaluation = fit(loaded, run_dir, resume, stop)
    if evaluation is not None:
        from hgtrain.evaluate.table import evaluation_text

        click.echo(evaluation_text(folder, evaluation))
        say(next_steps(folder, loaded.model.head.sees_crops))


def next_steps(folder: Path, sees_crops: bool) -> str:
    """Return what a finished run has to look at, and what it can be used for."""
    predict = shlex.join(["hgtrain", "predict", str(folder)]) + " film.mp4 -o film.csv"
    centroids = " --centroids RUN" if sees_crops else ""
    return (
        f"report            {folder / 'report.html'}\n"
        f"best network      {folder / layout.BEST}\n"
        f"next              {predict} --overlay look.mp4{centroids}"
    )


def fit(
    config: "Config", run_dir: Path | None, resume: bool, stop: StopRequest
) -> tuple[Path, dict[str, Any] | None]:
    """Train what the config describes.

    Nothing is written before the config and the datasets are found good. Of several processes that
    train together each looks at config and data, and the chief alone writes and evaluates; the
    others give None.

    Returns:
        The run directory, and the evaluation of the best model.

    Raises:
        HgtrainError: For the user's mistakes.
        StoppedError: After a signal, with a checkpoint written.
    """
    from hgtrain.data.dataset import skeleton_of
    from hgtrain.data.open_split import open_split
    from hgtrain.data.split import split_from_json
    from hgtrain.planning.input_spec import InputSpec, check_as_described
    from hgtrain.rundir.provenance import what_must_agree
    from hgtrain.rundir.records import read_split
    from hgtrain.rundir.resume import is_finished, resumed_config
    from hgtrain.train.distributed.cluster import read_cluster
    from hgtrain.train.distributed.rendezvous import rendezvous
    from hgtrain.train.distributed.xla import resolve_xla
    from hgtrain.train.initial_weights import read_initial_weights

    cluster = read_cluster(os.environ) if config.training.strategy == "multi_worker" else None
    is_chief = cluster is None or cluster.is_chief
    folder = _run_folder(config, run_dir, resume)
    is_resumed = resume and (folder / layout.CONFIG).exists()
    if is_resumed:
        config = resumed_config(config, folder)
        if is_finished(config, folder):
            say(f"{folder} is finished; to train longer, raise training.epochs")
            return folder, files.read_json(folder / layout.EVALUATION) if is_chief else None
    elif resume:
        say(f"{folder} holds no run to continue: a new one starts")
    # Read before the data, whose caching takes longer; a checkpoint has its own weights.
    initial = None
    if is_chief and not any((folder / layout.CHECKPOINTS).glob("*.index")):
        initial = read_initial_weights(config.training, config.where)
    with open_split(config.data, config.model.head, config.where) as split:
        dataset = split.train.dataset
        check_as_described(config.data, dataset, config.where)
        if is_resumed:
            split = split_from_json(read_split(folder), dataset, split.validation.dataset)
        config = with_head_from_labels(config, split.train)
        sections = config.data, config.model, config.training
        spec = InputSpec(*sections, dataset.image_shape, skeleton_of(dataset))
        is_default = not (run_dir or config.output.run_dir)
        with (
            layout.lock_run_dir(folder, resume, is_default)
            if is_chief
            else nullcontext(folder) as folder
        ):
            for note in _notes(config, split) if is_chief else ():
                say(note)
            from hgtrain.tensorflow_setup import import_tensorflow
            from hgtrain.train.distributed.devices import set_up

            import_tensorflow(config.training.recompute)
            if cluster is not None:
                # With it all have looked at the folder: only after it is something written that
                # others see.
                rendezvous(cluster, what_must_agree(config, split))
            compute = resolve_xla(spec, set_up(config.training, cluster), folder)
            evaluation = _train_and_evaluate(config, spec, folder, split, compute, initial, stop)
    return folder, evaluation


def with_head_from_labels(config: "Config", side: "Subset") -> "Config":
    """Return the config with what is null in its head taken from the labels to train on."""
    from hgtrain.planning.head_from_labels import head_from_labels

    head = head_from_labels(
        config.model.head, side, config.model.backbone, config.data.input_scale, config.where
    )
    model = config.model.model_copy(update={"head": head})
    return config.model_copy(update={"model": model})


def _train_and_evaluate(
    config: "Config",
    spec: "InputSpec",
    folder: Path,
    split: "Split",
    compute: "Compute",
    initial: "InitialWeights | None",
    stop: StopRequest,
) -> dict[str, Any] | None:
    """Return the evaluation of the best model, None but for the chief; faults end in a sentence."""
    from hgtrain.data.split import files_of
    from hgtrain.planning.memory import device_here
    from hgtrain.planning.out_of_memory import out_of_memory_text
    from hgtrain.rundir.records import mark_finished, write_start
    from hgtrain.train.failures import FileWatch, os_errors_as_run_error

    started = time.monotonic()
    watch, is_chief = FileWatch(files_of(split)), compute.workers.is_chief
    with (
        os_errors_as_run_error(
            folder,
            lambda: out_of_memory_text(spec, device_here(spec.training.device)),
        ),
        compute.workers.peer_failures_as_run_error(f"go on with: {resume_command(folder)}"),
        print_resume_command_on_stop(folder, "stopped"),
    ):
        if is_chief:
            write_start(config, folder, split, compute)
        with closing(_trainer(config, split, compute, folder)) as trainer:
            if initial is not None:
                say(trainer.start_from(initial).sentence(initial.path))
            _train(config, folder, trainer, stop, watch, started)
        with print_resume_command_on_stop(folder, "stopped before the evaluation was done"):
            watch.check()
            evaluation = _evaluate_best(config, folder, split) if is_chief else None
        if is_chief:
            mark_finished(folder)
        compute.workers.wait()
    return evaluation


@contextmanager
def print_resume_command_on_stop(folder: Path, what: str) -> Iterator[None]:
    """Say how to go on when a signal ends the block and there is a run to go on with.

    Of nested blocks the inner one says it.
    """
    try:
        yield
    except StoppedError as stopped:
        if not stopped.is_explained and (folder / layout.CONFIG).exists():
            say(f"{what}; go on with: {resume_command(folder)}")
            stopped.is_explained = True
        raise


def resume_command(folder: Path) -> str:
    """Return the command line that goes on with the run in `folder`."""
    return shlex.join(["hgtrain", "fit", str(folder), "--resume"])


def _run_folder(config: "Config", run_dir: Path | None, resume: bool) -> Path:
    """Return the run directory.

    Raises:
        RunError: It holds a run that is not to be resumed, or none is named to resume.
    """
    folder = run_dir or (Path(config.output.run_dir) if config.output.run_dir else None)
    if resume:
        if folder is None:
            raise RunError(
                "--resume needs the run to continue: give --run-dir, or the run in place of the "
                "config"
            )
        return folder
    folder = folder or layout.default_run_dir(config.name)
    layout.check_free(folder)
    return folder


def _notes(config: "Config", split: "Split") -> Iterable[str]:
    """Return what is worth knowing of the data, each thing once."""
    from hgtrain.data.dataset import skeleton_of
    from hgtrain.planning.head_from_labels import head_notes

    sides = (*split.train.dataset.notes, *split.validation.dataset.notes)
    dataset = split.train.dataset
    of_head = head_notes(config.model.head, skeleton_of(dataset))
    return dict.fromkeys((*sides, *split.notes, *of_head, *_size_notes(config, dataset)))


def _size_notes(config: "Config", dataset: "PoseDataset") -> Iterator[str]:
    from hgtrain.coords import padded_length, resized_length

    scale, multiple = config.data.input_scale, config.model.backbone.max_stride
    height, width = (resized_length(side, scale) for side in dataset.image_shape[:2])
    padded = padded_length(height, multiple), padded_length(width, multiple)
    if padded != (height, width):
        yield (
            f"images of {height}x{width} are padded to {padded[0]}x{padded[1]}, multiples of "
            f"model.backbone.max_stride {multiple}"
        )
    if config.augmentation.flip != "none" and not dataset.symmetries:
        yield (
            f"augmentation.flip is {config.augmentation.flip}, but {dataset.path} names no "
            "left/right partners: a "
            "flipped left leg stays a left leg"
        )


def _trainer(config: "Config", split: "Split", compute: "Compute", folder: Path) -> "Trainer":
    import numpy as np

    from hgtrain.data.dataset import skeleton_of
    from hgtrain.heads import make_head
    from hgtrain.pipeline.cache import chunk_note, resolve_cache
    from hgtrain.pipeline.frame_store import store_split
    from hgtrain.pipeline.preprocess import preprocessing_of
    from hgtrain.train.networks import Networks
    from hgtrain.train.trainer import Trainer

    dataset, count = split.train.dataset, len(split.train.frames) + len(split.validation.frames)
    cache = resolve_cache(config.data.cache, count * int(np.prod(dataset.image_shape)))
    # Both sides may be one dataset.
    for note in filter(
        None, {chunk_note(side.dataset, cache) for side in (split.train, split.validation)}
    ):
        say(note)
    backbone, training = config.model.backbone, config.training
    head = make_head(
        config.model.head, skeleton_of(dataset), backbone.output_stride, config.data.complete
    )
    preprocessing = preprocessing_of(config.data, backbone.max_stride, dataset.image_shape)
    frames = store_split(split, preprocessing, cache, head.crop, blocks_progress("reading images"))
    keep = config.checkpoint.keep
    with doing("building the network"):
        networks = Networks(backbone, training, compute, preprocessing.channels, head)
        return Trainer(networks, frames, config.augmentation, training, compute, folder, keep)


def _train(
    config: "Config",
    folder: Path,
    trainer: "Trainer",
    stop: StopRequest,
    watch: "FileWatch",
    started: float,
) -> None:
    """Run the loop from where the run stands to its end."""
    from hgtrain.train.failures import not_finite_text
    from hgtrain.train.loop import InterruptedRunError, NotFiniteError, State, total_steps, train
    from hgtrain.train.plan import limit_time, make_plan

    frames = len(trainer.frames.train_samples)
    saved = trainer.restore()
    state = saved or State()
    is_over = limit_time(config.training, trainer, state, started)
    plan = make_plan(config.training, config.checkpoint, frames, state.fitted)
    total = total_steps(plan, state)
    if saved:
        say(f"resuming at step {state.step} of {total}")
    with closing(_record(config, folder, trainer, state, total, watch)) as record:
        try:
            with stop.postponed():
                train(plan, state, trainer, record, trainer.workers.deciding(stop, is_over))
                trainer.finish_writing()
        except InterruptedRunError:
            trainer.finish_writing()
            with print_resume_command_on_stop(folder, f"stopped at step {state.step}"):
                stop.leave()
        except NotFiniteError as error:
            raise RunError(not_finite_text(config.training, trainer.frames, error)) from error


def _record(
    config: "Config",
    folder: Path,
    trainer: "Trainer",
    state: "State",
    total_steps: int,
    watch: "FileWatch",
) -> "TrainingObserver | NullObserver":
    from hgtrain.report.live import LivePage
    from hgtrain.train.observer import NullObserver, TrainingObserver

    if not trainer.workers.is_chief:
        return NullObserver(watch.check)
    layout.write_rows(folder / layout.METRICS, state.history)
    observer = TrainingObserver(
        trainer,
        folder,
        range(state.step, total_steps),
        config.training,
        config.model.head,
        config.output.tensorboard,
        watch.check,
    )
    observer.show_epochs = LivePage(folder, config.training.epochs)
    return observer


def _evaluate_best(config: "Config", folder: Path, split: "Split") -> dict[str, Any]:
    """Evaluate best.keras, as it lies on the disk, on the validation frames.

    It writes evaluation.json and report.html.
    """
    from hgtrain.data.dataset import skeleton_of
    from hgtrain.evaluate.predictions import evaluate_side, labels_of, predict_side
    from hgtrain.pipeline.preview import augmented_batch
    from hgtrain.report.page import RunResults, write_report
    from hgtrain.rundir.load import load_predictor

    dataset = split.train.dataset
    predictor = load_predictor(config, folder, dataset.image_shape, skeleton_of(dataset))
    side = split.validation
    found, images_per_s = predict_side(predictor, side, blocks_progress("evaluating"))
    evaluation = evaluate_side(found, images_per_s, side, predictor.head)
    files.write_json(folder / layout.EVALUATION, evaluation)
    augmented = augmented_batch(
        split.train,
        predictor.preprocessing,
        config.augmentation,
        config.training,
        predictor.head.crop,
    )
    labels = labels_of(predictor.head, side)
    sections = config.model_dump()
    with doing("writing report.html"):
        write_report(RunResults(folder, sections, split, labels, found, evaluation, augmented))
    return evaluation
