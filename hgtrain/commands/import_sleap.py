"""`hgtrain import-sleap`, top to bottom."""

from collections.abc import Sequence
from pathlib import Path

import click

from hgtrain.log import say
from hgtrain.signals import StopRequest


@click.command(
    "import-sleap",
    epilog="Example: hgtrain import-sleap models/flies -o runs/flies",
)
@click.argument("model_dir", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="The run directory to write.",
)
@click.option(
    "--data", multiple=True, help="The labels it was trained on [default: where its config says]."
)
@click.option(
    "--validation",
    multiple=True,
    help="The labels it was validated on [default: where its config says].",
)
def command(
    model_dir: Path, output: Path, data: tuple[str, ...], validation: tuple[str, ...]
) -> None:
    """Turn a training folder of SLEAP into a run.

    It can be evaluated, exported and trained further.
    """
    with StopRequest().listening():
        import_sleap(model_dir, output, data, validation)
    click.echo(output)


def import_sleap(model: Path, out: Path, train: Sequence[str], validation: Sequence[str]) -> None:
    """Write the run of a SLEAP training folder, or of the config in it, to `out`.

    Notes go to the log.

    Raises:
        HgtrainError: The folder or the labels cannot be used.
    """
    from hgtrain.sleap_import.run import import_sleap
    from hgtrain.sleap_import.training_config import CONFIG_FILE

    if model.name == CONFIG_FILE and model.is_file():
        model = model.parent

    for note in import_sleap(model, out, train, validation):
        say(note)
