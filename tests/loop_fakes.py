"""An inner loop, an observer and a clock that stand for the real ones in tests of the outer
loop."""

import json

import numpy as np

from hgtrain.train.loop import State, train
from hgtrain.train.plan import Plan

TIMES = ("images_per_s", "data_wait_fraction", "elapsed_s", "checkpoint_s")


class FakeClock:
    """Stands for the module `time`: only what the fake inner loop does takes time."""

    def __init__(self):
        self.now = 1000.0

    def monotonic(self):
        return self.now


class FakeInner:
    """Remembers what it is asked for.

    Step n has the losses `losses[n]`, one a stack, or one an output of it; epoch e the `errors[e]`.
    """

    output_names: tuple[str, ...] = ("maps",)

    def __init__(self, losses, errors, steps_per_epoch, position=0):
        self.losses, self.errors, self.steps_per_epoch = (
            np.asarray(losses, np.float32),
            errors,
            steps_per_epoch,
        )
        self.position = position
        self.rates, self.calls, self.saved, self.best_at = [], [], [], []
        self.validating = False
        self.on_steps = lambda first_step, count: 0.0

    def steps(self, first_step, learning_rates):
        assert first_step == self.position
        self.position += len(learning_rates)
        self.calls.append((first_step, len(learning_rates)))
        self.rates += learning_rates.tolist()
        waited = self.on_steps(first_step, len(learning_rates))
        return self.losses[first_step : self.position], waited

    def validate(self):
        epoch = self.position // self.steps_per_epoch - 1
        self.validating = True
        error = self.errors[epoch]
        return {"val_loss": 10.0 - epoch, "val_error_px": error, "val_confidence": 0.5}

    def save_best(self):
        self.best_at.append(self.position)

    def save_state(self, state):
        self.saved.append(json.loads(json.dumps(state.to_json())))


class FakeObserver:
    def __init__(self):
        self.rows, self.validations, self.speeds = [], [], []

    def stepped(self, state, loss, images_per_s):
        self.speeds.append(images_per_s)

    def epoch_ended(self, state, row, validation):
        assert state.history[-1] is row
        self.rows.append(row)
        self.validations.append(validation)


def make_plan(epochs=2, steps_per_epoch=4, **others):
    common = {
        "batch_size": 8,
        "checkpoint_steps": steps_per_epoch,
        "learning_rate": lambda step, factor: 0.25 * factor,
    }
    return Plan(epochs, steps_per_epoch, **common | others)


def make_inner(plan, errors=None, position=0):
    steps = plan.epochs * plan.steps_per_epoch
    losses = np.random.default_rng(0).uniform(0.1, 9, (steps, 2))
    return FakeInner(
        losses, errors or [9.0 - i for i in range(plan.epochs)], plan.steps_per_epoch, position
    )


def run(plan, errors=None, state=None):
    inner, observer = make_inner(plan, errors), FakeObserver()
    return train(plan, state or State(), inner, observer), inner, observer


def without_times(state):
    document = state.to_json()
    document.pop("elapsed_s")
    document.pop("checkpoint_s")
    document["history"] = [
        {k: v for k, v in row.items() if k not in TIMES} for row in document["history"]
    ]
    return document
