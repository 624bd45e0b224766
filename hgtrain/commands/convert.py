"""`hgtrain convert`, top to bottom."""

from pathlib import Path
from typing import TYPE_CHECKING

from hgtrain.files import check_outputs
from hgtrain.log import progress, say

if TYPE_CHECKING:
    from hgtrain.data.convert.convert import Converted


def convert_dataset(source_path: str, target: Path, predictions: bool) -> "Converted":
    """Write what sleap-io reads from a file or folder to `target` in the hgtrain format.

    Notes go to the log.
    """
    from hgtrain.data.convert.convert import convert

    check_outputs([source_path], [target])
    converted = convert(
        source_path,
        target,
        predictions,
        lambda frames, total: progress(frames, total, "converting"),
    )
    for note in converted.notes:
        say(note)
    return converted
