"""How much memory training takes, estimated from the network's graph, and how much there is.

The factors were fitted to the peaks that `scripts/measure_memory.py` measures on a CPU; it shows how far they are off.
"""

import math
import os
import subprocess
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from hgtrain.errors import RunError

if TYPE_CHECKING:
    from hgtrain.receptive_field import LayerFacts

MIB = 2**20

OPTIMIZER_SLOTS = {"adam": 2, "sgd": 1}
"""Values an optimizer keeps for each weight."""

KEPT_BYTES = {
    "float32": {"Conv2D": 4, "BatchNormalization": 4, "MaxPooling2D": 4},
    "mixed": {"Conv2D": 2, "BatchNormalization": 2, "MaxPooling2D": 2},
}
"""Bytes of each output cell that wait for the backward pass. A skip's normalisation stands for the sum it goes into."""

LARGEST_IN_FLIGHT = 2.4
"""Temporary tensors of the size of the largest activation, in float32, that the backward pass holds at once."""

GRAPH_BYTES, LAYER_BYTES = 7 * MIB, 1.5 * MIB
"""What the compiled step itself takes: in all, and for each layer."""

LARGEST_BATCH = 4096
USABLE_PART = 0.9


class Demand(NamedTuple):
    """What decides how much memory training takes.

    ema: whether there is a moving average of the weights. blocks: of each layer, the block whose activations are
    computed again for the backward pass; empty where all are kept.
    """

    layers: Sequence["LayerFacts"]
    precision: str
    optimizer: str
    ema: bool
    blocks: Sequence[str] = ()


class Device(NamedTuple):
    """What is trained on; the CPU's memory is the machine's."""

    name: str
    memory_bytes: int


def training_memory(demand: Demand, batch_size: int) -> dict[str, int]:
    """Return the bytes that training takes at a batch size, by purpose and as `total`.

    parameters: the trained network, the copy that best.keras is written from, and the moving average. activations:
    what waits for the backward pass. workspace: temporary tensors, and the compiled step. Cached frames are not in it.
    """
    weights = 4 * sum(layer.params for layer in demand.layers)
    cells = {layer.name: math.prod(layer.output_shape) for layer in demand.layers}
    largest = 4 * batch_size * max(cells.values())
    parts = {
        "parameters": (3 if demand.ema else 2) * weights,
        "gradients": weights,
        "optimizer": OPTIMIZER_SLOTS[demand.optimizer] * weights,
        "activations": batch_size * _kept_bytes(demand, cells),
        "workspace": int(LARGEST_IN_FLIGHT * largest + GRAPH_BYTES + LAYER_BYTES * len(demand.layers)),
    }
    return parts | {"total": sum(parts.values())}


def _kept_bytes(demand: Demand, cells: dict[str, int]) -> int:
    """Return what waits for the backward pass, for one image."""
    factors = KEPT_BYTES["float32" if demand.precision == "float32" else "mixed"]
    of_layers = [cells[layer.name] * factors.get(layer.type, 0) for layer in demand.layers]
    if not demand.blocks:
        return sum(of_layers)
    of_blocks: dict[str, int] = {}
    passed_on: dict[str, int] = {}
    for block, layer, kept in zip(demand.blocks, demand.layers, of_layers, strict=True):
        of_blocks[block] = of_blocks.get(block, 0) + kept
        passed_on[block] = cells[layer.name] * factors["BatchNormalization"]
    # Little else is held while a block is computed again, so that part of it fits into the room for temporary tensors.
    temporary = LARGEST_IN_FLIGHT * factors["Conv2D"] * max(cells.values())
    return sum(passed_on.values()) + max(0, int(max(of_blocks.values()) - temporary))


def largest_batch(demand: Demand, memory_bytes: int) -> int:
    """Return the largest batch whose training fits into nine tenths of the memory, at most 4096; 0 when none does."""
    empty, one = (training_memory(demand, size)["total"] for size in (0, 1))
    fits = int((USABLE_PART * memory_bytes - empty) / (one - empty))
    return max(0, min(fits, LARGEST_BATCH))


def device_here(wanted: str = "auto") -> Device:
    """Return the first GPU that the NVIDIA driver shows, unless `wanted` is cpu, else this machine.

    Raises RunError when `wanted` is gpu and there is none.
    """
    gpu = None if wanted == "cpu" else _first_gpu()
    if gpu is None and wanted == "gpu":
        raise RunError("training.device is gpu, but nvidia-smi shows none: set training.device: auto")
    return gpu or Device("CPU", os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _first_gpu() -> Device | None:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        name, mebibytes = listed.splitlines()[0].rsplit(",", 1)
        return Device(name.strip(), int(mebibytes) * MIB)
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
