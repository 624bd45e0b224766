"""Values of keys that other packages choose by, without TensorFlow."""

HEAD_TYPES = ("single_instance",)
"""Of `model.head.type`; `heads.HEADS` has an entry for each."""
