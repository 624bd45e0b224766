"""`hgtrain inspect`, top to bottom."""

import json
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import click

from hgtrain.commands.options import AS_JSON
from hgtrain.data.inspection.report import report_text
from hgtrain.log import say
from hgtrain.signals import StopRequest


@click.command("inspect", epilog="Example: hgtrain inspect flies.h5 --plot flies.png")
@click.argument("data", nargs=-1, required=True)
@AS_JSON
@click.option(
    "--plot",
    metavar="OUT.png",
    type=click.Path(path_type=Path),
    help="Draw frames with their keypoints.",
)
def command(data: tuple[str, ...], as_json: bool, plot: Path | None) -> None:
    """Look through datasets for what is wrong with them.

    DATA are files that belong together. The exit status is 1 when they cannot be trained on.
    """
    with StopRequest().listening():
        report = inspect(data, plot)
    click.echo(json.dumps(report, indent=1, allow_nan=False) if as_json else report_text(report))
    if not report["usable"]:
        sys.exit(1)


def inspect(data: Sequence[str], plot: Path | None = None) -> dict[str, Any]:
    """Return the report on datasets that belong together, and draw some of their frames to `plot`.

    Raises:
        HgtrainError: They cannot be read at all.
    """
    from hgtrain.data.builtin_datasets import BUILTIN, builtin_file
    from hgtrain.data.inspection.checks import inspect_safely
    from hgtrain.data.open import open_all

    names = [str(builtin_file(name)) if name.startswith(BUILTIN) else name for name in data]
    report = inspect_safely(names)
    if plot is not None:
        from hgtrain.data.inspection.preview import write_preview

        # Only here, once another process has come through all of it, is the file opened in this
        # one.
        with closing(open_all(names)) as dataset:
            write_preview(dataset, plot)
        say(f"{plot}: a preview")
    return report
