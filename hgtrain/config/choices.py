"""Values of keys that other packages choose by, without TensorFlow."""

BACKBONE_TYPES = ("hourglass",)
"""Of `model.backbone.type`; `model.backbones.BACKBONES` has an entry for each."""

HEAD_TYPES = ("single_instance",)
"""Of `model.head.type`; `heads.HEADS` has an entry for each."""
