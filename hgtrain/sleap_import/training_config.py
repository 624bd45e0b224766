"""SLEAP's training_config.json read as what hgtrain has for it.

Only JSON is read; jsonpickle's objects are not made.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

from hgtrain.config.choices import BACKBONE_TYPES
from hgtrain.errors import RunError
from hgtrain.skeleton import Skeleton, check_skeleton
from hgtrain.sleap_import.head_section import SleapHead, only_choice, read_head

CONFIG_FILE = "training_config.json"
MAX_BYTES = 2**26
BACKBONE_KEYS = (
    "stem_stride",
    "max_stride",
    "output_stride",
    "stem_filters",
    "filters",
    "filter_increase",
    "stacks",
)
SYMMETRY = 2


class SleapModel(NamedTuple):
    """What a training folder says.

    Attributes:
        values: Sections of an hgtrain config, without `data.train`.
        skeleton: Of the network's outputs.
        labels: Training labels, as the folder names them.
        validation_labels: The same for validation.
        target_shape: Height and width images were brought to before scaling, None where they kept
            theirs.
        version: Of SLEAP.
        notes: For the user.
    """

    values: dict[str, Any]
    skeleton: Skeleton
    labels: str | None
    validation_labels: str | None
    target_shape: tuple[int, int] | None
    version: str
    notes: tuple[str, ...]


def read_sleap_config(folder: Path) -> SleapModel:
    """Return what the folder's training_config.json says.

    Raises:
        RunError: It is missing or not understood, or the model is no hourglass with a head that
            hgtrain has.
    """
    path = folder / CONFIG_FILE
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RunError(f"{path} is larger than {MAX_BYTES:,} bytes, expected SLEAP's config")
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(f"{folder} is no SLEAP model: it has no {CONFIG_FILE}") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} cannot be read: {error}") from error
    try:
        return _understood(document, path)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is not understood: {error!r}") from error


def _understood(document: dict[str, Any], path: Path) -> SleapModel:
    data, model = document["data"], document["model"]
    _, backbone = only_choice(model["backbone"], BACKBONE_TYPES[:1], f"{path}: model.backbone")
    cropping = data.get("instance_cropping") or {}
    head = read_head(model["heads"], cropping, backbone["output_stride"], f"{path}: model.heads")
    preprocessing = data["preprocessing"]
    if preprocessing.get("imagenet_mode"):
        raise RunError(
            f"{path}: data.preprocessing.imagenet_mode is {preprocessing['imagenet_mode']}, "
            "expected null: hgtrain "
            "scales pixels to 0..1 only"
        )
    skeleton = _read_skeleton(data["labels"]["skeletons"], head)
    anchor = head.values.get("anchor")
    if anchor is not None and anchor not in skeleton.keypoint_names:
        raise RunError(
            f"{path}: data.instance_cropping.center_on_part is {anchor!r}, expected a keypoint: "
            f"{', '.join(skeleton.keypoint_names)}"
        )
    training, notes = _training(document["optimization"])
    labels = data["labels"]
    values = {
        "data": {"validation": labels.get("validation_fraction") or 0.1}
        | {"input_scale": float(preprocessing.get("input_scaling") or 1.0)},
        "augmentation": _augmentation(document["optimization"]["augmentation_config"]),
        "model": {
            "backbone": {key: backbone[key] for key in BACKBONE_KEYS},
            "head": head.values,
        },
        "training": training,
    }
    target = (preprocessing.get("target_height"), preprocessing.get("target_width"))
    return SleapModel(
        values=values,
        skeleton=check_skeleton(skeleton, str(path)),
        labels=labels.get("training_labels"),
        validation_labels=labels.get("validation_labels"),
        target_shape=None if None in target else (int(target[0]), int(target[1])),
        version=str(document.get("sleap_version")),
        notes=tuple(f"{path}: {note}" for note in notes),
    )


def _augmentation(section: dict[str, Any]) -> dict[str, Any]:
    def ranged(on: str, low: str, high: str, factor: float = 1.0) -> list[float] | None:
        return [section[low] * factor, section[high] * factor] if section.get(on) else None

    flip = "none"
    if section.get("random_flip"):
        flip = "horizontal" if section.get("flip_horizontal", True) else "vertical"
    return {
        "rotation_deg": ranged("rotate", "rotation_min_angle", "rotation_max_angle"),
        "scale": ranged("scale", "scale_min", "scale_max"),
        "translation_px": ranged("translate", "translate_min", "translate_max"),
        "flip": flip,
        # Theirs are of images in 0..255, and `contrast` is an exponent.
        "brightness": ranged("brightness", "brightness_min_val", "brightness_max_val", 1 / 255),
        "contrast": None,
        "gamma": ranged("contrast", "contrast_min_gamma", "contrast_max_gamma"),
        "noise_std": section["gaussian_noise_stddev"] / 255
        if section.get("gaussian_noise")
        else 0.0,
    }


def _training(section: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    schedule, stopping = section["learning_rate_schedule"], section["early_stopping"]
    steps = max(section.get("batches_per_epoch") or 0, section.get("min_batches_per_epoch") or 0)
    on_plateau = bool(schedule["reduce_on_plateau"])
    notes = (
        [] if section["optimizer"] == "adam" else [f"optimizer {section['optimizer']} becomes adam"]
    )
    if section["augmentation_config"].get("uniform_noise"):
        notes.append("uniform_noise has no counterpart and is left out")
    if section["augmentation_config"].get("random_crop"):
        notes.append("random_crop has no counterpart and is left out")
    values = {
        "batch_size": section["batch_size"],
        "epochs": section["epochs"],
        "steps_per_epoch": steps or None,
        "learning_rate": float(section["initial_learning_rate"]),
        "schedule": "plateau" if on_plateau else "constant",
        "warmup_steps": 0,
        "min_learning_rate": min(
            float(schedule["min_learning_rate"]), float(section["initial_learning_rate"])
        ),
        "plateau_factor": float(schedule["reduction_factor"]),
        "plateau_patience_epochs": schedule["plateau_patience"],
        "early_stopping_epochs": stopping["plateau_patience"]
        if stopping["stop_training_on_plateau"]
        else None,
        "hard_keypoint_mining": bool(section["hard_keypoint_mining"]["online_mining"]),
    }
    return values, notes


def _read_skeleton(skeletons: list[dict[str, Any]], head: SleapHead) -> Skeleton:
    """Return names in the order of the network's outputs, edges and symmetries by index.

    An object is spelt out where it first comes (`py/object` a node, `py/reduce` a type of link),
    and later mentions give its number in the order of first mention (`py/id`).
    """
    seen: list[Any] = []

    def decoded(value: dict[str, Any]) -> Any:
        if "py/id" in value:
            return seen[value["py/id"] - 1]
        if "py/reduce" in value:
            seen.append(int(value["py/reduce"][1]["py/tuple"][0]))
        else:
            seen.append(str((value.get("py/state") or {}).get("py/tuple", [value.get("name")])[0]))
        return seen[-1]

    graph = skeletons[0].get("nx_graph", skeletons[0])
    links = [
        tuple(decoded(link[key]) for key in ("source", "target", "type")) for link in graph["links"]
    ]
    nodes = [decoded(node["id"]) for node in graph["nodes"]]
    names = tuple(str(name) for name in head.part_names or nodes)
    pairs: dict[bool, list[tuple[int, int]]] = {False: [], True: []}
    for source, target, kind in links:
        pair = (names.index(source), names.index(target))
        # A symmetry is listed in both directions.
        if kind != SYMMETRY or pair[::-1] not in pairs[True]:
            pairs[kind == SYMMETRY].append(pair)
    if head.edges is not None:
        # The fields are in this order, and need not be of all edges.
        pairs[False] = [(names.index(source), names.index(target)) for source, target in head.edges]
    return Skeleton(names, tuple(pairs[False]), tuple(pairs[True]))
