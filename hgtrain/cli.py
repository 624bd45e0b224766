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
    "convert": ("convert", "Write the labels SRC of another program to DST in the hgtrain format."),
    "doctor": (
        "doctor",
        "Show what this machine has for training, and what keeps TensorFlow from its GPUs.",
    ),
    "evaluate": (
        "evaluate",
        "Measure the best network of RUN on its validation frames, or on the datasets DATA.",
    ),
    "export": (
        "export",
        "Write RUN's best network, from uint8 images to keypoints, for programs without hgtrain.",
    ),
    "fit": ("fit", "Train the network that CONFIG describes and evaluate the best of it."),
    "import-sleap": (
        "import_sleap",
        "Turn MODEL_DIR, a SLEAP training folder, into a run to evaluate, export or train further.",
    ),
    "init": ("init", "Write a first config for DATA and this machine, with the reasons in it."),
    "inspect": ("inspect", "Look through DATA, files that belong together, for what is wrong."),
    "predict": (
        "predict",
        "Predict the keypoints of datasets, images, folders of images and videos.",
    ),
    "report": ("report", "Write report.html of RUNS again, and compare several on one page."),
    "suggest": (
        "suggest",
        "Find the frames of videos and images that are worth labelling next.",
    ),
    "summarize": ("summarize", "Show the network of CONFIG_OR_RUN."),
}
"""Of each command the module in `commands`, which has it as `command`, and its short help."""

LISTED = {name: click.Command(name, help=line) for name, (_, line) in COMMANDS.items()}


class LazyCommands(UserDict[str, click.Command]):
    """Commands by name, each imported when it is asked for: to run it or to show its help."""

    def __getitem__(self, name: str) -> click.Command:
        module, _ = COMMANDS[name]
        with StopRequest().listening():
            command: click.Command = import_module(f"hgtrain.commands.{module}").command
        return command


class LazyGroup(click.Group):
    """A group that lists its commands without importing them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands into the help."""
        click.Group(commands=LISTED).format_commands(ctx, formatter)


@click.group(
    cls=LazyGroup,
    commands=LazyCommands(LISTED),
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="hgtrain")
def commands() -> None:
    """Train stacked-hourglass pose networks from HDF5 datasets."""


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
