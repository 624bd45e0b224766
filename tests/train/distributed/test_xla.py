import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from hgtrain.config.schema import BackboneConfig, DataConfig, ModelConfig, TrainingConfig
from hgtrain.planning.input_spec import InputSpec
from hgtrain.skeleton import unnamed_skeleton
from hgtrain.train.distributed import xla as xla_module
from hgtrain.train.distributed.devices import Compute, set_up
from hgtrain.train.distributed.xla import resolve_xla

BACKBONE = BackboneConfig(
    stem_stride=4,
    output_stride=4,
    max_stride=8,
    stem_filters=4,
    filters=4,
    filter_increase=0,
    stacks=1,
)


@pytest.fixture
def spec(tmp_path, monkeypatch):
    monkeypatch.setenv("HGTRAIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(xla_module, "MEASURED_S", 0.1)
    training = TrainingConfig(batch_size=2, device="cpu")
    data, model = DataConfig(train="a.h5"), ModelConfig(backbone=BACKBONE)
    return InputSpec(data, model, training, (16, 16, 1), unnamed_skeleton(2))


@pytest.fixture
def undecided(spec) -> Compute:
    return set_up(spec.training)._replace(jit=None, device="some GPU")


def test_what_is_decided_stays(spec, tmp_path):
    compute = set_up(spec.training)
    assert resolve_xla(spec, compute, tmp_path) is compute


@pytest.mark.slow
def test_the_faster_way_is_measured_once(spec, undecided, tmp_path, monkeypatch):
    first = resolve_xla(spec, undecided, tmp_path)
    (kept,) = (tmp_path / "cache").iterdir()
    advantage = json.loads(kept.read_text())["advantage"]
    assert advantage > 0
    assert (first.jit, first.xla_reason) == (
        advantage > 1,
        f"measured, {advantage:.2f} times as fast",
    )
    monkeypatch.setattr(xla_module, "_measured", None)
    second = resolve_xla(spec, undecided, tmp_path)
    assert (second.jit, second.xla_reason) == (
        first.jit,
        f"measured before, {advantage:.2f} times as fast",
    )


def test_another_network_is_measured_anew(spec, undecided, tmp_path, monkeypatch):
    monkeypatch.setattr(xla_module, "_measured", lambda *arguments: 2.0)
    assert resolve_xla(spec, undecided, tmp_path).jit
    monkeypatch.setattr(xla_module, "_measured", lambda *arguments: 0.5)
    assert resolve_xla(spec, undecided, tmp_path).jit
    larger = spec._replace(image_shape=(32, 32, 1))
    assert not resolve_xla(larger, undecided, tmp_path).jit


@pytest.mark.parametrize("xla", ["on", "off"])
def test_a_resumed_run_goes_on_as_it_began(spec, undecided, tmp_path, monkeypatch, xla):
    monkeypatch.setattr(xla_module, "_measured", None)
    (tmp_path / "provenance.json").write_text(json.dumps({"device": "some GPU", "xla": xla}))
    compute = resolve_xla(spec, undecided, tmp_path)
    assert (compute.jit, compute.xla_reason) == (xla == "on", "as the run began")


def test_what_xla_cannot_compile_is_done_without(spec, undecided, tmp_path, monkeypatch):
    class Refused:
        def __init__(self, *arguments):
            raise tf.errors.UnimplementedError(None, None, "no kernel")

    monkeypatch.setattr("hgtrain.train.benchmark.StepBenchmark", Refused)
    compute = resolve_xla(spec, undecided, tmp_path)
    assert (compute.jit, compute.xla_reason) == (False, "measured, 0.00 times as fast")


def test_weights_do_not_depend_on_measuring(spec, undecided, tmp_path, monkeypatch):
    class Trial:
        def __init__(self, *arguments):
            keras.random.uniform((3,))

        def steps_per_s(self, seconds):
            return 1.0

    monkeypatch.setattr("hgtrain.train.benchmark.StepBenchmark", Trial)
    set_up(spec.training)
    expected = keras.initializers.GlorotUniform()((3, 3))
    set_up(spec.training)
    resolve_xla(spec, undecided, tmp_path)
    np.testing.assert_array_equal(keras.initializers.GlorotUniform()((3, 3)), expected)
