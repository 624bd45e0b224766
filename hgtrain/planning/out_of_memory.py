"""What to change in a config when the device's memory is not enough."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from hgtrain.config.schema import Section
from hgtrain.planning.input_spec import InputSpec
from hgtrain.planning.memory import USABLE_FRACTION, Device, training_memory

OOM_TARGET_FRACTION = 0.75
"""What an edit must bring the estimate down to, because what was estimated did not fit."""
GIB = 2**30

AnySection = TypeVar("AnySection", bound=Section)


def estimated_memory(spec: InputSpec) -> dict[str, int]:
    """Return the bytes that training takes, as `training_memory` gives them, found on the CPU."""
    import tensorflow as tf

    from hgtrain.planning.summary import demand_of

    with tf.device("CPU"):
        demand = demand_of(spec)
    return training_memory(demand, spec.training.batch_size)


def out_of_memory_text(
    spec: InputSpec,
    device: Device,
    estimate: Callable[[InputSpec], dict[str, int]] = estimated_memory,
) -> str:
    """Return what to say when training does not fit.

    It has the estimate, and up to three edits that would fit.

    Args:
        spec: What was trained.
        device: The one whose memory is too small.
        estimate: What gives the bytes.
    """
    total = estimate(spec)["total"]
    goal = min(USABLE_FRACTION * device.memory_bytes, OOM_TARGET_FRACTION * total)
    fitting = []
    for key, values in _edits(spec).items():
        for value in values:
            needed = estimate(_edited(spec, key, value))["total"]
            if needed <= goal:
                fitting.append(f"--set {key}={str(value).lower()} ({_gib(needed)})")
                break
    edits = ", or ".join(fitting[:3]) or "a smaller network"
    return (
        f"out of memory on {device.name}, which has {_gib(device.memory_bytes)}: training at "
        "training.batch_size "
        f"{spec.training.batch_size} takes an estimated {_gib(total)}. A new run fits with "
        f"{edits}"
    )


def _edits(spec: InputSpec) -> dict[str, list[Any]]:
    """Return what can be lowered, and to what, the mildest first."""
    training, backbone = spec.training, spec.model.backbone
    return {
        "training.batch_size": [
            training.batch_size // part for part in (2, 4, 8, 16, 32) if training.batch_size >= part
        ],
        "training.recompute": [] if training.recompute else [True],
        "training.precision": ["mixed_bfloat16"] if training.precision == "float32" else [],
        "data.input_scale": [spec.data.input_scale * factor for factor in (0.75, 0.5, 0.25)],
        "model.backbone.stacks": list(range(backbone.stacks - 1, 0, -1)),
    }


def _edited(spec: InputSpec, key: str, value: Any) -> InputSpec:
    section, *keys = key.split(".")
    return spec._replace(**{section: _changed(getattr(spec, section), keys, value)})


def _changed(section: AnySection, keys: Sequence[str], value: Any) -> AnySection:
    key, *below = keys
    new = _changed(getattr(section, key), below, value) if below else value
    return section.model_copy(update={key: new})


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
