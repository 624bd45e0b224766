"""Whether XLA compiles the step where `training.xla: auto` leaves it open.

It is measured once for a network and a device.
"""

import hashlib
import json
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hgtrain.config.schema import Config
from hgtrain.errors import RunError
from hgtrain.files import cache_folder, read_json, write_json
from hgtrain.log import say
from hgtrain.rundir.records import read_provenance

if TYPE_CHECKING:
    from hgtrain.train.distributed.devices import Compute

MEASURED_S = 1.0
"""Of each way, after it is compiled."""


def resolve_xla(
    config: Config,
    compute: "Compute",
    folder: Path,
    image_shape: tuple[int, int, int],
    keypoints: int,
) -> "Compute":
    """Return `compute` with what is open about XLA decided.

    Args:
        config: Of the run.
        compute: What was resolved.
        folder: The run directory; a run that is resumed goes on as it began, or it would not be the
            same run.
        image_shape: `(H, W, C)` of the dataset's images.
        keypoints: How many the dataset has.
    """
    if compute.jit is not None:
        return compute
    began = read_provenance(folder)
    if began.get("device") == compute.device:
        return compute._replace(jit=began["xla"] == "on", xla_reason="as the run began")
    known = cache_folder() / f"xla-{_key(config, compute, image_shape, keypoints)}.json"
    with suppress(RunError, KeyError):
        advantage = float(read_json(known)["advantage"])
        return compute._replace(
            jit=advantage > 1, xla_reason=f"measured before, {advantage:.2f} times as fast"
        )
    advantage = _measured(config, compute, image_shape, keypoints)
    # Where nothing can be kept, it is measured again the next time.
    with suppress(OSError):
        known.parent.mkdir(parents=True, exist_ok=True)
        write_json(known, {"advantage": advantage})
    return compute._replace(
        jit=advantage > 1, xla_reason=f"measured, {advantage:.2f} times as fast"
    )


def _key(
    config: Config, compute: "Compute", image_shape: tuple[int, int, int], keypoints: int
) -> str:
    training = config.training
    what: list[object] = [
        compute.device,
        metadata.version("tensorflow"),
        config.model.model_dump(),
        training.optimizer,
    ]
    what += [training.precision, training.batch_size, training.accumulate_steps, training.recompute]
    what += [config.data.input_scale, config.data.channels, list(map(int, image_shape)), keypoints]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _measured(
    config: Config, compute: "Compute", image_shape: tuple[int, int, int], keypoints: int
) -> float:
    """Return how many times as fast the step is with XLA.

    It is 0 where XLA cannot compile the step or has too little memory.
    """
    import keras
    import tensorflow as tf

    from hgtrain.planning.summary import input_size
    from hgtrain.train.benchmark import StepBenchmark

    say("measuring once whether XLA makes the step faster, which takes a minute or two")
    size = input_size(config, image_shape)
    try:
        plain, compiled = (
            StepBenchmark(config, size, keypoints, compute._replace(jit=jit)).steps_per_s(
                MEASURED_S
            )
            for jit in (False, True)
        )
        return compiled / plain
    except tf.errors.OpError:
        return 0.0
    finally:
        # The weights of the run must not depend on whether something was measured.
        keras.utils.set_random_seed(config.training.seed)
