"""The inner loop: many training steps in one compiled function, on one device or several."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

Batch = tuple[tf.Tensor, Any]
"""Images and targets of one micro-batch of one replica.

Images are `(b, H, W, C)` float32 0..255; targets have any structure.
"""

_Summed = tuple[tf.Tensor, list[tf.Tensor]]
"""Losses `(stacks, outputs)` and gradient of each trainable variable."""


class StepComponents(NamedTuple):
    """What a step is made of.

    Attributes:
        network: That is trained.
        forward: Images -> outputs of every stack, as `network` computes them in training.
        optimizer: One of `train.optimizer`, which takes gradients that are summed over the
            replicas.
        make_batch: (element, step, shard, num_shards) -> that shard of the step's images.
        loss: (outputs of a stack, targets) -> loss of each example `(b,)`, by output.
        batch_size: Images of a step, over all replicas and micro-batches.
        losses: How many stacks and outputs there are, each with a loss.
        micro_batches: How often a replica goes forward and back for one update, each time with its
            shard of the images.
    """

    network: keras.Model
    forward: Callable[[tf.Tensor], Sequence[Any]]
    optimizer: keras.optimizers.Optimizer
    make_batch: Callable[[Any, tf.Tensor, tf.Tensor, int], Batch]
    loss: Callable[[Any, Any], Mapping[str, tf.Tensor]]
    batch_size: int
    losses: tuple[int, int]
    micro_batches: int = 1


class WeightAverage(NamedTuple):
    """An exponential moving average of all weights.

    Attributes:
        network: Of its own, with the averaged weights; it follows the trained one.
        decay: Of the average per step, reached gradually: min(decay, (1 + step) / (10 + step)).
    """

    network: keras.Model
    decay: float


class Steps:
    """Runs training steps.

    Gradients are of the sum over examples divided by the global batch, so that the number of
    replicas changes nothing.

    Args:
        strategy: Of TensorFlow.
        components: What a step is made of.
        average: Follows the trained network; None for none.
        jit: Compile forward and backward pass with XLA; for one replica only.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        components: StepComponents,
        average: WeightAverage | None = None,
        jit: bool = False,
    ) -> None:
        self._strategy = strategy
        self._components = components
        self._average = average
        self._pass = self._forward_and_back
        if jit:
            self._pass = tf.function(self._forward_and_back, autograph=False, jit_compile=True)
        # Built first: inside the first step it would make the step be traced twice.
        with strategy.scope():
            components.optimizer.build(components.network.trainable_variables)
        # Loops are written out, because rewriting the Python of everything that is called takes as
        # long as a trace.
        self._run = tf.function(self._run_steps, autograph=False)
        self._concrete: Callable[..., tf.Tensor] | None = None

    def __call__(self, element: Any, first_step: int, learning_rates: np.ndarray) -> np.ndarray:
        """Run n updates.

        Args:
            element: Tensors with a leading n.
            first_step: The running number of the first step.
            learning_rates: `(n,)`.

        Returns:
            The losses of each step, `(n, stacks, outputs)` float32, outputs by name.
        """
        arguments = (
            tf.nest.map_structure(tf.convert_to_tensor, element),
            tf.constant(first_step, tf.int64),
            tf.convert_to_tensor(learning_rates, tf.float32),
        )
        if self._concrete is None:
            # One trace for every number of steps in a call: a trace takes as long as dozens of
            # steps.
            spec = tf.nest.map_structure(
                lambda t: tf.TensorSpec((None, *t.shape[1:]), t.dtype), arguments[0]
            )
            scalar, rates = tf.TensorSpec((), tf.int64), tf.TensorSpec((None,), tf.float32)
            self._concrete = self._run.get_concrete_function(spec, scalar, rates)
        return self._concrete(*arguments).numpy()

    def _run_steps(
        self, element: Any, first_step: tf.Tensor, learning_rates: tf.Tensor
    ) -> tf.Tensor:
        count = tf.shape(learning_rates)[0]
        losses = tf.TensorArray(tf.float32, size=count, element_shape=self._components.losses)

        def one_step(i: tf.Tensor, losses: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            step = first_step + tf.cast(i, tf.int64)
            at_step = tf.nest.map_structure(lambda t: t[i], element)
            self._components.optimizer.learning_rate.assign(learning_rates[i])
            per_replica = self._strategy.run(self._replica_step, args=(at_step, step))
            losses = losses.write(
                i, self._strategy.reduce(tf.distribute.ReduceOp.SUM, per_replica, axis=None)
            )
            if self._average is not None:
                self._follow(self._average, step)
            return i + 1, losses

        return tf.while_loop(lambda i, losses: i < count, one_step, (0, losses))[1].stack()

    def _replica_step(self, element: Any, step: tf.Tensor) -> tf.Tensor:
        context = tf.distribute.get_replica_context()
        losses, gradients = self._all_micro_batches(element, step, context)
        if context.num_replicas_in_sync > 1:
            # First of all: what clips them, or looks whether they are finite, must see those of the
            # whole batch.
            gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
            self._average_statistics(context)
        self._components.optimizer.apply(gradients, self._components.network.trainable_variables)
        return losses

    def _average_statistics(self, context: tf.distribute.ReplicaContext) -> None:
        """Give batch normalisation's moving statistics the mean of all replicas.

        Each replica has those of its own shards of the batch. It is done at each step, so that the
        result does not depend on when one looks, and as one tensor, because the messages are tiny.
        """
        variables = [
            variable.value for variable in self._components.network.non_trainable_variables
        ]
        # A network without normalisation has none.
        if not variables:
            return
        sizes = [variable.shape.num_elements() for variable in variables]
        together = tf.concat([tf.reshape(variable, (-1,)) for variable in variables], axis=0)
        means = tf.split(context.all_reduce(tf.distribute.ReduceOp.MEAN, together), sizes)
        for variable, mean in zip(variables, means, strict=True):
            variable.assign(tf.reshape(mean, variable.shape))

    def _all_micro_batches(
        self, element: Any, step: tf.Tensor, context: tf.distribute.ReplicaContext
    ) -> _Summed:
        """Return losses and gradients, summed over the replica's micro-batches."""
        micro_batches = self._components.micro_batches
        first, num_shards = (
            context.replica_id_in_sync_group * micro_batches,
            context.num_replicas_in_sync * micro_batches,
        )
        if micro_batches == 1:
            return self._pass(*self._components.make_batch(element, step, first, num_shards))

        def one_micro_batch(i: tf.Tensor, *sums: tf.Tensor) -> tuple[tf.Tensor, ...]:
            losses, gradients = self._pass(
                *self._components.make_batch(element, step, first + i, num_shards)
            )
            return i + 1, *(
                total + value for total, value in zip(sums, (losses, *gradients), strict=True)
            )

        zeros = [
            tf.zeros(variable.shape, variable.dtype)
            for variable in self._components.network.trainable_variables
        ]
        start = (0, tf.zeros(self._components.losses), *zeros)
        _, losses, *gradients = tf.while_loop(
            lambda i, *sums: i < micro_batches, one_micro_batch, start, parallel_iterations=1
        )
        return losses, gradients

    def _forward_and_back(self, images: tf.Tensor, targets: Any) -> _Summed:
        components = self._components
        with tf.GradientTape() as tape:
            stacks = [components.loss(outputs, targets) for outputs in components.forward(images)]
            losses = tf.stack(
                [
                    [
                        tf.reduce_sum(loss) / components.batch_size
                        for _, loss in sorted(of_stack.items())
                    ]
                    for of_stack in stacks
                ]
            )
            scaled = components.optimizer.scale_loss(tf.reduce_sum(losses))
        return losses, tape.gradient(
            scaled, [v.value for v in components.network.trainable_variables]
        )

    def _follow(self, average: WeightAverage, step: tf.Tensor) -> None:
        at = tf.cast(step, tf.float32)
        rest = 1 - tf.minimum(average.decay, (1 + at) / (10 + at))
        for mine, theirs in zip(
            average.network.variables, self._components.network.variables, strict=True
        ):
            mine.assign_add((theirs - mine) * tf.cast(rest, mine.dtype))
