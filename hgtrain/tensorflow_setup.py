"""Importing TensorFlow once, quietly and with what the environment needs set before."""

import contextlib
import ctypes
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from hgtrain.log import doing

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of glibc's malloc.h."""


def import_tensorflow(returns_memory: bool = False) -> None:
    """Import TensorFlow, and say so, without the lines its libraries print on every start.

    They are shown if the import fails.

    Args:
        returns_memory: Whether it is to take as little memory as it can; decided with the first
            import.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if "tensorflow" in sys.modules:
        return
    if returns_memory:
        _return_memory_at_once()
    # A million objects that stay: looking through them again and again for garbage takes a fifth of
    # the time.
    gc.disable()
    try:
        # Said at once: while it loads its libraries no other thread runs.
        with doing("loading TensorFlow", delay_s=0), quiet_libraries():
            import keras  # noqa: F401
            import tensorflow as tf

            tf.config.list_physical_devices()
        gc.freeze()
    finally:
        gc.enable()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keep back what is written to stderr, by C++ too, which heeds no log level.

    It is shown if the block fails.
    """
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


def _return_memory_at_once() -> None:
    """Have TensorFlow's operations on the CPU give memory back to the system instead of keeping it.

    What they keep for later is a third of the peak of a large network, which `training.recompute`
    is there to lower; giving it back costs some percent of the time. It has no effect once
    TensorFlow is imported.
    """
    os.environ.setdefault("TF_ONEDNN_USE_SYSTEM_ALLOCATOR", "1")
    with contextlib.suppress(AttributeError, OSError):  # another C library than glibc
        mallopt = ctypes.CDLL(None).mallopt
        for parameter in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(parameter, 2**16)
