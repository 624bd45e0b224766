"""Weights to start a training from: arrays out of a run or a .keras file, by layer name.

Only the archive's HDF5 file of weights is read; no model is made from it.
"""

import re
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

import h5py
import numpy as np

from hgtrain.data.sandbox.process import Sandbox, answer_with
from hgtrain.errors import DatasetError, RunError
from hgtrain.hdf5 import get_dataset, get_item, open_hdf5, read_array
from hgtrain.rundir import layout
from hgtrain.rundir.records import read_split

if TYPE_CHECKING:
    import keras

    from hgtrain.config.schema import TrainingConfig, Where

KEY = "training.initial_weights"
WEIGHTS_IN_ARCHIVE = "model.weights.h5"
MAX_BYTES = 2**34
OF_KEYPOINTS = re.compile(r"Head$|^reinject\d+_maps$")
"""Layers with weights for each keypoint."""


class InitialWeights(NamedTuple):
    """Weights to start from.

    Attributes:
        path: Where they are from.
        arrays: By layer name, in the order of the layer's variables.
        keypoint_names: None where they are not known.
    """

    path: Path
    arrays: dict[str, list[np.ndarray]]
    keypoint_names: tuple[str, ...] | None


class TransferReport(NamedTuple):
    """What became of initial weights.

    Attributes:
        matched: Layers that got weights.
        new: Layers of the network that had none to get.
        unused: Layers of the file that were not taken.
    """

    matched: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def sentence(self, path: Path) -> str:
        """Return what was done, for the log."""
        parts = [f"{len(self.matched)} layers matched"]
        parts += [f"new: {', '.join(self.new)}"] if self.new else []
        parts += [f"left: {', '.join(self.unused)}"] if self.unused else []
        return f"initial weights from {path}: {'; '.join(parts)}"


def read_initial_weights(training: "TrainingConfig", where: "Where") -> InitialWeights | None:
    """Return the weights that `training.initial_weights` names; None where it is null.

    Raises:
        RunError: There is no such run or file, or it cannot be used; the message has the place of
            the key.
    """
    if training.initial_weights is None:
        return None
    given = Path(training.initial_weights)
    place = f"{where(KEY)}: {KEY}"
    path, names = given, None
    if given.is_dir():
        path = given / layout.BEST
        if (given / layout.SPLIT).is_file():
            names = tuple(map(str, read_split(given).get("keypoint_names", ()))) or None
    if not path.is_file():
        raise RunError(
            f"{place}: there is no file {path}, expected a run directory or a .keras file"
        )
    try:
        # First in another process: the HDF5 library may loop or crash.
        Sandbox(__name__, [str(path)]).answer()
        return InitialWeights(path, read_keras_arrays(path), names)
    except (DatasetError, RunError) as error:
        raise RunError(f"{place}: {error}") from error


def read_keras_arrays(path: Path) -> dict[str, list[np.ndarray]]:
    """Return the arrays of each layer of a .keras file that has any, by the layer's name.

    Raises:
        HgtrainError: It is no such file, or its weights are damaged or lie elsewhere.
    """
    try:
        with zipfile.ZipFile(path) as archive, TemporaryDirectory() as folder:
            info = archive.getinfo(WEIGHTS_IN_ARCHIVE)
            if info.file_size > MAX_BYTES:
                raise RunError(
                    f"{path} declares {info.file_size:,} bytes of weights, at most {MAX_BYTES:,} "
                    "are read"
                )
            extracted = Path(archive.extract(info, folder))
            try:
                with closing(open_hdf5(extracted)) as file:
                    return dict(_layers(file))
            except DatasetError as error:
                raise RunError(
                    str(error).replace(str(extracted), f"{path}/{WEIGHTS_IN_ARCHIVE}")
                ) from error
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise RunError(f"{path} is no .keras file: {error}") from error


def _layers(file: h5py.File) -> Iterator[tuple[str, list[np.ndarray]]]:
    layers = get_item(file, "layers")
    for key in layers:
        variables = get_item(file, f"layers/{key}/vars")
        name = variables.attrs.get("name")
        if not isinstance(name, str):
            raise DatasetError(
                f"{file.filename}:/layers/{key}/vars has no name of its layer: not written by "
                "Keras 3"
            )
        arrays = []
        for index in range(len(variables)):
            path = f"layers/{key}/vars/{index}"
            dataset = get_dataset(file, path, "f", (1, 2, 3, 4), "an array of weights")
            arrays.append(read_array(dataset))
        if arrays:
            yield name, arrays


def take_weights(
    network: "keras.Model", initial: InitialWeights, keypoint_names: tuple[str, ...]
) -> TransferReport:
    """Assign to each layer of the network the arrays of its name, where all have its shapes.

    The heads, and what is made of their outputs for the next stack, keep their own start when the
    keypoints are others, or the same in another order.

    Args:
        network: Whose weights are assigned.
        initial: The weights to take.
        keypoint_names: Of the network.

    Returns:
        What was done.
    """
    others = initial.keypoint_names not in (None, keypoint_names)
    matched, new = [], []
    for layer in network.layers:
        if not layer.variables:
            continue
        arrays = initial.arrays.get(layer.name, [])
        fits = [array.shape for array in arrays] == [
            tuple(variable.shape) for variable in layer.variables
        ]
        if not fits or (others and OF_KEYPOINTS.search(layer.name)):
            new.append(layer.name)
            continue
        for variable, array in zip(layer.variables, arrays, strict=True):
            variable.assign(array)
        matched.append(layer.name)
    unused = [name for name in initial.arrays if name not in matched]
    return TransferReport(tuple(matched), tuple(new), tuple(unused))


def _read_all(paths: Sequence[str]) -> dict[str, Any]:
    for path in paths:
        read_keras_arrays(Path(path))
    return {}


if __name__ == "__main__":
    answer_with(_read_all)
