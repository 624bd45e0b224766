import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest

from hgtrain import tensorflow_setup
from hgtrain.config.schema import TrainingConfig
from hgtrain.errors import RunError
from hgtrain.train.distributed import devices
from hgtrain.train.distributed.cluster import Cluster

tf = pytest.importorskip("tensorflow")

GPU = bool(tf.config.list_physical_devices("GPU"))


def set_up(**training):
    return devices.set_up(TrainingConfig(**{"device": "cpu"} | training))


@pytest.fixture
def two_replicas(monkeypatch):
    strategy = SimpleNamespace(num_replicas_in_sync=2)
    monkeypatch.setattr(devices, "_strategy", lambda config, gpus, cluster: ("mirrored", strategy))


@pytest.fixture
def indeterminate_again():
    from tensorflow.python.framework import config

    yield
    config.disable_op_determinism()


def test_a_cpu_computes_alone_and_without_xla():
    compute = set_up()
    assert (compute.strategy_name, compute.device, compute.replicas) == ("single", "CPU", 1)
    assert (compute.jit, compute.xla_reason) == (False, "on a CPU it makes the step slower")


def test_precision_is_as_configured():
    assert set_up(precision="mixed_bfloat16").precision == "mixed_bfloat16"


@pytest.mark.parametrize(("xla", "jit"), [("on", True), ("off", False)])
def test_xla_is_as_configured(xla, jit):
    compute = set_up(xla=xla)
    assert (compute.jit, compute.xla_reason) == (jit, "as configured")


@pytest.mark.usefixtures("indeterminate_again")
def test_xla_is_off_where_operations_are_deterministic():
    compute = set_up(deterministic=True)
    assert (compute.jit, compute.xla_reason) == (False, "deterministic operations were asked for")


def test_the_seed_sets_the_weights():
    from keras import initializers

    def draw(seed):
        set_up(seed=seed)
        return initializers.GlorotUniform()((2, 2)).numpy().tolist()

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.skipif(GPU, reason="needs a machine without a GPU")
def test_a_gpu_is_an_error_where_there_is_none():
    with pytest.raises(
        RunError,
        match=r"training.device is gpu, but TensorFlow finds none: .*training.device: auto",
    ):
        set_up(device="gpu")


def initialized(*arguments):
    raise RuntimeError("Visible devices cannot be modified after being initialized")


def test_a_process_that_has_computed_on_other_devices_cannot_choose(monkeypatch):
    monkeypatch.setattr(tf.config, "set_visible_devices", initialized)
    with pytest.raises(
        RunError, match=r"training\.device: cpu can no longer be chosen, .*in a new process"
    ):
        set_up(device="cpu")


def test_a_process_that_has_computed_on_the_same_gpus_trains_on(monkeypatch):
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    taken = []
    monkeypatch.setattr(tf.config, "set_visible_devices", lambda gpus, kind: taken.append(gpus))
    monkeypatch.setattr(tf.config.experimental, "set_memory_growth", initialized)
    devices._take_gpus([gpu])
    assert taken == [[gpu]]


def test_a_step_for_several_machines_is_measured_on_this_one():
    compute = set_up(strategy="multi_worker")
    assert (compute.strategy_name, compute.workers.count) == ("single", 1)


def test_machines_with_other_numbers_of_gpus_are_refused():
    workers = SimpleNamespace(agree=lambda values: [4, -1])
    with pytest.raises(
        RunError, match=r"this one has 2, one has 1, one 4; set CUDA_VISIBLE_DEVICES"
    ):
        devices._check_same_devices(workers, 2)


def test_a_cluster_that_tensorflow_does_not_join_is_named(monkeypatch):
    def fail(resolver, options):
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server\nand more")

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", fail)
    with pytest.raises(
        RunError, match=r"worker 1 \(b:2\) cannot join a:1, b:2: Could not start gRPC server$"
    ):
        devices._joined(Cluster(("a:1", "b:2"), 1), 0)


def test_while_connecting_signals_end_the_process_and_afterwards_ours_are_back():
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with devices._connecting():
        assert signal.getsignal(signal.SIGTERM) == signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.usefixtures("two_replicas")
def test_a_batch_must_be_shared_among_the_devices():
    with pytest.raises(
        RunError, match=r"batch_size must be a multiple of the 2 devices, got 7 \(nearest: 6\)"
    ):
        set_up(batch_size=7)


@pytest.mark.usefixtures("two_replicas")
def test_xla_is_off_on_several_devices():
    compute = set_up(batch_size=8)
    assert (compute.replicas, compute.jit, compute.xla_reason) == (2, False, "several devices")


@pytest.mark.usefixtures("two_replicas")
def test_xla_cannot_be_on_on_several_devices():
    with pytest.raises(
        RunError, match=r"xla is on, which needs a single device, got 2: set training.xla: auto"
    ):
        set_up(batch_size=8, xla="on")


@pytest.mark.slow
def test_tensorflow_is_imported_without_its_lines_but_with_one_of_ours():
    code = (
        "import sys; from hgtrain.tensorflow_setup import import_tensorflow as load; load(); "
        "sys.modules['tensorflow']"
    )
    environment = {
        name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"
    }
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert (done.stdout, done.stderr) == ("", "loading TensorFlow\n")


class Broken:
    """Finds a tensorflow that says something and cannot be imported."""

    def find_spec(self, name, path=None, target=None):
        if name == "tensorflow":
            os.write(2, b"libcudart.so.12 is not there\n")
            raise ImportError("no tensorflow")


def test_a_failing_import_shows_what_was_said(monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "tensorflow")
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(ImportError, match="no tensorflow"):
        tensorflow_setup.import_tensorflow()
    assert capfd.readouterr().err == "loading TensorFlow\nlibcudart.so.12 is not there\n"
