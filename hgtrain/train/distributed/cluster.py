"""Which processes train one network together.

TF_CONFIG says so, or what Slurm tells each task of a step. TensorFlow's own resolvers are not used:
they come with TensorFlow, which is to be imported once all is checked, that of Slurm counts GPUs
with nvidia-smi, and neither says what is wrong.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from hgtrain.errors import RunError

EXAMPLE = (
    '{"cluster": {"worker": ["node1:12345", "node2:12345"]}, '
    '"task": {"type": "worker", "index": 0}}'
)
TF_CONFIG = "TF_CONFIG"
SLURM = (
    "SLURM_STEP_NODELIST",
    "SLURM_STEP_TASKS_PER_NODE",
    "SLURM_NODEID",
    "SLURM_LOCALID",
    "SLURM_JOB_ID",
)
JOBS = ("chief", "worker")

FIRST_PORT, PORTS = 12000, 20000
"""Below the ports that Linux gives to outgoing connections: none of those holds one of ours."""


@dataclass(frozen=True)
class Cluster:
    """The processes that train together.

    Attributes:
        workers: `host:port` of each, the chief first.
        index: This process's own.
    """

    workers: tuple[str, ...]
    index: int

    @property
    def is_chief(self) -> bool:
        """Return whether this process writes, validates and reports."""
        return self.index == 0

    def name(self, index: int) -> str:
        """Return how messages call a worker."""
        return f"worker {index} ({self.workers[index]})"


def read_cluster(environment: Mapping[str, str]) -> Cluster:
    """Return the cluster that TF_CONFIG or, without it, the variables of a Slurm step describe.

    Raises:
        RunError: Neither is there, or what is there cannot be used.
    """
    if environment.get(TF_CONFIG):
        return _from_tf_config(environment[TF_CONFIG])
    missing = [name for name in SLURM if not environment.get(name)]
    if missing:
        raise RunError(
            "training.strategy is multi_worker, but nothing says which processes train together: "
            "start hgtrain with "
            f"srun ({', '.join(missing)} not set), or set {TF_CONFIG} for each process, such as "
            f"{TF_CONFIG}='{EXAMPLE}'"
        )
    return _from_slurm(environment)


def _from_tf_config(text: str) -> Cluster:
    def refused(problem: str) -> RunError:
        return RunError(f"{TF_CONFIG} {problem}; expected such as {TF_CONFIG}='{EXAMPLE}'")

    try:
        document = json.loads(text)
    except ValueError as error:
        raise refused(f"is not JSON ({error}), got {text!r}") from error
    cluster, task = (
        document.get(key) if isinstance(document, dict) else None for key in ("cluster", "task")
    )
    if not (isinstance(cluster, dict) and isinstance(task, dict)):
        raise refused(f"must have cluster and task, got {text!r}")
    for job, addresses in cluster.items():
        if job not in JOBS:
            raise refused(
                f"has {job!r} in its cluster, which hgtrain has no use for: only "
                f"{' and '.join(JOBS)} train"
            )
        for address in addresses if isinstance(addresses, list) else [addresses]:
            if not (
                isinstance(addresses, list)
                and isinstance(address, str)
                and re.fullmatch(r".+:\d+", address)
            ):
                raise refused(
                    f"has {address!r} among the {job} addresses, which must be a list of HOST:PORT"
                )
    # One list of them, the chief first: TensorFlow would take a job of its own for it all the same.
    numbered = [(job, index) for job in JOBS for index in range(len(cluster.get(job, [])))]
    return Cluster(
        tuple(cluster[job][index] for job, index in numbered), _own_place(task, numbered, refused)
    )


def _own_place(task: dict[str, Any], numbered: list[tuple[str, int]], refused: Any) -> int:
    own = (task.get("type"), task.get("index"))
    if own not in numbered or isinstance(own[1], bool):
        there = ", ".join(f"{job} {index}" for job, index in numbered) or "nobody"
        raise refused(f"says that this is {own[0]} {own[1]}, but its cluster has {there}")
    return numbered.index(own)


def _from_slurm(environment: Mapping[str, str]) -> Cluster:
    nodes, tasks, node, local, job = (environment[name] for name in SLURM)
    try:
        hosts, counts = list(expand_hosts(nodes)), list(expand_counts(tasks))
        # Two jobs, or two steps of one, may share a node.
        first_port = (
            FIRST_PORT + (int(job) + 1000 * int(environment.get("SLURM_STEP_ID", 0))) % PORTS
        )
        workers = [
            f"{host}:{first_port + i}"
            for host, count in zip(hosts, counts, strict=True)
            for i in range(count)
        ]
        # By node and place on it: how ranks are spread over the nodes can be chosen (srun
        # --distribution).
        before = [0, *accumulate(counts)][int(node)]
        return Cluster(tuple(workers), range(len(workers))[before + int(local)])
    except (ValueError, IndexError) as error:
        given = ", ".join(f"{name}={environment[name]}" for name in SLURM)
        raise RunError(
            f"what Slurm says of this step cannot be read ({given}: {error}): set {TF_CONFIG} for "
            "each process, such "
            f"as {TF_CONFIG}='{EXAMPLE}'"
        ) from error


def expand_hosts(nodes: str) -> Iterator[str]:
    """Return the names in a host list of Slurm, such as `gpu[01-03,7],login`, in order.

    Raises:
        ValueError: It is no such list.
    """
    for part in re.findall(r"(?:[^,\[\]]|\[[^\]]*\])+", nodes):
        yield from _expand_brackets(part)


def _expand_brackets(part: str) -> Iterator[str]:
    head, bracket, rest = part.partition("[")
    if not bracket:
        yield part
        return
    ranges, _, tail = rest.partition("]")
    for item in ranges.split(","):
        first, _, last = item.partition("-")
        for number in range(int(first), int(last or first) + 1):
            for end in _expand_brackets(tail):
                yield f"{head}{number:0{len(first)}d}{end}"


def expand_counts(tasks: str) -> Iterator[int]:
    """Return the number of tasks on each node, from such as `2(x3),1`; ValueError if it is none."""
    for part in tasks.split(","):
        count, _, times = part.removesuffix(")").partition("(x")
        yield from [int(count)] * int(times or 1)
