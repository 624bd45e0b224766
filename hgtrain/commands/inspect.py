"""`hgtrain inspect`, top to bottom."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hgtrain.data.builtin_datasets import BUILTIN, builtin_file
from hgtrain.data.inspection.checks import inspect_safely
from hgtrain.data.inspection.report import report_text
from hgtrain.data.open import open_all
from hgtrain.log import say

__all__ = ["inspect", "report_text"]


def inspect(data: Sequence[str], plot: Path | None = None) -> dict[str, Any]:
    """Return the report on datasets that belong together, and draw some of their frames to `plot`.

    Raises:
        HgtrainError: They cannot be read at all.
    """
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
