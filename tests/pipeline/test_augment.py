import numpy as np
import pytest
import tensorflow as tf
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hgtrain.config.schema import AugmentationConfig
from hgtrain.coords import Crop
from hgtrain.pipeline.augment import (
    DRAWS,
    augment_geometry,
    augment_intensity,
    draw,
    draw_jitter,
)

NAN = float("nan")
OFF = {
    "rotation_deg": None, "scale": None, "translation_px": None, "flip": "none",
    "brightness": None, "contrast": None,
    "gamma": None, "noise_std": 0.0, "blur_sigma_px": None,
}  # fmt: skip
PAIR = ((0, 1),)


def only(**operations: object) -> AugmentationConfig:
    return AugmentationConfig(**(OFF | operations))


def draws_of(**values: float) -> tf.Tensor:
    """One image's draws; the middle of every range, and no flip, where nothing is said."""
    return tf.constant(
        [[values.get(name, 0.75 if name.startswith("flip") else 0.5) for name in DRAWS]], tf.float32
    )


def moved(
    points: object,
    config: AugmentationConfig,
    draws: tf.Tensor,
    size=(32, 48),
    symmetries=(),
    weights=None,
):
    points = tf.constant([[points]], tf.float32)
    weights = tf.ones(points.shape[:3]) if weights is None else tf.constant([[weights]], tf.float32)
    images = tf.zeros((1, *size, 1), tf.uint8)
    _, points, weights = augment_geometry(images, points, weights, draws, config, symmetries)
    return points.numpy()[0, 0], weights.numpy()[0, 0]


# Where a drawn dot lands


def dots(points: np.ndarray, height: int, width: int, sigma_px: float) -> np.ndarray:
    """Return an image with a bright dot at point k in channel k."""
    y, x = np.mgrid[:height, :width, :1][:2]
    squared = (x - points[:, 0]) ** 2 + (y - points[:, 1]) ** 2
    return np.round(250 * np.exp(-squared / (2 * sigma_px**2))).astype(np.uint8)


def centroid_near(channel: np.ndarray, point: np.ndarray, radius_px: float) -> np.ndarray:
    y, x = np.mgrid[: channel.shape[0], : channel.shape[1]]
    near = channel * ((x - point[0]) ** 2 + (y - point[1]) ** 2 <= radius_px**2)
    return np.array([(near * x).sum(), (near * y).sum()]) / near.sum()


def assert_dots_land_on_points(
    config: AugmentationConfig, draws: list[float], height: int, width: int, at: list
):
    points = np.array([[x * (width - 1), y * (height - 1)] for x, y in at])
    images = dots(points, height, width, 2.0)[None]
    warped, moved_points, weights = augment_geometry(
        tf.constant(images), tf.constant(points[None, None], tf.float32), tf.ones((1, 1, 3)),
        tf.constant([draws], tf.float32), config, PAIR,
    )  # fmt: skip
    assert warped.shape == images.shape
    size = np.array([width, height])
    mirrored = config.flip != "none" and sum(
        draws[DRAWS.index(f"flip_{axis}")] < 0.5
        for axis in ("horizontal", "vertical") if config.flip in (axis, "both")
    ) % 2 == 1  # fmt: skip
    margin_px = 12
    checked = False
    for k, channel in enumerate([1, 0, 2] if mirrored else [0, 1, 2]):
        point = moved_points.numpy()[0, 0, k]
        if ((point > margin_px) & (point < size - 1 - margin_px)).all():
            found = centroid_near(warped.numpy()[0, :, :, channel], point, 10)
            np.testing.assert_allclose(found, point, atol=0.1)
            assert weights[0, 0, k] == 1
            checked = True
    assume(checked)


HARSHEST = {
    "rotation_deg": (-180, 180),
    "scale": (0.6, 1.5),
    "translation_px": (-25, 25),
    "flip": "both",
}
INSIDE = st.tuples(st.floats(0.3, 0.7), st.floats(0.3, 0.7))
SIDES = st.integers(50, 90)
ALL_DRAWS = st.lists(
    st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1),
    min_size=len(DRAWS),
    max_size=len(DRAWS),
)


@pytest.mark.parametrize("fill", ["constant", "reflect"])
@pytest.mark.parametrize(
    "operations",
    [
        {},
        {"rotation_deg": (-180, 180)},
        {"scale": (0.6, 1.5)},
        {"translation_px": (-25, 25)},
        {"flip": "horizontal"},
        {"flip": "vertical"},
        {"flip": "both"},
        HARSHEST,
        {
            name: AugmentationConfig.model_fields[name].default
            for name in ("rotation_deg", "scale", "translation_px")
        },
    ],
    ids=lambda operations: "-".join(operations) or "nothing",
)
def test_augmented_points_lie_where_drawn_dots_land(operations: dict, fill: str) -> None:
    config = only(**operations, fill=fill)

    @settings(max_examples=25)
    @given(ALL_DRAWS, SIDES, SIDES, st.tuples(INSIDE, INSIDE, INSIDE))
    def check(draws: list[float], height: int, width: int, at: tuple) -> None:
        assert_dots_land_on_points(config, draws, height, width, at)

    check()


# Crops


def mean_of_points(points: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(points, axis=-2)


def cropped(config: AugmentationConfig, draws: tf.Tensor, beside: list[float], size: int) -> tuple:
    """Return the crop around two dots, at (30.25, 20.5) and (44, 31.75), and their points in it."""
    points = np.array([[30.25, 20.5], [44.0, 31.75]])
    images = tf.constant(dots(points, 64, 80, 2.0)[None])
    found = augment_geometry(
        images, tf.constant(points[None, None], tf.float32), tf.ones((1, 1, 2)), draws, config,
        PAIR,
        (Crop(size, 0.0, mean_of_points), tf.constant([beside])),
    )  # fmt: skip
    return tuple(values.numpy()[0] for values in found)


def test_a_crop_is_around_the_animal_and_its_pixels_are_those_of_the_image() -> None:
    # The mean is (37.125, 26.125): with 0.375 px beside it the corner is pixel (22, 11) exactly.
    image, points, weights = cropped(only(), draws_of(), [0.375, 0.375], 32)
    whole = dots(np.array([[30.25, 20.5], [44.0, 31.75]]), 64, 80, 2.0)
    np.testing.assert_allclose(image, whole[11:43, 22:54], atol=1e-3)
    np.testing.assert_allclose(points, [[[8.25, 9.5], [22.0, 20.75]]], atol=1e-4)
    np.testing.assert_array_equal(weights, [[1, 1]])


@pytest.mark.parametrize("size", [40, 41])
@pytest.mark.parametrize("beside", [[0.0, 0.0], [-3.3, 2.6]])
def test_the_middle_of_a_crop_is_the_animals_whatever_moves_it(
    size: int, beside: list[float]
) -> None:
    config = only(**HARSHEST)
    for seed in range(5):
        draws = draw(seed, tf.constant(0, tf.int64), 1)
        image, points, _ = cropped(config, draws, beside, size)
        assert image.shape == (size, size, 2)
        middle = [(size - 1) / 2 - side for side in beside]
        np.testing.assert_allclose(points[0].mean(0), middle, atol=1e-3)


def test_dots_land_on_points_in_a_crop_that_turns() -> None:
    for rotation, scale in ((0.1, 0.5), (0.4, 0.2), (0.8, 0.9)):
        draws = draws_of(rotation=rotation, scale=scale)
        image, points, _ = cropped(
            only(rotation_deg=(-180, 180), scale=(0.8, 1.2)), draws, [1.5, -0.5], 48
        )
        for k in (0, 1):
            np.testing.assert_allclose(
                centroid_near(image[..., k], points[0, k], 8), points[0, k], atol=0.1
            )


def test_what_lies_around_a_crop_turns_into_it() -> None:
    # White throughout: black corners could only come from outside the crop.
    images = tf.fill((1, 96, 96, 1), tf.constant(255, tf.uint8))
    points = tf.constant([[[[48.0, 48.0], [50.0, 47.0]]]])
    draws = draws_of(rotation=0.625)
    crop = Crop(32, 0.0, mean_of_points), tf.zeros((1, 2))
    config = only(rotation_deg=(-180, 180))
    image, _, _ = augment_geometry(images, points, tf.ones((1, 1, 2)), draws, config, (), crop)
    np.testing.assert_allclose(image, 255, atol=1e-2)


def test_what_is_not_labelled_does_not_move_a_crop() -> None:
    points = tf.constant([[[[20.0, 20.0], [60.0, 50.0]]]])
    seen = []

    def middle(labelled: tf.Tensor) -> tf.Tensor:
        seen.append(labelled.numpy())
        return labelled[:, 0]

    crop = Crop(8, 0.0, middle), tf.zeros((1, 2))
    weights = tf.constant([[[1.0, 0.0]]])
    images = tf.zeros((1, 64, 80, 1), tf.uint8)
    _, moved_points, left = augment_geometry(images, points, weights, draws_of(), only(), (), crop)
    np.testing.assert_array_equal(seen, [[[[20, 20], [NAN, NAN]]]])
    np.testing.assert_allclose(moved_points[0, 0, 0], [3.5, 3.5])
    np.testing.assert_array_equal(left, [[[1, 0]]])


def test_the_place_of_a_crop_varies_by_its_jitter_alike_in_every_part() -> None:
    crop = Crop(100, 0.05, mean_of_points)
    drawn = draw_jitter(3, tf.constant(7, tf.int64), 4000, crop).numpy()
    np.testing.assert_allclose(drawn.std(0), 5.0, rtol=0.05)
    np.testing.assert_allclose(drawn.mean(0), 0.0, atol=0.3)
    np.testing.assert_array_equal(drawn, draw_jitter(3, tf.constant(7, tf.int64), 4000, crop))
    assert (drawn != draw_jitter(3, tf.constant(8, tf.int64), 4000, crop).numpy()).any()


# By hand


def test_nothing_turned_on_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 48, 3), np.uint8)
    points = [[[[3.25, 4.5], [NAN, NAN]]]]
    warped, moved_points, weights = augment_geometry(
        tf.constant(images), tf.constant(points), tf.ones((1, 1, 2)), draws_of(), only(), PAIR
    )
    np.testing.assert_allclose(warped, images, atol=1e-3)
    np.testing.assert_allclose(moved_points, points)
    np.testing.assert_array_equal(weights, [[[1, 1]]])


def test_reflect_fills_with_the_mirrored_image() -> None:
    ramp = np.tile(np.arange(16, dtype=np.uint8) * 10, (16, 1))[None, :, :, None]
    config = only(translation_px=(4, 4), fill="reflect")
    warped, _, _ = augment_geometry(
        tf.constant(ramp), tf.zeros((1, 1, 1, 2)), tf.ones((1, 1, 1)), draws_of(), config, ()
    )
    np.testing.assert_allclose(warped[0, 8, :, 0], [30, 20, 10, 0, *range(0, 120, 10)], atol=1e-3)


@pytest.mark.parametrize(
    ("flip", "horizontal", "vertical", "expected"),
    [
        ("horizontal", 0.1, 0.1, [[47 - 20, 7], [47 - 10, 5]]),
        ("vertical", 0.1, 0.1, [[20, 31 - 7], [10, 31 - 5]]),
        ("both", 0.1, 0.9, [[47 - 20, 7], [47 - 10, 5]]),
        ("both", 0.9, 0.1, [[20, 31 - 7], [10, 31 - 5]]),
        ("both", 0.1, 0.1, [[47 - 10, 31 - 5], [47 - 20, 31 - 7]]),
        ("both", 0.9, 0.9, [[10, 5], [20, 7]]),
        ("none", 0.1, 0.1, [[10, 5], [20, 7]]),
        ("horizontal", 0.9, 0.1, [[10, 5], [20, 7]]),
    ],
)
def test_partners_swap_exactly_where_the_image_is_mirrored_once(
    flip: str, horizontal: float, vertical: float, expected: list
) -> None:
    draws = draws_of(flip_horizontal=horizontal, flip_vertical=vertical)
    points, weights = moved(
        [[10, 5], [20, 7], [NAN, NAN]], only(flip=flip), draws, symmetries=PAIR, weights=[1, 0, 1]
    )
    np.testing.assert_allclose(points[:2], expected)
    assert np.isnan(points[2]).all()
    swapped = expected[0] not in ([10, 5], [37, 26])
    assert weights.tolist() == ([0, 1, 1] if swapped else [1, 0, 1])


def test_partners_swap_within_each_animal() -> None:
    points = tf.constant(
        [[[[10, 5], [20, 7], [12, 9]], [[30, 15], [NAN, NAN], [32, 19]]]], tf.float32
    )
    weights = tf.constant([[[1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]])
    images = tf.zeros((1, 32, 48, 1), tf.uint8)
    draws = draws_of(flip_horizontal=0.0)
    _, found, kept = augment_geometry(images, points, weights, draws, only(flip="horizontal"), PAIR)
    expected = [[[27, 7], [37, 5], [35, 9]], [[NAN, NAN], [17, 15], [15, 19]]]
    np.testing.assert_allclose(found[0], expected)
    assert kept.numpy().tolist() == [[[0, 1, 1], [0, 1, 1]]]


def test_without_partners_a_flipped_keypoint_keeps_its_name() -> None:
    points, _ = moved([[10, 5], [20, 7]], only(flip="horizontal"), draws_of(flip_horizontal=0.0))
    np.testing.assert_allclose(points, [[37, 5], [27, 7]])


def test_a_positive_rotation_turns_x_towards_y() -> None:
    # About the centre (23.5, 15.5): (33.5, 15.5) is 10 to the right of it and comes to lie 10
    # below.
    points, _ = moved([[33.5, 15.5]], only(rotation_deg=(90, 90)), draws_of())
    np.testing.assert_allclose(points, [[23.5, 25.5]], atol=1e-4)


def test_scale_is_about_the_centre_and_translation_follows_it() -> None:
    config = only(scale=(2, 2), translation_px=(-10, 10))
    points, _ = moved([[25.5, 14.5]], config, draws_of(x=1.0, y=0.25))
    # (2, -1) from the centre, doubled to (4, -2), then moved by (10, -5).
    np.testing.assert_allclose(points, [[23.5 + 4 + 10, 15.5 - 2 - 5]], atol=1e-4)


# What weighs nothing


@pytest.mark.parametrize(("shift", "expected"), [(-11, 0), (-10.4, 1), (37.4, 1), (38, 0)])
def test_a_keypoint_that_leaves_the_image_weighs_nothing(shift: float, expected: float) -> None:
    _, weights = moved([[10, 20]], only(translation_px=(shift, shift)), draws_of(), size=(80, 48))
    assert weights.tolist() == [expected]


@pytest.mark.parametrize(
    "outside", [[-0.6, 5], [47.6, 5], [5, -0.6], [5, 31.6], [-np.inf, 5], [5, 1e9]]
)
def test_a_keypoint_labelled_outside_its_image_weighs_nothing(outside: list[float]) -> None:
    _, weights = moved([outside, [5, 5]], only(), draws_of())
    assert weights.tolist() == [0, 1]


def test_a_keypoint_labelled_outside_weighs_nothing_even_where_it_enters() -> None:
    _, weights = moved([[-3, 5]], only(translation_px=(6, 6)), draws_of())
    assert weights.tolist() == [0]


def test_an_image_edge_belongs_to_the_image() -> None:
    _, weights = moved([[-0.5, -0.5], [47.5, 31.5]], only(), draws_of())
    assert weights.tolist() == [1, 1]


def test_what_is_not_labelled_weighs_nothing_and_what_is_absent_keeps_its_weight() -> None:
    config = AugmentationConfig(flip="both")
    for step in range(5):
        points, weights = moved(
            [[NAN, NAN], [NAN, NAN], [20, 16]],
            config,
            draw(0, tf.constant(step), 1),
            weights=[0, 1, 0],
        )
        assert weights.tolist() == [0, 1, 0]
        assert np.isnan(points[:2]).all()


@pytest.mark.parametrize("half", [[NAN, 5.0], [5.0, NAN]])
def test_a_keypoint_with_one_coordinate_missing_stays_missing(half: list[float]) -> None:
    points, _ = moved([half], AugmentationConfig(), draws_of(rotation=0.6))
    assert np.isnan(points).all()


# Draws


def test_a_draw_depends_on_seed_and_step_only() -> None:
    first = draw(7, tf.constant(3), 4).numpy()
    draw(7, tf.constant(4), 4)
    np.testing.assert_array_equal(first, draw(7, tf.constant(3, tf.int64), 4))
    np.testing.assert_array_equal(first, tf.function(draw)(7, tf.constant(3), 4))
    assert not np.array_equal(first, draw(7, tf.constant(4), 4))
    assert not np.array_equal(first, draw(8, tf.constant(3), 4))


def test_draws_are_between_zero_and_one_and_differ_in_every_place() -> None:
    draws = draw(2**32 - 1, tf.constant(0), 50).numpy()
    assert draws.shape == (50, len(DRAWS))
    assert draws.min() >= 0
    assert draws.max() < 1
    assert len(np.unique(draws)) == draws.size


# Intensity


def changed(
    images: np.ndarray, config: AugmentationConfig, examples=None, seed: int = 0, **values: float
) -> np.ndarray:
    images = np.asarray(images, np.float32)
    examples = np.arange(len(images)) if examples is None else np.asarray(examples)
    draws = tf.repeat(draws_of(**values), len(images), axis=0)
    return augment_intensity(
        tf.constant(images), draws, config, seed, tf.constant(examples, tf.int64)
    ).numpy()


def two_tone(dark: float, bright: float) -> np.ndarray:
    """Half dark, half bright, so that the mean lies between the two."""
    return np.repeat([[dark, bright]], 2, axis=0)[None, :, :, None]


def test_each_intensity_operation_off_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3)).astype(np.float32)
    np.testing.assert_allclose(changed(images, only()), images, atol=1e-4)


def test_brightness_is_added_in_units_of_the_whole_range() -> None:
    config = only(brightness=(-0.2, 0.2))
    np.testing.assert_allclose(
        changed(two_tone(51, 102), config, brightness=1.0), two_tone(102, 153), atol=1e-3
    )
    np.testing.assert_allclose(
        changed(two_tone(51, 102), config, brightness=0.25), two_tone(25.5, 76.5), atol=1e-3
    )
    # Clipped at both ends.
    np.testing.assert_allclose(
        changed(two_tone(20, 250), config, brightness=1.0), two_tone(71, 255), atol=1e-3
    )
    np.testing.assert_allclose(
        changed(two_tone(20, 250), config, brightness=0.0), two_tone(0, 199), atol=1e-3
    )


def test_contrast_is_a_factor_about_the_mean() -> None:
    config = only(contrast=(0, 2))
    np.testing.assert_allclose(
        changed(two_tone(80, 120), config, contrast=0.75), two_tone(70, 130), atol=1e-3
    )
    np.testing.assert_allclose(
        changed(two_tone(80, 120), config, contrast=0.0), two_tone(100, 100), atol=1e-3
    )


def test_gamma_is_an_exponent_on_the_whole_range() -> None:
    config = only(gamma=(1, 3))
    # (51 / 255)^2 = 0.04, (102 / 255)^2 = 0.16.
    np.testing.assert_allclose(
        changed(two_tone(51, 102), config, gamma=0.5), two_tone(10.2, 40.8), atol=1e-3
    )
    np.testing.assert_allclose(
        changed(two_tone(0, 255), config, gamma=0.9), two_tone(0, 255), atol=1e-3
    )


def test_images_of_a_batch_are_changed_each_by_its_own_draw() -> None:
    images = np.concatenate([two_tone(80, 120), two_tone(80, 120)]).astype(np.float32)
    draws = tf.concat([draws_of(contrast=0.75), draws_of(contrast=0.5)], axis=0)
    found = augment_intensity(
        tf.constant(images), draws, only(contrast=(0, 2)), 0, tf.range(2, dtype=tf.int64)
    )
    np.testing.assert_allclose(
        found, np.concatenate([two_tone(70, 130), two_tone(80, 120)]), atol=1e-3
    )


def test_noise_has_the_standard_deviation_asked_for() -> None:
    noise = changed(np.full((2, 64, 64, 3), 127.5), only(noise_std=0.05)) / 255 - 0.5
    assert noise.std() == pytest.approx(0.05, rel=0.02)
    assert abs(noise.mean()) < 0.001
    # Every pixel and channel its own.
    assert len(np.unique(noise)) > 0.95 * noise.size


def test_noise_of_an_example_does_not_depend_on_the_batch() -> None:
    config, grey = only(noise_std=0.1), np.full((3, 8, 8, 1), 128.0)
    together = changed(grey, config, examples=[5, 9, 2])
    alone = changed(grey[:1], config, examples=[9])
    np.testing.assert_array_equal(together[1], alone[0])
    assert not np.array_equal(together[0], together[1])
    assert not np.array_equal(alone, changed(grey[:1], config, examples=[9], seed=1))


def test_noise_stays_within_the_range_of_images() -> None:
    noisy = changed(two_tone(0, 255), only(noise_std=3.0))
    assert noisy.min() >= 0
    assert noisy.max() <= 255


@pytest.mark.parametrize("sigma_px", [0.7, 1.5, 3.0])
def test_blur_of_an_impulse_is_a_gaussian(sigma_px: float) -> None:
    images = np.zeros((1, 41, 35, 1))
    images[0, 20, 17] = 255
    blurred = changed(images, only(blur_sigma_px=(0, 2 * sigma_px)), blur=0.5)[0, :, :, 0] / 255
    y, x = np.mgrid[:41, :35]
    gaussian = np.exp(-((x - 17) ** 2 + (y - 20) ** 2) / (2 * sigma_px**2))
    np.testing.assert_allclose(
        blurred, gaussian / gaussian.sum(), atol=0.01 * (gaussian / gaussian.sum()).max()
    )


def test_blur_of_width_zero_changes_nothing() -> None:
    images = np.random.default_rng(0).integers(0, 256, (1, 20, 24, 3)).astype(np.float32)
    np.testing.assert_allclose(
        changed(images, only(blur_sigma_px=(0, 3)), blur=0.0), images, atol=1e-3
    )


@pytest.mark.parametrize("sigma_px", [1.0, 40.0])
def test_blur_keeps_a_constant_image_also_where_it_is_wider_than_the_image(sigma_px: float) -> None:
    images = np.full((1, 6, 9, 1), 90.0)
    np.testing.assert_allclose(
        changed(images, only(blur_sigma_px=(sigma_px, sigma_px))), images, atol=1e-3
    )


def test_blur_takes_what_is_outside_from_the_mirrored_image() -> None:
    images = np.zeros((1, 1, 8, 1))
    images[0, 0, 0] = 255
    blurred = changed(images, only(blur_sigma_px=(0.5, 0.5)))[0, 0, :, 0] / 255
    near, far = np.exp(-0.5 / 0.25), np.exp(-2 / 0.25)
    total = 1 + 2 * near + 2 * far
    # The first pixel's mirror image lies one pixel to its left.
    np.testing.assert_allclose(
        blurred[:3], [(1 + near) / total, (near + far) / total, far / total], atol=1e-4
    )
