"""The command line: which commands there are, and exit statuses.

What a command takes, does and prints is in `commands`.
"""

import os
import sys
from collections import UserDict
from importlib import import_module
from pathlib import Path

import click

from hgtrain import __version__
from hgtrain.errors import HgtrainError
from hgtrain.signals import StoppedError, StopRequest

COMMANDS = {
    "convert": ("convert", "Write the labels of another program as an hgtrain dataset."),
    "inspect": ("inspect", "Look through datasets for what is wrong with them."),
    "init": ("init", "Write a first config for a dataset and this machine."),
    "summarize": ("summarize", "Show a network: its layers, what they see, what it takes."),
    "fit": ("fit", "Train a network from a config, or go on with a run."),
    "report": ("report", "Write the page of a run again, or compare several."),
    "evaluate": ("evaluate", "Measure the best network of a run on labelled frames."),
    "predict": ("predict", "Find the keypoints in datasets, images and videos."),
    "suggest": ("suggest", "Find the frames of videos that are worth labelling next."),
    "export": ("export", "Write the best network of a run for other programs."),
    "import-sleap": ("import_sleap", "Turn a training folder of SLEAP into a run."),
    "doctor": ("doctor", "Show what this machine has for training, and what is wrong."),
}
"""Of each command the module in `commands`, which has it as `command`, and its short help."""

GROUPS = {
    "Prepare data": ("convert", "inspect", "init"),
    "Train": ("summarize", "fit", "report"),
    "Use what was trained": ("evaluate", "predict", "suggest", "export"),
    "Other": ("import-sleap", "doctor"),
}
"""The commands in the order of the work."""

HELP = """Train stacked-hourglass pose networks from HDF5 datasets.

\b
A first training, of flies that hgtrain draws itself:
  hgtrain init builtin:flies -o flies.yaml
  hgtrain fit flies.yaml
"""

LISTED = {name: click.Command(name, help=line) for name, (_, line) in COMMANDS.items()}


class LazyCommands(UserDict[str, click.Command]):
    """Commands by name, each imported when it is asked for: to run it or to show its help."""

    def __getitem__(self, name: str) -> click.Command:
        module, _ = COMMANDS[name]
        with StopRequest().listening():
            command: click.Command = import_module(f"hgtrain.commands.{module}").command
        return command


class LazyGroup(click.Group):
    """A group that lists its commands, in groups, without importing them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands into the help, by group, each with the whole of its short help."""
        width = max(map(len, COMMANDS))
        for title, names in GROUPS.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), COMMANDS[name][1]) for name in names])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands in the order of the work."""
        return [name for names in GROUPS.values() for name in names]


@click.group(
    cls=LazyGroup,
    commands=LazyCommands(LISTED),
    help=HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="hgtrain")
def commands() -> None:
    """Run one of the commands."""


def main() -> None:
    """Run the command line and exit with the contract's status."""
    if sys.stderr is None:
        # Closed by who started this; libraries write there, to whatever file has the number by
        # then.
        sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
        os.dup2(sys.stderr.fileno(), 2)
    try:
        commands.main(standalone_mode=False)
    except HgtrainError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as exit_:
        sys.exit(exit_.exit_code)
    except (StoppedError, KeyboardInterrupt, click.Abort) as stopped:
        sys.exit(stopped.exit_status if isinstance(stopped, StoppedError) else 130)


if __name__ == "__main__":
    main()
