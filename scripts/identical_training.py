"""Say whether two checkouts train to the same bits: weights, optimizer, best model, metrics.

    python scripts/identical_training.py BEFORE AFTER [--only single,replicas,bfloat16]

Each trains the same 20 steps of small configs on drawn flies, one checkout after the other on this
machine, since bits differ from one kind of processor to the next. Names inside the code may differ:
`hgtrain fit` is run, and what lies in the run directories is compared. Exit status 1 when anything
differs, with what differs first and by how much.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

CONFIG = """
data: {{train: "builtin:flies", validation: 0.05}}
model:
  backbone:
    {{stem_stride: 4, max_stride: 16, output_stride: 4, stem_filters: 8, filters: 8,
     filter_increase: 4, stacks: 2}}
training:
  {{epochs: 2, steps_per_epoch: 10, batch_size: 4, seed: 3, deterministic: true, device: cpu,
   xla: off, ema: 0.9, {more}}}
output: {{tensorboard: false}}
"""
CONFIGS = {
    "single": "precision: float32, strategy: single",
    "replicas": "precision: float32, strategy: mirrored",
    "bfloat16": "precision: mixed_bfloat16, strategy: single",
}
FIT = """
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
replica = tf.config.LogicalDeviceConfiguration()
tf.config.set_logical_device_configuration(cpu, [replica] * {replicas})
from hgtrain.cli import main
main()
"""
OF_TIME = {"checkpoint_s", "data_wait_fraction", "elapsed_s", "images_per_s"}
"""Keys that no two runs have in common."""


def fit(checkout: Path, name: str, folder: Path) -> Path:
    """Return the run directory of a config trained with the code of a checkout."""
    config = folder / f"{name}.yaml"
    config.write_text(CONFIG.format(more=CONFIGS[name]))
    run = folder / name
    program = FIT.format(replicas=2 if name == "replicas" else 1)
    command = [sys.executable, "-c", program, "fit", str(config), "--run-dir", str(run)]
    environment = os.environ | {
        "PYTHONPATH": str(checkout.resolve()),
        "CUDA_VISIBLE_DEVICES": "-1",
        # Of its own: flies that the other checkout drew would hide that they are drawn differently.
        "HGTRAIN_CACHE": str(folder / "cache"),
    }
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"{checkout} does not train {name}:\n{done.stderr[-3000:]}")
    return run


def contents(run: Path) -> Iterator[tuple[str, Any]]:
    """Give what a run came to: each array of its checkpoint and best model, each row of metrics."""
    import keras
    import tensorflow as tf

    reader = tf.train.load_checkpoint(
        tf.train.latest_checkpoint(run / "checkpoints") or newest(run)
    )
    for key in sorted(reader.get_variable_to_shape_map()):
        array = reader.get_tensor(key)
        # The state of the loop is text, with times; metrics.jsonl has its figures.
        if np.issubdtype(np.asarray(array).dtype, np.number):
            yield f"checkpoint {key}", array
    for number, array in enumerate(keras.models.load_model(run / "best.keras").get_weights()):
        yield f"best.keras, array {number}", array
    for number, line in enumerate((run / "metrics.jsonl").read_text().splitlines()):
        yield f"metrics.jsonl, row {number}", without_times(json.loads(line))
    yield "evaluation.json", without_times(json.loads((run / "evaluation.json").read_text()))


def newest(run: Path) -> str:
    """Return the prefix of the checkpoint with the most steps."""
    found = (run / "checkpoints").glob("*.index")
    return str(max(found, key=lambda path: int(path.stem.split("-")[-1])).with_suffix(""))


def without_times(document: dict[str, Any]) -> dict[str, Any]:
    """Return a row without what depends on how fast the machine is."""
    return {key: value for key, value in document.items() if key not in OF_TIME}


def difference(before: list[tuple[str, Any]], after: list[tuple[str, Any]]) -> str | None:
    """Return the first difference of two contents in a sentence, None where there is none.

    Arrays are compared in their order, whatever they are called.
    """
    if len(before) != len(after):
        return f"{len(before)} things before, {len(after)} after"
    for (name, old), (other_name, new) in zip(before, after, strict=True):
        what = name if name == other_name else f"{name}, now {other_name},"
        if isinstance(old, dict):
            changed = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
            if changed:
                key = min(changed)
                return f"{what}: {key} was {old.get(key)}, is {new.get(key)}"
        elif np.asarray(old).dtype != np.asarray(new).dtype:
            return f"{what}: {np.asarray(old).dtype} before, {np.asarray(new).dtype} after"
        elif np.shape(old) != np.shape(new):
            return f"{what}: shape {np.shape(old)} before, {np.shape(new)} after"
        elif np.asarray(old).tobytes() != np.asarray(new).tobytes():
            apart = np.abs(np.asarray(old, np.float64) - np.asarray(new, np.float64)).max()
            return f"{what}: up to {apart:.3g} apart"
    return None


def main() -> None:
    """Train with both checkouts and compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--only", default=",".join(CONFIGS), help="configs, separated by commas")
    arguments = parser.parse_args()
    for checkout in (arguments.before, arguments.after):
        # Without it Python would take an installed hgtrain, and compare that with itself.
        if not (checkout / "hgtrain" / "__init__.py").is_file():
            parser.error(f"{checkout} is no checkout of hgtrain: it has no hgtrain/__init__.py")
    differs = False
    for name in arguments.only.split(","):
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for side in ("before", "after"):
                (Path(folder) / side).mkdir()
                run = fit(getattr(arguments, side), name, Path(folder) / side)
                found.append(list(contents(run)))
        first = difference(*found)
        differs |= first is not None
        arrays = sum(not isinstance(value, dict) for _, value in found[0])
        print(f"{name}: {first or f'identical, {arrays} arrays and the metrics'}", flush=True)
    sys.exit(1 if differs else 0)


if __name__ == "__main__":
    main()
