"""What the commands on datasets and on this machine do; nothing here computes."""

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from hgtrain.data import source
from hgtrain.data.native import LabelledImage
from hgtrain.doctor import doctor_text, examine
from hgtrain.inspect_data import inspect_safely, report_text
from hgtrain.train.log import progress, say

__all__ = ["doctor", "doctor_text", "inspect", "report_text"]


def inspect(data: Sequence[str], plot: Path | None = None) -> dict[str, Any]:
    """Return the report on datasets that belong together, and draw some of their frames to `plot`.

    Raises HgtrainError when they cannot be read at all.
    """
    names = [str(source.builtin_file(name, _drawing)) if name.startswith(source.BUILTIN) else name for name in data]
    report = inspect_safely(names)
    if plot is not None:
        from hgtrain.inspect_plot import write_preview

        # Only here, once another process has come through all of it, is the file opened in this one.
        with closing(source.open_all(names)) as dataset:
            write_preview(dataset, plot)
        say(f"{plot}: a preview")
    return report


def _drawing(frames: Iterable[LabelledImage], total: int) -> Iterable[LabelledImage]:
    return progress(frames, total, "drawing the built-in dataset")


def doctor() -> dict[str, Any]:
    """Return what this machine has for training, and what keeps TensorFlow from its GPUs."""
    say("looking at TensorFlow, which takes some seconds")
    return examine()
