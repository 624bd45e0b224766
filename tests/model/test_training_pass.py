import subprocess
import sys
from itertools import chain

import keras
import numpy as np
import pytest
import tensorflow as tf
from networks import whole_network

from hgtrain.config.schema import BackboneConfig, HeadConfig, ModelConfig
from hgtrain.model.training_pass import TrainingPass, block_of

BACKBONE = {
    "stem_stride": 4, "output_stride": 4, "max_stride": 16, "stem_filters": 4, "filters": 8,
    "filter_increase": 4,
    "stacks": 2,
}  # fmt: skip
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 32, 48, 1)).astype(np.float32)

Result = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.utils.set_random_seed(0)
    return whole_network(ModelConfig(backbone=BackboneConfig(**BACKBONE), head=HeadConfig()), 1, 3)


def by_keras(network: keras.Model) -> object:
    return lambda images: network(images, training=True)


def result(network: keras.Model, forward: object) -> Result:
    """Return maps, gradients and the moving statistics after one pass.

    The network is left as it was.
    """
    before = network.get_weights()

    @tf.function
    def run(images: tf.Tensor) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            maps = forward(images)
            loss = tf.add_n([tf.reduce_sum(tf.square(one - 1)) for one in maps])
        return maps, tape.gradient(loss, [v.value for v in network.trainable_variables])

    maps, gradients = run(tf.constant(IMAGES))
    statistics = [np.array(v.numpy()) for v in network.non_trainable_variables]
    network.set_weights(before)
    return [m.numpy() for m in maps], [g.numpy() for g in gradients], statistics


@pytest.fixture(scope="module")
def expected(network: keras.Model) -> Result:
    return result(network, by_keras(network))


@pytest.fixture(scope="module")
def fused(network: keras.Model) -> Result:
    return result(network, TrainingPass(network))


def test_maps_are_those_of_keras(fused: Result, expected: Result) -> None:
    for found, wanted in zip(fused[0], expected[0], strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_gradients_are_those_of_keras(fused: Result, expected: Result) -> None:
    together, wanted = (np.concatenate([g.ravel() for g in each[1]]) for each in (fused, expected))
    assert np.linalg.norm(together - wanted) < 1e-4 * np.linalg.norm(wanted)


def test_moving_statistics_are_those_of_keras(fused: Result, expected: Result) -> None:
    for found, wanted in zip(fused[2], expected[2], strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)


def test_recomputing_gives_the_same_maps_gradients_and_statistics(
    network: keras.Model, fused: Result
) -> None:
    again = result(network, TrainingPass(network, recompute=True))
    for found, wanted in zip(chain(*again), chain(*fused), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


def test_a_frozen_normalisation_uses_its_moving_statistics(network: keras.Model) -> None:
    normalisations = [
        layer for layer in network.layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in normalisations:
        layer.trainable = False
    try:
        for found, wanted in zip(
            TrainingPass(network)(tf.constant(IMAGES)), network(IMAGES), strict=True
        ):
            np.testing.assert_allclose(found, wanted, atol=1e-5)
    finally:
        for layer in normalisations:
            layer.trainable = True


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_maps_are_float32_in_mixed_precision(precision: str) -> None:
    mixed = whole_network(
        ModelConfig(backbone=BackboneConfig(**BACKBONE), head=HeadConfig()), 1, 3, precision
    )
    maps = TrainingPass(mixed)(tf.constant(IMAGES))
    assert {one.dtype for one in maps} == {tf.float32}
    assert all(np.isfinite(one).all() for one in maps)


def test_a_stack_is_one_block_and_the_stem_one_for_each_convolution(network: keras.Model) -> None:
    blocks = {layer.name: block_of(layer.name) for layer in network.layers}
    assert blocks["stack1_enc0_conv_conv"] == blocks["stack1_dec1_skip_add"] == "stack1"
    assert blocks["stem0_conv3x3_bn"] == blocks["stem0_pool"] == "conv3x3"
    assert blocks["stem0_conv3x3_out_conv"] != blocks["stem0_conv3x3_conv"]


ONE_STEP = """
from hgtrain.tensorflow_setup import import_tensorflow
from hgtrain.train.distributed.devices import set_up
import_tensorflow(True)
import hashlib
import numpy as np, tensorflow as tf
from hgtrain.config.schema import DataConfig, ModelConfig, TrainingConfig
from hgtrain.planning.input_spec import InputSpec
from hgtrain.skeleton import unnamed_skeleton
from hgtrain.train.benchmark import StepBenchmark
backbone = dict(stem_stride=1, output_stride=1, max_stride=8, stem_filters=4, filters=4,
                filter_increase=2, stacks=2)
spec = InputSpec(
    DataConfig(train="none.h5"),
    ModelConfig.model_validate(dict(backbone=backbone | dict(interp_method="bilinear"))),
    TrainingConfig(batch_size=3, accumulate_steps=2, recompute=True, deterministic=True,
                   device="cpu",
                   optimizer="sgd", precision="mixed_bfloat16"),
    (24, 24, 1),
    unnamed_skeleton(3),
)
trial = StepBenchmark(spec, set_up(spec.training))
trial.run()
trained = trial.networks.trained.variables
print(hashlib.md5(b"".join(v.numpy().tobytes() for v in trained)).hexdigest())
"""


@pytest.mark.slow
def test_computed_again_a_step_is_the_same_in_every_process() -> None:
    # What TensorFlow's optimizer of graphs fuses may differ from one process to the next.
    command = [sys.executable, "-c", ONE_STEP]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    assert len({process.communicate()[0] for process in started}) == 1
    assert {process.returncode for process in started} == {0}
