"""Options that several commands have, and kinds of values."""

from pathlib import Path
from typing import Any

import click

OVERRIDES = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the config; the value is YAML, paths are relative to the config's "
    "folder.",
)


AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


INPUTS = click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)


CENTROIDS = click.option(
    "--centroids",
    type=click.Path(path_type=Path),
    metavar="RUN",
    help="The run that finds the animals, for a run that sees crops around them.",
)


class Averages(click.ParamType):
    """What to average over, such as flips,rotations."""

    name = "AVERAGES"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the names; the command line is wrong where there are no such."""
        from hgtrain.predict.turns import read_averages

        try:
            return value if isinstance(value, tuple) else read_averages(value)
        except ValueError as error:
            self.fail(f"{error}", param, ctx)


AVERAGE = click.option(
    "--average",
    type=Averages(),
    metavar="flips,rotations",
    default=(),
    help="Average the maps over the image mirrored as in training, turned by quarters, or both.",
)


DECODERS = click.Choice(["unbiased", "integral", "local", "none"])


class ImageSize(click.ParamType):
    """HEIGHTxWIDTH in pixels, as (height, width)."""

    name = "HxW"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return height and width.

        The command line is wrong when they are not two whole numbers above 0.
        """
        if isinstance(value, tuple):
            return value
        height, _, width = value.partition("x")
        if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
            self.fail(f"{value!r} is not a height and a width such as 192x256", param, ctx)
        return int(height), int(width)
