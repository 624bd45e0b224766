"""What one process needs nobody for, and what is said of the others.

test_multi_worker.py has several processes.
"""

import pytest
import tensorflow as tf

from hgtrain.errors import RunError
from hgtrain.signals import StopRequest
from hgtrain.train.distributed.cluster import Cluster
from hgtrain.train.distributed.decision import Decision
from hgtrain.train.distributed.workers import Workers

THREE = Cluster(("a:1", "b:2", "c:3"), 1)


def test_a_process_alone_gets_back_what_it_gave():
    alone, variable = Workers(None), tf.Variable([1.0, -0.0])
    assert (alone.count, alone.is_chief) == (1, True)
    assert alone.agree([3, -4]) == [3, -4]
    assert alone.from_chief({"a": None}) == {"a": None}
    alone.share([variable])
    assert variable.numpy().tolist() == [1.0, -0.0]


def test_a_process_alone_decides_by_its_own_signals():
    stop = StopRequest()
    decide = Workers(None).deciding(stop)
    assert decide(5) == Decision(stops=False, saves=False, steps=5)
    stop._note_save(10, None)
    assert decide(5) == Decision(stops=False, saves=True, steps=5)
    stop.join(15)
    assert decide(5) == Decision(stops=True, saves=False, steps=5)


def test_a_run_ends_when_its_time_is_over():
    decide = Workers(None).deciding(StopRequest(), lambda: True)
    assert decide(5) == Decision(stops=False, saves=False, steps=5, ends=True)


@pytest.mark.parametrize(
    ("text", "who"),
    [
        (
            "Socket closed; /job:worker/replica:0/task:2 while calling",
            r"^worker 2 \(c:3\) is lost, so that all stop; again",
        ),
        (
            "from /job:worker/task:1: /job:worker/task:0, /job:worker/task:2",
            r"^worker 0 \(a:1\), worker 2 \(c:3\) is",
        ),
        ("Socket closed", r"^a worker is lost"),
    ],
)
def test_who_is_lost_is_named(text, who):
    with pytest.raises(RunError, match=who), Workers(THREE).peer_failures_as_run_error("again"):
        raise tf.errors.UnavailableError(None, None, text)


@pytest.mark.parametrize("cluster", [THREE, None])
def test_another_failure_is_not_taken_for_a_loss(cluster):
    with (
        pytest.raises(tf.errors.InvalidArgumentError),
        Workers(cluster).peer_failures_as_run_error("again"),
    ):
        raise tf.errors.InvalidArgumentError(None, None, "/job:worker/task:2")
