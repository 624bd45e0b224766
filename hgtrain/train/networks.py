"""The network that is trained, its moving average, its optimizer and the best weights."""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from hgtrain.config.schema import BackboneConfig, TrainingConfig
from hgtrain.errors import RunError
from hgtrain.files import atomic_path
from hgtrain.heads import Head, by_stack
from hgtrain.model.network import build_network, copy_weights, synchronize_batch_norm
from hgtrain.model.training_pass import TrainingPass
from hgtrain.rundir.layout import BEST
from hgtrain.train.distributed.devices import Compute
from hgtrain.train.initial_weights import InitialWeights, TransferReport, take_weights
from hgtrain.train.optimizer import build_optimizer
from hgtrain.train.step import Batch, StepComponents, Steps, WeightAverage


class Networks:
    """The trained network, its moving average where there is one, and the optimizer."""

    def __init__(
        self,
        backbone: BackboneConfig,
        training: TrainingConfig,
        compute: Compute,
        channels: int,
        head: Head,
    ) -> None:
        self.head = head

        def build(precision: str, all_stacks: bool = True) -> keras.Model:
            return build_network(backbone, head.layers, channels, precision, all_stacks)

        self._build = build
        with compute.strategy.scope():
            self.trained = build(compute.precision)
            if training.synchronize_batch_norm and compute.replicas > 1:
                synchronize_batch_norm(self.trained)
            self.average = None
            if training.ema is not None:
                self.average = WeightAverage(build(compute.precision), training.ema)
                copy_weights(self.trained, self.average.network)
            self.optimizer = build_optimizer(
                training.optimizer,
                training.learning_rate,
                training.weight_decay,
                training.gradient_clip_norm,
                compute.precision,
            )

    @cached_property
    def _best(self) -> keras.Model:
        # In float32 whatever was trained in, so that it gives the same maps wherever it is opened.
        # Not built before the first step, which people wait for.
        return self._build("float32", all_stacks=False)

    @property
    def eval_network(self) -> keras.Model:
        """Return the network that is validated and kept: the moving average where there is one."""
        return self.trained if self.average is None else self.average.network

    def start_from(
        self, initial: InitialWeights, keypoint_names: tuple[str, ...]
    ) -> TransferReport:
        """Assign what fits of another network's weights.

        The moving average starts from there too.
        """
        taken = take_weights(self.trained, initial, keypoint_names)
        if self.average is not None:
            copy_weights(self.trained, self.average.network)
        return taken

    def keep_best(self) -> None:
        """Copy the network that is validated, last stack only, as the best so far."""
        copy_weights(self.eval_network, self._best)

    def write_best(self, folder: Path) -> None:
        """Write what was best, which a checkpoint holds too, as `best.keras`."""
        try:
            with atomic_path(folder / BEST) as beside:
                self._best.save(beside)
        # Keras and HDF5 have several exceptions for a disk that is full.
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"{folder / BEST} cannot be written: {error}; what was there before is as it was: "
                "make room or mend "
                "the folder, then go on with --resume"
            ) from error

    def variables(self) -> dict[str, list[tf.Variable]]:
        """Return every variable that training changes, by what it belongs to."""
        average = [] if self.average is None else self.average.network.variables
        groups = {
            "network": self.trained.variables,
            "average": average,
            "optimizer": self.optimizer.variables,
        }
        return {name: [variable.value for variable in group] for name, group in groups.items()}

    def saved_variables(self) -> dict[str, list[tf.Variable]]:
        """Return `variables` and, as `best`, those of the best network so far."""
        return self.variables() | {"best": [variable.value for variable in self._best.variables]}


def build_steps(
    training: TrainingConfig,
    compute: Compute,
    networks: Networks,
    make_batch: Callable[..., Batch],
    loss: Callable[[Any, Any], Mapping[str, tf.Tensor]],
) -> Steps:
    """Return the compiled training steps of a `training` section."""
    network, head = networks.trained, networks.head
    training_pass = TrainingPass(network, training.recompute)
    components = StepComponents(
        network,
        lambda images: by_stack(head, training_pass(images)),
        networks.optimizer,
        make_batch,
        loss,
        training.images_per_step,
        (len(network.outputs) // len(head.outputs), len(head.outputs)),
        training.accumulate_steps,
    )
    return Steps(compute.strategy, components, networks.average, bool(compute.jit))
