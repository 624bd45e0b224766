import os
import signal
import subprocess
import sys
import time
from contextlib import closing

import h5py
import numpy as np
import pytest

from hgtrain.data.formats.hgtrain_format import open_file
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.split import Subset
from hgtrain.errors import DatasetError, RunError
from hgtrain.pipeline.feed import Feed
from hgtrain.pipeline.frame_store import FrameStore
from hgtrain.pipeline.reader_processes import ReaderPool, reader_count
from hgtrain.pipeline.samples import Samples
from hgtrain.skeleton import Skeleton

pytestmark = pytest.mark.multiprocess

FRAMES, SHAPE, MAX_ROWS = 50, (16, 24, 3), 12
PICTURES = np.random.default_rng(0).integers(0, 256, (FRAMES, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "flies.h5"
    write_dataset(
        path,
        Skeleton(("head", "tail")),
        ((image, np.zeros((2, 2)), None, None) for image in PICTURES),
    )
    return path


@pytest.fixture(scope="module")
def dataset(file):
    with closing(open_file(file)) as dataset:
        yield dataset


@pytest.fixture(scope="module")
def readers(dataset):
    with closing(ReaderPool(dataset.images, 2, MAX_ROWS)) as readers:
        yield readers


def pids_of(readers):
    return list(readers._pool._processes)


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(is_so, seconds=20.0):
    end = time.monotonic() + seconds
    while not is_so() and time.monotonic() < end:
        time.sleep(0.05)
    return is_so()


def test_images_are_those_of_the_rows_in_the_order_asked_for(readers):
    rows = np.array([7, 3, 3, 49, 0])
    np.testing.assert_array_equal(readers.take(readers.request(rows)), PICTURES[rows])


def test_several_requests_at_once_keep_their_images_apart(readers):
    random = np.random.default_rng(1)
    chosen = [random.integers(0, FRAMES, MAX_ROWS) for _ in range(20)]
    for some in (chosen[i : i + 5] for i in range(0, 20, 5)):
        requests = [readers.request(rows) for rows in some]
        for rows, request in zip(some, requests, strict=True):
            np.testing.assert_array_equal(readers.take(request), PICTURES[rows])


def test_no_more_is_asked_for_than_there_is_room(readers):
    requests = [readers.request(np.arange(3)) for _ in range(5)]
    assert readers.request(np.arange(3)) is None
    for request in requests:
        readers.take(request)
    readers.take(readers.request(np.arange(3)))


def test_readers_import_no_tensorflow(readers):
    readers.take(readers.request(np.arange(3)))
    for pid in pids_of(readers):
        with open(f"/proc/{pid}/maps") as maps:  # noqa: PTH123
            assert "tensorflow" not in maps.read()


def test_readers_ignore_the_signals_that_stop_their_parent(readers):
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        for pid in pids_of(readers):
            os.kill(pid, signum)
    for _ in range(4):
        readers.take(readers.request(np.arange(3)))
    assert all(map(is_alive, pids_of(readers)))


def test_signals_sent_while_readers_start_do_no_harm(dataset):
    with closing(ReaderPool(dataset.images, 1, MAX_ROWS)) as readers:
        for pid in pids_of(readers):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        np.testing.assert_array_equal(readers.take(readers.request(np.arange(3))), PICTURES[:3])


def test_closed_readers_are_gone_and_leave_no_descriptor(dataset):
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    readers = ReaderPool(dataset.images, 1, MAX_ROWS)
    pids = pids_of(readers)
    readers.request(np.arange(3))
    readers.close()
    assert pids
    assert not any(map(is_alive, pids))
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


@pytest.mark.parametrize("when", ["idle", "busy"])
def test_a_killed_reader_is_one_sentence(dataset, when):
    with closing(ReaderPool(dataset.images, 1, MAX_ROWS)) as readers:
        readers.take(readers.request(np.arange(3)))
        requests = [readers.request(np.arange(MAX_ROWS)) for _ in range(3 if when == "busy" else 0)]
        for pid in pids_of(readers):
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(
            RunError, match=r"a process that reads frames .* has ended, .* go on with --resume"
        ):
            take_for_ever(readers, requests)


def take_for_ever(readers, requests):
    while True:
        readers.take(requests.pop(0) if requests else readers.request(np.arange(3)))


ORPHANS = """
import sys
from hgtrain.data.formats.hgtrain_format import open_file
from hgtrain.pipeline.reader_processes import ReaderPool
if __name__ == "__main__":
    readers = ReaderPool(open_file(sys.argv[1]).images, 2, 4)
    readers.take(readers.request(__import__("numpy").arange(3)))
    print(*readers._pool._processes, flush=True)
    sys.stdin.read()
"""


def test_readers_end_when_their_parent_is_killed(file, tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(ORPHANS)
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, str(program), str(file)], stdin=pipe, stdout=pipe, text=True
    ) as parent:
        pids = list(map(int, parent.stdout.readline().split()))
        assert len(pids) == 2
        assert all(map(is_alive, pids))
        parent.kill()
        parent.wait()
        assert wait_until(lambda: not any(map(is_alive, pids)))


def test_where_no_process_can_be_started_another_cache_is_named(dataset, monkeypatch):
    def no_memory(name):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "memfd_create", no_memory)
    with pytest.raises(
        RunError, match=r"cannot be started \(.* Cannot allocate memory\), .* set data\.cache: ram"
    ):
        ReaderPool(dataset.images, 1, MAX_ROWS)


def test_what_cannot_be_read_is_an_error_of_the_dataset(tmp_path):
    path = tmp_path / "damaged.h5"
    with h5py.File(path, "w") as file:
        images = file.create_dataset("images", data=PICTURES, chunks=(1, *SHAPE), fletcher32=True)
        file["keypoints"] = np.zeros((FRAMES, 2, 2))
        offset = images.id.get_chunk_info(2).byte_offset
    with path.open("r+b") as raw:
        raw.seek(offset)
        raw.write(b"\xff\xff\xff")
    refused = pytest.raises(DatasetError, match=r"damaged\.h5:/images cannot be read, .* damaged")
    with (
        closing(open_file(path)) as dataset,
        closing(ReaderPool(dataset.images, 1, MAX_ROWS)) as readers,
        refused,
    ):
        readers.take(readers.request(np.array([1, 2])))


@pytest.mark.parametrize(("cores", "count"), [(1, 1), (2, 1), (3, 2), (16, 4)])
def test_a_core_is_left_to_training(monkeypatch, cores, count):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert reader_count() == count


@pytest.mark.parametrize(("channels", "scale"), [(3, 1.0), (1, 1.0), (3, 0.5)])
def test_a_feed_with_readers_gives_what_one_from_memory_gives(dataset, channels, scale):
    side = Subset(dataset, np.arange(5, FRAMES))
    feeds = [
        Feed(
            FrameStore(dataset, side.frames, channels, scale, cached),
            Samples(side, scale, of_animals=False),
            (3, 4, 7),
            False,
            0 if cached else 2,
        )
        for cached in (True, False)
    ]
    with closing(feeds[0]), closing(feeds[1]):
        for step in [*range(20), 3, 4, 30]:
            for found, expected in zip(feeds[1](step, 1)[0], feeds[0](step, 1)[0], strict=True):
                np.testing.assert_array_equal(found, expected)
