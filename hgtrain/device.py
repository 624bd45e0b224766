"""Where and how a run computes: device, strategy, precision, XLA, determinism, as resolved from the config."""

import contextlib
import ctypes
import faulthandler
import gc
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from hgtrain.cluster import Cluster
from hgtrain.config import TrainingConfig
from hgtrain.errors import RunError

if TYPE_CHECKING:
    import tensorflow as tf

    from hgtrain.train.workers import Workers


CONNECTED_S = 120.0
"""How long connecting may take processes that are all there."""


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


class Compute(NamedTuple):
    """What was resolved.

    strategy_name: single, mirrored or multi_worker. workers: the processes that train together. device: in words.
    replicas: of all processes. jit: whether XLA compiles the step; None: `xla_choice` has yet to decide.
    """

    strategy: "tf.distribute.Strategy"
    strategy_name: str
    device: str
    replicas: int
    precision: str
    jit: bool | None
    xla_reason: str
    workers: "Workers"


def import_tensorflow(returns_memory: bool = False) -> None:
    """Import TensorFlow without the lines its libraries print on every start; they are shown if the import fails.

    returns_memory: whether it is to take as little memory as it can; decided with the first import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules:
        return
    if returns_memory:
        _return_memory_at_once()
    # A million objects that stay: looking through them again and again for garbage takes a fifth of the time.
    gc.disable()
    try:
        with quiet_libraries():
            import keras  # noqa: F401
            import tensorflow as tf

            tf.config.list_physical_devices()
        gc.freeze()
    finally:
        gc.enable()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep back what is written to stderr, by C++ too, which heeds no log level; it is shown if the block fails."""
    with tempfile.TemporaryFile() as caught:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(caught.fileno(), 2)
        try:
            yield
        except Exception:
            caught.seek(0)
            os.write(saved, caught.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def set_up(config: TrainingConfig, cluster: Cluster | None = None) -> Compute:
    """Return where the run computes, after setting what TensorFlow has as process-wide settings.

    cluster: for multi_worker; its processes have met.
    Raises RunError where there is no such device, the batch cannot be shared among the replicas, or the processes of
    the cluster cannot be connected or have other numbers of GPUs.
    """
    import_tensorflow(config.recompute)
    import keras
    import tensorflow as tf

    from hgtrain.train.workers import Workers

    gpus = tf.config.list_physical_devices("GPU")
    if config.device == "gpu" and not gpus:
        raise RunError(
            "training.device is gpu, but TensorFlow finds none: install hgtrain[gpu] on a machine with an NVIDIA "
            "driver, or set training.device: auto"
        )
    if config.device == "cpu":
        gpus = []
    tf.config.set_visible_devices(gpus, "GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    name, strategy = _strategy(config, len(gpus), cluster)
    workers = Workers(cluster)
    _check_same_devices(workers, len(gpus))
    # Later than the strategy: one of several processes must be there before TensorFlow does anything else.
    keras.utils.set_random_seed(config.seed)
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise RunError(
            f"training.batch_size must be a multiple of the {replicas} devices, got {config.batch_size} "
            f"(nearest: {max(1, config.batch_size // replicas) * replicas})"
        )
    jit, reason = _resolve_xla(config, bool(gpus), replicas)
    device = tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU") if gpus else "CPU"
    return Compute(strategy, name, device, replicas, config.precision, jit, reason, workers)


def _return_memory_at_once() -> None:
    """Have TensorFlow's operations on the CPU take memory from the system and give it back, instead of keeping it.

    What they keep for later is a third of the peak of a large network, which `training.recompute` is there to lower;
    giving it back costs some percent of the time. Of no effect once TensorFlow is imported.
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(parameter, 2**16)


def _strategy(config: TrainingConfig, gpus: int, cluster: Cluster | None) -> tuple[str, "tf.distribute.Strategy"]:
    import tensorflow as tf

    wanted = config.strategy
    if cluster is not None:
        return wanted, _joined(cluster, gpus)
    # Of several machines that are not there, as to measure a step, this one.
    if wanted in ("auto", "multi_worker"):
        wanted = "mirrored" if gpus > 1 else "single"
    if wanted == "single":
        return wanted, tf.distribute.get_strategy()
    devices = [device.name for device in tf.config.list_logical_devices("GPU" if gpus else "CPU")]
    # The default reduction needs NCCL or hangs on CPUs that are parts of one.
    reduction = None if gpus else tf.distribute.ReductionToOneDevice()
    return wanted, tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def _joined(cluster: Cluster, gpus: int) -> "tf.distribute.Strategy":
    """Return the strategy over all processes once all are there."""
    import tensorflow as tf

    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": cluster.workers}),
        task_type="worker",
        task_id=cluster.index,
        # Without a number TensorFlow takes it for none.
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    kinds = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(implementation=kinds.AUTO if gpus else kinds.RING)
    try:
        with _connecting():
            return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.OpError as error:
        raise RunError(
            f"{cluster.name(cluster.index)} cannot join {', '.join(cluster.workers)}: {str(error).splitlines()[0]}"
        ) from error


@contextmanager
def _connecting() -> Iterator[None]:
    """End the process when a signal comes or nothing has come of the block for a while, and keep our signal handlers.

    TensorFlow waits there for the others without an end, and holds the interpreter's lock meanwhile, so that neither a
    handler nor a thread of Python's runs. Its coordination service then takes SIGTERM for itself.
    """
    handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)}
    is_main = threading.current_thread() is threading.main_thread()
    for signum in handlers if is_main else ():
        signal.signal(signum, signal.SIG_DFL)
    faulthandler.dump_traceback_later(CONNECTED_S, exit=True, file=sys.__stderr__ or sys.stderr)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for signum, handler in handlers.items() if is_main else ():
            signal.signal(signum, handler)


def _check_same_devices(workers: "Workers", gpus: int) -> None:
    most, fewest = workers.agree([gpus, -gpus])
    if most != -fewest:
        raise RunError(
            f"all machines must have as many GPUs: this one has {gpus}, one has {-fewest}, one {most}; set "
            "CUDA_VISIBLE_DEVICES, or ask Slurm for the same number everywhere (--gpus-per-node)"
        )


def _resolve_xla(config: TrainingConfig, has_gpu: bool, replicas: int) -> tuple[bool | None, str]:
    if replicas > 1:
        if config.xla == "on":
            raise RunError(f"training.xla is on, which needs a single device, got {replicas}: set training.xla: auto")
        return False, "several devices"
    if config.xla != "auto":
        return config.xla == "on", "as configured"
    if config.deterministic:
        return False, "deterministic operations were asked for"
    return (None, "not measured") if has_gpu else (False, "on a CPU it makes the step slower")
