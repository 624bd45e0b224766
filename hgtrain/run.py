"""What each command does, top to bottom; nothing here computes.

TensorFlow is imported only after everything the user gave has been checked, so that a mistake is answered at once.
"""

import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hgtrain import rundir, trial
from hgtrain.caching import chunk_note, resolve_cache
from hgtrain.cluster import read_cluster
from hgtrain.config import Config, dump_config, load_config
from hgtrain.data import source
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.native import LabelledImage
from hgtrain.described import check_as_described
from hgtrain.errors import ConfigError, DatasetError, RunError
from hgtrain.faults import FileWatch, estimate_for, frames_of_step, named_failures, out_of_memory_text
from hgtrain.initial_weights import read_initial_weights
from hgtrain.meeting import meet
from hgtrain.memory import device_here
from hgtrain.opened_run import load_predictor
from hgtrain.provenance import versions, what_must_agree
from hgtrain.record import Record, Silence
from hgtrain.stopping import StoppedError, StopRequest
from hgtrain.train.log import progress, say
from hgtrain.train.loop import InterruptedRunError, NotFiniteError, Plan, State, train
from hgtrain.train.schedule import Schedule, default_warmup_steps
from hgtrain.xla_choice import decided

if TYPE_CHECKING:
    from hgtrain.device import Compute
    from hgtrain.trainer import Trainer

MAY_CHANGE = (
    "data.cache", "training.epochs", "training.early_stopping_epochs", "training.device", "training.strategy",
    "training.xla", "training.on_nonfinite", "checkpoint", "output",
)  # fmt: skip
"""Keys that may differ from the run's own config on resume. More epochs stretch a cosine from where the run stands."""


def fit(config: Config, run_dir: Path | None, resume: bool, stop: StopRequest) -> tuple[Path, dict[str, Any] | None]:
    """Train what the config describes; return the run directory and the evaluation of the best model.

    Nothing is written before the config and the datasets are found good. Of several processes that train together each
    looks at config and data, and the chief alone writes and evaluates; the others give None.
    Raises HgtrainError for the user's mistakes; StoppedError after a signal, with a checkpoint written.
    """
    cluster = read_cluster(os.environ) if config.training.strategy == "multi_worker" else None
    is_chief = cluster is None or cluster.is_chief
    folder = _run_folder(config, run_dir, resume)
    is_resumed = resume and (folder / rundir.CONFIG).exists()
    if is_resumed:
        _check_same_run(config, folder)
        if _is_finished(config, folder):
            say(f"{folder} is finished; to train longer, raise training.epochs")
            return folder, rundir.read_json(folder / rundir.EVALUATION) if is_chief else None
    elif resume:
        say(f"{folder} holds no run to continue: a new one starts")
    # Read before the data, whose caching takes longer; a checkpoint has its own weights.
    has_checkpoint = any((folder / rundir.CHECKPOINTS).glob("*.index"))
    initial = read_initial_weights(config) if is_chief and not has_checkpoint else None
    with _open_split(config) as split:
        check_as_described(config, split.train.dataset)
        if is_resumed:
            split = source.split_from_json(
                rundir.read_json(folder / rundir.SPLIT), split.train.dataset, split.validation.dataset
            )
        with rundir.claimed(folder, resume) if is_chief else nullcontext():
            for note in _notes(config, split) if is_chief else ():
                say(note)
            from hgtrain.device import import_tensorflow, set_up

            import_tensorflow(config.training.recompute)
            if cluster is not None:
                # With it all have looked at the folder: only after it is something written that others see.
                meet(cluster, what_must_agree(config, split))
            dataset = split.train.dataset
            compute = decided(
                config, set_up(config.training, cluster), folder, dataset.image_shape, len(dataset.keypoint_names)
            )
            watch = FileWatch(source.files_of(split))
            with (
                named_failures(folder, lambda: _out_of_memory(config, split)),
                compute.workers.loss_named(f"go on with: {_again(folder)}"),
                _resume_line(folder, "stopped"),
            ):
                if is_chief:
                    _write_start(config, folder, split, compute)
                with closing(_trainer(config, split, compute, folder)) as trainer:
                    if initial is not None:
                        say(trainer.start_from(initial).sentence(initial.path))
                    _train(config, folder, trainer, split, stop, watch)
                with _resume_line(folder, "stopped before the evaluation was done"):
                    watch.check()
                    evaluation = _evaluate_best(config, folder, split) if is_chief else None
                if is_chief:
                    _mark_finished(folder)
                compute.workers.wait()
    return folder, evaluation


def _out_of_memory(config: Config, split: source.Split) -> str:
    dataset = split.train.dataset
    estimate = estimate_for(dataset.image_shape, len(dataset.keypoint_names))
    return out_of_memory_text(config, device_here(config.training.device), estimate)


@contextmanager
def _resume_line(folder: Path, what: str) -> Iterator[None]:
    """Say how to go on when a signal ends the block and there is a run to go on with; of nested ones the inner does."""
    try:
        yield
    except StoppedError as stopped:
        if not stopped.is_explained and (folder / rundir.CONFIG).exists():
            say(f"{what}; go on with: {_again(folder)}")
            stopped.is_explained = True
        raise


def _again(folder: Path) -> str:
    return shlex.join(["hgtrain", "fit", str(folder / rundir.CONFIG), "--run-dir", str(folder), "--resume"])


def _run_folder(config: Config, run_dir: Path | None, resume: bool) -> Path:
    """Return the run directory; RunError when it holds a run that is not to be resumed, or none is named to resume."""
    folder = run_dir or (Path(config.output.run_dir) if config.output.run_dir else None)
    if resume:
        if folder is None:
            raise RunError("--resume needs the run to continue: give --run-dir")
        return folder
    folder = folder or rundir.default_run_dir(config.name)
    rundir.check_free(folder)
    return folder


@contextmanager
def _open_split(config: Config) -> Iterator[source.Split]:
    """Open the datasets of a config and split them; closed when the block ends."""
    data, others = config.data, config.data.validation_files
    # All of them first: drawing or opening the one may take longer than seeing that the other is missing.
    _check_files_exist(config, "data.train", data.train_files)
    _check_files_exist(config, "data.validation", others or ())
    with (
        _open_files(config, "data.train", data.train_files) as train,
        nullcontext() if others is None else _open_files(config, "data.validation", others) as validation,
    ):
        yield source.make_split(train, validation, data.validation_fraction, data.group_by, data.split_seed)


def _check_files_exist(config: Config, key: str, files: Sequence[str]) -> None:
    for file in files:
        if file.startswith(source.BUILTIN):
            continue
        try:
            Path(file).stat()
        except OSError as error:
            problem = "there is no file" if isinstance(error, FileNotFoundError) else f"{error.strerror}:"
            raise ConfigError(f"{config.where(key)}: {key}: {problem} {file}{_nearest_file(file)}") from error


@contextmanager
def _open_files(config: Config, key: str, files: Sequence[str]) -> Iterator[PoseDataset]:
    for file in files:
        if file.startswith(source.BUILTIN):
            source.builtin_file(file, _drawing)
    try:
        dataset = trial.open_all(files, config.data.annotated_only)
    except DatasetError as error:
        raise DatasetError(f"{config.where(key)}: {key}: {error}") from error
    with closing(dataset):
        yield dataset


def _drawing(frames: Iterable[LabelledImage], total: int) -> Iterable[LabelledImage]:
    return progress(frames, total, "drawing the built-in dataset")


def _nearest_file(file: str) -> str:
    import difflib

    folder = Path(file).parent
    try:
        names = [path.name for path in folder.iterdir()]
    except OSError as error:
        return f" ({folder}: {error.strerror})"
    near = difflib.get_close_matches(Path(file).name, names, n=1)
    return f" (nearest: {near[0]})" if near else ""


def _notes(config: Config, split: source.Split) -> Iterable[str]:
    """Return what is worth knowing of the data, each thing once."""
    sides = (*split.train.dataset.notes, *split.validation.dataset.notes)
    return dict.fromkeys((*sides, *split.notes, *_size_notes(config, split.train.dataset)))


def _size_notes(config: Config, dataset: PoseDataset) -> Iterator[str]:
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
            f"augmentation.flip is {config.augmentation.flip}, but {dataset.path} names no left/right partners: a "
            "flipped left leg stays a left leg"
        )


def _check_same_run(config: Config, folder: Path) -> None:
    """Raise RunError when the config is not the one the run in the folder was started with."""
    old = _flat(load_config(folder / rundir.CONFIG).model_dump())
    new = _flat(config.model_dump())
    changed = [
        f"{key} was {old[key]}, is {new[key]}" for key in new if new[key] != old[key] and not key.startswith(MAY_CHANGE)
    ]
    if changed:
        raise RunError(
            f"{folder} cannot be resumed with another config: {'; '.join(changed)}; resume with "
            f"{folder / rundir.CONFIG}, or start a new run (may change: {', '.join(MAY_CHANGE)})"
        )


def _is_finished(config: Config, folder: Path) -> bool:
    """Return whether the run came to its end with just these epochs to go."""
    then = load_config(folder / rundir.CONFIG).training
    now = config.training
    # A lost evaluation is made again.
    if not (folder / rundir.EVALUATION).exists():
        return False
    same_end = (then.epochs, then.early_stopping_epochs) == (now.epochs, now.early_stopping_epochs)
    return same_end and "finished" in rundir.read_json(folder / rundir.PROVENANCE)


def _mark_finished(folder: Path) -> None:
    provenance = rundir.read_json(folder / rundir.PROVENANCE)
    rundir.write_json(folder / rundir.PROVENANCE, provenance | {"finished": _now()})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _flat(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in section.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _write_start(config: Config, folder: Path, split: source.Split, compute: "Compute") -> None:
    """Write split.json, provenance.json and, last because it marks a run as started, config.yaml."""
    dataset = split.train.dataset
    skeleton = {
        "keypoint_names": list(dataset.keypoint_names),
        "edges": [list(map(int, edge)) for edge in dataset.edges],
        "symmetries": [list(map(int, pair)) for pair in dataset.symmetries],
        "image_shape": list(map(int, dataset.image_shape)),
    }
    rundir.write_json(folder / rundir.SPLIT, source.split_to_json(split) | skeleton, indent=None)
    resolved = {
        "device": compute.device,
        "strategy": compute.strategy_name,
        "workers": compute.workers.count,
        "replicas": compute.replicas,
        "precision": compute.precision,
        "xla": "on" if compute.jit else "off",
        "xla_reason": compute.xla_reason,
    }
    provenance = {
        "versions": versions(),
        "platform": platform.platform(),
        **resolved,
        "seed": config.training.seed,
        "command": sys.argv,
        "started": _now(),
    }
    rundir.write_json(folder / rundir.PROVENANCE, provenance)
    rundir.write_text(folder / rundir.CONFIG, dump_config(config))
    say(
        f"{folder}: {len(split.train.frames)} frames to train on, {len(split.validation.frames)} to validate; "
        + ", ".join(f"{key} {value}" for key, value in resolved.items() if key != "xla_reason")
        + f" ({compute.xla_reason})"
    )


def _trainer(config: Config, split: source.Split, compute: "Compute", folder: Path) -> "Trainer":
    from hgtrain.trainer import Trainer

    frames = len(split.train.frames) + len(split.validation.frames)
    cache = resolve_cache(config, frames * int(np.prod(split.train.dataset.image_shape)))
    # Both sides may be one dataset.
    for note in filter(None, {chunk_note(side.dataset, cache) for side in (split.train, split.validation)}):
        say(note)
    return Trainer(config, split, compute, folder, steps_per_epoch(config, len(split.train.frames)), cache, _reading)


def _reading(starts: range) -> Iterator[int]:
    return progress(starts, len(starts), "reading images", "blocks")


def steps_per_epoch(config: Config, frames: int) -> int:
    """Return the steps of an epoch: as configured, else one pass over the frames, at least 200."""
    return config.training.steps_per_epoch or max(200, -(-frames // config.training.images_per_step))


def _train(
    config: Config, folder: Path, trainer: "Trainer", split: source.Split, stop: StopRequest, watch: FileWatch
) -> None:
    """Run the loop from where the run stands to its end."""
    plan = make_plan(config, len(split.train.frames))
    saved = trainer.restore()
    state = saved or State()
    if saved:
        say(f"resuming at step {state.step} of {plan.epochs * plan.steps_per_epoch}")
    with closing(_record(config, folder, trainer, split, plan, state, watch)) as record:
        try:
            with stop.postponed():
                train(plan, state, trainer, record, trainer.workers.deciding(stop))
                trainer.finish_writing()
        except InterruptedRunError:
            trainer.finish_writing()
            with _resume_line(folder, f"stopped at step {state.step}"):
                stop.leave()
        except NotFiniteError as error:
            raise RunError(_not_finite(config, split, error, plan)) from error


def _record(
    config: Config, folder: Path, trainer: "Trainer", split: source.Split, plan: Plan, state: State, watch: FileWatch
) -> Record | Silence:
    if not trainer.workers.is_chief:
        return Silence(watch.check)
    rundir.write_rows(folder / rundir.METRICS, state.history)
    return Record(config, folder, trainer, split.validation, plan, state, watch.check)


def _not_finite(config: Config, split: source.Split, error: NotFiniteError, plan: Plan) -> str:
    training = config.training
    where = "in the validation"
    if not error.in_validation:
        where = f"of the frames {frames_of_step(config, split.train, error.step, plan.steps_per_epoch)}"
    skip = (
        ""
        if training.on_nonfinite == "skip" or error.in_validation
        else ", or leave such steps out with training.on_nonfinite: skip"
    )
    return (
        f"the loss is not finite at step {error.step}, {where}: look at them, lower training.learning_rate (now "
        f"{training.learning_rate}), set training.gradient_clip_norm: 1.0{skip}; the last checkpoint is as it was"
    )


def make_plan(config: Config, frames: int) -> Plan:
    """Return what the loop is to do for a config and a number of training frames."""
    training = config.training
    steps = steps_per_epoch(config, frames)
    total = training.epochs * steps
    warmup = default_warmup_steps(total) if training.warmup_steps is None else training.warmup_steps
    schedule = Schedule(training.schedule, training.learning_rate, training.min_learning_rate, warmup, total)
    return Plan(
        epochs=training.epochs,
        steps_per_epoch=steps,
        batch_size=training.images_per_step,
        checkpoint_steps=config.checkpoint.every_steps or steps,
        learning_rate=schedule.learning_rate,
        early_stopping_epochs=training.early_stopping_epochs,
        plateau_patience_epochs=training.plateau_patience_epochs if training.schedule == "plateau" else None,
        plateau_factor=training.plateau_factor,
        skips_nonfinite=training.on_nonfinite == "skip",
    )


def _evaluate_best(config: Config, folder: Path, split: source.Split) -> dict[str, Any]:
    """Evaluate best.keras, as it lies on the disk, on the validation frames; write evaluation.json, report.html."""
    from hgtrain.evaluate import evaluate_side, predict_side
    from hgtrain.report import RunResults, write_report

    predictor = load_predictor(config, folder, split.train.dataset.image_shape)
    predictions = predict_side(predictor, split.validation, _reading)
    evaluation = evaluate_side(predictions, split.validation)
    rundir.write_json(folder / rundir.EVALUATION, evaluation)
    write_report(RunResults(folder, config, split, predictions, evaluation))
    return evaluation
