"""Trains stacked-hourglass pose networks from HDF5 datasets."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["fit", "load_config", "load_run", "open_dataset"]

if TYPE_CHECKING:
    from hgtrain.api.run import load_run
    from hgtrain.api.training import fit
    from hgtrain.config.load import load_config
    from hgtrain.data.open import open_dataset

_HOMES = {
    "fit": ("hgtrain.api.training", "fit"),
    "load_config": ("hgtrain.config.load", "load_config"),
    "open_dataset": ("hgtrain.data.open", "open_dataset"),
    "load_run": ("hgtrain.api.run", "load_run"),
}


def __getattr__(name: str) -> Any:
    # On first use, so that the command line starts without NumPy, HDF5 and TensorFlow.
    if name not in _HOMES:
        raise AttributeError(f"module 'hgtrain' has no attribute {name!r}")
    from importlib import import_module

    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
