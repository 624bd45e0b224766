"""`hgtrain convert`, top to bottom."""

from pathlib import Path
from typing import TYPE_CHECKING

from hgtrain.files import check_outputs
from hgtrain.log import progress, say

if TYPE_CHECKING:
    from hgtrain.data.convert.convert import Converted


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
