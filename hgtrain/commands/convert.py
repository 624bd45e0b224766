"""`hgtrain convert`, top to bottom."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hgtrain.files import check_outputs
from hgtrain.log import progress, say
from hgtrain.signals import StopRequest

if TYPE_CHECKING:
    from hgtrain.data.convert.convert import Converted


@click.command(
    "convert", epilog="Example: hgtrain convert openfield-Pranav-2018-10-30 openfield.h5"
)
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
def command(
    src: str,
    dst: Path,
    predictions: bool,
    images: Path | None,
    symmetries: tuple[str, ...],
    edges: tuple[str, ...],
) -> None:
    """Write the labels of another program as an hgtrain dataset.

    SRC is what the other program wrote, a file or a folder, and DST the dataset.
    """
    with StopRequest().listening():
        converted = convert_dataset(src, dst, predictions, images, symmetries, edges)
    names = converted.skeleton.keypoint_names
    click.echo(f"{dst}: {converted.frames} frames, {len(names)} keypoints ({', '.join(names)})")


def convert_dataset(
    source_path: str,
    target: Path,
    predictions: bool,
    images: Path | None = None,
    symmetries: tuple[str, ...] = (),
    edges: tuple[str, ...] = (),
) -> "Converted":
    """Write what sleap-io reads from a file or folder to `target` in the hgtrain format.

    Notes go to the log.

    Args:
        source_path: The file or folder.
        target: The file to write.
        predictions: Whether predicted animals are taken in frames that nobody labelled.
        images: A folder with the images or films that are not where the labels say.
        symmetries: Left/right partners to add, as `LEFT,RIGHT`, or `auto` for those by name.
        edges: Edges to add, as `FROM,TO`.
    """
    from hgtrain.data.convert.added_pairs import AddedPairs
    from hgtrain.data.convert.convert import convert

    check_outputs([source_path], [target])
    converted = convert(
        source_path,
        target,
        predictions,
        lambda frames, total: progress(frames, total, "converting"),
        images,
        AddedPairs(symmetries, edges),
    )
    for note in converted.notes:
        say(note)
    return converted
