"""Writes what a run says of itself: split.json, provenance.json, config.yaml."""

import platform
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from hgtrain import files
from hgtrain.config.load import dump_config
from hgtrain.config.schema import Config
from hgtrain.data.split import Split, split_to_json
from hgtrain.log import say
from hgtrain.rundir import layout
from hgtrain.rundir.provenance import versions

if TYPE_CHECKING:
    from hgtrain.train.distributed.devices import Compute


def mark_finished(folder: Path) -> None:
    """Note in provenance.json that the run came to its end."""
    provenance = files.read_json(folder / layout.PROVENANCE)
    files.write_json(folder / layout.PROVENANCE, provenance | {"finished": _now()})


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def write_start(config: Config, folder: Path, split: Split, compute: "Compute") -> None:
    """Write split.json, provenance.json and, last because it marks a run as started, config.yaml."""
    dataset = split.train.dataset
    skeleton = {
        "keypoint_names": list(dataset.keypoint_names),
        "edges": [list(map(int, edge)) for edge in dataset.edges],
        "symmetries": [list(map(int, pair)) for pair in dataset.symmetries],
        "image_shape": list(map(int, dataset.image_shape)),
    }
    files.write_json(folder / layout.SPLIT, split_to_json(split) | skeleton, indent=None)
    resolved = {
        "device": compute.device,
        "strategy": compute.strategy_name,
        "workers": compute.workers.count,
        "replicas": compute.replicas,
        "precision": compute.precision,
        "xla": "on" if compute.jit else "off",
        "xla_reason": compute.xla_reason,
    }
    provenance = {
        "versions": versions(),
        "platform": platform.platform(),
        **resolved,
        "seed": config.training.seed,
        "command": sys.argv,
        "started": _now(),
    }
    files.write_json(folder / layout.PROVENANCE, provenance)
    files.write_text(folder / layout.CONFIG, dump_config(config))
    say(
        f"{folder}: {len(split.train.frames)} frames to train on, {len(split.validation.frames)} "
        "to validate; "
        + ", ".join(f"{key} {value}" for key, value in resolved.items() if key != "xla_reason")
        + f" ({compute.xla_reason})"
    )
