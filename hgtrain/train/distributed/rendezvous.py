"""How the processes that are to train together find each other.

They do so before TensorFlow is asked to connect them: it waits without end for a process that does
not come, and not even a signal stops that. Here the waiting has an end, and what must be alike is
compared before anything is written.
"""

import hashlib
import json
import socket
import time
from collections.abc import Mapping
from contextlib import ExitStack

from hgtrain.errors import RunError
from hgtrain.log import SILENT_SECONDS, say
from hgtrain.train.distributed.cluster import Cluster

PATIENCE_S = 600.0
"""How long processes that were started together are waited for.

A queue may start them minutes apart.
"""

ANSWER_S = 10.0
LONGEST_LINE = 2**16
SECONDS_BETWEEN_TRIES = 0.2


def rendezvous(cluster: Cluster, facts: Mapping[str, str], patience_s: float = PATIENCE_S) -> None:
    """Return once all processes of the cluster are here.

    Args:
        cluster: The processes.
        facts: What all must have alike, by what a message calls it.
        patience_s: How long to wait for the others, in seconds.

    Raises:
        RunError: In all of them, where a worker has other facts than the chief, and where one does
            not come.
    """
    said = {"index": cluster.index, "facts": {key: _digest(value) for key, value in facts.items()}}
    with _own_port(cluster) as server:
        if cluster.is_chief:
            problem = _receive(cluster, server, said, time.monotonic() + patience_s)
    if not cluster.is_chief:
        problem = _report(cluster, said, time.monotonic() + patience_s)
    if problem:
        raise RunError(problem)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _own_port(cluster: Cluster) -> socket.socket:
    """Return a socket on the port that TensorFlow listens on later.

    Raises:
        RunError: Another process has the port.
    """
    port = int(cluster.workers[cluster.index].rpartition(":")[2])
    try:
        return socket.create_server(("", port))
    except (OSError, OverflowError) as error:
        raise RunError(
            f"{cluster.name(cluster.index)} cannot listen on its port {port}: {error}"
        ) from error


def _receive(cluster: Cluster, server: socket.socket, mine: dict, deadline: float) -> str:
    """Hear all others, tell them the same, and return it: what is wrong, or nothing."""
    missing = set(range(1, len(cluster.workers)))
    differing: dict[int, list[str]] = {}
    waiting = _Waiting()
    with ExitStack() as stack:
        there: list[socket.socket] = []
        while missing and time.monotonic() < deadline:
            server.settimeout(1.0)
            try:
                connection = stack.enter_context(server.accept()[0])
                said = _read(connection)
                index, facts = said["index"], said["facts"]
            except (OSError, ValueError, TypeError, KeyError):
                # Nobody yet, or somebody else's connection.
                waiting.show(cluster, missing)
                continue
            there.append(connection)
            missing.discard(index)
            if other := [key for key, value in mine["facts"].items() if facts.get(key) != value]:
                differing[index] = other
        problem = _problem(cluster, missing, differing)
        for connection in there:
            try:
                connection.sendall(json.dumps({"problem": problem}).encode() + b"\n")
            except OSError:
                # Gone again: TensorFlow finds out.
                continue
    return problem


def _problem(cluster: Cluster, missing: set[int], differing: Mapping[int, list[str]]) -> str:
    if differing:
        others = "; ".join(
            f"{cluster.name(index)} has another {' and '.join(differing[index])}"
            for index in differing
        )
        return f"{others} than {cluster.name(0)}: start all with the same hgtrain, config and data"
    if missing:
        names = ", ".join(map(cluster.name, sorted(missing)))
        return f"{names} did not connect in time: start all workers together"
    return ""


def _report(cluster: Cluster, said: dict, deadline: float) -> str:
    """Tell the chief who this is, and return its answer once all are there."""
    host, _, port = cluster.workers[0].rpartition(":")
    waiting = _Waiting()
    problem = ""
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(
                (host.strip("[]"), int(port)), timeout=ANSWER_S
            ) as connection:
                connection.sendall(json.dumps(said).encode() + b"\n")
                # It waits for the others meanwhile.
                connection.settimeout(max(deadline - time.monotonic(), 0) + ANSWER_S)
                return str(_read(connection)["problem"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            problem = f" ({error})"
            waiting.show(cluster, {0})
            time.sleep(SECONDS_BETWEEN_TRIES)
    return f"{cluster.name(0)} did not connect in time{problem}: start all workers together"


def _read(connection: socket.socket) -> dict:
    if connection.gettimeout() is None:
        connection.settimeout(ANSWER_S)
    with connection.makefile("rb") as file:
        return json.loads(file.readline(LONGEST_LINE))


class _Waiting:
    """Says once who is waited for, when that takes long."""

    def __init__(self) -> None:
        self._started: float | None = time.monotonic()

    def show(self, cluster: Cluster, missing: set[int]) -> None:
        if self._started is not None and time.monotonic() - self._started > SILENT_SECONDS:
            self._started = None
            say(f"waiting for {', '.join(map(cluster.name, sorted(missing)))}")
