"""Values of keys that other packages choose by, without TensorFlow."""

BACKBONE_TYPES = ("hourglass",)
"""Of `model.backbone.type`; `model.backbones.BACKBONES` has an entry for each."""

HEAD_TYPES = ("single_instance", "multi_instance", "centroid", "centered_instance")
"""Of `model.head.type`; `heads.HEADS` has an entry for each."""

_TOP_DOWN = ("centroid", "centered_instance")

HEADS_OF_KEY: dict[str, tuple[str, ...]] = {
    "paf_width_px": ("multi_instance",),
    "paf_loss_weight": ("multi_instance",),
    "max_instances": ("multi_instance", "centroid"),
    "peak_threshold": ("multi_instance", "centroid"),
    "min_line_score": ("multi_instance",),
    "min_keypoints": ("multi_instance",),
    "assignment": ("multi_instance",),
    "anchor": _TOP_DOWN,
    "crop_size_px": ("centered_instance",),
    "centroid_jitter": ("centered_instance",),
}
"""Which types of head a key of `model.head` belongs to; a key that is not here belongs to all."""
