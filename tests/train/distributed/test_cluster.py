import json

import pytest

from hgtrain.errors import RunError
from hgtrain.train.distributed.cluster import Cluster, expand_counts, expand_hosts, read_cluster

SLURM = {
    "SLURM_STEP_NODELIST": "gpu[01-02]",
    "SLURM_STEP_TASKS_PER_NODE": "1(x2)",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "0",
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "2",
}


def tf_config(cluster, kind="worker", index=0):
    return {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})}


def test_tf_config_names_the_workers():
    assert read_cluster(tf_config({"worker": ["a:1", "b:2"]}, index=1)) == Cluster(
        ("a:1", "b:2"), 1
    )


@pytest.mark.parametrize(
    ("kind", "index", "place"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)]
)
def test_a_chief_of_its_own_is_the_first_worker(kind, index, place):
    cluster = read_cluster(tf_config({"worker": ["a:1", "b:2"], "chief": ["c:3"]}, kind, index))
    assert cluster == Cluster(("c:3", "a:1", "b:2"), place)
    assert cluster.is_chief == (kind == "chief")


def test_tf_config_comes_before_slurm():
    assert read_cluster(SLURM | tf_config({"worker": ["a:1"]})).workers == ("a:1",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "{worker",
            r"TF_CONFIG is not JSON \(.*\), got '{worker'; expected such as "
            r"TF_CONFIG='{\"cluster\"",
        ),
        ("[1]", r"TF_CONFIG must have cluster and task, got '\[1\]'"),
        ('{"cluster": {}}', r"TF_CONFIG must have cluster and task, got"),
    ],
)
def test_a_tf_config_that_cannot_be_read_is_shown(text, problem):
    with pytest.raises(RunError, match=problem):
        read_cluster({"TF_CONFIG": text})


@pytest.mark.parametrize(
    ("cluster", "index", "problem"),
    [
        (
            {"worker": ["a:1"], "ps": ["b:2"]},
            0,
            "has 'ps' in its cluster.*only chief and worker train",
        ),
        (
            {"worker": ["a:1", "b"]},
            0,
            "has 'b' among the worker addresses, which must be a list of HOST:PORT",
        ),
        ({"worker": "a:1"}, 0, "has 'a:1' among the worker addresses"),
        (
            {"worker": ["a:1", "b:2"]},
            2,
            "says that this is worker 2, but its cluster has worker 0, worker 1",
        ),
        ({"worker": ["a:1", "b:2"]}, True, "says that this is worker True"),
        ({}, 0, "says that this is worker 0, but its cluster has nobody"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_shown(cluster, index, problem):
    with pytest.raises(RunError, match=problem):
        read_cluster(tf_config(cluster, index=index))


def test_slurm_names_the_workers_of_its_step():
    # 12000 + 7 + 1000 * 2
    assert read_cluster(SLURM) == Cluster(("gpu01:14007", "gpu02:14007"), 1)


def test_tasks_of_slurm_on_one_node_have_ports_of_their_own():
    tasks = {"SLURM_STEP_TASKS_PER_NODE": "2,1", "SLURM_NODEID": "0", "SLURM_LOCALID": "1"}
    assert read_cluster(SLURM | tasks) == Cluster(("gpu01:14007", "gpu01:14008", "gpu02:14007"), 1)


def test_ports_stay_where_ports_are():
    cluster = read_cluster(SLURM | {"SLURM_JOB_ID": "123456789"})
    assert [address.partition(":")[2] for address in cluster.workers] == ["30789", "30789"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SLURM_STEP_TASKS_PER_NODE", "1"),
        ("SLURM_STEP_TASKS_PER_NODE", "one"),
        ("SLURM_STEP_NODELIST", "gpu[a-b]"),
        ("SLURM_NODEID", "3"),
        ("SLURM_LOCALID", "1"),
    ],
)
def test_what_slurm_says_and_cannot_be_read_is_shown(name, value):
    environment = SLURM | {name: value}
    with pytest.raises(
        RunError, match=f"what Slurm says of this step cannot be read .*{name}="
    ) as caught:
        read_cluster(environment)
    assert f"{name}={value}" in str(caught.value)


def test_without_tf_config_and_slurm_both_are_named():
    with pytest.raises(
        RunError, match=r"start hgtrain with srun \(SLURM_STEP_NODELIST not set\), or set TF_CONFIG"
    ):
        read_cluster(SLURM | {"SLURM_STEP_NODELIST": ""})


@pytest.mark.parametrize(
    ("nodes", "hosts"),
    [
        ("a", ["a"]),
        ("a,b.c-d", ["a", "b.c-d"]),
        ("n[1-3],m", ["n1", "n2", "n3", "m"]),
        ("n[08-10,7]", ["n08", "n09", "n10", "n7"]),
        ("r[0-1]n[1,3].x", ["r0n1.x", "r0n3.x", "r1n1.x", "r1n3.x"]),
    ],
)
def test_a_host_list_is_expanded_in_order(nodes, hosts):
    assert list(expand_hosts(nodes)) == hosts


@pytest.mark.parametrize(
    ("tasks", "counts"), [("2", [2]), ("1(x3)", [1, 1, 1]), ("3(x2),2,1", [3, 3, 2, 1])]
)
def test_task_counts_are_expanded_in_order(tasks, counts):
    assert list(expand_counts(tasks)) == counts
