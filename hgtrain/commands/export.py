"""`hgtrain export`, top to bottom."""

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hgtrain import files
from hgtrain.commands.options import AVERAGE, CENTROIDS, ImageSize
from hgtrain.data.sandbox.open import open_all
from hgtrain.errors import RunError
from hgtrain.log import say
from hgtrain.rundir import layout
from hgtrain.signals import StopRequest
from hgtrain.skeleton import check_same_keypoints

if TYPE_CHECKING:
    from hgtrain.config.schema import Config
    from hgtrain.data.split import Subset
    from hgtrain.export.check import Sample
    from hgtrain.heads import Head
    from hgtrain.poses import Poses
    from hgtrain.rundir.load import CheckedRun, Run

NEEDED = {"onnx": ("onnxruntime", "tf2onnx")}
"""Libraries that a format needs and that hgtrain is installed without."""
CHECKED_FRAMES = CALIBRATION_FRAMES = 100


@click.command(
    "export",
    epilog="Example: hgtrain export runs/flies-20250102-101500 -o flies-model --format tflite",
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="The folder to write."
)
@click.option(
    "--format",
    "format_name",
    type=click.Choice(["savedmodel", "tflite", "onnx"]),
    default="savedmodel",
    show_default=True,
    help="What reads the model: TensorFlow, TFLite (LiteRT), or ONNX.",
)
@click.option(
    "--size",
    type=ImageSize(),
    help="Fix the size of the images [default: any; tflite: the dataset's].",
)
@click.option(
    "--data", multiple=True, help="Check on the frames of this dataset [default: the run's own]."
)
@CENTROIDS
@AVERAGE
def command(
    run: Path,
    output: Path,
    format_name: str,
    size: tuple[int, int] | None,
    data: tuple[str, ...],
    centroids: Path | None,
    average: tuple[str, ...],
) -> None:
    """Write the best network of a run for other programs.

    It leads from uint8 images to keypoints in their pixels, and needs no hgtrain.
    """
    with StopRequest().listening():
        for line in export(run, output, format_name, size, data, centroids, average):
            click.echo(line)


def export(
    folder: Path,
    out: Path,
    format_name: str,
    size: tuple[int, int] | None,
    data: Sequence[str],
    centroids: Path | None = None,
    average: Sequence[str] = (),
) -> list[str]:
    """Write the best model of a run for other programs to `out`.

    Args:
        folder: The run directory.
        out: The folder to write.
        format_name: A key of FORMATS.
        size: Height and width to fix where a runtime needs it.
        data: Datasets whose frames the check is made on; empty for the run's own.
        centroids: The run that finds the animals for one that sees crops around them.
        average: Of `predict.turns.AVERAGES`: over what the model is to average.

    Returns:
        A sentence for each file that was checked.

    Raises:
        HgtrainError: The run or data cannot be used, or the check fails; `out` is then as it was.
    """
    from hgtrain.rundir.load import check_finds_animals, check_run, load_run

    if (folder / layout.CONFIG).is_file():
        check_finds_animals(folder, centroids)
    checked = check_run(folder, centroids)
    files.check_new_folder(out)
    _check_installed(format_name)
    with _sides(checked, data) as (training, validation):
        run = load_run(folder, centroids=centroids, average=average)
        from hgtrain.export.export import export
        from hgtrain.export.readme import check_lines

        sample = _sample(training, validation, run.predictor.head)
    say(f"writing {format_name} and checking it on {len(sample.images)} frames")
    described = _metadata(run, centroids) | {"average": list(average)}
    return check_lines(export(run.predictor, sample, out, format_name, size, described))


def _check_installed(format_name: str) -> None:
    """Raise RunError where a library is missing that a format needs."""
    for library in NEEDED.get(format_name, ()):
        if find_spec(library) is None:
            raise RunError(
                f"--format {format_name} needs {library}: pip install 'hgtrain[{format_name}]'"
            )


@contextmanager
def _sides(run: "CheckedRun", data: Sequence[str]) -> Iterator[tuple["Subset", "Subset"]]:
    """Give the frames to calibrate and to check with.

    They are the run's two sides, or all of `data` for both.
    """
    from hgtrain.data.selection import select_frames
    from hgtrain.data.split import Subset
    from hgtrain.rundir.load import reopened_split
    from hgtrain.rundir.records import read_split

    if data:
        with closing(open_all(data, run.config.data.annotated_only)) as dataset:
            names = run.skeleton.keypoint_names
            where = f"the run {run.folder}"
            check_same_keypoints(dataset.keypoint_names, names, dataset.path, where)
            side = Subset(dataset, select_frames(dataset, run.config.model.head).frames)
            yield side, side
        return
    if "validation" not in read_split(run.folder):
        raise RunError(
            f"{run.folder} has no frames of its own to check an export on: name a dataset with "
            "--data"
        )
    with reopened_split(run) as split:
        yield split.train, split.validation


def _sample(training: "Subset", validation: "Subset", head: "Head") -> "Sample":
    import numpy as np

    from hgtrain.data.split import Subset
    from hgtrain.evaluate.pairs import in_place_of_labels, pair_animals
    from hgtrain.evaluate.predictions import labels_of
    from hgtrain.export.check import Sample

    checked = Subset(validation.dataset, validation.frames[:CHECKED_FRAMES])
    points, visibility = labels_of(head, checked)
    chosen = np.unique(np.linspace(0, len(training.frames) - 1, CALIBRATION_FRAMES).astype(int))

    def in_place(found: "Poses") -> "Poses":
        return in_place_of_labels(found, pair_animals(points, visibility, found.points))

    return Sample(
        checked.dataset.read_images(checked.frames),
        np.where((visibility > 0)[..., None], points, np.nan),
        training.dataset.read_images(training.frames[chosen]),
        in_place if head.several_animals else None,
    )


def _metadata(run: "Run", centroids: Path | None) -> dict[str, Any]:
    from hgtrain.config.load import load_config
    from hgtrain.rundir.records import read_split

    skeleton = run.found_skeleton
    found_by = None
    if centroids is not None:
        found_by = _source(centroids, load_config(centroids / layout.CONFIG))
    return {
        "keypoint_names": list(skeleton.keypoint_names),
        "edges": skeleton.edges,
        "symmetries": skeleton.symmetries,
        "image_shape": read_split(run.folder)["image_shape"],
        **_source(run.folder, run.config),
        "centroids": found_by,
        "versions": {
            name: metadata.version(name) for name in ("hgtrain", "tensorflow", "keras", "numpy")
        },
    }


def _source(folder: Path, config: "Config") -> dict[str, Any]:
    """Return which run a network is of, how it was trained and how good it was."""
    from hgtrain.rundir.records import read_split

    split, evaluation = read_split(folder), folder / layout.EVALUATION
    return {
        "run": str(folder.absolute()),
        "config": config.model_dump(),
        "dataset_fingerprint": {
            side: split[side]["fingerprint"] for side in ("train", "validation") if side in split
        },
        "evaluation": files.read_json(evaluation) if evaluation.exists() else None,
    }
