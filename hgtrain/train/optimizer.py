"""Optimizers: Keras's own, with Adam's update as the one fused operation TensorFlow has for it.

They take gradients that are summed over the replicas already. Keras would sum them itself, but
after it has clipped those of each replica on its own, and after each has decided on its own whether
its float16 gradients are finite.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import keras
import tensorflow as tf


class _TakesSums:
    """Leaves out the sum over replicas.

    It stands before an optimizer of Keras in the order of bases.
    """

    def _all_reduce_sum_gradients(
        self, grads_and_vars: Iterable[tuple[tf.Tensor, tf.Variable]]
    ) -> Iterable[tuple[tf.Tensor, tf.Variable]]:
        return grads_and_vars


class _Scalars(NamedTuple):
    """Arguments of `ResourceApplyAdam`."""

    lr: tf.Tensor
    beta1: tf.Tensor
    beta2: tf.Tensor
    beta1_power: tf.Tensor
    beta2_power: tf.Tensor
    epsilon: tf.Tensor


class FusedAdam(_TakesSums, keras.optimizers.Adam):
    """Adam whose update of a variable is one `ResourceApplyAdam` instead of a dozen operations.

    The formula is the same; it takes a tenth off the step and half off the tracing of it, which is
    why it is worth a class.
    """

    def _backend_update_step(
        self,
        grads: Sequence[tf.Tensor],
        trainable_variables: Sequence[tf.Variable],
        learning_rate: tf.Tensor,
    ) -> None:
        # The same for all variables, so once and not for each of a hundred.
        step = tf.cast(self.iterations + 1, tf.float32)
        scalars = _Scalars(
            tf.cast(learning_rate, tf.float32),
            tf.constant(self.beta_1),
            tf.constant(self.beta_2),
            tf.pow(self.beta_1, step),
            tf.pow(self.beta_2, step),
            tf.constant(self.epsilon),
        )
        super()._backend_update_step(grads, trainable_variables, scalars)

    def update_step(
        self, gradient: tf.Tensor, variable: tf.Variable, learning_rate: _Scalars
    ) -> None:
        """Apply one update in place."""
        index = self._get_variable_index(variable)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            **learning_rate._asdict(),
            grad=tf.cast(gradient, variable.dtype),
        )


class SummedSGD(_TakesSums, keras.optimizers.SGD):
    """Keras's own for gradients that are summed already."""


def _adam(**common: object) -> keras.optimizers.Optimizer:
    return FusedAdam(**common)


def _sgd(**common: object) -> keras.optimizers.Optimizer:
    return SummedSGD(momentum=0.9, nesterov=True, **common)


OPTIMIZERS = {"adam": _adam, "sgd": _sgd}
"""By `training.optimizer`."""


def build_optimizer(
    name: str, learning_rate: float, weight_decay: float, clip_norm: float | None, precision: str
) -> keras.optimizers.Optimizer:
    """Return an optimizer; with mixed_float16 its loss is scaled, or small gradients would vanish.

    Args:
        name: As in the config.
        learning_rate: At the start.
        weight_decay: Decoupled, a step's fraction of the learning rate; 0 for none.
        clip_norm: Of all gradients together; None for no clipping.
        precision: A Keras dtype policy.
    """
    optimizer = OPTIMIZERS[name](
        learning_rate=learning_rate, weight_decay=weight_decay or None, global_clipnorm=clip_norm
    )
    if precision == "mixed_float16":
        return keras.optimizers.LossScaleOptimizer(optimizer)
    return optimizer
