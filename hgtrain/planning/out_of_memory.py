"""What to change in a config when the device's memory is not enough."""

from collections.abc import Callable
from typing import Any

from hgtrain.config.schema import Config
from hgtrain.planning.memory import USABLE_PART, Device, training_memory

OOM_TARGET_FRACTION = 0.75
"""What an edit must bring the estimate down to, because what was estimated did not fit."""
GIB = 2**30


def out_of_memory_text(
    config: Config, device: Device, estimate: Callable[[Config], dict[str, int]]
) -> str:
    """Return what to say when training does not fit.

    It has the estimate, and up to three edits that would fit.

    Args:
        config: Of the training.
        device: The one whose memory is too small.
        estimate: Config -> what `training_memory` gives.
    """
    total = estimate(config)["total"]
    goal = min(USABLE_PART * device.memory_bytes, OOM_TARGET_FRACTION * total)
    fitting = []
    for key, values in _edits(config).items():
        for value in values:
            needed = estimate(_edited(config, key, value))["total"]
            if needed <= goal:
                fitting.append(f"--set {key}={str(value).lower()} ({_gib(needed)})")
                break
    edits = ", or ".join(fitting[:3]) or "a smaller network"
    return (
        f"out of memory on {device.name}, which has {_gib(device.memory_bytes)}: training at "
        "training.batch_size "
        f"{config.training.batch_size} takes an estimated {_gib(total)}. A new run fits with "
        f"{edits}"
    )


def estimate_for(
    image_shape: tuple[int, int, int], keypoints: int
) -> Callable[[Config], dict[str, int]]:
    """Return the function that estimates, on the CPU, the memory of a config's training.

    Args:
        image_shape: `(H, W, C)` of the dataset's images.
        keypoints: How many the dataset has.
    """

    def estimate(config: Config) -> dict[str, int]:
        import tensorflow as tf

        from hgtrain.planning.input_spec import InputSpec
        from hgtrain.planning.summary import demand_of

        with tf.device("CPU"):
            demand = demand_of(InputSpec(config, image_shape, keypoints, None))
        return training_memory(demand, config.training.batch_size)

    return estimate


def _edits(config: Config) -> dict[str, list[Any]]:
    """Return what can be lowered, and to what, the mildest first."""
    training, backbone = config.training, config.model.backbone
    return {
        "training.batch_size": [
            training.batch_size // part for part in (2, 4, 8, 16, 32) if training.batch_size >= part
        ],
        "training.recompute": [] if training.recompute else [True],
        "training.precision": ["mixed_bfloat16"] if training.precision == "float32" else [],
        "data.input_scale": [config.data.input_scale * factor for factor in (0.75, 0.5, 0.25)],
        "model.backbone.stacks": list(range(backbone.stacks - 1, 0, -1)),
    }


def _edited(config: Config, key: str, value: Any) -> Config:
    *sections, name = key.split(".")
    inner: Any = config
    path = [inner := getattr(inner, section) for section in sections]
    changed = path[-1].model_copy(update={name: value})
    for section, outer in zip(reversed(sections), reversed([config, *path[:-1]]), strict=True):
        changed = outer.model_copy(update={section: changed})
    return changed


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
