"""Values of keys that other packages choose by, without TensorFlow."""

BACKBONE_TYPES = ("hourglass", "associative_embedding", "residual_hourglass")
"""Of `model.backbone.type`; `model.backbones.BACKBONES` has an entry for each."""

BACKBONES_OF_KEY: dict[str, tuple[str, ...]] = {
    "reinject": ("hourglass",),
    "stem_filters": ("hourglass",),
    "filter_increase": ("hourglass", "associative_embedding"),
}
"""Which types a key of `model.backbone` belongs to; a key that is not here belongs to all."""

HEAD_TYPES = ("single_instance", "multi_instance", "centroid", "centered_instance")
"""Of `model.head.type`; `heads.HEADS` has an entry for each."""

HEAD_PURPOSES = {
    "single_instance": "one animal an image",
    "multi_instance": "bottom-up: the keypoints of all animals, joined along the edges",
    "centroid": "top-down, the first of two networks: where the animals are",
    "centered_instance": "top-down, the second of two networks: one animal's keypoints in a crop",
}
"""What each of `HEAD_TYPES` is for."""

TOP_DOWN_HEADS = ("centroid", "centered_instance")
"""The types of the two networks of top-down."""

TOP_DOWN = "top_down"
"""For `hgtrain init --head`: a config for each of `TOP_DOWN_HEADS`."""

HEADS_OF_KEY: dict[str, tuple[str, ...]] = {
    "paf_width_px": ("multi_instance",),
    "paf_loss_weight": ("multi_instance",),
    "max_instances": ("multi_instance", "centroid"),
    "peak_threshold": ("multi_instance", "centroid"),
    "min_line_score": ("multi_instance",),
    "min_keypoints": ("multi_instance",),
    "assignment": ("multi_instance",),
    "anchor": TOP_DOWN_HEADS,
    "crop_size_px": ("centered_instance",),
    "centroid_jitter": ("centered_instance",),
}
"""Which types of head a key of `model.head` belongs to; a key that is not here belongs to all."""
