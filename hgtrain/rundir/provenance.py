"""What a run is made of.

That is versions, and what several processes that train together must have alike.
"""

import json
import platform
from importlib import metadata

from hgtrain.config.schema import Config
from hgtrain.data.split import Split, split_to_json

PACKAGES = ("hgtrain", "tensorflow", "keras", "numpy", "h5py")


def versions() -> dict[str, str]:
    """Return the version of Python and of what results depend on."""
    return {"python": platform.python_version()} | {
        name: metadata.version(name) for name in PACKAGES
    }


def what_must_agree(config: Config, split: Split) -> dict[str, str]:
    """Return what processes that train together must have alike, by what a message calls it."""
    sides = split_to_json(split).values()
    return {
        "config": json.dumps(config.model_dump(exclude={"output", "checkpoint"})),
        "dataset": json.dumps([(side["fingerprint"], side["frames"]) for side in sides]),
        "version of its packages": json.dumps(versions()),
    }
