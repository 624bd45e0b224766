"""What the processes that train one network tell each other besides gradients: decisions and state.

All of them call the same methods in the same order; each call waits for all of them. With one
process there is nobody to ask, and every method gives back what it was given.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf

from hgtrain.errors import RunError
from hgtrain.signals import StopRequest
from hgtrain.train.distributed.cluster import Cluster
from hgtrain.train.distributed.decision import Decide, Decision

GROUP = 2**30
"""TensorFlow numbers the groups of its own collective operations from 1 on."""

AGREEMENT = 1
"""The number of the operation that is repeated; each other one has its own number."""

MAX_VALUES = 4

PEER_FAILURES = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
)


class Workers:
    """The processes that train together; the cluster is None for a process alone.

    Plain collective operations on the CPU, one for each process, whatever the devices that train
    are: a broadcast keeps every bit, and what is decided does not go through the strategy.
    """

    def __init__(self, cluster: Cluster | None) -> None:
        self._cluster = cluster
        self.count = 1 if cluster is None else len(cluster.workers)
        self.is_chief = cluster is None or cluster.is_chief
        self._last_number = AGREEMENT
        # A compiled function, because TensorFlow keeps a record of each number for ever, and this
        # comes twice a second.
        self._largest = tf.function(
            self._reduce, input_signature=[tf.TensorSpec((MAX_VALUES,), tf.int64)]
        )

    def agree(self, values: Sequence[int]) -> list[int]:
        """Return the largest of what all gave, each of up to four values on its own."""
        if self.count == 1:
            return list(values)
        # One shape for all that is agreed on, as the one number demands.
        padded = [*values, *[0] * (MAX_VALUES - len(values))]
        return self._largest(tf.constant(padded, tf.int64)).numpy().tolist()[: len(values)]

    def deciding(self, stop: StopRequest, is_over: Callable[[], bool] = lambda: False) -> Decide:
        """Return what tells the training loop what all do.

        A signal to one is a signal to all, and the slowest sets the pace.

        Args:
            stop: This process's own.
            is_over: Whether the run's time is over; the chief's clock counts.
        """

        def decide(steps: int) -> Decision:
            is_late = self.is_chief and is_over()
            mine = [stop.signum or 0 if stop else 0, stop.take_save(), -steps, is_late]
            signum, saves, most, ends = self.agree(mine)
            stop.join(signum)
            return Decision(bool(signum), bool(saves), -most, bool(ends))

        return decide

    def wait(self) -> None:
        """Return when all are here."""
        self.agree([0])

    def from_chief(self, document: Any) -> Any:
        """Return the JSON document that the chief gave; the others may give anything."""
        if self.count == 1:
            return document
        text = json.dumps(document).encode() if self.is_chief else b""
        length = int(self._broadcast(np.array([len(text)]))[0])
        # No type of these operations is as short as a byte.
        codes = np.zeros(length, np.int32)
        codes[: len(text)] = np.frombuffer(text, np.uint8)
        return json.loads(bytes(self._broadcast(codes).tolist()))

    def share(self, variables: Iterable[tf.Variable]) -> None:
        """Give the variables the chief's values."""
        if self.count > 1:
            for variable in variables:
                variable.assign(self._broadcast(variable.numpy()))

    @contextmanager
    def peer_failures_as_run_error(self, how_to_go_on: str) -> Iterator[None]:
        """Turn what TensorFlow raises within the block when another worker is gone into RunError.

        A process that ends closes its connections, which is seen within a second or two. One that
        is stopped, or cut off from the network, is given up ten seconds after its last heartbeat.
        Whoever waits in a collective operation then has it aborted; whoever computes learns of it
        with the next.
        """
        try:
            yield
        except tf.errors.OpError as error:
            if self._cluster is None or not isinstance(error, PEER_FAILURES):
                raise
            raise RunError(
                f"{self._who_is_lost(str(error))} is lost, so that all stop; {how_to_go_on}"
            ) from error

    def _who_is_lost(self, text: str) -> str:
        assert self._cluster is not None
        found = {int(number) for number in re.findall(r"/task:(\d+)", text)} - {self._cluster.index}
        return ", ".join(map(self._cluster.name, sorted(found))) or "a worker"

    def _reduce(self, values: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:0"):
            return tf.raw_ops.CollectiveReduceV2(
                input=values,
                merge_op="Max",
                final_op="Id",
                ordering_token=[],
                **self._place(AGREEMENT),
            )

    def _broadcast(self, value: np.ndarray) -> np.ndarray:
        """Return the chief's value; that of the others says its shape and type."""
        self._last_number += 1
        place = self._place(self._last_number)
        with tf.device("CPU:0"):
            if self.is_chief:
                return tf.raw_ops.CollectiveBcastSendV2(input=value, **place).numpy()
            return tf.raw_ops.CollectiveBcastRecvV2(
                T=value.dtype, shape=value.shape, **place
            ).numpy()

    def _place(self, number: int) -> dict[str, Any]:
        return {
            "group_size": self.count,
            "group_key": GROUP,
            "instance_key": number,
            "communication_hint": "ring",
        }
