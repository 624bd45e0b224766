"""What a run says of itself: only here are split.json and provenance.json read and written."""

import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hgtrain import files
from hgtrain.config.load import dump_config
from hgtrain.config.schema import Config
from hgtrain.data.split import Split, split_to_json
from hgtrain.errors import RunError
from hgtrain.log import say
from hgtrain.rundir import layout
from hgtrain.rundir.provenance import versions
from hgtrain.skeleton import Skeleton

if TYPE_CHECKING:
    from hgtrain.train.distributed.devices import Compute


def read_split(folder: Path) -> dict[str, Any]:
    """Return a run's split.json: the frames of each side, the skeleton, `image_shape`.

    Raises:
        RunError: It is missing or damaged.
    """
    document: dict[str, Any] = files.read_json(folder / layout.SPLIT)
    return document


def write_split(
    folder: Path, sides: dict[str, Any], skeleton: Skeleton, image_shape: Sequence[int]
) -> None:
    """Write a run's split.json.

    Args:
        folder: The run directory.
        sides: As `split_to_json` gives them; empty where the labels are not at hand.
        skeleton: Of the dataset.
        image_shape: `(H, W, C)` of the dataset's images.
    """
    described = {
        "keypoint_names": list(skeleton.keypoint_names),
        "edges": [list(map(int, edge)) for edge in skeleton.edges],
        "symmetries": [list(map(int, pair)) for pair in skeleton.symmetries],
        "image_shape": list(map(int, image_shape)),
    }
    files.write_json(folder / layout.SPLIT, sides | described, indent=None)


def read_provenance(folder: Path) -> dict[str, Any]:
    """Return a run's provenance.json, empty where no run has begun.

    Raises:
        RunError: It is damaged.
    """
    path = folder / layout.PROVENANCE
    document: dict[str, Any] = files.read_json(path) if path.exists() else {}
    return document


def write_provenance(folder: Path, document: dict[str, Any], seed: int) -> None:
    """Write a run's provenance.json.

    Args:
        folder: The run directory.
        document: What is special to this run: versions, device.
        seed: Of the training.
    """
    begun = {"seed": seed, "command": sys.argv, "started": _now()}
    files.write_json(folder / layout.PROVENANCE, document | begun)


def mark_finished(folder: Path) -> None:
    """Note in provenance.json that the run came to its end."""
    finished = {"finished": _now()}
    files.write_json(folder / layout.PROVENANCE, read_provenance(folder) | finished)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def write_start(config: Config, folder: Path, split: Split, compute: "Compute") -> None:
    """Write the records of a run that starts: split.json, provenance.json and config.yaml.

    config.yaml is the last because it marks a run as started.
    """
    dataset = split.train.dataset
    skeleton = Skeleton(dataset.keypoint_names, dataset.edges, dataset.symmetries)
    write_split(folder, split_to_json(split), skeleton, dataset.image_shape)
    resolved = {
        "device": compute.device,
        "strategy": compute.strategy_name,
        "workers": compute.workers.count,
        "replicas": compute.replicas,
        "precision": compute.precision,
        "xla": "on" if compute.jit else "off",
        "xla_reason": compute.xla_reason,
    }
    machine = {"versions": versions(), "platform": platform.platform()}
    write_provenance(folder, machine | resolved, config.training.seed)
    files.write_text(folder / layout.CONFIG, dump_config(config))
    say(
        f"{folder}: {len(split.train.frames)} frames to train on, {len(split.validation.frames)} "
        "to validate"
    )
    shown = ("device", "strategy", "workers", "replicas", "precision")
    say(", ".join(f"{key} {resolved[key]}" for key in shown))
    say(f"xla {resolved['xla']}: {compute.xla_reason}")


def read_described_data(folder: Path) -> tuple[Skeleton, tuple[int, int, int]]:
    """Return the skeleton and the image shape that a split.json holds.

    Raises:
        RunError: It lacks them.
    """
    split, path = read_split(folder), folder / layout.SPLIT
    try:
        edges, symmetries = (
            tuple((int(a), int(b)) for a, b in split.get(name, ()))
            for name in ("edges", "symmetries")
        )
        height, width, channels = split["image_shape"]
        return Skeleton(tuple(split["keypoint_names"]), edges, symmetries), (
            height,
            width,
            channels,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is damaged: {error!r}") from error
