"""`hgtrain init`, top to bottom."""

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hgtrain import files
from hgtrain.config.choices import HEAD_TYPES, TOP_DOWN, TOP_DOWN_HEADS
from hgtrain.data.sandbox.open import open_dataset
from hgtrain.errors import DatasetError, RunError
from hgtrain.log import say
from hgtrain.planning.memory import Device, device_here, training_memory
from hgtrain.signals import StopRequest

if TYPE_CHECKING:
    from hgtrain.config.head import HeadConfig
    from hgtrain.planning.dataset_stats import DatasetStats
    from hgtrain.planning.input_spec import InputSpec
    from hgtrain.planning.suggest import Choice, Proposal, Size

MEASURED_S = 3.0
ENDINGS = tuple(f"_{head.partition('_')[0]}" for head in TOP_DOWN_HEADS)
"""Of the names of the configs of top-down, before the suffix."""


@click.command("init", epilog="Example: hgtrain init flies.h5 -o flies.yaml")
@click.argument("data", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The config to write.")
@click.option(
    "--head",
    type=click.Choice([*HEAD_TYPES, TOP_DOWN]),
    help="What the network predicts; top_down: a config for each of its two networks, named "
    "CONFIG_centroid and CONFIG_centered [default: as DATA has one animal a frame, or several].",
)
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1, max=1e6),
    metavar="N",
    help="How long training may take; a step is measured for it, which takes half a minute "
    "[default: 30 on a CPU, 60 on a GPU, by an estimate].",
)
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of a config, for editors, instead."
)
def command(
    data: str | None, output: Path | None, head: str | None, minutes: float | None, schema: bool
) -> None:
    """Write a first config for a dataset and this machine.

    It has the reason beside each choice.
    """
    if schema:
        from hgtrain.config.load import config_json_schema

        click.echo(json.dumps(config_json_schema(), indent=2))
        return
    if data is None or output is None:
        raise click.UsageError("give DATA and -o CONFIG, or --schema")
    with StopRequest().listening():
        for path in init(data, output, head, minutes):
            click.echo(path)


def init(
    data: str, out: Path, head: str | None = None, minutes: float | None = None
) -> tuple[Path, ...]:
    """Write a config for a dataset on this machine.

    Args:
        data: The dataset.
        out: The file to write, which must not be there yet. Two are written for top-down, with
            `_centroid` and `_centered` before the suffix.
        head: Type of the head, or `TOP_DOWN`; None for the one that fits the labels.
        minutes: How long training of a network may take; a step is measured for it. None: as long
            as `planning.suggest.MINUTES` says, by an estimate.

    Returns:
        The files that were written.

    Raises:
        HgtrainError: The dataset cannot be used or a file is there.
    """
    paths = _paths(out, head)
    for path in paths:
        if path.exists():
            raise RunError(f"{path} is there already: choose another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise RunError(f"{out} cannot be written: there is no such folder")
    of_networks = _stats(data, _heads(head))
    _check_edges(data, of_networks[0])
    device = device_here()
    from hgtrain.planning.config_text import config_text
    from hgtrain.planning.suggest import data_name

    texts = [
        config_text(_proposal(data_name(data, path), stats, device, minutes, _introduction(paths)))
        for path, stats in zip(paths, of_networks, strict=True)
    ]
    for path, text in zip(paths, texts, strict=True):
        files.write_text(path, text)
    return paths


def _paths(out: Path, head: str | None) -> tuple[Path, ...]:
    if head != TOP_DOWN:
        return (out,)
    return tuple(out.with_stem(out.stem + ending) for ending in ENDINGS)


def _heads(head: str | None) -> Sequence["HeadConfig | None"]:
    from hgtrain.config.head import HeadConfig

    if head is None:
        return (None,)
    types = TOP_DOWN_HEADS if head == TOP_DOWN else (head,)
    return [HeadConfig.model_validate({"type": kind}) for kind in types]


def _stats(data: str, heads: Sequence["HeadConfig | None"]) -> list["DatasetStats"]:
    from hgtrain.data.builtin_datasets import draw_missing

    draw_missing([data])
    try:
        return _stats_with(data, True, heads)
    except DatasetError as error:
        try:
            stats = _stats_with(data, False, heads)
        except DatasetError:
            raise error from None
    say(f"{data} marks every keypoint as not annotated; the config uses them all the same")
    return stats


def _stats_with(
    data: str, annotated_only: bool, heads: Sequence["HeadConfig | None"]
) -> list["DatasetStats"]:
    from hgtrain.planning.dataset_stats import dataset_stats

    with closing(open_dataset(data, annotated_only)) as dataset:
        return [dataset_stats(dataset, annotated_only, head) for head in heads]


def _check_edges(data: str, stats: "DatasetStats") -> None:
    from hgtrain.planning.head_from_labels import lacks_edges

    if lacks_edges(stats.head, stats.skeleton):
        raise DatasetError(
            f"{data}: {stats.crowd.frames} frames have several animals, and the skeleton has no "
            f"edges along which a {stats.head.type} head could tell them apart: add them with "
            f"`hgtrain convert {shlex.quote(data)} NEW.h5 --edge A,B ...`, or give --head "
            f"{TOP_DOWN}, which needs none"
        )


def _introduction(paths: tuple[Path, ...]) -> tuple[str, ...]:
    """Return how the configs of top-down belong together."""
    if len(paths) == 1:
        return ()
    runs = [f"runs/{path.stem}" for path in paths]
    first, second = (path.name for path in paths)
    trained = [
        shlex.join(["hgtrain", "fit", str(path), "--run-dir", run])
        for path, run in zip(paths, runs, strict=True)
    ]
    predicted = shlex.join(["hgtrain", "predict", runs[1]])
    return (
        f"Top-down, two networks: {first} finds the animals, {second} the keypoints of each.",
        "Train both, in any order, then predict with both:",
        *(f"  {line}" for line in trained),
        f"  {predicted} INPUT -o OUT.h5 --centroids {shlex.quote(runs[0])}",
    )


def _proposal(
    name: str,
    stats: "DatasetStats",
    device: Device,
    minutes: float | None,
    introduction: tuple[str, ...],
) -> "Proposal":
    from hgtrain.planning import suggest

    kind = "CPU" if device.name == "CPU" else "GPU"
    choice = suggest.choose(stats, kind)
    head = suggest.head_section(stats, choice)
    size, batch_size = _fitting(stats, choice, head, kind, device)
    spec = _spec(stats, choice, head, size, batch_size)
    step_s = _estimated(spec, kind) if minutes is None else _measured(spec)
    planned = suggest.duration(kind, step_s, minutes, minutes is not None)
    return suggest.Proposal(
        name, stats, choice, head, size, batch_size, device, kind, planned, introduction
    )


def _spec(
    stats: "DatasetStats", choice: "Choice", head: "HeadConfig", size: "Size", batch_size: int = 1
) -> "InputSpec":
    """Return what is trained with a network of this size."""
    from hgtrain.planning import suggest
    from hgtrain.planning.input_spec import InputSpec

    config = suggest.as_config(choice, size, head)
    training = config.training.model_copy(update={"batch_size": batch_size})
    return InputSpec(config.data, config.model, training, stats.image_shape, stats.skeleton)


def _fitting(
    stats: "DatasetStats", choice: "Choice", head: "HeadConfig", kind: str, device: Device
) -> tuple["Size", int]:
    """Return the largest network and batch whose training fits into half of the device's memory."""
    from hgtrain.tensorflow_setup import import_tensorflow

    import_tensorflow()
    from hgtrain.planning import suggest
    from hgtrain.planning.summary import demand_of

    sizes = suggest.sizes(stats, kind)
    for size in sizes:
        demand = demand_of(_spec(stats, choice, head, size))
        for batch_size in suggest.BATCH_SIZES:
            if training_memory(demand, batch_size)["total"] <= device.memory_bytes / 2:
                return size, min(batch_size, stats.frames)
    return sizes[-1], 1


def _estimated(spec: "InputSpec", kind: str) -> float:
    from hgtrain.planning import suggest
    from hgtrain.planning.summary import demand_of

    flops = 2 * sum(layer.macs for layer in demand_of(spec).layers)
    cores = len(os.sched_getaffinity(0))
    return suggest.estimated_step_s(flops, spec.training.batch_size, kind, cores)


def _measured(spec: "InputSpec") -> float:
    """Return the seconds of a training step here, which it takes some to find out."""
    from hgtrain.train.benchmark import StepBenchmark
    from hgtrain.train.distributed.devices import set_up

    say("measuring how long a training step takes")
    return 1 / StepBenchmark(spec, set_up(spec.training)).steps_per_s(MEASURED_S)
