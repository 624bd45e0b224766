import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import whole_network

from hgtrain.config.schema import BackboneConfig, HeadConfig, ModelConfig
from hgtrain.heads.losses import confmap_losses
from hgtrain.model.network import copy_weights
from hgtrain.model.training_pass import TrainingPass
from hgtrain.train.optimizer import build_optimizer
from hgtrain.train.step import Batch, StepComponents, Steps, WeightAverage

STACKS, BATCH, SIZE, KEYPOINTS = 2, 8, 16, 3
BACKBONE = {
    "stem_stride": 4, "output_stride": 4, "max_stride": 8, "stem_filters": 4, "filters": 4,
    "filter_increase": 0,
    "stacks": STACKS,
}  # fmt: skip


def network_of(precision: str = "float32", stacks: int = STACKS) -> keras.Model:
    keras.utils.set_random_seed(0)
    backbone = BackboneConfig(**BACKBONE | {"stacks": stacks})
    return whole_network(ModelConfig(backbone=backbone, head=HeadConfig()), 1, KEYPOINTS, precision)


def make_batch(element: Any, step: tf.Tensor, part: tf.Tensor, parts: int) -> Batch:
    """Return the images handed over and targets that depend on the step."""
    size = BATCH // parts
    chosen = slice(part * size, (part + 1) * size)
    targets = tf.random.stateless_uniform(
        (BATCH, SIZE // 4, SIZE // 4, KEYPOINTS), tf.stack([step, step])
    )
    return tf.cast(element[0][chosen], tf.float32), (targets[chosen], element[1][chosen])


def loss(maps: tf.Tensor, targets: tuple[tf.Tensor, tf.Tensor]) -> dict[str, tf.Tensor]:
    return {"maps": confmap_losses(maps, *targets, hard_keypoint_mining=False)}


def element_of(first_step: int, count: int, weight: float = 1.0) -> tuple[tf.Tensor, tf.Tensor]:
    images = [
        np.random.default_rng(step).integers(0, 256, (BATCH, SIZE, SIZE, 1), np.uint8)
        for step in range(first_step, first_step + count)
    ]
    return tf.constant(np.array(images)), tf.fill((count, BATCH, KEYPOINTS), weight)


class Training:
    """A network with its steps, and the start to return to, so that one compiled function serves
    many tests."""

    def __init__(
        self,
        optimizer: str = "adam",
        precision: str = "float32",
        decay: float | None = None,
        **options: Any,
    ):
        self.network = network_of(precision, options.pop("stacks", STACKS))
        self.optimizer = build_optimizer(
            optimizer, 1e-3, 0, options.pop("clip_norm", None), precision
        )
        self.average = None
        if decay is not None:
            self.average = WeightAverage(network_of(), decay)
            copy_weights(self.network, self.average.network)
        components = StepComponents(
            self.network,
            TrainingPass(self.network, options.pop("recompute", False)),
            self.optimizer,
            make_batch,
            loss,
            BATCH,
            (len(self.network.outputs), 1),
            options.pop("micro_batches", 1),
        )
        self.steps = Steps(tf.distribute.get_strategy(), components, self.average, **options)
        averaged = [] if self.average is None else self.average.network.variables
        self._variables = [*self.network.variables, *self.optimizer.variables, *averaged]
        self._start = [np.array(variable.numpy()) for variable in self._variables]

    def again(self) -> "Training":
        """Return to the start."""
        for variable, value in zip(self._variables, self._start, strict=True):
            variable.assign(value)
        return self

    def run(
        self, first_step: int, count: int, rate: float = 1e-3, weight: float = 1.0
    ) -> np.ndarray:
        return self.steps(
            element_of(first_step, count, weight), first_step, np.full(count, rate, np.float32)
        )

    def values(self) -> list[np.ndarray]:
        return [np.array(variable.numpy()) for variable in self._variables]

    def weights(self) -> list[np.ndarray]:
        return [np.array(variable.numpy()) for variable in self.network.trainable_variables]


@pytest.fixture(scope="module")
def compiled() -> Training:
    return Training(decay=0.3)


@pytest.fixture
def training(compiled: Training) -> Training:
    return compiled.again()


@pytest.fixture(scope="module")
def compiled_sgd() -> Training:
    return Training("sgd")


def test_losses_are_of_every_step_and_stack(training: Training) -> None:
    losses = training.run(0, 3)
    assert losses.shape == (3, STACKS, 1)
    assert losses.dtype == np.float32
    assert np.isfinite(losses).all()
    assert (losses > 0).all()


def test_a_loss_is_the_mean_over_the_batch_before_the_update(training: Training) -> None:
    images, targets = make_batch(
        [t[0] for t in element_of(7, 1)], tf.constant(7, tf.int64), tf.constant(0), 1
    )
    reference = network_of()
    outputs = reference(images, training=True)
    expected = [tf.reduce_mean(loss(maps, targets)["maps"]) for maps in outputs]
    np.testing.assert_allclose(training.run(7, 1)[..., 0], [expected], rtol=1e-4)


def test_steps_in_one_call_equal_calls_of_one_step_bit_for_bit(training: Training) -> None:
    together = training.run(3, 4)
    values = training.values()
    training.again()
    apart = np.concatenate([training.run(3 + i, 1) for i in range(4)])
    np.testing.assert_array_equal(together, apart)
    for found, expected in zip(training.values(), values, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_same_steps_again_give_the_same_bits(training: Training) -> None:
    first, values = training.run(0, 3), training.values()
    np.testing.assert_array_equal(training.again().run(0, 3), first)
    for found, expected in zip(training.values(), values, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_every_trainable_variable_is_updated(training: Training) -> None:
    before = training.weights()
    training.run(0, 1)
    paths = [variable.path for variable in training.network.trainable_variables]
    changed = [(found != old).any() for found, old in zip(training.weights(), before, strict=True)]
    assert [path for path, is_changed in zip(paths, changed, strict=True) if not is_changed] == []


def test_each_step_has_its_learning_rate(training: Training) -> None:
    element = element_of(0, 3)
    training.steps(element, 0, np.array([1e-3, 0, 0], np.float32))
    after_three = training.weights()
    training.again().run(0, 1)
    for found, expected in zip(training.weights(), after_three, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert int(training.optimizer.iterations) == 1


def test_sgd_moves_by_the_gradient_of_the_sum_over_stacks(compiled_sgd: Training) -> None:
    training = compiled_sgd.again()
    images, targets = make_batch(
        [t[0] for t in element_of(2, 1)], tf.constant(2, tf.int64), tf.constant(0), 1
    )
    reference = network_of()
    variables = [variable.value for variable in reference.trainable_variables]
    with tf.GradientTape() as tape:
        total = (
            tf.add_n(
                [tf.reduce_sum(loss(m, targets)["maps"]) for m in reference(images, training=True)]
            )
            / BATCH
        )
    training.run(2, 1, rate=1e-4)
    # The first step of Nesterov's momentum 0.9 is 1.9 gradients long.
    for found, start, gradient in zip(
        training.weights(), variables, tape.gradient(total, variables), strict=True
    ):
        np.testing.assert_allclose(found, start - 1.9e-4 * gradient, rtol=1e-3, atol=1e-6)


def test_where_nothing_is_labelled_nothing_is_learnt(compiled_sgd: Training) -> None:
    training = compiled_sgd.again()
    before = training.weights()
    losses = training.run(0, 2, rate=1.0, weight=0.0)
    np.testing.assert_array_equal(losses, np.zeros((2, STACKS, 1)))
    for found, expected in zip(training.weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_the_average_follows_the_formula(training: Training) -> None:
    expected = training.average.network.get_weights()
    for step in range(5):
        training.run(step, 1, rate=1e-2)
        # min(0.3, (1 + step) / (10 + step)): 1/10, 2/11, 3/12, 4/13, and from there on 0.3.
        kept = [0.1, 2 / 11, 0.25, 0.3, 0.3][step]
        mixed = zip(expected, training.network.get_weights(), strict=True)
        expected = [kept * mine + (1 - kept) * theirs for mine, theirs in mixed]
    for found, value in zip(training.average.network.get_weights(), expected, strict=True):
        np.testing.assert_allclose(found, value, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def compiled_float16() -> Training:
    return Training(precision="mixed_float16", clip_norm=1.0)


def test_float16_trains_with_the_learning_rate_given_once_its_loss_scale_fits(
    compiled_float16: Training,
) -> None:
    training = compiled_float16.again()
    before = training.weights()
    losses = training.run(0, 12, rate=2e-3)
    assert np.isfinite(losses).all()
    assert float(training.optimizer.inner_optimizer.learning_rate) == pytest.approx(2e-3)
    moved = [
        np.abs(found - old).max() for found, old in zip(training.weights(), before, strict=True)
    ]
    # A step of Adam moves a weight by up to about its learning rate.
    assert 2e-3 < max(moved) < 12 * 2e-3 * 1.5
    assert all(np.isfinite(weights).all() for weights in training.weights())


def test_float16_leaves_the_weights_where_the_rate_is_zero(compiled_float16: Training) -> None:
    training = compiled_float16.again()
    before = training.weights()
    training.run(0, 12, rate=0.0)
    for found, expected in zip(training.weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_bfloat16_learns_in_float32() -> None:
    training = Training(precision="mixed_bfloat16")
    losses = training.run(0, 2)
    assert np.isfinite(losses).all()
    assert {str(weights.dtype) for weights in training.weights()} == {"float32"}


@pytest.mark.slow
def test_compiled_by_xla_it_computes_the_same(compiled_sgd: Training) -> None:
    # SGD: Adam divides by the gradient's size, which makes anything of one that is almost zero.
    jitted = Training("sgd", jit=True)
    plain = compiled_sgd.again()
    np.testing.assert_allclose(jitted.run(0, 3, rate=1e-5), plain.run(0, 3, rate=1e-5), rtol=1e-4)
    for found, expected in zip(jitted.values(), plain.values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


REPLICAS = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_step as t

def element():
    # Both halves of the batch are alike, so that batch normalisation sees the same statistics on
    # either replica.
    images, _ = t.element_of(0, 3)
    weights = np.random.default_rng(0).uniform(0, 1, (3, t.BATCH, t.KEYPOINTS)).astype(np.float32)
    return tf.concat([images[:, : t.BATCH // 2]] * 2, axis=1), tf.constant(weights)

def train(strategy):
    with strategy.scope():
        network = t.network_of()
        average = t.WeightAverage(t.network_of(), 0.5)
        optimizer = t.build_optimizer("sgd", 1e-5, 0, None, "float32")
    parts = t.StepComponents(
        network, t.TrainingPass(network), optimizer, t.make_batch, t.loss, t.BATCH, (t.STACKS, 1))
    steps = t.Steps(strategy, parts, average)
    # So slow that no rounding error tips a ReLU over within three steps.
    losses = steps(element(), 0, np.full(3, 1e-5, np.float32))
    trained = [variable.numpy() for variable in network.trainable_variables]
    return losses, trained, network.get_weights(), average.network.get_weights()

single = train(tf.distribute.get_strategy())
mirrored = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
assert mirrored.num_replicas_in_sync == 2
double = train(mirrored)
np.testing.assert_allclose(double[0], single[0], rtol=1e-5)
start = [variable.numpy() for variable in t.network_of().trainable_variables]
moved = max(np.abs(found - before).max() for found, before in zip(double[1], start, strict=True))
assert moved > 1e-3, moved
for mine, theirs in zip(double[1:], single[1:], strict=True):
    for found, expected in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)
print("equal")
"""


SYNCHRONISED = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import test_step as t
from networks import whole_network
from hgtrain.model.network import synchronize_batch_norm

def train(strategy, is_synchronised=False):
    with strategy.scope():
        network = t.network_of()
        if is_synchronised:
            synchronize_batch_norm(network)
        optimizer = t.build_optimizer("sgd", 1e-4, 0, 10.0, "float32")
    components = t.StepComponents(
        network, t.TrainingPass(network), optimizer, t.make_batch, t.loss, t.BATCH, (t.STACKS, 1)
    )
    steps = t.Steps(strategy, components)
    losses = steps(t.element_of(0, 20), 0, np.full(20, 1e-4, np.float32))
    return [losses / losses.max(), *(variable.numpy() for variable in network.variables)]

def distance(found, expected):
    return max(np.abs(one - other).max() for one, other in zip(found, expected, strict=True))

single = train(tf.distribute.get_strategy())
strategy = tf.distribute.MirroredStrategy(
    ["CPU:0", "CPU:1"], cross_device_ops=tf.distribute.ReductionToOneDevice())
apart, together = train(strategy), train(strategy, is_synchronised=True)
start = t.network_of().variables
moved = [abs(end - first.numpy()).max()
         for end, first in zip(single[1:], start, strict=True) if first.trainable]
assert max(moved) > 1e-3, moved
# Else the batch normalisation of halves would do as well.
assert distance(apart, single) > 1e-3, distance(apart, single)
assert distance(together, single) < 1e-6, distance(together, single)
print("equal")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [REPLICAS, SYNCHRONISED], ids=["halves alike", "halves differ, synchronised, clipped"]
)
def test_two_replicas_equal_one_device(code: str) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr[-3000:]


def test_a_batch_of_eight_in_four_passes_equals_one_pass_without_normalisation() -> None:
    whole, parts = Training("sgd", micro_batches=1), Training("sgd", micro_batches=4)
    for one in (whole, parts):
        for layer in one.network.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = False
    np.testing.assert_allclose(parts.run(0, 5), whole.run(0, 5), rtol=1e-5)
    for found, expected in zip(parts.weights(), whole.weights(), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("stacks", [STACKS, 3])
def test_recomputing_gives_the_same_steps(stacks: int) -> None:
    plain, again = Training("sgd", stacks=stacks), Training("sgd", stacks=stacks, recompute=True)
    np.testing.assert_allclose(again.run(0, 5), plain.run(0, 5), rtol=1e-6)
    for found, expected in zip(again.values(), plain.values(), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)
