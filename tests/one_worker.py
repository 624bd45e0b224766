"""One of several processes that train together, as a program.

The command line of hgtrain after some hooks.

WEIGHTS: a file to write the trained weights to at the end; those of the start go to one beside.
DIES_AT, STOPS_AT: kills itself, or sends itself SIGTERM, before the call that would start with this
step or a later one.
"""

import os
import signal

import numpy as np

from hgtrain import cli
from hgtrain.report import page
from hgtrain.train import loop
from hgtrain.train.trainer import Trainer

close, steps = Trainer.close, Trainer.steps


def note(trainer: Trainer, name: str) -> None:
    np.savez(name, *(variable.numpy() for variable in trainer.networks.trained.trainable_variables))
    np.savez(
        f"{name}-statistics",
        *(variable.numpy() for variable in trainer.networks.trained.non_trainable_variables),
    )


def noting(self: Trainer) -> None:
    note(self, os.environ["WEIGHTS"])
    close(self)


def dying(self: Trainer, first_step: int, learning_rates: np.ndarray) -> tuple[np.ndarray, float]:
    if first_step == 0:
        note(self, os.environ["WEIGHTS"] + "-start")
    for name, signum in (("DIES_AT", signal.SIGKILL), ("STOPS_AT", signal.SIGTERM)):
        if first_step >= int(os.environ.get(name, 10**9)):
            os.kill(os.getpid(), signum)
    return steps(self, first_step, learning_rates)


loop.SECONDS_A_CALL = 0.0
# It takes longer than all else after the training, and is the same whoever trains.
page.write_report = lambda results: None
Trainer.close, Trainer.steps = noting, dying
cli.main()
