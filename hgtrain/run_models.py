"""What the commands on networks and models do, top to bottom; nothing here computes.

TensorFlow is imported only after what the user gave has been checked.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hgtrain.data.native import LabelledImage
from hgtrain.described import describe
from hgtrain.memory import device_here
from hgtrain.train.log import progress, say

MEASURED_SECONDS = 5.0


def summarize(path: Path, overrides: Sequence[str], is_measured: bool) -> dict[str, Any]:
    """Return what the network of a config or run is and costs, with its measured speed when asked for.

    Raises HgtrainError when the config cannot be used, or nothing says how large images are and how many keypoints
    there are.
    """
    described = describe(path, overrides, _drawing)
    device = device_here(described.config.training.device)
    from hgtrain.device import import_tensorflow, set_up

    import_tensorflow()
    from hgtrain.summary import input_size, summarize

    summary = summarize(described, device)
    if is_measured:
        from hgtrain.trial_steps import TrialSteps

        say("measuring the speed of a training step")
        config = described.config
        size = input_size(config, described.image_shape)
        trial = TrialSteps(config, size, described.keypoints, set_up(config.training))
        speed = trial.steps_per_s(MEASURED_SECONDS)
        summary |= {"steps_per_s": speed, "images_per_s": speed * config.training.batch_size}
    return summary


def _drawing(frames: Iterable[LabelledImage], total: int) -> Iterable[LabelledImage]:
    return progress(frames, total, "drawing the built-in dataset")
