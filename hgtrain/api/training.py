"""`hgtrain.fit`: what the command `fit` does, for Python programs."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hgtrain.api.run import Run, load_run
from hgtrain.config.load import load_config
from hgtrain.config.schema import Config
from hgtrain.rundir.resume import config_and_run
from hgtrain.signals import StoppedError, StopRequest


def fit(
    config_or_path: Config | str | os.PathLike[str],
    run_dir: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> Run:
    """Train the network that a config describes, evaluate the best of it, and return the run.

    This is `hgtrain fit`: the same checks, progress on stderr and files in the run directory.
    Ctrl-C and SIGTERM end it with a checkpoint from which `resume=True` goes on, and are then
    raised again: Ctrl-C as KeyboardInterrupt.

    Args:
        config_or_path: What `load_config` returns, a config file, or with `resume` the directory of
            the run to go on with.
        run_dir: Where results go; None: `output.run_dir` of the config, or else
            `runs/<config name>-<time>`.
        resume: Whether to go on with that run, or the one in `run_dir`, from its newest checkpoint,
            exactly as if it had not been stopped; a run that is finished is only opened.

    Returns:
        The run, with the best network by validation.

    Raises:
        HgtrainError: Config, data, run directory or device cannot be used. All that was given is
            checked before TensorFlow is imported.
        KeyboardInterrupt: After Ctrl-C.
    """
    wanted = None if run_dir is None else Path(run_dir)
    if isinstance(config_or_path, Config):
        config = config_or_path
    else:
        file, wanted = config_and_run(Path(config_or_path), wanted, resume)
        config = load_config(file)
    # Its module has click's options too, which load_run needs not.
    from hgtrain.commands.fit import fit as fit_in

    with _stopped_by_signals() as stop:
        folder, _ = fit_in(config, wanted, resume, stop)
    return load_run(folder)


@contextmanager
def _stopped_by_signals() -> Iterator[StopRequest]:
    """Give what the training asks whether it should stop.

    A signal that stopped it is raised again for the handlers that the program has, which by default
    raise KeyboardInterrupt for Ctrl-C and end the process for SIGTERM.
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        # Python has signals in its main thread alone.
        yield stop
        return
    try:
        with stop.listening():
            yield stop
    except StoppedError as error:
        stopped = error
    else:
        return
    signal.raise_signal(stopped.signum)
    # The program's handler ignores the signal; the training has ended all the same.
    raise stopped
