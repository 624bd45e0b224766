"""Where and how a run computes.

Device, strategy, precision, XLA and determinism, as resolved from the config.
"""

import faulthandler
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from hgtrain.config.schema import TrainingConfig
from hgtrain.errors import RunError
from hgtrain.tensorflow_setup import import_tensorflow
from hgtrain.train.distributed.cluster import Cluster

if TYPE_CHECKING:
    import tensorflow as tf

    from hgtrain.train.distributed.workers import Workers

CONNECTED_S = 120.0
"""How long connecting may take processes that are all there."""


class Compute(NamedTuple):
    """What was resolved.

    Attributes:
        strategy: Of TensorFlow.
        strategy_name: single, mirrored or multi_worker.
        device: In words.
        replicas: Of all processes.
        precision: A Keras dtype policy.
        jit: Whether XLA compiles the step; None: `xla_choice` has yet to decide.
        xla_reason: Why it does or does not, in words.
        workers: The processes that train together.
    """

    strategy: "tf.distribute.Strategy"
    strategy_name: str
    device: str
    replicas: int
    precision: str
    jit: bool | None
    xla_reason: str
    workers: "Workers"


def set_up(config: TrainingConfig, cluster: Cluster | None = None) -> Compute:
    """Return where the run computes, after setting what TensorFlow has as process-wide settings.

    Args:
        config: The `training` section.
        cluster: For multi_worker; its processes have met.

    Raises:
        RunError: There is no such device, the batch cannot be shared among the replicas, or the
            processes of the cluster cannot be connected or have other numbers of GPUs.
    """
    import_tensorflow(config.recompute)
    import keras
    import tensorflow as tf

    from hgtrain.train.distributed.workers import Workers

    gpus = tf.config.list_physical_devices("GPU")
    if config.device == "gpu" and not gpus:
        raise RunError(
            "training.device is gpu, but TensorFlow finds none: install hgtrain[gpu] on a machine "
            "with an NVIDIA "
            "driver, or set training.device: auto"
        )
    if config.device == "cpu":
        gpus = []
    _take_gpus(gpus)
    if config.deterministic:
        tf.config.experimental.enable_op_determinism()
    name, strategy = _strategy(config, len(gpus), cluster)
    workers = Workers(cluster)
    _check_same_devices(workers, len(gpus))
    # Later than the strategy: one of several processes must be there before TensorFlow does
    # anything else.
    keras.utils.set_random_seed(config.seed)
    replicas = strategy.num_replicas_in_sync
    if config.batch_size % replicas:
        raise RunError(
            f"training.batch_size must be a multiple of the {replicas} devices, got "
            f"{config.batch_size} "
            f"(nearest: {max(1, config.batch_size // replicas) * replicas})"
        )
    jit, reason = _resolve_xla(config, bool(gpus), replicas)
    device = (
        tf.config.experimental.get_device_details(gpus[0]).get("device_name", "GPU")
        if gpus
        else "CPU"
    )
    return Compute(strategy, name, device, replicas, config.precision, jit, reason, workers)


def _take_gpus(gpus: "list[tf.config.PhysicalDevice]") -> None:
    """Compute on these GPUs alone, none for the CPU, and take of their memory what is needed.

    Raises:
        RunError: The process, as a notebook's, has computed on other devices already.
    """
    import tensorflow as tf

    try:
        tf.config.set_visible_devices(gpus, "GPU")
    except RuntimeError as error:
        raise RunError(
            f"training.device: {'the GPUs' if gpus else 'cpu'} can no longer be chosen, this "
            "Python process has computed already: train in a new process, or leave training.device "
            "as it was"
        ) from error
    for gpu in gpus:
        # Where it has computed on them it keeps what it took.
        with suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def _strategy(
    config: TrainingConfig, gpus: int, cluster: Cluster | None
) -> tuple[str, "tf.distribute.Strategy"]:
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
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=kinds.AUTO if gpus else kinds.RING
    )
    try:
        with _connecting():
            return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.OpError as error:
        raise RunError(
            f"{cluster.name(cluster.index)} cannot join {', '.join(cluster.workers)}: "
            f"{str(error).splitlines()[0]}"
        ) from error


@contextmanager
def _connecting() -> Iterator[None]:
    """End the process when a signal comes, or when the block gets nowhere for a while.

    Our signal handlers are kept. TensorFlow waits in the block for the others without an end, and
    holds the interpreter's lock meanwhile, so that neither a handler nor a thread of Python's runs.
    Its coordination service then takes SIGTERM for itself.
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
            f"all machines must have as many GPUs: this one has {gpus}, one has {-fewest}, one "
            f"{most}; set "
            "CUDA_VISIBLE_DEVICES, or ask Slurm for the same number everywhere (--gpus-per-node)"
        )


def _resolve_xla(config: TrainingConfig, has_gpu: bool, replicas: int) -> tuple[bool | None, str]:
    if replicas > 1:
        if config.xla == "on":
            raise RunError(
                f"training.xla is on, which needs a single device, got {replicas}: set "
                "training.xla: auto"
            )
        return False, "several devices"
    if config.xla != "auto":
        return config.xla == "on", "as configured"
    if config.deterministic:
        return False, "deterministic operations were asked for"
    return (None, "not measured") if has_gpu else (False, "on a CPU it makes the step slower")
