"""Finding several animals is part of the exported graph: the same points in every format."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.export.onnx import write_onnx
from hgtrain.export.served import SKELETON_KEYS
from hgtrain.heads.decoding.grouping import Rules, group_peaks
from hgtrain.heads.decoding.peaks import local_maxima
from hgtrain.heads.targets.confidence_maps import multi_confidence_maps
from hgtrain.heads.targets.part_affinity import part_affinity_fields
from hgtrain.skeleton import tree_edges

pytestmark = pytest.mark.slow

EDGES = ((0, 1), (1, 2), (1, 3), (4, 3))
KEYPOINTS, SIDE, STRIDE = 6, 64, 4
"""Keypoint 4 is a second root, and keypoint 5 at no edge."""


class Decoder(tf.Module):
    """Maps and fields in one tensor, as a model has one image, to animals."""

    def __init__(self, assignment: str, batch: int | None, refinement: str = "unbiased") -> None:
        super().__init__()
        self.image = tf.TensorSpec(
            [batch, SIDE // STRIDE, SIDE // STRIDE, KEYPOINTS + 2 * len(EDGES)],
            tf.float32,
            name="image",
        )
        tree, rules = tree_edges(EDGES, KEYPOINTS), Rules(3, assignment=assignment)

        def predict(image: tf.Tensor) -> dict[str, tf.Tensor]:
            peaks = local_maxima(image[..., :KEYPOINTS], 5, 0.2, 3, refinement)
            peaks = peaks._replace(points=peaks.points * STRIDE)
            animals = group_peaks(image[..., KEYPOINTS:], peaks, tree, STRIDE, rules)
            return {
                "keypoints": animals.points,
                "confidence": animals.confidence,
                "instance_score": animals.scores,
            }

        self.predict = tf.function(predict, [self.image])


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Three frames of none, one and two animals, the last with another's stray peak."""
    one = np.array([[8, 8], [20, 10], [30, 6], [28, 20], [36, 24], [22, 18]], np.float32)
    two = one[:, ::-1] + [12, 26]
    points = np.full((3, 2, KEYPOINTS, 2), np.nan, np.float32)
    points[1, 0], points[2, 0], points[2, 1] = one, one, two
    points[2, 1, 2] = np.nan
    points = tf.constant(points)
    maps = multi_confidence_maps(points, SIDE, SIDE, STRIDE, 4.0).numpy()
    maps[2, 0, 15, 2] = 0.5
    fields = part_affinity_fields(points, EDGES, SIDE, SIDE, STRIDE, 5.0)
    return np.concatenate([maps, fields], axis=-1)


def decoded(images: np.ndarray, assignment: str = "exact") -> dict[str, np.ndarray]:
    found = Decoder(assignment, None).predict(tf.constant(images))
    assert np.isfinite(found["instance_score"]).sum(axis=1).tolist() == [0, 1, 2]
    return {name: values.numpy() for name, values in found.items()}


both = pytest.mark.parametrize("assignment", ["exact", "greedy"])


@both
def test_a_savedmodel_finds_the_same_animals(
    images: np.ndarray, assignment: str, tmp_path: Path
) -> None:
    decoder = Decoder(assignment, None)
    tf.saved_model.save(decoder, str(tmp_path), signatures=decoder.predict)
    found = tf.saved_model.load(str(tmp_path)).signatures["serving_default"](
        image=tf.constant(images)
    )
    expected = decoded(images, assignment)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)


@both
@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.filterwarnings("ignore")  # of the interpreter, which is to move
def test_tensorflow_lite_finds_the_same_animals_with_its_own_operations(
    images: np.ndarray, assignment: str, batch: int | None
) -> None:
    decoder = Decoder(assignment, batch)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [decoder.predict.get_concrete_function()], decoder
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    runner = interpreter.get_signature_runner()
    expected = decoded(images, assignment)
    for frame, image in enumerate(images):
        found = runner(image=image[None])
        for name, values in expected.items():
            np.testing.assert_allclose(found[name][0], values[frame], atol=1e-4)


@both
@pytest.mark.filterwarnings("ignore")  # of tf2onnx
def test_onnx_finds_the_same_animals(images: np.ndarray, assignment: str, tmp_path: Path) -> None:
    decoder = Decoder(assignment, None)
    skeleton = dict.fromkeys(SKELETON_KEYS, "[]")
    served = SimpleNamespace(predict=decoder.predict, image=decoder.image, **skeleton)
    (file,) = write_onnx(served, tmp_path, images)
    found = file.load(tmp_path / file.name)(images)
    expected = decoded(images, assignment)
    np.testing.assert_allclose(found.points, expected["keypoints"], atol=1e-4)
    np.testing.assert_allclose(found.confidence, expected["confidence"], atol=1e-6)
    np.testing.assert_allclose(found.scores, expected["instance_score"], atol=1e-6)
