"""`hgtrain summarize`, top to bottom."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hgtrain.log import say
from hgtrain.planning.input_spec import describe
from hgtrain.planning.memory import device_here
from hgtrain.train.distributed.xla import resolve_xla

MEASURED_SECONDS = 5.0


def summarize(path: Path, overrides: Sequence[str], is_measured: bool) -> dict[str, Any]:
    """Return what the network of a config or run is and costs.

    Args:
        path: A config file or a run directory.
        overrides: Of the config's keys.
        is_measured: Whether the speed is measured too.

    Raises:
        HgtrainError: The config cannot be used, or nothing says how large images are and how many
            keypoints there are.
    """
    described = describe(path, overrides)
    device = device_here(described.training.device)
    from hgtrain.tensorflow_setup import import_tensorflow
    from hgtrain.train.distributed.devices import set_up

    import_tensorflow()
    from hgtrain.planning.summary import summarize

    summary = summarize(described, device)
    if is_measured:
        from hgtrain.train.benchmark import StepBenchmark

        say("measuring the speed of a training step")
        training = described.training
        compute = resolve_xla(described, set_up(training), path)
        speed = StepBenchmark(described, compute).steps_per_s(MEASURED_SECONDS)
        summary |= {"steps_per_s": speed, "images_per_s": speed * training.images_per_step}
    return summary
