"""How much memory training takes, estimated from the network's graph, and how much there is.

The factors were fitted to the peaks that `scripts/measure_memory.py` measures on a CPU; it shows
how far they are off.
"""

import math
import os
import subprocess
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from hgtrain.errors import RunError

if TYPE_CHECKING:
    from hgtrain.planning.receptive_field import LayerFacts

MIB = 2**20

OPTIMIZER_SLOTS = {"adam": 2, "sgd": 1}
"""Values an optimizer keeps for each weight."""

KEPT_BYTES = {
    "float32": {"Conv2D": 4, "BatchNormalization": 4, "MaxPooling2D": 4},
    "mixed": {"Conv2D": 2, "BatchNormalization": 2, "MaxPooling2D": 2},
}
"""Bytes of each output cell that wait for the backward pass.

A skip's normalisation stands for the sum it goes into.
"""

LARGEST_IN_FLIGHT = 1.4
"""How many temporary tensors the backward pass holds at once.

They are of the size of the largest activation, in float32.
"""

GRAPH_BYTES, LAYER_BYTES = 32 * MIB, 0.95 * MIB
"""What the compiled step itself takes.

In all, and for each layer, those of the moving average's network too.
"""

LARGEST_BATCH = 4096
USABLE_FRACTION = 0.9


class Demand(NamedTuple):
    """What decides how much memory training takes.

    Attributes:
        layers: Of the network.
        precision: A Keras dtype policy.
        optimizer: Its name in the config.
        ema: Whether there is a moving average of the weights.
        accumulates: Whether gradients are summed over several micro-batches.
        blocks: Of each layer, the block whose activations are computed again for the backward pass;
            empty where all are kept.
    """

    layers: Sequence["LayerFacts"]
    precision: str
    optimizer: str
    ema: bool
    accumulates: bool = False
    blocks: Sequence[str] = ()


class Device(NamedTuple):
    """What is trained on; the CPU's memory is the machine's."""

    name: str
    memory_bytes: int


def training_memory(demand: Demand, batch_size: int) -> dict[str, int]:
    """Return the bytes that training takes at a batch size, by purpose and as `total`.

    Cached frames are not in it.

    Args:
        demand: What decides it.
        batch_size: Images of a step.

    Returns:
        `parameters`: the trained network, the copy that best.keras is written from, and the moving
            average. `activations`: what waits for the backward pass. `workspace`: temporary
            tensors, and the compiled step.
    """
    weights = 4 * sum(layer.params for layer in demand.layers)
    held = _held_for_one_image(demand)
    networks = 2 if demand.ema else 1
    parts = {
        "parameters": (networks + 1) * weights,
        # Summed over micro-batches there are the old sums, the new ones and what is added, and what
        # each pass starts from.
        "gradients": (4 if demand.accumulates else 1) * weights,
        "optimizer": OPTIMIZER_SLOTS[demand.optimizer] * weights,
        "activations": batch_size * held.waiting,
        "workspace": int(
            batch_size * held.temporary + GRAPH_BYTES + networks * LAYER_BYTES * len(demand.layers)
        ),
    }
    return parts | {"total": sum(parts.values())}


class _Held(NamedTuple):
    """Bytes at the peak, for one image: what waits for the backward pass, and temporary tensors."""

    waiting: int
    temporary: float


def _held_for_one_image(demand: Demand) -> _Held:
    kept_bytes = KEPT_BYTES["float32" if demand.precision == "float32" else "mixed"]
    cells = [math.prod(layer.output_shape) for layer in demand.layers]
    kept = [
        count * kept_bytes.get(layer.type, 0)
        for count, layer in zip(cells, demand.layers, strict=True)
    ]
    if not demand.blocks:
        return _Held(sum(kept), LARGEST_IN_FLIGHT * 4 * max(cells))
    peaks, passed_on = [], 0
    for _, group in groupby(range(len(cells)), lambda i: demand.blocks[i]):
        block = list(group)
        waiting = passed_on + sum(kept[i] for i in block)
        peaks.append(_Held(waiting, LARGEST_IN_FLIGHT * 4 * max(cells[i] for i in block)))
        # While a block is computed again there is what those before it pass on, and nothing of
        # those after it.
        passed_on += cells[block[-1]] * kept_bytes["BatchNormalization"]
    return max(peaks, key=sum)


def largest_batch(demand: Demand, memory_bytes: int) -> int:
    """Return the largest batch whose training fits into nine tenths of the memory.

    It is at most 4096, and 0 when none fits.
    """
    empty, one = (training_memory(demand, size)["total"] for size in (0, 1))
    fits = int((USABLE_FRACTION * memory_bytes - empty) / (one - empty))
    return max(0, min(fits, LARGEST_BATCH))


def device_here(wanted: str = "auto") -> Device:
    """Return the first GPU that the NVIDIA driver shows, unless `wanted` is cpu, else this machine.

    Raises:
        RunError: `wanted` is gpu and there is none.
    """
    gpu = None if wanted == "cpu" else _first_gpu()
    if gpu is None and wanted == "gpu":
        raise RunError(
            "training.device is gpu, but nvidia-smi shows none: set training.device: auto"
        )
    return gpu or Device("CPU", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _first_gpu() -> Device | None:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(
            command, capture_output=True, text=True, timeout=10, check=True
        ).stdout
        name, mebibytes = listed.splitlines()[0].rsplit(",", 1)
        return Device(name.strip(), int(mebibytes) * MIB)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
