"""Checkpoints: every variable and the loop's state in one bundle, so that they cannot disagree."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf


class Checkpoints:
    """The newest `keep` checkpoints of a run in one folder.

    TensorFlow writes a bundle beside and renames it, with a checksum for each tensor; the loop's state travels in it as
    a JSON string.
    """

    def __init__(self, folder: Path, keep: int, variables: Mapping[str, Sequence[tf.Variable]]) -> None:
        self._state = tf.Variable("{}", dtype=tf.string, trainable=False)
        self._bundle = tf.train.Checkpoint(state=self._state, **{name: list(v) for name, v in variables.items()})
        self._manager = tf.train.CheckpointManager(self._bundle, str(folder), max_to_keep=keep, checkpoint_name="step")

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write variables and state as the checkpoint of `step`; the oldest beyond `keep` is removed after it."""
        self._state.assign(json.dumps(state))
        self._manager.save(checkpoint_number=step)

    def restore_newest(self) -> dict[str, Any] | None:
        """Restore the variables of the newest checkpoint and return its state; None where there is none."""
        newest = self._manager.latest_checkpoint
        if newest is None:
            return None
        self._bundle.restore(newest).assert_consumed()
        return json.loads(self._state.numpy())
