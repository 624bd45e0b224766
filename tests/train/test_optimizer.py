import keras
import numpy as np
import pytest
import tensorflow as tf

from hgtrain.train.optimizer import OPTIMIZERS, FusedAdam, build_optimizer

SHAPES = ((3, 3, 2, 4), (4,), ())
STEPS = 10


def start() -> list[keras.Variable]:
    random = np.random.default_rng(0)
    return [keras.Variable(random.normal(size=shape).astype(np.float32)) for shape in SHAPES]


def gradients() -> list[list[tf.Tensor]]:
    random = np.random.default_rng(1)
    scales = 10.0 ** np.arange(-8, STEPS - 8)
    return [
        [tf.constant(scale * random.normal(size=shape), tf.float32) for shape in SHAPES]
        for scale in scales
    ]


def trained(
    optimizer: keras.optimizers.Optimizer, learning_rates: object, compiled: bool = False
) -> list[np.ndarray]:
    variables = start()
    optimizer.build(variables)

    def apply(gradients: list[tf.Tensor]) -> None:
        optimizer.apply(gradients, variables)

    run = tf.function(apply) if compiled else apply
    for gradient, learning_rate in zip(gradients(), learning_rates, strict=True):
        optimizer.learning_rate.assign(learning_rate)
        run(gradient)
    return [variable.numpy() for variable in variables]


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"weight_decay": 0.05},
        {"global_clipnorm": 0.5},
        {
            "weight_decay": 0.01,
            "global_clipnorm": 0.5,
            "epsilon": 1e-3,
            "beta_1": 0.8,
            "beta_2": 0.99,
        },
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_fused_adam_equals_keras_adam(options: dict, compiled: bool) -> None:
    rates = np.linspace(1e-4, 1e-2, STEPS)
    found = trained(FusedAdam(**options), rates, compiled)
    expected = trained(keras.optimizers.Adam(**options), rates)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_fused_adam_has_the_state_of_keras_adam() -> None:
    mine, theirs = FusedAdam(), keras.optimizers.Adam()
    for optimizer in (mine, theirs):
        trained(optimizer, [1e-2] * STEPS)
    assert int(mine.iterations) == STEPS
    for variable, expected in zip(mine.variables, theirs.variables, strict=True):
        # The operation takes 1 - 0.999 in single precision, which is off by 1.3e-5.
        np.testing.assert_allclose(variable.numpy(), expected.numpy(), rtol=2e-5, atol=1e-7)


def test_the_first_step_of_adam_is_the_learning_rate_against_the_sign() -> None:
    variable = keras.Variable([1.0, 1.0])
    optimizer = build_optimizer("adam", 0.1, weight_decay=0, clip_norm=None, precision="float32")
    optimizer.apply([tf.constant([3.0, -2.0])], [variable])
    np.testing.assert_allclose(variable.numpy(), [0.9, 1.1], atol=1e-5)


def test_sgd_has_nesterov_momentum() -> None:
    variable = keras.Variable(0.0)
    optimizer = build_optimizer("sgd", 0.1, weight_decay=0, clip_norm=None, precision="float32")
    # v = -.1, then x += .9 v - .1; v = -.09 - .1 = -.19, x += .9 v - .1.
    for expected in (-0.19, -0.19 - 0.271):
        optimizer.apply([tf.constant(1.0)], [variable])
        assert float(variable) == pytest.approx(expected)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_weight_decay_is_a_fraction_of_the_learning_rate(name: str) -> None:
    variable = keras.Variable([2.0])
    optimizer = build_optimizer(name, 0.1, weight_decay=0.5, clip_norm=None, precision="float32")
    optimizer.apply([tf.constant([0.0])], [variable])
    assert float(variable[0]) == pytest.approx(2.0 * (1 - 0.1 * 0.5))


def test_clip_norm_is_of_all_gradients_together() -> None:
    variables = [keras.Variable(0.0), keras.Variable(0.0)]
    optimizer = build_optimizer("sgd", 1.0, weight_decay=0, clip_norm=1.0, precision="float32")
    optimizer.apply([tf.constant(3.0), tf.constant(4.0)], variables)
    # Norm 5 becomes 1: .6 and .8; the first step of Nesterov's momentum is 1.9 gradients long.
    assert [float(variable) for variable in variables] == pytest.approx([-1.9 * 0.6, -1.9 * 0.8])


@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16"])
def test_only_float16_scales_its_loss(precision: str) -> None:
    optimizer = build_optimizer("adam", 0.1, weight_decay=0, clip_norm=None, precision=precision)
    assert type(optimizer) is FusedAdam
    assert float(optimizer.scale_loss(tf.constant(2.0))) == 2.0
    scaled = build_optimizer("adam", 0.1, weight_decay=0, clip_norm=None, precision="mixed_float16")
    scaled.build([keras.Variable(0.0)])
    assert float(scaled.scale_loss(tf.constant(2.0))) > 1000


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_learning_rate_assigned_reaches_the_optimizer_inside(name: str) -> None:
    def moved(precision: str, scale_of: object) -> float:
        variable = keras.Variable(0.0)
        optimizer = build_optimizer(name, 0.1, weight_decay=0, clip_norm=None, precision=precision)
        optimizer.build([variable])
        optimizer.learning_rate.assign(0.025)
        optimizer.apply([scale_of(optimizer)], [variable])
        return float(variable)

    plain = moved("float32", lambda optimizer: tf.constant(1.0))
    assert plain == pytest.approx(-0.025 if name == "adam" else -0.025 * 1.9, rel=1e-4)
    assert moved(
        "mixed_float16", lambda optimizer: optimizer.scale_loss(tf.constant(1.0))
    ) == pytest.approx(plain)


def test_a_step_that_overflows_float16_is_left_out() -> None:
    variable = keras.Variable(1.0)
    optimizer = build_optimizer(
        "adam", 0.1, weight_decay=0, clip_norm=None, precision="mixed_float16"
    )
    optimizer.build([variable])
    before = float(optimizer.scale_loss(tf.constant(1.0)))
    optimizer.apply([tf.constant(np.inf)], [variable])
    assert float(variable) == 1.0
    assert float(optimizer.scale_loss(tf.constant(1.0))) == before / 2
