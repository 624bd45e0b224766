"""`hgtrain summarize`, top to bottom."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from hgtrain.commands.options import AS_JSON, OVERRIDES
from hgtrain.log import say
from hgtrain.signals import StopRequest

MEASURED_SECONDS = 5.0


@click.command(
    "summarize",
    epilog="Example: hgtrain summarize configs/reference.yaml --set model.backbone.stacks=2",
)
@click.argument("config_or_run", type=click.Path(path_type=Path))
@OVERRIDES
@AS_JSON
@click.option(
    "--measure", is_flag=True, help="Run training steps for some seconds and say how fast they are."
)
def command(config_or_run: Path, overrides: tuple[str, ...], as_json: bool, measure: bool) -> None:
    """Show a network: its layers, what they see, what it takes.

    It is that of a config or a run.
    """
    with StopRequest().listening():
        summary = summarize(config_or_run, overrides, measure)
    if as_json:
        click.echo(json.dumps(summary, indent=1, allow_nan=False))
    else:
        from hgtrain.planning.summary_table import summary_text

        click.echo(summary_text(summary))


def summarize(path: Path, overrides: Sequence[str], is_measured: bool) -> dict[str, Any]:
    """Return what the network of a config or run is and costs.

    Args:
        path: A config file or a run directory.
        overrides: Of the config's keys.
        is_measured: Whether the speed is measured too.

    Raises:
        HgtrainError: The config cannot be used, or nothing says how large images are and how many
            keypoints there are.
    """
    from hgtrain.planning.input_spec import describe
    from hgtrain.planning.memory import device_here
    from hgtrain.train.distributed.xla import resolve_xla

    spec = describe(path, overrides)
    device = device_here(spec.training.device)
    from hgtrain.tensorflow_setup import import_tensorflow
    from hgtrain.train.distributed.devices import set_up

    import_tensorflow()
    from hgtrain.planning.summary import summarize

    summary = summarize(spec, device)
    if is_measured:
        from hgtrain.train.benchmark import StepBenchmark

        say("measuring the speed of a training step")
        training = spec.training
        compute = resolve_xla(spec, set_up(training), path)
        speed = StepBenchmark(spec, compute).steps_per_s(MEASURED_SECONDS)
        summary |= {"steps_per_s": speed, "images_per_s": speed * training.images_per_step}
    return summary
