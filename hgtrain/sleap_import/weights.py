"""Weights of networks that SLEAP trained: arrays out of Keras's legacy HDF5, by layer name.

Nothing in the file is run, and no object is made from it: its description of the layers is read as
JSON and compared with the network that hgtrain has built, and only numbers are taken.
"""

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from hgtrain.errors import DatasetError, RunError
from hgtrain.hdf5 import get_dataset, open_hdf5, read_array

if TYPE_CHECKING:
    import keras

VARIABLES = {
    "Conv2D": ("kernel:0", "bias:0"),
    "BatchNormalization": ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"),
}
"""By a layer's type: what its variables are called in the file, in Keras's order."""

SETTINGS = {
    "Conv2D": ("kernel_size", "strides", "padding", "dilation_rate", "activation", "use_bias"),
    "BatchNormalization": ("epsilon",),
    "MaxPooling2D": ("pool_size", "strides", "padding"),
    "UpSampling2D": ("size", "interpolation"),
}
"""By a layer's type: what must agree, or the same weights would give other maps."""

OWN_LAYERS = ("Rescaling",)
"""Types that hgtrain adds and SLEAP does outside the network."""

MODEL_CONFIG_BYTES = 2**26


def load_sleap_weights(network: "keras.Model", path: str | Path) -> None:
    """Assign the weights in a SLEAP model's HDF5 file to the layers of the same names.

    All of them are assigned or none.

    Raises:
        HgtrainError: The file has other layers, of other types or settings, or arrays of other
            shapes, or holds them anywhere but in itself; the message names the layer.
    """
    with closing(open_hdf5(path)) as file:
        _check_layers(network, read_layers(file), file.filename)
        weights = [
            (layer, _read_arrays(file, layer)) for layer in network.layers if layer.variables
        ]
    for layer, arrays in weights:
        for variable, array in zip(layer.variables, arrays, strict=True):
            variable.assign(array)


def read_layers(file: h5py.File) -> list[dict[str, Any]]:
    """Return the layers as a Keras HDF5 file describes them, as plain JSON.

    Each has `class_name` and `config`.

    Raises:
        RunError: The file has no such description.
    """
    try:
        attribute = file.attrs.get_id("model_config")
        if attribute.get_storage_size() > MODEL_CONFIG_BYTES or attribute.shape != ():
            raise ValueError(f"a text of at most {MODEL_CONFIG_BYTES:,} bytes was expected")
        text = file.attrs["model_config"]
        if not isinstance(text, str | bytes):
            raise TypeError(f"got {type(text).__name__}, expected a text")
        layers = json.loads(text)["config"]["layers"]
        for layer in layers:
            if not isinstance(layer["class_name"], str) or not isinstance(
                layer["config"]["name"], str
            ):
                raise TypeError("a layer's class_name and name must be texts")
        return list(layers)
    except (KeyError, TypeError, ValueError, OSError, RecursionError) as error:
        raise RunError(
            f"{file.filename}: the attribute model_config, which describes the layers, cannot be "
            f"read: {error}; "
            "expected a model as SLEAP saves it (best_model.h5)"
        ) from error


def _check_layers(network: "keras.Model", described: list[dict[str, Any]], path: str) -> None:
    theirs = {layer["config"]["name"]: layer for layer in described}
    ours = {layer.name: layer for layer in network.layers if type(layer).__name__ not in OWN_LAYERS}
    for name, layer in theirs.items():
        kind = layer["class_name"]
        if name not in ours:
            raise RunError(
                f"{path}: layer {name} ({kind}) is not part of the network that "
                "training_config.json describes"
            )
        expected = type(ours[name]).__name__
        if kind != expected:
            raise RunError(
                f"{path}: layer {name} is a {kind}, expected a {expected}: nothing of it was run"
            )
        for setting in SETTINGS.get(kind, ()):
            theirs_set, wanted = (
                layer["config"].get(setting),
                _as_json(ours[name].get_config()[setting]),
            )
            if theirs_set != wanted:
                raise RunError(
                    f"{path}: layer {name}: {setting} is {theirs_set}, expected {wanted}"
                )
    missing = next((name for name in ours if name not in theirs), None)
    if missing is not None:
        raise RunError(
            f"{path}: layer {missing} is missing, the network of training_config.json has it"
        )


def _as_json(setting: Any) -> Any:
    # JSON has lists where Keras has tuples.
    return list(setting) if isinstance(setting, tuple) else setting


def _read_arrays(file: h5py.File, layer: "keras.Layer") -> list[np.ndarray]:
    arrays = []
    names = VARIABLES[type(layer).__name__]
    for name, variable in zip(names, layer.variables, strict=True):
        path = f"model_weights/{layer.name}/{layer.name}/{name}"
        expected = tuple(variable.shape)
        try:
            dataset = get_dataset(file, path, "f", (len(expected),), f"{expected} float32")
        except DatasetError as error:
            raise RunError(f"layer {layer.name}: {error}") from error
        if dataset.shape != expected:
            raise RunError(
                f"layer {layer.name}: {file.filename}:/{path} has shape {dataset.shape}, expected "
                f"{expected} for the "
                "network of training_config.json"
            )
        array = read_array(dataset)
        if not np.isfinite(array).all():
            raise RunError(
                f"layer {layer.name}: {file.filename}:/{path} holds values that are not finite"
            )
        arrays.append(array)
    return arrays
