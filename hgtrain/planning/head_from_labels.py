"""What a head takes from the labels, and whether it fits them."""

import difflib
from collections.abc import Iterator

import numpy as np

from hgtrain.config.head import HeadConfig
from hgtrain.config.schema import BackboneConfig, Where
from hgtrain.coords import padded_length, resized_points
from hgtrain.data.crop_size import crop_size_px, share_cut_off
from hgtrain.data.dataset import skeleton_of
from hgtrain.data.selection import SPARE_INSTANCES
from hgtrain.data.split import Subset
from hgtrain.errors import ConfigError
from hgtrain.skeleton import Skeleton, tree_edges

MAX_CUT_OFF = 0.01
"""Share of the labelled keypoints that crops may cut off."""


def head_from_labels(
    head: HeadConfig,
    side: Subset,
    backbone: BackboneConfig,
    input_scale: float,
    where: Where,
) -> HeadConfig:
    """Return a head section with what is null in it taken from the labels.

    Args:
        head: The section.
        side: The frames to train on.
        backbone: The section of the backbone.
        input_scale: Factor by which images are resized.
        where: Gives the place of a key.

    Raises:
        ConfigError: The head does not fit the skeleton or the labels.
    """
    keys = set(head.own_keys)
    skeleton = skeleton_of(side.dataset)
    check_edges(head, skeleton, side.dataset.path, where)
    changes: dict[str, int] = {}
    if "max_instances" in keys and head.max_instances is None:
        changes["max_instances"] = side.instances + SPARE_INSTANCES
    if "anchor" in keys:
        check_anchor(head, skeleton, side.dataset.path, where)
    if "crop_size_px" in keys:
        points, visibility = side.labels()
        labelled = np.where((visibility > 0)[..., None], points, np.nan)
        points = resized_points(labelled, input_scale)
        anchor = skeleton.keypoint_index(head.anchor)
        size = head.crop_size_px
        if size is None:
            size = changes["crop_size_px"] = crop_size_px(points, anchor, backbone.max_stride)
        check_crop(size, points, anchor, backbone.max_stride, where)
    return head.model_copy(update=changes)


def check_anchor(head: HeadConfig, skeleton: Skeleton, path: str, where: Where) -> None:
    """Raise ConfigError where the anchor is no keypoint of the skeleton."""
    names = skeleton.keypoint_names
    if head.anchor is not None and head.anchor not in names:
        key = "model.head.anchor"
        near = difflib.get_close_matches(head.anchor, names, n=1, cutoff=0)[0]
        raise ConfigError(
            f"{where(key)}: {key} must be a keypoint of {path}, got {head.anchor!r} (nearest: "
            f"{near}; they are {', '.join(names)})"
        )


def check_edges(head: HeadConfig, skeleton: Skeleton, path: str, where: Where) -> None:
    """Raise ConfigError where the head needs edges and the skeleton has none."""
    if lacks_edges(head, skeleton):
        key = "model.head.type"
        raise ConfigError(
            f"{where(key)}: {key}: {head.type} tells animals apart along the skeleton's edges, and "
            f"{path} has none: add them with `hgtrain convert {path} NEW.h5 --edge A,B ...`"
        )


def lacks_edges(head: HeadConfig, skeleton: Skeleton) -> bool:
    """Return whether the head tells animals apart along edges, and the skeleton has none."""
    several = len(skeleton.keypoint_names) > 1
    return "paf_width_px" in head.own_keys and several and not skeleton.edges


def check_crop(
    size: int, points: np.ndarray, anchor: int | None, multiple: int, where: Where
) -> None:
    """Raise ConfigError for a crop that the network cannot take or that cuts animals.

    Args:
        size: Side of the crop, px of the network's input.
        points: `(N, I, K, 2)` in the same px, NaN where missing.
        anchor: Index of the keypoint that is an animal's centroid, None for none.
        multiple: Of which the side must be.
        where: Gives the place of a key.
    """
    key = "model.head.crop_size_px"
    if size % multiple:
        near = sorted({max(multiple, size - size % multiple), padded_length(size, multiple)})
        raise ConfigError(
            f"{where(key)}: {key} must be a multiple of model.backbone.max_stride {multiple}, got "
            f"{size} (nearest: {', '.join(map(str, near))})"
        )
    cut_off = share_cut_off(points, anchor, size)
    if cut_off > MAX_CUT_OFF:
        enough = crop_size_px(points, anchor, multiple)
        raise ConfigError(
            f"{where(key)}: {key}: crops of {size} px cut off {cut_off:.1%} of the labelled "
            f"keypoints, at most {MAX_CUT_OFF:.0%} may be: set it to {enough}, or to null"
        )


def head_notes(head: HeadConfig, skeleton: Skeleton) -> Iterator[str]:
    """Yield what of the skeleton a head leaves unused, a sentence each."""
    if "paf_width_px" not in head.own_keys or not skeleton.edges:
        return
    names = skeleton.keypoint_names
    tree = tree_edges(skeleton.edges, len(names))
    if tree.unused:
        pairs = (skeleton.edges[edge] for edge in tree.unused)
        listed = ", ".join(f"{names[a]} to {names[b]}" for a, b in pairs)
        yield f"edges that close a circle are not used to tell animals apart: {listed}"
    if tree.lone:
        listed = ", ".join(names[keypoint] for keypoint in tree.lone)
        yield (
            f"keypoints at no edge go to the nearest animal: {listed} (`hgtrain convert --edge "
            "A,B` joins them to the others)"
        )
