"""Whether XLA compiles the step where `training.xla: auto` leaves it open.

It is measured once for a network and a device.
"""

import hashlib
import json
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from hgtrain.errors import RunError
from hgtrain.files import cache_folder, read_json, write_json
from hgtrain.log import say
from hgtrain.planning.input_spec import InputSpec
from hgtrain.rundir.records import read_provenance

if TYPE_CHECKING:
    from hgtrain.train.distributed.devices import Compute

MEASURED_S = 1.0
"""Of each way, after it is compiled."""


def resolve_xla(spec: InputSpec, compute: "Compute", folder: Path) -> "Compute":
    """Return `compute` with what is open about XLA decided.

    Args:
        spec: What is trained.
        compute: What was resolved.
        folder: The run directory; a run that is resumed goes on as it began, or it would not be the
            same run.
    """
    if compute.jit is not None:
        return compute
    began = read_provenance(folder)
    if began.get("device") == compute.device:
        return compute._replace(jit=began["xla"] == "on", xla_reason="as the run began")
    known = cache_folder() / f"xla-{_key(spec, compute)}.json"
    with suppress(RunError, KeyError):
        advantage = float(read_json(known)["advantage"])
        return compute._replace(
            jit=advantage > 1, xla_reason=f"measured before, {advantage:.2f} times as fast"
        )
    advantage = _measured(spec, compute)
    # Where nothing can be kept, it is measured again the next time.
    with suppress(OSError):
        known.parent.mkdir(parents=True, exist_ok=True)
        write_json(known, {"advantage": advantage})
    return compute._replace(
        jit=advantage > 1, xla_reason=f"measured, {advantage:.2f} times as fast"
    )


def _key(spec: InputSpec, compute: "Compute") -> str:
    data, training = spec.data, spec.training
    what: list[object] = [
        compute.device,
        metadata.version("tensorflow"),
        spec.model.model_dump(),
        training.optimizer,
    ]
    what += [training.precision, training.batch_size, training.accumulate_steps, training.recompute]
    shape = list(map(int, spec.image_shape))
    what += [data.input_scale, data.channels, shape, spec.keypoints]
    return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def _measured(spec: InputSpec, compute: "Compute") -> float:
    """Return how many times as fast the step is with XLA.

    It is 0 where XLA cannot compile the step or has too little memory.
    """
    import keras
    import tensorflow as tf

    from hgtrain.train.benchmark import StepBenchmark

    say("measuring once whether XLA makes the step faster, which takes a minute or two")
    try:
        plain, compiled = (
            StepBenchmark(spec, compute._replace(jit=jit)).steps_per_s(MEASURED_S)
            for jit in (False, True)
        )
        return compiled / plain
    except tf.errors.OpError:
        return 0.0
    finally:
        # The weights of the run must not depend on whether something was measured.
        keras.utils.set_random_seed(spec.training.seed)
