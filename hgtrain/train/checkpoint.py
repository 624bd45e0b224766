"""Checkpoints: every variable and the loop's state in one bundle, so that they cannot disagree."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

from hgtrain.errors import RunError
from hgtrain.train.log import say

NAME = "step"


class Checkpoints:
    """The newest `keep` checkpoints of a run in one folder.

    TensorFlow writes a bundle beside and renames it, with a checksum for each tensor; the loop's state travels in it as
    a JSON string.
    """

    def __init__(self, folder: Path, keep: int, variables: Mapping[str, Sequence[tf.Variable]]) -> None:
        self._folder = folder
        self._state = tf.Variable("{}", dtype=tf.string, trainable=False)
        self._bundle = tf.train.Checkpoint(state=self._state, **{name: list(v) for name, v in variables.items()})
        self._manager = tf.train.CheckpointManager(self._bundle, str(folder), max_to_keep=keep, checkpoint_name=NAME)

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write variables and state as the checkpoint of `step`; the oldest beyond `keep` is removed after it."""
        self._state.assign(json.dumps(state))
        self._manager.save(checkpoint_number=step)

    def restore_newest(self) -> dict[str, Any] | None:
        """Restore the variables of the newest checkpoint and return its state; None where there is none.

        A damaged checkpoint is passed over, and said so, for the one before. RunError when all are damaged.
        """
        # By the index, which is written last, not by TensorFlow's file `checkpoint`: that one may be lost or not yet
        # name what is there.
        indices = sorted(self._folder.glob(f"{NAME}-*.index"), key=lambda path: int(path.stem.rpartition("-")[2]))
        problem = ""
        for path in reversed(indices):
            try:
                self._bundle.restore(str(path.with_suffix(""))).assert_consumed()
            # A file that is too short is an IndexError.
            except (tf.errors.OpError, IndexError) as error:
                problem = f"the checkpoint {path.with_suffix('')} is damaged: {error}"
                say(problem)
            else:
                return json.loads(self._state.numpy())
        if problem:
            raise RunError(f"{problem}; no other is left to resume from: start a new run")
        return None
