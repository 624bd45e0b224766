"""Compare the memory that `hgtrain summarize` expects with the peak of training on the CPU.

    python scripts/measure_memory.py

Each network trains a few steps in a process of its own. The peak is the largest resident memory
less what the process held with TensorFlow imported. Exits with 1 when an estimate is more than a
quarter off.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

SMALL = {"stem_filters": 16, "filters": 32, "filter_increase": 16, "stacks": 1, "max_stride": 32}
MEDIUM = {"stem_filters": 32, "filters": 64, "filter_increase": 32, "stacks": 2}
LARGE = {"stem_filters": 64, "filters": 128, "filter_increase": 64, "stacks": 1}
FINE = {**SMALL, "stem_stride": 2, "output_stride": 2}
CASES: dict[str, tuple[dict[str, int], int, int, dict[str, Any]]] = {
    "small, batch 8 of 128x128": (SMALL, 128, 8, {}),
    "medium, two stacks, batch 8 of 192x192": (MEDIUM, 192, 8, {}),
    "medium, two stacks, batch 16 of 256x256, bfloat16": (
        MEDIUM,
        256,
        16,
        {"precision": "mixed_bfloat16"},
    ),
    "large, batch 4 of 256x256": (LARGE, 256, 4, {}),
    "stride 2, batch 8 of 256x256": (FINE, 256, 8, {}),
    "three stacks, batch 8 of 256x256": ({**SMALL, "stacks": 3, "max_stride": 64}, 256, 8, {}),
    "medium, averaged, batch 2 of 384x384": (MEDIUM, 384, 2, {"ema": 0.99}),
    "medium, two batches of 4 of 192x192": (MEDIUM, 192, 4, {"accumulate_steps": 2}),
    "medium, batch 8 of 192x192, recomputed": (MEDIUM, 192, 8, {"recompute": True}),
    "reference, batch 8 of 192x192": ({}, 192, 8, {}),
    "reference, batch 4 of 512x512": ({}, 512, 4, {}),
    "reference, batch 4 of 512x512, recomputed": ({}, 512, 4, {"recompute": True}),
}
KEYPOINTS = 20
TOLERANCE = 0.25


def main() -> None:
    """Print a line for each network."""
    worst = 0.0
    for name in CASES:
        command = [sys.executable, __file__, name]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        expected, measured = json.loads(done.stdout.splitlines()[-1])
        off = expected / measured - 1
        worst = max(worst, abs(off))
        print(
            f"{name:<52} expected {expected / 2**20:6.0f} MiB, measured {measured / 2**20:6.0f} "
            f"MiB, {off:+.0%}"
        )
    sys.exit(worst > TOLERANCE)


def measure(name: str) -> tuple[int, int]:
    """Return the expected and the measured bytes of a case."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    from hgtrain.tensorflow_setup import import_tensorflow

    backbone, size, batch_size, options = CASES[name]
    # As fit does, before any module imports TensorFlow itself: afterwards it cannot be told to give
    # memory back.
    import_tensorflow(options.get("recompute", False))
    from hgtrain.config.schema import BackboneConfig, DataConfig, ModelConfig, TrainingConfig
    from hgtrain.planning.input_spec import InputSpec
    from hgtrain.planning.memory import Device
    from hgtrain.planning.summary import summarize
    from hgtrain.skeleton import unnamed_skeleton
    from hgtrain.train.benchmark import StepBenchmark
    from hgtrain.train.distributed.devices import set_up

    spec = InputSpec(
        DataConfig(train="none.h5"),
        ModelConfig(backbone=BackboneConfig(**backbone)),
        TrainingConfig(batch_size=batch_size, device="cpu", **options),
        (size, size, 1),
        unnamed_skeleton(KEYPOINTS),
    )
    compute = set_up(spec.training)
    before = resident("VmRSS")
    trial = StepBenchmark(spec, compute)
    # As after a validation, from which on there is a copy of the best weights.
    trial.networks.keep_best()
    for _ in range(3):
        trial.run()
    measured = resident("VmHWM") - before
    summary = summarize(spec, Device("CPU", 2**33))
    return summary["memory"]["total"], measured


def resident(key: str) -> int:
    """Return VmRSS, the resident memory of this process, or VmHWM, its peak, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
    else:
        main()
