"""The command line: what can be asked for, what goes to stdout, exit statuses.

What a command does is in `commands`.
"""

import json
import os
import sys
from pathlib import Path

import click

from hgtrain import __version__
from hgtrain.commands.options import CENTROIDS, DECODERS, ImageSize
from hgtrain.config.choices import HEAD_TYPES, TOP_DOWN
from hgtrain.errors import HgtrainError
from hgtrain.signals import StoppedError, StopRequest


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hgtrain")
def commands() -> None:
    """Train stacked-hourglass pose networks from HDF5 datasets."""


OVERRIDES = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a key of the config; the value is YAML, paths are relative to the config's "
    "folder.",
)


AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")


@commands.command(epilog="Example: hgtrain fit configs/quickstart.yaml --set training.epochs=3")
@click.argument("config", type=click.Path(path_type=Path))
@OVERRIDES
@click.option(
    "--run-dir",
    type=click.Path(path_type=Path),
    help="Where results go [default: runs/<config>-<time>].",
)
@click.option(
    "--resume", is_flag=True, help="Continue the run in --run-dir from its newest checkpoint."
)
def fit(config: Path, overrides: tuple[str, ...], run_dir: Path | None, resume: bool) -> None:
    """Train the network that CONFIG describes and evaluate the best of it."""
    with StopRequest().listening() as stop:
        from hgtrain.config.load import load_config

        loaded = load_config(config, overrides)
        from hgtrain.data.sandbox.open import start_preflight

        # While what `fit` needs is imported.
        with start_preflight(loaded.data.train_files, loaded.data.validation_files or ()):
            from hgtrain.commands.fit import fit

            folder, evaluation = fit(loaded, run_dir, resume, stop)
    if evaluation is not None:
        from hgtrain.evaluate.table import evaluation_text

        click.echo(evaluation_text(folder, evaluation))


@commands.command(epilog="Example: hgtrain evaluate runs/flies-20250102-101500 other.h5 --json")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("data", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--decode", type=DECODERS, default="unbiased", show_default=True, help="How peaks are refined."
)
@CENTROIDS
def evaluate(
    run: Path, data: tuple[str, ...], as_json: bool, decode: str, centroids: Path | None
) -> None:
    """Measure the best network of RUN on its validation frames, or on the datasets DATA."""
    with StopRequest().listening():
        from hgtrain.commands.evaluate import evaluate

        evaluation = evaluate(run, data, decode, centroids)
    if as_json:
        click.echo(json.dumps(evaluation, indent=1, allow_nan=False))
    else:
        from hgtrain.evaluate.table import evaluation_text

        click.echo(evaluation_text(run, evaluation))


@commands.command(
    epilog="Example: hgtrain predict runs/flies-20250102-101500 film.mp4 -o film.slp --overlay "
    "look.mp4"
)
@click.argument("run_or_export", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "out",
    metavar="OUT",
    type=click.Path(path_type=Path),
    required=True,
    help=".h5, .csv or .slp.",
)
@click.option(
    "--overlay", type=click.Path(path_type=Path), help="A video to draw the predictions into."
)
@click.option("--decode", type=DECODERS, help="How peaks are refined [default: unbiased].")
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Images at once [default: the run's, 8 for exports].",
)
@CENTROIDS
def predict(
    run_or_export: Path,
    inputs: tuple[str, ...],
    out: Path,
    overlay: Path | None,
    decode: str | None,
    batch_size: int | None,
    centroids: Path | None,
) -> None:
    """Predict the keypoints of datasets, images, folders of images and videos."""
    with StopRequest().listening():
        from hgtrain.commands.predict import PredictOptions, predict

        options = PredictOptions(overlay, decode, batch_size, centroids)
        frames = predict(run_or_export, inputs, out, options)
    click.echo(f"{out}: {frames} frames")


@commands.command(epilog="Example: hgtrain convert openfield-Pranav-2018-10-30 openfield.h5")
@click.argument("src")
@click.argument("dst", type=click.Path(path_type=Path))
@click.option(
    "--predictions", is_flag=True, help="Take predicted animals in frames that nobody labelled."
)
@click.option(
    "--images",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Where images and films are that are not where the labels say.",
)
@click.option(
    "--symmetry",
    "symmetries",
    metavar="LEFT,RIGHT",
    multiple=True,
    help="Left/right partners to add; auto: all that the names tell.",
)
@click.option("--edge", "edges", metavar="FROM,TO", multiple=True, help="An edge to add.")
def convert(
    src: str,
    dst: Path,
    predictions: bool,
    images: Path | None,
    symmetries: tuple[str, ...],
    edges: tuple[str, ...],
) -> None:
    """Write the labels SRC of another program to DST in the hgtrain format."""
    with StopRequest().listening():
        from hgtrain.commands.convert import convert_dataset

        converted = convert_dataset(src, dst, predictions, images, symmetries, edges)
    names = converted.skeleton.keypoint_names
    click.echo(f"{dst}: {converted.frames} frames, {len(names)} keypoints ({', '.join(names)})")


@commands.command(epilog="Example: hgtrain report runs/a runs/b -o a-against-b.html")
@click.argument("runs", type=click.Path(path_type=Path), nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("comparison.html"),
    show_default=True,
    help="The page that compares several runs.",
)
def report(runs: tuple[Path, ...], output: Path) -> None:
    """Write report.html of RUNS again, and compare several on one page."""
    with StopRequest().listening():
        from hgtrain.commands.report import report

        written = report(runs, output)
    click.echo("\n".join(map(str, written)))


@commands.command(
    epilog="Example: hgtrain summarize configs/reference.yaml --set model.backbone.stacks=2"
)
@click.argument("config_or_run", type=click.Path(path_type=Path))
@OVERRIDES
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option(
    "--measure", is_flag=True, help="Run training steps for some seconds and say how fast they are."
)
def summarize(
    config_or_run: Path, overrides: tuple[str, ...], as_json: bool, measure: bool
) -> None:
    """Show the network of CONFIG_OR_RUN.

    Its layers, what they see, and what training them takes.
    """
    with StopRequest().listening():
        from hgtrain.commands.summarize import summarize

        summary = summarize(config_or_run, overrides, measure)
    if as_json:
        click.echo(json.dumps(summary, indent=1, allow_nan=False))
    else:
        from hgtrain.planning.summary_table import summary_text

        click.echo(summary_text(summary))


@commands.command(
    epilog="Example: hgtrain export runs/flies-20250102-101500 -o flies-model --format tflite"
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
def export(
    run: Path,
    output: Path,
    format_name: str,
    size: tuple[int, int] | None,
    data: tuple[str, ...],
    centroids: Path | None,
) -> None:
    """Write RUN's best network, from uint8 images to keypoints, for programs without hgtrain."""
    with StopRequest().listening():
        from hgtrain.commands.export import export

        for line in export(run, output, format_name, size, data, centroids):
            click.echo(line)


@commands.command(
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
def import_sleap(
    model_dir: Path, output: Path, data: tuple[str, ...], validation: tuple[str, ...]
) -> None:
    """Turn MODEL_DIR, a SLEAP training folder, into a run to evaluate, export or train further."""
    with StopRequest().listening():
        from hgtrain.commands.import_sleap import import_sleap

        import_sleap(model_dir, output, data, validation)
    click.echo(output)


@commands.command(epilog="Example: hgtrain init flies.h5 -o flies.yaml")
@click.argument("data", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The config to write.")
@click.option(
    "--head",
    type=click.Choice([*HEAD_TYPES, TOP_DOWN]),
    help="What the network predicts; top_down: a config for each of its two networks, named "
    "CONFIG_centroid and CONFIG_centered [default: as DATA has one animal a frame, or several].",
)
@click.option(
    "--schema", is_flag=True, help="Print the JSON Schema of a config, for editors, instead."
)
def init(data: str | None, output: Path | None, head: str | None, schema: bool) -> None:
    """Write a first config for DATA and this machine, with the reasons in it."""
    if schema:
        from hgtrain.config.load import config_json_schema

        click.echo(json.dumps(config_json_schema(), indent=2))
        return
    if data is None or output is None:
        raise click.UsageError("give DATA and -o CONFIG, or --schema")
    with StopRequest().listening():
        from hgtrain.commands.init import init

        for path in init(data, output, head):
            click.echo(path)


@commands.command("inspect", epilog="Example: hgtrain inspect flies.h5 --plot flies.png")
@click.argument("data", nargs=-1, required=True)
@AS_JSON
@click.option(
    "--plot",
    metavar="OUT.png",
    type=click.Path(path_type=Path),
    help="Draw frames with their keypoints.",
)
def inspect_data(data: tuple[str, ...], as_json: bool, plot: Path | None) -> None:
    """Look through DATA, files that belong together, for what is wrong.

    Exit status 1 when it cannot be trained on.
    """
    with StopRequest().listening():
        from hgtrain.commands.inspect import inspect, report_text

        report = inspect(data, plot)
    click.echo(json.dumps(report, indent=1, allow_nan=False) if as_json else report_text(report))
    if not report["usable"]:
        sys.exit(1)


@commands.command(epilog="Example: hgtrain doctor")
@AS_JSON
def doctor(as_json: bool) -> None:
    """Show what this machine has for training, and what keeps TensorFlow from its GPUs."""
    with StopRequest().listening():
        from hgtrain.commands.doctor import doctor, doctor_text

        found = doctor()
    click.echo(json.dumps(found, indent=1, allow_nan=False) if as_json else doctor_text(found))


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
