"""Crops and centroids in TensorFlow: against loops in Python, SLEAP's figures and drawn maps."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from hgtrain.coords import cells_to_pixels
from hgtrain.heads.decoding.duplicates import suppress_duplicates
from hgtrain.heads.decoding.peaks import global_peaks, refinement_radius
from hgtrain.heads.targets.centroids import centroids
from hgtrain.heads.targets.confidence_maps import confidence_maps
from hgtrain.pipeline.crops import crop_corners, crops
from hgtrain.poses import centroids as centroids_of_arrays

NAN = float("nan")
SETTINGS = settings(max_examples=40)


def looped_crop(image: np.ndarray, x: int, y: int, size: int) -> np.ndarray:
    """Return a crop, pixel by pixel."""
    height, width, channels = image.shape
    crop = np.zeros((size, size, channels), image.dtype)
    for row in range(size):
        for column in range(size):
            if 0 <= y + row < height and 0 <= x + column < width:
                crop[row, column] = image[y + row, x + column]
    return crop


def kept_one_by_one(points: np.ndarray, values: np.ndarray, valid: np.ndarray, distance: float):
    """Return which points stay: go down from the highest, drop what lies near one that was kept."""
    kept: list[int] = []
    for place in np.argsort(-values, kind="stable"):
        near = [np.hypot(*(points[place] - points[other])) < distance for other in kept]
        if valid[place] and not any(near):
            kept.append(int(place))
    return sorted(kept)


# Centroids


def test_the_centroid_is_the_anchor_where_there_is_one() -> None:
    points = tf.constant([[1.0, 2.0], [5.0, 8.0], [30.0, 4.0]])
    assert centroids(points, 1).numpy().tolist() == [5, 8]


@pytest.mark.parametrize("anchor", [None, 1])
def test_the_centroid_is_else_the_middle_of_the_bounding_box(anchor: int | None) -> None:
    points = tf.constant([[1.0, 2.0], [NAN, NAN], [30.0, 4.0], [3.0, 12.0]])
    assert centroids(points, anchor).numpy().tolist() == [15.5, 7]


def test_a_point_with_one_coordinate_is_missing() -> None:
    assert centroids(tf.constant([[NAN, 90.0], [3.0, 4.0]]), 0).numpy().tolist() == [3, 4]


@pytest.mark.parametrize("anchor", [None, 0])
def test_an_animal_without_points_has_no_centroid(anchor: int | None) -> None:
    points = tf.constant([[[NAN, NAN], [NAN, NAN]], [[1.0, 1.0], [3.0, 3.0]]])
    assert np.isnan(centroids(points, anchor).numpy()).tolist() == [[True, True], [False, False]]


@pytest.mark.parametrize("case", range(4))
def test_centroids_equal_the_reference(conformance: Path, case: int) -> None:
    figures = np.load(conformance / "multi" / "centroids_crops.npz")
    points, anchor = figures[f"centroid{case}_points"], int(figures[f"centroid{case}_anchor"])
    found = centroids(tf.constant(points), None if anchor < 0 else anchor)
    np.testing.assert_allclose(found, figures[f"centroid{case}_centroids"], rtol=1e-6, atol=1e-6)


@SETTINGS
@given(st.integers(0, 10**6), st.sampled_from([None, 0, 3]))
def test_tensors_and_arrays_have_the_same_centroids(seed: int, anchor: int | None) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(-20, 500, (2, 3, 4, 2)).astype(np.float32)
    points[rng.random(points.shape[:-1]) < 0.5] = NAN
    np.testing.assert_array_equal(
        centroids(tf.constant(points), anchor), centroids_of_arrays(points, anchor)
    )


# Corners


@pytest.mark.parametrize(
    ("centroid", "size", "corner"),
    [(20.0, 15, 13), (20.5, 16, 13), (20.0, 16, 13), (20.4, 15, 13), (20.5, 15, 14), (0.0, 8, -3)],
)
def test_a_crop_begins_at_the_pixel_nearest_to_half_its_size_before_the_centroid(
    centroid: float, size: int, corner: int
) -> None:
    found = crop_corners(tf.constant([centroid, 100.0]), size)
    assert found.dtype == tf.int32
    assert int(found[0]) == corner


@SETTINGS
@given(st.floats(-100, 1000, width=32), st.integers(1, 200))
def test_a_centroid_is_within_half_a_pixel_of_the_middle_of_its_crop(
    centroid: float, size: int
) -> None:
    corner = int(crop_corners(tf.constant([centroid, 0.0]), size)[0])
    # Float32 holds positions below 1,100 px to 1e-4.
    assert abs(corner + (size - 1) / 2 - centroid) <= 0.5 + 1e-4


# Crops


@SETTINGS
@given(
    st.integers(0, 10**6),
    st.integers(1, 9),
    st.integers(1, 9),
    st.integers(1, 12),
    st.sampled_from([(np.uint8, 1), (np.uint8, 3), (np.float32, 1)]),
)
def test_crops_equal_those_copied_pixel_by_pixel(
    seed: int, height: int, width: int, size: int, kind: tuple[type, int]
) -> None:
    rng, (dtype, channels) = np.random.default_rng(seed), kind
    images = rng.integers(1, 256, (2, height, width, channels)).astype(dtype)
    corners = rng.integers(-size - 2, 12, (2, 3, 2)).astype(np.int32)
    found = crops(tf.constant(images), tf.constant(corners), size).numpy()
    assert found.dtype == dtype
    assert found.shape == (2, 3, size, size, channels)
    for frame in range(2):
        for animal, (x, y) in enumerate(corners[frame].tolist()):
            expected = looped_crop(images[frame], x, y, size)
            np.testing.assert_array_equal(found[frame, animal], expected)


def test_a_missing_centroid_gives_a_crop_of_zeros() -> None:
    images = tf.fill((1, 30, 30, 1), tf.constant(200, tf.uint8))
    where = tf.constant([[[NAN, NAN], [15.0, 15.0], [NAN, 15.0], [-1000.0, 15.0]]])
    found = crops(images, crop_corners(where, 8), 8)
    assert found.numpy().max(axis=(2, 3, 4)).tolist() == [[0, 200, 0, 0]]


@pytest.mark.parametrize(("batch", "animals"), [(0, 3), (2, 0), (0, 0)])
def test_no_images_or_no_animals_give_no_crops(batch: int, animals: int) -> None:
    images = tf.zeros((batch, 20, 30, 3), tf.uint8)
    found = crops(images, tf.zeros((batch, animals, 2), tf.int32), 8)
    assert found.shape == (batch, animals, 8, 8, 3)


def test_the_size_and_the_channels_of_crops_are_known_in_a_graph() -> None:
    @tf.function(
        input_signature=[
            tf.TensorSpec((None, None, None, 1), tf.uint8),
            tf.TensorSpec((None, None, 2), tf.float32),
        ]
    )
    def cut(images: tf.Tensor, where: tf.Tensor) -> tf.Tensor:
        return crops(images, crop_corners(where, 12), 12)

    assert cut.get_concrete_function().output_shapes.as_list() == [None, None, 12, 12, 1]


@pytest.mark.parametrize("case", range(4))
def test_crops_at_whole_pixels_equal_the_reference(conformance: Path, case: int) -> None:
    figures = np.load(conformance / "multi" / "centroids_crops.npz")
    image, size = figures[f"crop{case}_image"], int(figures[f"crop{case}_size"])
    top_left = figures[f"crop{case}_boxes"][:, :2]
    whole = (top_left == np.round(top_left)).all(axis=-1)
    assert whole.any()
    # Before the reference cuts off the fractions of a grey level that its interpolation leaves.
    name = f"crop{case}_crops" + ("_float" if image.dtype == np.uint8 else "")
    where = tf.constant(figures[f"crop{case}_centroids"][None, whole])
    corners = crop_corners(where, size)
    np.testing.assert_array_equal(corners[0], top_left[whole][:, ::-1])
    found = crops(tf.constant(image[None]), corners, size)[0]
    np.testing.assert_allclose(found, figures[name][whole], atol=1e-3)


# From a point to a crop and back


@SETTINGS
@given(st.data())
def test_a_point_is_found_again_in_a_crop_of_its_map(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(40, 70)), data.draw(st.integers(40, 70))
    size = data.draw(st.integers(30, 41))
    x = data.draw(st.floats(0, width - 1, width=32))
    y = data.draw(st.floats(0, height - 1, width=32))
    jitter = [data.draw(st.floats(-5, 5, width=32)) for _ in "xy"]
    point = tf.constant([[[x, y]]])
    maps = confidence_maps(point, height, width, stride=1, sigma_px=3.0)
    corners = crop_corners(point + jitter, size)
    found, _ = global_peaks(crops(maps, corners, size)[:, 0], refinement_radius(3.0, 1))
    np.testing.assert_allclose(found[0, 0] + tf.cast(corners[0, 0], tf.float32), (x, y), atol=1e-3)


@SETTINGS
@given(
    st.tuples(st.floats(-30, 300, width=32), st.floats(-30, 300, width=32)),
    st.tuples(st.floats(-6, 6, width=32), st.floats(-6, 6, width=32)),
    st.sampled_from([1, 2, 4]),
)
def test_a_point_is_decoded_again_from_maps_drawn_in_its_crop(
    point: tuple[float, float], jitter: tuple[float, float], stride: int
) -> None:
    size, sigma_px = 48, 5.0
    corner = crop_corners(tf.constant([[point]]) + jitter, size)
    corner = tf.cast(corner, tf.float32)
    maps = confidence_maps(tf.constant([[point]]) - corner, size, size, stride, sigma_px)
    cells, _ = global_peaks(maps, refinement_radius(sigma_px, stride))
    np.testing.assert_allclose(cells_to_pixels(cells, stride) + corner, [[point]], atol=1e-3)


def test_an_animal_s_pixel_has_the_place_in_the_crop_that_its_point_has() -> None:
    images = np.zeros((2, 60, 80, 1), np.uint8)
    points = np.array([[[12.0, 3.0], [79.0, 59.0]], [[40.0, 31.0], [0.0, 20.0]]], np.float32)
    for frame, animal in np.ndindex(2, 2):
        x, y = points[frame, animal].astype(int)
        images[frame, y, x] = 100 + 10 * frame + animal
    corners = crop_corners(tf.constant(points + 2.3), 21)
    found = crops(tf.constant(images), corners, 21).numpy()
    for frame, animal in np.ndindex(2, 2):
        x, y = (points[frame, animal] - corners[frame, animal].numpy()).astype(int)
        assert found[frame, animal, y, x, 0] == 100 + 10 * frame + animal
        assert np.count_nonzero(found[frame, animal]) == 1


# Two centroids on one animal


def test_of_two_near_points_the_higher_is_kept() -> None:
    points = tf.constant([[[10.0, 10.0], [13.0, 10.0], [40.0, 10.0]]])
    values, valid = tf.constant([[0.5, 0.9, 0.3]]), tf.constant([[True, True, True]])
    kept = suppress_duplicates(points, values, valid, 5.0)
    assert kept.numpy().tolist() == [[False, True, True]]


def test_points_as_far_apart_as_the_distance_are_both_kept() -> None:
    points, values = tf.constant([[[0.0, 0.0], [3.0, 4.0]]]), tf.constant([[0.5, 0.9]])
    kept = suppress_duplicates(points, values, tf.constant([[True, True]]), 5.0)
    assert kept.numpy().tolist() == [[True, True]]


def test_a_point_that_is_dropped_drops_no_other() -> None:
    points, values = tf.constant([[[0.0, 0.0], [4.0, 0.0], [8.0, 0.0]]]), tf.constant([[3.0, 2, 1]])
    kept = suppress_duplicates(points, values, tf.ones((1, 3), tf.bool), 5.0)
    assert kept.numpy().tolist() == [[True, False, True]]


def test_of_equally_high_points_the_first_is_kept() -> None:
    kept = suppress_duplicates(tf.zeros((1, 3, 2)), tf.ones((1, 3)), tf.ones((1, 3), tf.bool), 5.0)
    assert kept.numpy().tolist() == [[True, False, False]]


def test_what_is_not_valid_is_not_kept_and_drops_nothing() -> None:
    points = tf.constant([[[0.0, 0.0], [1.0, 0.0], [NAN, NAN]]])
    values, valid = tf.constant([[9.0, 1.0, NAN]]), tf.constant([[False, True, False]])
    kept = suppress_duplicates(points, values, valid, 5.0)
    assert kept.numpy().tolist() == [[False, True, False]]


@SETTINGS
@given(st.integers(0, 10**6), st.integers(1, 12), st.sampled_from([3.0, 10.0, 40.0]))
def test_duplicates_are_dropped_as_one_by_one(seed: int, count: int, distance: float) -> None:
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 60, (2, count, 2)).astype(np.float32)
    # A few values only, so that some are equal.
    values = rng.integers(0, 5, (2, count)).astype(np.float32)
    valid = rng.random((2, count)) < 0.8
    found = suppress_duplicates(*(tf.constant(a) for a in (points, values, valid)), distance)
    for frame in range(2):
        expected = kept_one_by_one(points[frame], values[frame], valid[frame], distance)
        assert np.flatnonzero(found[frame]).tolist() == expected


# Exports


class TopDown(tf.Module):
    """What an exported model does between its two networks."""

    @tf.function(
        input_signature=[
            tf.TensorSpec((1, 24, 33, 1), tf.uint8),
            tf.TensorSpec((1, 4, 3, 2), tf.float32),
            tf.TensorSpec((1, 4), tf.float32),
        ]
    )
    def __call__(self, image: tf.Tensor, points: tf.Tensor, values: tf.Tensor) -> dict:
        where = centroids(points, 1)
        valid = ~tf.math.is_nan(where[..., 0])
        kept = suppress_duplicates(where, values, valid, 6.0)
        return {
            "cut": crops(image, crop_corners(where, 10), 10),
            "where": where,
            "kept": tf.cast(kept, tf.float32),
        }


@pytest.fixture
def example() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    points = rng.uniform(0, 24, (1, 4, 3, 2)).astype(np.float32)
    points[0, 0, 1], points[0, 1] = NAN, NAN
    points[0, 3, 1] = points[0, 2, 1] + 2
    values = np.array([[0.4, 0.9, 0.5, 0.6]], np.float32)
    return rng.integers(1, 256, (1, 24, 33, 1)).astype(np.uint8), points, values


def assert_as_eager(found: dict, example: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    expected = TopDown()(*(tf.constant(a) for a in example))
    assert expected["kept"].numpy().tolist() == [[1, 0, 0, 1]]
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated:UserWarning")
def test_tensorflow_lite_gives_the_same_with_its_own_operations(example: tuple) -> None:
    module = TopDown()
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [module.__call__.get_concrete_function()], module
    )
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    image, points, values = example
    found = interpreter.get_signature_runner()(image=image, points=points, values=values)
    assert_as_eager(found, example)


def test_onnx_gives_the_same(example: tuple) -> None:
    tf2onnx = pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    from hgtrain.export.onnx import ONNX_OPSET, _choose

    module = TopDown()
    proto, _ = tf2onnx.convert.from_function(
        module.__call__,
        input_signature=module.__call__.input_signature,
        opset=ONNX_OPSET,
        custom_op_handlers={"SelectV2": (_choose, [])},
    )
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    names = [output.name for output in session.get_outputs()]
    image, points, values = example
    inputs = dict(zip(("image", "points", "values"), (image, points, values), strict=True))
    assert_as_eager(dict(zip(names, session.run(names, inputs), strict=True)), example)
