"""Each head trains as every other: it resumes exactly, repeats, and takes what a config offers."""

import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from faulty import make_quick
from tensorflow.python.framework.config import disable_op_determinism
from test_parity import assert_same, fit, interrupted
from tiny_groups import HEADS, write_groups
from tiny_run import StopAt, rows_of, weights_of, without_times

from hgtrain.commands import fit as fit_module
from hgtrain.config.load import load_config
from hgtrain.data.open_split import open_split
from hgtrain.errors import RunError
from hgtrain.rundir.load import load_run
from hgtrain.signals import StoppedError
from hgtrain.train.distributed.devices import set_up

pytestmark = [
    pytest.mark.slow,
    # Keras's own, each time it saves a variable.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    return write_groups(tmp_path_factory.mktemp("data"))


@pytest.fixture(autouse=True)
def _quick(quick):
    """Do one step a call."""


@pytest.fixture(params=HEADS)
def head(request):
    return HEADS[request.param]


@pytest.fixture(scope="module")
def runs(config_file, tmp_path_factory):
    """Give the folder of a head's undisturbed run; made once."""
    folders = {}

    def give(head):
        if head not in folders:
            folders[head] = tmp_path_factory.mktemp("whole") / "run"
            with pytest.MonkeyPatch.context() as patch:
                make_quick(patch)
                fit(config_file, folders[head], head)
        return folders[head]

    return give


@pytest.mark.parametrize(("cache", "step"), [("device", 2), ("ram", 6), ("none", 5)])
def test_interrupted_and_resumed_equals_uninterrupted_wherever_the_frames_are(
    config_file, runs, tmp_path, head, cache, step
):
    # The config leaves animals and crops to the labels, when it resumes too.
    interrupted(config_file, tmp_path / "run", (*head, f"data.cache={cache}"), step)
    assert_same(tmp_path / "run", runs(head))


def test_a_run_repeats_bit_by_bit_from_its_own_config(runs, tmp_path, head):
    fit(runs(head) / "config.yaml", tmp_path / "again", ())
    assert_same(tmp_path / "again", runs(head))


@pytest.mark.parametrize(
    ("name", "key", "own"),
    [
        ("multi_instance", "max_instances", 7),
        ("centroid", "max_instances", 7),
        ("centered_instance", "crop_size_px", 40),
    ],
)
def test_what_a_run_was_told_is_not_taken_from_the_labels_when_it_resumes(
    config_file, tmp_path, name, key, own
):
    told = *HEADS[name], f"model.head.{key}={own}"
    fit(config_file, tmp_path / "whole", told)
    with pytest.raises(StoppedError):
        fit(config_file, tmp_path / "parts", told, StopAt(3))
    fit(config_file, tmp_path / "parts", HEADS[name], resume=True)
    assert_same(tmp_path / "parts", tmp_path / "whole")
    assert getattr(load_config(tmp_path / "parts" / "config.yaml").model.head, key) == own
    other = *HEADS[name], f"model.head.{key}={own + 8}", "training.epochs=3"
    with pytest.raises(RunError, match=f"model.head.{key} was {own}, is {own + 8}"):
        fit(config_file, tmp_path / "parts", other, resume=True)


def test_bfloat16_trains(config_file, tmp_path, head):
    options = "training.precision=mixed_bfloat16", "training.steps_per_epoch=30"
    fit(config_file, tmp_path / "run", (*head, *options))
    first, last = (row["loss"] for row in rows_of(tmp_path / "run"))
    assert np.isfinite(first)
    assert last < 0.9 * first


# A few steps, beside each other


def steps_of(config_file, folder, overrides, count=5, rate=1e-6):
    """Return the losses of steps; and after them the weights, and the statistics of normalisation.

    Steps are short, or a rounding error tips a ReLU over.
    """
    options = (
        "training.device=cpu",
        "training.optimizer=sgd",
        "training.synchronize_batch_norm=true",
    )
    config = load_config(config_file, (*options, *overrides))
    with open_split(config.data, config.model.head, config.where) as split:
        config = fit_module.with_head_from_labels(config, split.train)
        compute = set_up(config.training)
        folder.mkdir()
        with closing(fit_module._trainer(config, split, compute, folder)) as trainer:
            losses, _ = trainer.steps(0, np.full(count, rate, np.float32))
            network = trainer.networks.trained
            groups = network.trainable_variables, network.non_trainable_variables
            return losses, *([np.array(each.numpy()) for each in group] for group in groups)


def farthest(found, expected):
    """Return the largest difference, of arrays beyond 1 as a part of their largest value."""
    apart = [
        np.abs(one - other).max() / max(1.0, np.abs(other).max())
        for one, other in zip(found, expected, strict=True)
    ]
    # A network without normalisation has no statistics.
    return max(apart, default=0.0)


@pytest.mark.parametrize("offsets", ["false", "true"])
def test_compiled_with_xla_the_steps_are_the_same(config_file, tmp_path, head, offsets):
    # With determinism XLA refuses the gradient of pooling.
    disable_op_determinism()
    options = *head, f"model.head.offsets={offsets}", "training.deterministic=false"
    plain, compiled = (
        steps_of(config_file, tmp_path / xla, (*options, f"training.xla={xla}"))
        for xla in ("off", "on")
    )
    np.testing.assert_allclose(compiled[0], plain[0], rtol=1e-5)
    for found, expected in zip(compiled[1:], plain[1:], strict=True):
        assert farthest(found, expected) < 1e-5


def test_mining_counts_the_worse_keypoints_alone(config_file, tmp_path, head):
    plain, mined = (
        steps_of(config_file, tmp_path / name, (*head, f"training.hard_keypoint_mining={name}"), 1)
        for name in ("false", "true")
    )
    if head == HEADS["centroid"]:
        np.testing.assert_allclose(mined[0], plain[0], rtol=1e-6)
    else:
        # Of all outputs together: mining is of maps alone.
        assert (mined[0].sum(-1) > 1.01 * plain[0].sum(-1)).all()


TWO_REPLICAS = """
import sys
from pathlib import Path
import numpy as np
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from test_parity_of_heads import farthest, steps_of
config_file, folder, *overrides = sys.argv[1:]
single, double = (
    steps_of(config_file, Path(folder) / name, (*overrides, f"training.strategy={name}"), 1)
    for name in ("single", "mirrored")
)
start = steps_of(config_file, Path(folder) / "start", overrides, 1, 0.0)
moved = farthest(single[1], start[1])
assert moved > 1e-5, moved
np.testing.assert_allclose(double[0], single[0], rtol=1e-5)
assert farthest(double[1], single[1]) < 1e-6, farthest(double[1], single[1])
# Variances are differences of means of squares, which cost a digit.
assert farthest(double[2], single[2]) < 1e-5, farthest(double[2], single[2])
print("equal")
"""


@pytest.mark.multiprocess
def test_two_replicas_equal_one_device(config_file, tmp_path, head):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1]), *sys.path])
    environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}
    program = [sys.executable, "-c", TWO_REPLICAS, str(config_file), str(tmp_path), *head]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "equal\n"), done.stderr[-3000:]


# What a run gives


def test_a_run_predicts_animals_with_an_axis_of_their_own(runs):
    images = np.zeros((3, 41, 59, 1), np.uint8)
    several, centroid, crops = (runs(head) for head in HEADS.values())
    for run, keypoints in (
        (load_run(several), 3),
        (load_run(centroid), 1),
        (load_run(crops, centroids=centroid), 3),
    ):
        points, confidence = run.predict(images)
        # Two more than the most in a frame.
        assert points.shape == (3, 4, keypoints, 2)
        assert confidence.shape == (3, 4, keypoints)
        assert points.dtype == confidence.dtype == np.float32
        np.testing.assert_array_equal(np.isnan(points).any(-1), np.isnan(confidence))


def test_a_run_on_other_steps_has_other_weights(config_file, runs, tmp_path, head):
    # Else equality above would prove nothing.
    fit(config_file, tmp_path / "run", (*head, "training.seed=1"))
    assert without_times(rows_of(tmp_path / "run")) != without_times(rows_of(runs(head)))
    assert weights_of(tmp_path / "run" / "best.keras") != weights_of(runs(head) / "best.keras")
