"""Training folders as SLEAP writes them, with small networks made here."""

import json
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np

BACKBONE = {
    "stem_stride": 2,
    "max_stride": 8,
    "output_stride": 2,
    "stem_filters": 4,
    "filters": 4,
    "filter_increase": 2,
}
NAMES = ("head", "ear_left", "ear_right")
VARIABLES = {
    "Conv2D": ("kernel:0", "bias:0"),
    "BatchNormalization": ("gamma:0", "beta:0", "moving_mean:0", "moving_variance:0"),
}


def training_config(**changes: Any) -> dict[str, Any]:
    """Return a training_config.json; keys of `changes` are paths with __ for a dot."""
    node = [
        {"py/object": "sleap.skeleton.Node", "py/state": {"py/tuple": [name, 1.0]}}
        for name in NAMES
    ]
    kind = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [1]}]}
    mirrored = {"py/reduce": [{"py/type": "sleap.skeleton.EdgeType"}, {"py/tuple": [2]}]}
    links = [
        # Objects by the order in which they come: head 1, ear_left 2, the type of an edge 3,
        # ear_right 4, symmetry 5.
        {"source": node[0], "target": node[1], "type": kind},
        {"source": {"py/id": 1}, "target": node[2], "type": {"py/id": 3}},
        {"source": {"py/id": 2}, "target": {"py/id": 4}, "type": mirrored},
        {"source": {"py/id": 4}, "target": {"py/id": 2}, "type": {"py/id": 5}},
    ]
    skeleton = {"links": links, "nodes": [{"id": {"py/id": number}} for number in (1, 2, 4)]}
    document = {
        "data": {
            "labels": {
                "training_labels": "labels.pkg.slp",
                "validation_labels": None,
                "validation_fraction": 0.25,
                "skeletons": [skeleton],
            },
            "preprocessing": {
                "input_scaling": 1.0,
                "imagenet_mode": None,
                "target_height": 32,
                "target_width": 32,
            },
        },
        "model": {
            "backbone": {"unet": None, "hourglass": {**BACKBONE, "stacks": 1}},
            "heads": {
                "single_instance": {"part_names": list(NAMES), "sigma": 1.5, "output_stride": 2},
                "centroid": None,
            },
        },
        "optimization": optimization(),
        "sleap_version": "1.3.4",
    }
    for path, value in changes.items():
        *sections, key = path.split("__")
        inner = document
        for section in sections:
            inner = inner[section]
        inner[key] = value
    return document


def heads_of(kind: str, offsets: bool = False) -> dict[str, Any]:
    """Return the section model.heads of a kind of head, as SLEAP writes it."""
    maps = {"sigma": 1.5, "output_stride": 2, "loss_weight": 1.0, "offset_refinement": offsets}
    fields = {"edges": None, "sigma": 12.0, "output_stride": 2, "loss_weight": 0.5}
    sections: dict[str, Any] = {
        "single_instance": {"part_names": list(NAMES), **maps},
        "centroid": {"anchor_part": "head", **maps},
        "centered_instance": {"anchor_part": "head", "part_names": list(NAMES), **maps},
        "multi_instance": {"confmaps": {"part_names": list(NAMES), **maps}, "pafs": fields},
        "multi_class_topdown": {},
    }
    return {name: section if name == kind else None for name, section in sections.items()}


def optimization() -> dict[str, Any]:
    return {
        "augmentation_config": {
            "rotate": True,
            "rotation_min_angle": -15,
            "rotation_max_angle": 15,
            "scale": True,
            "scale_min": 0.8,
            "scale_max": 1.2,
            "translate": False,
            "brightness": True,
            "brightness_min_val": 0.0,
            "brightness_max_val": 51.0,
            "contrast": True,
            "contrast_min_gamma": 0.5,
            "contrast_max_gamma": 2.0,
            "gaussian_noise": True,
            "gaussian_noise_stddev": 2.55,
            "random_flip": True,
            "flip_horizontal": False,
        },
        "batch_size": 4,
        "batches_per_epoch": 30,
        "min_batches_per_epoch": 200,
        "epochs": 7,
        "optimizer": "adam",
        "initial_learning_rate": 0.001,
        "learning_rate_schedule": {
            "reduce_on_plateau": True,
            "reduction_factor": 0.25,
            "plateau_patience": 3,
            "min_learning_rate": 1e-8,
        },
        "early_stopping": {"stop_training_on_plateau": True, "plateau_patience": 10},
        "hard_keypoint_mining": {"online_mining": True},
    }


def described(network: keras.Model) -> list[dict[str, Any]]:
    """Return the layers of a network as the attribute model_config lists them."""
    layers = []
    for layer in network.layers:
        kind = type(layer).__name__
        if kind == "InputLayer":
            config = {
                "name": layer.name,
                "batch_input_shape": [None, 32, 32, layer.output.shape[-1]],
            }
        elif kind == "Rescaling":
            continue
        else:
            config = {key: value for key, value in layer.get_config().items() if key != "dtype"}
        layers.append({"class_name": kind, "config": config})
    return layers


def write_model(folder: Path, network: keras.Model, document: dict[str, Any] | None = None) -> Path:
    """Write training_config.json and best_model.h5 of a network, and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "training_config.json").write_text(json.dumps(document or training_config()))
    with h5py.File(folder / "best_model.h5", "w") as file:
        set_layers(file, described(network))
        for layer in network.layers:
            for name, variable in zip(
                VARIABLES.get(type(layer).__name__, ()), layer.variables, strict=True
            ):
                file[f"model_weights/{layer.name}/{layer.name}/{name}"] = np.asarray(
                    variable.numpy()
                )
    return folder


def set_layers(file: h5py.File, layers: list[dict[str, Any]]) -> None:
    file.attrs["model_config"] = json.dumps(
        {"class_name": "Functional", "config": {"layers": layers}}, default=str
    )
