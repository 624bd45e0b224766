"""A training folder of SLEAP becomes a run: config, skeleton, the network with its weights."""

from collections.abc import Sequence
from contextlib import ExitStack, closing
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from hgtrain.config.head import HeadConfig
from hgtrain.config.load import dump_config, load_config
from hgtrain.config.schema import Config, DataConfig, ModelConfig
from hgtrain.data.sandbox.open import open_all
from hgtrain.data.sandbox.probe import probe_hdf5
from hgtrain.data.selection import SPARE_INSTANCES
from hgtrain.data.split import make_split, split_to_json
from hgtrain.errors import ConfigError, DatasetError, RunError
from hgtrain.files import atomic_path, check_new_folder, new_folder, write_text
from hgtrain.hdf5 import open_hdf5
from hgtrain.log import doing
from hgtrain.rundir import layout
from hgtrain.rundir.records import write_provenance, write_split
from hgtrain.skeleton import Skeleton, check_same_keypoints
from hgtrain.sleap_import.training_config import CONFIG_FILE, SleapModel, read_sleap_config
from hgtrain.sleap_import.weights import load_sleap_weights, read_layers

WEIGHTS_FILE = "best_model.h5"
FOLDERS_ABOVE = 3
"""SLEAP names its labels from the folder it was started in, often some above that of the model."""


class Labels(NamedTuple):
    """What the run takes from the labels.

    Attributes:
        split: As split.json holds it; empty without the labels' images.
        image_shape: `(H, W, C)` of the images.
        instances: How many animals a frame to train on has at most; None where it is not known.
    """

    split: dict[str, Any]
    image_shape: tuple[int, int, int]
    instances: int | None


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
        HgtrainError: The folder is no hourglass with a head that hgtrain has, the weights do not
            fit it, or the labels have other keypoints; nothing is written then.
    """
    sleap = read_sleap_config(model)
    if not (model / WEIGHTS_FILE).is_file():
        raise RunError(f"{model} has no {WEIGHTS_FILE}: the training has not saved a model")
    for labels_file in (*train, *validation):
        if not Path(labels_file).exists():
            raise DatasetError(f"{labels_file}: there is no such file")
    check_new_folder(out)
    probe_hdf5(str(model / WEIGHTS_FILE))
    size, channels = _input_size(model / WEIGHTS_FILE)
    notes = list(sleap.notes)
    sleap = _with_crop_size(sleap, size)
    with new_folder(out) as beside:
        config = _read_config(
            beside, sleap, _files(model, sleap, train, validation, notes), channels
        )
        section = config.model.head
        labels = _read_labels(config.data, section, sleap.skeleton, notes)
        if labels is None:
            # A network that takes crops does not know what they are cut from.
            of_images = None if section.sees_crops else size
            shape = _image_shape(sleap, of_images, channels, config.data.input_scale)
            labels = Labels({}, shape, None)
        section = _with_instances(section, labels.instances)
        config = config.model_copy(
            update={"model": config.model.model_copy(update={"head": section})}
        )
        _write_network(beside, config.model, sleap.skeleton, model / WEIGHTS_FILE, channels)
        write_text(beside / layout.CONFIG, dump_config(config))
        write_split(beside, labels.split, sleap.skeleton, labels.image_shape)
        write_provenance(beside, _provenance(model, sleap), config.training.seed)
    return notes


def _write_network(
    folder: Path, section: ModelConfig, skeleton: Skeleton, weights: Path, channels: int
) -> None:
    """Write the network with its weights as best.keras; all else was found good before."""
    from hgtrain.tensorflow_setup import import_tensorflow

    import_tensorflow()
    from hgtrain.heads import make_head
    from hgtrain.model.network import build_network

    backbone = section.backbone
    head = make_head(section.head, skeleton, backbone.output_stride)
    with doing("building the network"):
        network = build_network(backbone, head.layers, channels, all_stacks=False)
        load_sleap_weights(network, weights)
        with atomic_path(folder / layout.BEST) as path:
            network.save(path)


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


def _with_crop_size(sleap: SleapModel, size: tuple[int, int] | None) -> SleapModel:
    """Return the model with the size of its crops, where it has any, as its network takes them."""
    head = sleap.values["model"]["head"]
    if head.get("crop_size_px", 0) is not None:
        return sleap
    if size is None:
        raise RunError(
            f"neither {CONFIG_FILE} (data.instance_cropping.crop_size) nor {WEIGHTS_FILE} says "
            "how large crops are"
        )
    section = sleap.values["model"] | {"head": head | {"crop_size_px": max(size)}}
    return sleap._replace(values=sleap.values | {"model": section})


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


def _read_config(folder: Path, sleap: SleapModel, files: dict[str, Any], channels: int) -> Config:
    values = sleap.values | {"data": sleap.values["data"] | files | {"channels": channels}}
    path = folder / layout.CONFIG
    write_text(path, yaml.safe_dump(values, sort_keys=False))
    try:
        config = load_config(path)
    except ConfigError as error:
        raise RunError(
            f"{CONFIG_FILE} says what hgtrain cannot do: {str(error).replace(str(path), 'line')}"
        ) from error
    return config


def _with_instances(head: HeadConfig, instances: int | None) -> HeadConfig:
    """Return the head with the most animals to find, as training on the labels would take it."""
    if instances is None or "max_instances" not in head.own_keys:
        return head
    return head.model_copy(update={"max_instances": instances + SPARE_INSTANCES})


def _read_labels(
    data: DataConfig, head: HeadConfig, skeleton: Skeleton, notes: list[str]
) -> Labels | None:
    """Return what the labels give, None without their images."""
    files = (data.train_files, data.validation_files)
    if not all(Path(file).exists() for group in files for file in group or ()):
        return None
    with ExitStack() as stack:
        try:
            train = stack.enter_context(closing(open_all(files[0])))
            validation = (
                None if files[1] is None else stack.enter_context(closing(open_all(files[1])))
            )
        except DatasetError as error:
            notes.append(f"the labels cannot be read: {error}")
            return None
        check_same_keypoints(
            train.keypoint_names, skeleton.keypoint_names, train.path, "the SLEAP model"
        )
        split = make_split(train, validation, data.validation_fraction, None, data.split_seed, head)
        notes.extend(split.notes)
        return Labels(split_to_json(split), train.image_shape, split.train.instances)


def _provenance(model: Path, sleap: SleapModel) -> dict[str, Any]:
    packages = ("hgtrain", "tensorflow", "keras", "numpy", "h5py")
    return {
        "imported_from": str(model.absolute()),
        "sleap_version": sleap.version,
        "versions": {name: metadata.version(name) for name in packages},
    }
