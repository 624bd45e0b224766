"""What the commands on networks and models do, top to bottom; nothing here computes.

TensorFlow is imported only after what the user gave has been checked.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hgtrain import init_config, rundir, trial
from hgtrain.data import source
from hgtrain.data.native import LabelledImage
from hgtrain.described import Described, describe
from hgtrain.errors import DatasetError, RunError
from hgtrain.memory import Device, device_here, training_memory
from hgtrain.opened_run import Run, load_run
from hgtrain.run_results import reopened_split
from hgtrain.train.log import progress, say
from hgtrain.xla_choice import decided

if TYPE_CHECKING:
    from hgtrain.export import Sample

MEASURED_SECONDS = 5.0
CHECKED_FRAMES = CALIBRATION_FRAMES = 100


def summarize(path: Path, overrides: Sequence[str], is_measured: bool) -> dict[str, Any]:
    """Return what the network of a config or run is and costs, with its measured speed when asked for.

    Raises HgtrainError when the config cannot be used, or nothing says how large images are and how many keypoints
    there are.
    """
    described = describe(path, overrides, _drawing)
    device = device_here(described.config.training.device)
    from hgtrain.device import import_tensorflow, set_up

    import_tensorflow()
    from hgtrain.summary import input_size, summarize

    summary = summarize(described, device)
    if is_measured:
        from hgtrain.trial_steps import TrialSteps

        say("measuring the speed of a training step")
        config = described.config
        size = input_size(config, described.image_shape)
        compute = decided(config, set_up(config.training), path, described.image_shape, described.keypoints)
        trial = TrialSteps(config, size, described.keypoints, compute)
        speed = trial.steps_per_s(MEASURED_SECONDS)
        summary |= {"steps_per_s": speed, "images_per_s": speed * config.training.images_per_step}
    return summary


def _drawing(frames: Iterable[LabelledImage], total: int) -> Iterable[LabelledImage]:
    return progress(frames, total, "drawing the built-in dataset")


def export(folder: Path, out: Path, format_name: str, size: tuple[int, int] | None, data: Sequence[str]) -> list[str]:
    """Write the best model of a run for other programs to `out`; return a sentence for each file that was checked.

    size: height and width to fix where a runtime needs it. data: datasets whose frames the check is made on; empty for
    the run's own. Raises HgtrainError when the run or data cannot be used, or the check fails; `out` is then as it was.
    """
    run = load_run(folder)
    from hgtrain.export import export
    from hgtrain.export_readme import check_lines

    with _sides(run, data) as (training, validation):
        sample = _sample(training, validation)
    say(f"writing {format_name} and checking it on {len(sample.images)} frames")
    return check_lines(export(run.predictor, sample, out, format_name, size, _metadata(run)))


@contextmanager
def _sides(run: Run, data: Sequence[str]) -> Iterator[tuple[source.Side, source.Side]]:
    """Give the frames to calibrate and to check with: the run's two sides, or all of `data` for both."""
    if data:
        with closing(trial.open_all(data, run.config.data.annotated_only)) as dataset:
            from hgtrain.evaluate import check_keypoint_names

            check_keypoint_names(dataset, run.skeleton.keypoint_names, f"the run {run.folder}")
            side = source.Side(dataset, source.select_single_instance(dataset).frames)
            yield side, side
        return
    if "validation" not in rundir.read_json(run.folder / rundir.SPLIT):
        raise RunError(f"{run.folder} has no frames of its own to check an export on: name a dataset with --data")
    with reopened_split(run) as split:
        yield split.train, split.validation


def _sample(training: source.Side, validation: source.Side) -> "Sample":
    from hgtrain.export import Sample

    frames = validation.frames[:CHECKED_FRAMES]
    points, visibility = source.single_instance_labels(validation.dataset, frames)
    chosen = np.unique(np.linspace(0, len(training.frames) - 1, CALIBRATION_FRAMES).astype(int))
    return Sample(
        validation.dataset.read_images(frames),
        np.where((visibility > 0)[..., None], points, np.nan),
        training.dataset.read_images(training.frames[chosen]),
    )


def _metadata(run: Run) -> dict[str, Any]:
    split = rundir.read_json(run.folder / rundir.SPLIT)
    evaluation = run.folder / rundir.EVALUATION
    return {
        "keypoint_names": list(run.skeleton.keypoint_names),
        "edges": run.skeleton.edges,
        "symmetries": run.skeleton.symmetries,
        "image_shape": split["image_shape"],
        "config": run.config.model_dump(),
        "dataset_fingerprint": {side: split[side]["fingerprint"] for side in ("train", "validation") if side in split},
        "evaluation": rundir.read_json(evaluation) if evaluation.exists() else None,
        "versions": {name: metadata.version(name) for name in ("hgtrain", "tensorflow", "keras", "numpy")},
        "run": str(run.folder.absolute()),
    }


def import_sleap(model: Path, out: Path, train: Sequence[str], validation: Sequence[str]) -> None:
    """Write the run of a SLEAP training folder to `out`; notes go to the log.

    Raises HgtrainError when the folder or the labels cannot be used.
    """
    from hgtrain.sleap_config import read_sleap_config

    # Before TensorFlow, so that a wrong folder is answered at once.
    read_sleap_config(model)
    from hgtrain.device import import_tensorflow

    import_tensorflow()
    from hgtrain.import_sleap import import_sleap

    for note in import_sleap(model, out, train, validation):
        say(note)


def init(data: str, out: Path) -> None:
    """Write a config for a dataset on this machine to `out`, which must not be there yet.

    Raises HgtrainError when the dataset cannot be used or the file is there.
    """
    if out.exists():
        raise RunError(f"{out} is there already: choose another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise RunError(f"{out} cannot be written: there is no such folder")
    looked = _looked(data)
    device = device_here()
    kind = "CPU" if device.name == "CPU" else "GPU"
    choice = init_config.choose(looked, kind)
    size, batch_size = _fitting(looked, choice, kind, device)
    name = init_config.data_name(data, out)
    rundir.write_text(
        out, init_config.config_text(init_config.Proposal(name, looked, choice, size, batch_size, device, kind))
    )


def _looked(data: str) -> init_config.Looked:
    if data.startswith(source.BUILTIN):
        source.builtin_file(data, _drawing)
    try:
        return _look(data, annotated_only=True)
    except DatasetError as error:
        try:
            looked = _look(data, annotated_only=False)
        except DatasetError:
            raise error from None
    say(f"{data} marks every keypoint as not annotated; the config uses them all the same")
    return looked


def _look(data: str, annotated_only: bool) -> init_config.Looked:
    with closing(trial.open_dataset(data, annotated_only)) as dataset:
        return init_config.look(dataset, annotated_only)


def _fitting(
    looked: init_config.Looked, choice: init_config.Choice, kind: str, device: Device
) -> tuple[init_config.Size, int]:
    """Return the largest network and batch whose training fits into half of the device's memory."""
    from hgtrain.device import import_tensorflow

    import_tensorflow()
    from hgtrain.summary import demand_of

    for size in init_config.SIZES[kind]:
        config = init_config.as_config(choice, size)
        demand = demand_of(Described(config, looked.image_shape, looked.keypoints, None))
        for batch_size in init_config.BATCH_SIZES:
            if training_memory(demand, batch_size)["total"] <= device.memory_bytes / 2:
                return size, min(batch_size, looked.frames)
    return init_config.SIZES[kind][-1], 1
