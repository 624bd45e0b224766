"""A training folder of SLEAP becomes a run: config, skeleton, the network with its weights."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from hgtrain.config.load import dump_config, load_config
from hgtrain.config.schema import Config, DataConfig
from hgtrain.data.sandbox.open import open_all
from hgtrain.data.sandbox.probe import probe_hdf5
from hgtrain.data.split import make_split, split_to_json
from hgtrain.errors import ConfigError, DatasetError, RunError
from hgtrain.files import atomic_path, new_folder, write_text
from hgtrain.hdf5 import open_hdf5
from hgtrain.heads import make_head
from hgtrain.model.network import build_network
from hgtrain.rundir import layout
from hgtrain.rundir.records import write_provenance, write_split
from hgtrain.skeleton import Skeleton, check_same_keypoints
from hgtrain.sleap_import.training_config import CONFIG_FILE, SleapModel, read_sleap_config
from hgtrain.sleap_import.weights import load_sleap_weights, read_layers

WEIGHTS_FILE = "best_model.h5"
FOLDERS_ABOVE = 3
"""SLEAP names its labels from the folder it was started in, often some above that of the model."""


def import_sleap(
    model: Path, out: Path, train: Sequence[str], validation: Sequence[str]
) -> list[str]:
    """Write the run of a SLEAP training folder to `out`, which must not hold anything yet.

    Args:
        model: The training folder.
        out: The run directory.
        train: Its training labels, where they are not where training_config.json says.
        validation: Its validation labels, the same.

    Returns:
        Notes for the user.

    Raises:
        HgtrainError: The folder is no single-instance hourglass, the weights do not fit it, or the
            labels have other keypoints; nothing is written then.
    """
    sleap = read_sleap_config(model)
    if not (model / WEIGHTS_FILE).is_file():
        raise RunError(f"{model} has no {WEIGHTS_FILE}: the training has not saved a model")
    probe_hdf5(str(model / WEIGHTS_FILE))
    size, channels = _input_size(model / WEIGHTS_FILE)
    notes = list(sleap.notes)
    with new_folder(out) as beside:
        config = _write_config(
            beside, sleap, _files(model, sleap, train, validation, notes), channels
        )
        backbone = config.model.backbone
        head = make_head(config.model.head, sleap.skeleton, backbone.output_stride)
        network = build_network(backbone, head.layers, channels, all_stacks=False)
        load_sleap_weights(network, model / WEIGHTS_FILE)
        with atomic_path(beside / layout.BEST) as path:
            network.save(path)
        split, image_shape = _split(config.data, sleap.skeleton, notes)
        image_shape = image_shape or _image_shape(sleap, size, channels, config.data.input_scale)
        write_split(beside, split, sleap.skeleton, image_shape)
        write_provenance(beside, _provenance(model, sleap), config.training.seed)
    return notes


def _input_size(path: Path) -> tuple[tuple[int, int] | None, int]:
    """Return the size of the images the network takes.

    Returns:
        Height and width, None where they are any; and channels.
    """
    with closing(open_hdf5(path)) as file:
        layers = read_layers(file)
    shape = next(
        (
            layer["config"].get("batch_input_shape")
            for layer in layers
            if layer["class_name"] == "InputLayer"
        ),
        None,
    )
    if not isinstance(shape, list) or len(shape) != 4 or shape[3] not in (1, 3):
        raise RunError(
            f"{path}: its input has shape {shape}, expected (images, height, width, 1 or 3)"
        )
    sides = shape[1:3]
    return (sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None, shape[3]


def _image_shape(
    sleap: SleapModel, size: tuple[int, int] | None, channels: int, input_scale: float
) -> tuple[int, int, int]:
    if sleap.target_shape is not None:
        return *sleap.target_shape, channels
    if size is None:
        raise RunError(
            f"neither {CONFIG_FILE} (data.preprocessing.target_height) nor {WEIGHTS_FILE} says "
            "how large images are: "
            "name the labels with --data"
        )
    return round(size[0] / input_scale), round(size[1] / input_scale), channels


def _files(
    model: Path,
    sleap: SleapModel,
    train: Sequence[str],
    validation: Sequence[str],
    notes: list[str],
) -> dict[str, Any]:
    """Return `data.train` and, where it is files, `data.validation`."""
    given = [str(Path(file).absolute()) for file in train]
    files: dict[str, Any] = {"train": given or _found(model, sleap.labels or "labels.slp", notes)}
    others = [str(Path(file).absolute()) for file in validation]
    # Labels that were given are split anew, unless their validation labels were given too.
    if others or (sleap.validation_labels and not given):
        files["validation"] = others or _found(model, str(sleap.validation_labels), notes)
    return files


def _found(model: Path, name: str, notes: list[str]) -> str:
    """Return the labels' path, sought in the model's folder and those above.

    Where nothing is found it is the path in the model's folder.
    """
    # Written on Windows, it has other separators.
    parts = Path(name.replace("\\", "/"))
    folders = [Path.cwd(), model.absolute(), *model.absolute().parents[:FOLDERS_ABOVE]]
    for path in (folder / part for part in (parts, Path(parts.name)) for folder in folders):
        if path.is_file():
            return str(path)
    notes.append(
        f"{name}, which {CONFIG_FILE} names, was not found: give the labels with --data to "
        "evaluate and fit"
    )
    return str(model.absolute() / parts.name)


def _write_config(folder: Path, sleap: SleapModel, files: dict[str, Any], channels: int) -> Config:
    values = sleap.values | {"data": sleap.values["data"] | files | {"channels": channels}}
    path = folder / layout.CONFIG
    write_text(path, yaml.safe_dump(values, sort_keys=False))
    try:
        config = load_config(path)
    except ConfigError as error:
        raise RunError(
            f"{CONFIG_FILE} says what hgtrain cannot do: {str(error).replace(str(path), 'line')}"
        ) from error
    write_text(path, dump_config(config))
    return config


def _split(
    data: DataConfig, skeleton: Skeleton, notes: list[str]
) -> tuple[dict[str, Any], tuple[int, int, int] | None]:
    """Return the split as split.json holds it, and the images' shape.

    They are empty and None without the labels' images.
    """
    files = (data.train_files, data.validation_files)
    if not all(Path(file).exists() for group in files for file in group or ()):
        return {}, None
    with ExitStack() as stack:
        try:
            train = stack.enter_context(closing(open_all(files[0])))
            validation = (
                None if files[1] is None else stack.enter_context(closing(open_all(files[1])))
            )
        except DatasetError as error:
            notes.append(f"the labels cannot be read: {error}")
            return {}, None
        check_same_keypoints(
            train.keypoint_names, skeleton.keypoint_names, train.path, "the SLEAP model"
        )
        split = make_split(train, validation, data.validation_fraction, None, data.split_seed)
        notes.extend(split.notes)
        return split_to_json(split), train.image_shape


def _provenance(model: Path, sleap: SleapModel) -> dict[str, Any]:
    packages = ("hgtrain", "tensorflow", "keras", "numpy", "h5py")
    return {
        "imported_from": str(model.absolute()),
        "sleap_version": sleap.version,
        "versions": {name: metadata.version(name) for name in packages},
    }
