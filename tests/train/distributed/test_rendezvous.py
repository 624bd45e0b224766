import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from hgtrain.errors import RunError
from hgtrain.train.distributed import rendezvous as rendezvous_module
from hgtrain.train.distributed.cluster import Cluster
from hgtrain.train.distributed.rendezvous import rendezvous

ALIKE = {"config": "a", "dataset": "b"}


@pytest.fixture
def addresses():
    """Return addresses of three workers on ports that are free."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    ports = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return tuple(f"127.0.0.1:{port}" for port in ports)


def outcome(addresses, index, facts, patience_s):
    try:
        rendezvous(Cluster(addresses, index), facts, patience_s)
    except RunError as error:
        return str(error)
    return ""


def outcomes(addresses, facts, patience_s=20.0):
    """Return what each worker was told; facts: None for one that does not come."""
    with ThreadPoolExecutor(len(facts)) as pool:
        futures = [
            pool.submit(outcome, addresses, index, fact, patience_s)
            for index, fact in enumerate(facts)
            if fact is not None
        ]
        return [future.result() for future in futures]


def test_all_meet(addresses):
    assert outcomes(addresses, [ALIKE] * 3) == [""] * 3


def test_one_alone_has_nobody_to_wait_for(addresses):
    assert outcomes(addresses[:1], [ALIKE]) == [""]


def test_all_are_told_who_differs_in_what(addresses):
    told = outcomes(addresses, [ALIKE, ALIKE, {"config": "a", "dataset": "other"}])
    text = (
        f"worker 2 ({addresses[2]}) has another dataset than worker 0 ({addresses[0]}): start all "
        "with the same "
        "hgtrain, config and data"
    )
    assert told == [text] * 3


def test_all_are_told_who_did_not_come(addresses, monkeypatch, capsys):
    monkeypatch.setattr(rendezvous_module, "SILENT_SECONDS", 0.0)
    told = outcomes(addresses, [ALIKE, None, ALIKE], patience_s=2.0)
    assert (
        told
        == [f"worker 1 ({addresses[1]}) did not connect in time: start all workers together"] * 2
    )
    assert f"waiting for worker 1 ({addresses[1]})" in capsys.readouterr().err


def test_a_chief_that_does_not_come_is_named_with_the_reason(addresses):
    (told,) = outcomes(addresses, [None, ALIKE], patience_s=0.5)
    assert told == (
        f"worker 0 ({addresses[0]}) did not connect in time ([Errno 111] Connection refused): "
        "start all workers together"
    )


def test_a_port_that_another_process_has_is_named(addresses):
    port = addresses[0].partition(":")[2]
    with (
        socket.create_server(("", int(port))),
        pytest.raises(RunError, match=f"cannot listen on its port {port}: .*in use"),
    ):
        rendezvous(Cluster(addresses, 0), ALIKE)


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n", b"[]\n", b'{"index": 1}\n', b""])
def test_a_stranger_is_not_taken_for_a_worker(addresses, said):
    host, _, port = addresses[0].partition(":")
    told = []
    chief = threading.Thread(target=lambda: told.append(outcome(addresses[:2], 0, ALIKE, 20.0)))
    chief.start()
    while True:
        try:
            with socket.create_connection((host, int(port))) as connection:
                connection.sendall(said)
                break
        except ConnectionRefusedError:
            continue
    assert outcome(addresses[:2], 1, ALIKE, 20.0) == ""
    chief.join()
    assert told == [""]


def test_a_worker_that_tries_before_the_chief_is_there_tries_again(addresses):
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(outcome, addresses[:2], 1, ALIKE, 20.0)
        threading.Event().wait(0.5)
        assert outcome(addresses[:2], 0, ALIKE, 20.0) == ""
        assert other.result() == ""


def test_what_is_said_is_short_whatever_the_facts():
    assert len(json.dumps({key: rendezvous_module._digest("x" * 10**6) for key in ALIKE})) < 200
