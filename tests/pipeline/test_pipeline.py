import threading
from collections.abc import Iterator
from contextlib import closing

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.config.schema import AugmentationConfig
from hgtrain.heads.losses import confmap_losses
from hgtrain.heads.targets.confidence_maps import confidence_maps
from hgtrain.pipeline import feed as feed_module
from hgtrain.pipeline.batch import BatchSpec, DeviceCache, batch_maker
from hgtrain.pipeline.feed import Feed
from hgtrain.pipeline.frame_store import FrameStore, prefetched
from hgtrain.pipeline.order import epoch_order
from hgtrain.pipeline.preprocess import resize, to_channels
from hgtrain.pipeline.samples import Labels

NAN = float("nan")
FRAMES, HEIGHT, WIDTH = 10, 18, 30


class Images:
    """What a store needs of a dataset; `reads` are the frames asked for."""

    def __init__(self, channels: int = 1) -> None:
        self.images = np.random.default_rng(0).integers(
            0, 256, (FRAMES, HEIGHT, WIDTH, channels), np.uint8
        )
        self.reads: list[list[int]] = []

    def read_images(self, indices: np.ndarray) -> np.ndarray:
        self.reads.append(list(map(int, indices)))
        return self.images[np.asarray(indices, int)]


def store_of(
    cached: bool = True, frames: object = range(FRAMES), channels: int = 1, scale: float = 1.0
) -> FrameStore:
    return FrameStore(Images(), np.array(frames, int), channels, scale, cached)


# Order


@pytest.mark.parametrize(("frames", "passes"), [(1, 5), (7, 1), (10, 3)])
def test_every_frame_comes_equally_often(frames: int, passes: int) -> None:
    order = epoch_order(0, 0, frames, frames * passes)
    assert order.dtype == np.int32
    assert np.bincount(order).tolist() == [passes] * frames


@pytest.mark.parametrize("samples", [1, 9, 11, 29])
def test_no_frame_comes_twice_more_than_another(samples: int) -> None:
    counts = np.bincount(epoch_order(3, 5, 10, samples), minlength=10)
    assert counts.sum() == samples
    assert counts.max() - counts.min() <= 1


def test_order_is_a_function_of_seed_and_epoch() -> None:
    order = epoch_order(4, 2, 20, 40)
    np.testing.assert_array_equal(order, epoch_order(4, 2, 20, 40))
    for other in (epoch_order(5, 2, 20, 40), epoch_order(4, 3, 20, 40), epoch_order(2, 4, 20, 40)):
        assert not np.array_equal(order, other)
    assert not np.array_equal(order[:20], order[20:])
    assert not np.array_equal(order[:20], np.arange(20))


@pytest.mark.parametrize("first", [0, 1, 7, 19, 20, 33])
@pytest.mark.parametrize("samples", [1, 3, 20, 45])
def test_a_part_of_an_order_is_that_of_the_whole(first: int, samples: int) -> None:
    whole = epoch_order(4, 2, 20, 100)
    np.testing.assert_array_equal(
        epoch_order(4, 2, 20, samples, first), whole[first : first + samples]
    )


def test_an_epoch_of_any_length_takes_no_memory() -> None:
    # The whole would take 320 TB.
    assert len(epoch_order(0, 0, 12, 8, 8 * (10**13 - 1))) == 8


def test_the_largest_seed_has_an_order() -> None:
    assert sorted(epoch_order(2**32 - 1, 10**6, 5, 5)) == list(range(5))


# Store


@pytest.mark.parametrize("cached", [True, False])
def test_frames_come_in_the_order_asked_for_and_repeat(cached: bool) -> None:
    side = [7, 2, 9, 4]
    images = store_of(cached, side)(np.array([3, 0, 0, 2]))
    np.testing.assert_array_equal(images, Images().images[[4, 7, 7, 9]])


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.5])
@pytest.mark.parametrize("channels", [1, 3])
def test_frames_are_converted_and_resized_alike_when_cached_and_streamed(
    channels: int, scale: float
) -> None:
    indices = np.array([5, 1, 5])
    cached, streamed = (
        store_of(True, channels=channels, scale=scale),
        store_of(False, channels=channels, scale=scale),
    )
    expected = resize(to_channels(tf.constant(Images().images[indices]), channels), scale)
    assert cached.shape == streamed.shape == expected.shape[1:]
    np.testing.assert_array_equal(cached(indices), expected)
    np.testing.assert_array_equal(streamed(indices), expected)


def test_what_is_cached_is_read_once() -> None:
    dataset = Images()
    store = FrameStore(dataset, np.arange(FRAMES), 1, 1.0, cached=True)
    dataset.reads.clear()
    store(np.array([1, 2]))
    assert dataset.reads == []
    assert len(store) == FRAMES


def test_reading_is_shown_block_by_block() -> None:
    seen: list[range] = []

    def progress(starts: range) -> range:
        seen.append(starts)
        return starts

    FrameStore(Images(), np.arange(FRAMES), 1, 1.0, True, progress)
    assert [list(starts) for starts in seen] == [[0]]


def test_batches_come_in_turn_and_one_is_read_ahead() -> None:
    dataset = Images()
    store = FrameStore(dataset, np.arange(FRAMES), 1, 1.0, cached=False)
    dataset.reads.clear()
    batches = [np.array([3, 1]), np.array([2]), np.array([0, 0]), np.array([9])]
    for number, images in enumerate(prefetched(store, batches)):
        np.testing.assert_array_equal(images, Images().images[batches[number]])
        assert len(dataset.reads) <= number + 2
    assert dataset.reads == [list(batch) for batch in batches]


def test_a_side_without_frames_has_their_shape() -> None:
    store = store_of(True, [])
    assert (len(store), store.shape) == (0, (HEIGHT, WIDTH, 1))
    assert store(np.array([], int)).shape == (0, HEIGHT, WIDTH, 1)


# Feed

SEED, BATCH, STEPS_PER_EPOCH = 3, 4, 6


class FrameSamples:
    """Each frame is a sample."""

    frame_of = None

    def __len__(self) -> int:
        return FRAMES

    def rows(self, samples: np.ndarray) -> np.ndarray:
        return samples

    def labels(self, samples: np.ndarray) -> Labels:
        points, weights = labels()
        return Labels(points[samples], weights[samples], points[samples])


class AnimalSamples(FrameSamples):
    """Frames from the last to the first, each of them twice."""

    frame_of = np.arange(FRAMES)[::-1].repeat(2)

    def __len__(self) -> int:
        return 2 * FRAMES

    def rows(self, samples: np.ndarray) -> np.ndarray:
        return self.frame_of[samples]

    def labels(self, samples: np.ndarray) -> Labels:
        return super().labels(self.rows(samples))


def feed_of(
    store: FrameStore, on_device: bool = False, samples: FrameSamples | None = None
) -> Feed:
    schedule = SEED, BATCH, STEPS_PER_EPOCH
    return Feed(store, samples or FrameSamples(), schedule, on_device)


def expected_indices(first_step: int, count: int) -> np.ndarray:
    epoch, position = divmod(first_step, STEPS_PER_EPOCH)
    order = epoch_order(SEED, epoch, FRAMES, STEPS_PER_EPOCH * BATCH).reshape(
        STEPS_PER_EPOCH, BATCH
    )
    return order[position : position + count]


@pytest.mark.parametrize("cached", [True, False])
def test_images_and_labels_are_those_of_the_indices(cached: bool) -> None:
    with closing(feed_of(store_of(cached))) as feed:
        (indices, images, points, weights), waited = feed(8, 2)
    np.testing.assert_array_equal(indices, expected_indices(8, 2))
    assert images.shape == (2, BATCH, HEIGHT, WIDTH, 1)
    np.testing.assert_array_equal(images, Images().images[indices])
    np.testing.assert_array_equal(points, labels()[0][indices])
    np.testing.assert_array_equal(weights, labels()[1][indices])
    assert waited >= 0


def test_where_the_device_holds_the_frames_only_indices_are_handed_over() -> None:
    with closing(feed_of(store_of(True), on_device=True)) as feed:
        element, _ = feed(0, 3)
        for held, expected in zip(feed.held, (Images().images, *labels()), strict=False):
            np.testing.assert_array_equal(held, expected)
        assert feed.held.frame_of is None
    assert len(element) == 1
    np.testing.assert_array_equal(element[0], expected_indices(0, 3))


@pytest.mark.parametrize("on_device", [True, False])
def test_animals_of_a_frame_are_samples_of_their_own(on_device: bool) -> None:
    samples = AnimalSamples()
    with closing(feed_of(store_of(True), on_device, samples)) as feed:
        (indices, *given), _ = feed(0, STEPS_PER_EPOCH)
        if on_device:
            given = feed.held.gather(tf.constant(indices.ravel()))
            given = [values.numpy().reshape(*indices.shape, *values.shape[1:]) for values in given]
    order = epoch_order(SEED, 0, 2 * FRAMES, STEPS_PER_EPOCH * BATCH)
    np.testing.assert_array_equal(indices.ravel(), order)
    frames = FRAMES - 1 - indices // 2
    for found, expected in zip(given, (Images().images, *labels()), strict=True):
        np.testing.assert_array_equal(found, expected[frames])


# One after the other, over the end of an epoch, a shorter call, a jump back, a step left out, a
# jump ahead.
CALLS = [(0, 2), (2, 2), (4, 2), (6, 1), (7, 5), (2, 2), (5, 1), (13, 2)]


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("steps_a_piece", [1, 2, 64])
def test_what_was_read_ahead_is_what_would_have_been_read(
    monkeypatch, cached: bool, steps_a_piece: int
) -> None:
    monkeypatch.setattr(feed_module, "PIECE_STEPS", steps_a_piece)
    with closing(feed_of(store_of(cached))) as feed:
        for first, count in CALLS:
            done = 0
            while done < count:
                (indices, images, *_), _ = feed(first + done, count - done)
                assert 1 <= len(indices) <= steps_a_piece
                np.testing.assert_array_equal(indices, expected_indices(first + done, len(indices)))
                np.testing.assert_array_equal(images, Images().images[indices])
                done += len(indices)


def test_reading_goes_on_over_the_end_of_an_epoch_and_nothing_is_read_twice() -> None:
    dataset = Images()
    with closing(feed_of(FrameStore(dataset, np.arange(FRAMES), 1, 1.0, cached=False))) as feed:
        dataset.reads.clear()
        for step in range(2 * STEPS_PER_EPOCH):
            feed(step, 1)
    read = [frame for frames in dataset.reads for frame in frames]
    expected = np.concatenate(
        [expected_indices(epoch * STEPS_PER_EPOCH, STEPS_PER_EPOCH) for epoch in range(2)]
    )
    assert read[: expected.size] == expected.ravel().tolist()


@pytest.mark.parametrize("cached", [True, False])
def test_what_is_read_ahead_is_bounded_however_many_steps_are_asked_for(
    monkeypatch, cached: bool
) -> None:
    monkeypatch.setattr(feed_module, "PIECE_BYTES", 2 * BATCH * HEIGHT * WIDTH)
    store = FrameStore(Images(), np.arange(FRAMES), 1, 1.0, cached)
    with closing(Feed(store, FrameSamples(), (SEED, BATCH, 1000), False)) as feed:
        (indices, *_), _ = feed(0, 500)
        assert len(indices) == 2
        assert sum(piece.end - piece.first for piece in feed._pieces) == 4


def test_an_error_of_reading_ahead_is_raised_by_the_call_it_was_for(monkeypatch) -> None:
    monkeypatch.setattr(feed_module, "PIECE_STEPS", 1)
    dataset = Images()
    with closing(feed_of(FrameStore(dataset, np.arange(FRAMES), 1, 1.0, cached=False))) as feed:
        feed(0, 1)
        for piece in feed._pieces:
            piece.arrays.result()  # read before the file breaks
        dataset.images = np.zeros((0, HEIGHT, WIDTH, 1), np.uint8)
        feed(1, 1)
        feed(2, 1)
        with pytest.raises(IndexError, match="out of bounds"):
            feed(3, 1)


def test_a_closed_feed_leaves_no_thread() -> None:
    feed = feed_of(store_of())
    feed(0, 1)
    feed.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("reader")]


# Batches


def recipe_of(augmentation: AugmentationConfig, batch_size: int = BATCH) -> BatchSpec:
    def targets(points: tf.Tensor, weights: tf.Tensor, height: int, width: int) -> tuple:
        return confidence_maps(points[:, 0], height, width, 4, 5.0), weights[:, 0]

    return BatchSpec(augmentation, ((0, 1),), 16, targets, SEED, batch_size)


EVERYTHING = AugmentationConfig(
    flip="both", gamma=(0.5, 2), noise_std=0.1, blur_sigma_px=(0, 2), fill="reflect"
)
MISSING = AugmentationConfig(
    rotation_deg=None, scale=None, translation_px=None, brightness=None, contrast=None
)


def labels() -> tuple[np.ndarray, np.ndarray]:
    """An animal of three keypoints: anywhere; absent in odd frames; not labelled in every third."""
    points = (
        np.random.default_rng(1)
        .uniform(0, [WIDTH - 1, HEIGHT - 1], (FRAMES, 3, 2))
        .astype(np.float32)
    )
    weights = np.ones((FRAMES, 3), np.float32)
    points[1::2, 1] = NAN
    weights[::3, 2] = 0
    points[::6, 2] = NAN
    return points[:, None], weights[:, None]


def batch_of(
    augmentation: AugmentationConfig, step: int = 5, replicas: int = 1, on_device: bool = True
) -> list:
    indices = expected_indices(5, 1)[0]
    everything = [tf.constant(values) for values in (Images().images, *labels())]
    make = tf.function(
        batch_maker(recipe_of(augmentation), DeviceCache(*everything) if on_device else None),
        autograph=False,
    )
    element = (
        tf.constant(indices),
        *(() if on_device else (tf.gather(values, indices) for values in everything)),
    )
    parts = [
        tf.nest.flatten(make(element, tf.constant(step, tf.int64), tf.constant(r), replicas))
        for r in range(replicas)
    ]
    return [np.concatenate(arrays) for arrays in zip(*parts, strict=True)]


@pytest.fixture(scope="module")
def augmented() -> list:
    return batch_of(EVERYTHING)


def test_a_batch_is_images_maps_and_weights(augmented: list) -> None:
    images, maps, weights = augmented
    assert (images.shape, images.dtype) == ((BATCH, 32, 32, 1), np.float32)
    assert (maps.shape, weights.shape) == ((BATCH, 8, 8, 3), (BATCH, 3))
    assert images.min() >= 0
    assert images.max() <= 255


def test_without_augmentation_a_batch_is_the_padded_frames_and_their_labels() -> None:
    images, maps, weights = batch_of(MISSING)
    indices = expected_indices(5, 1)[0]
    expected = np.zeros((BATCH, 32, 32, 1))
    expected[:, :HEIGHT, :WIDTH] = Images().images[indices]
    np.testing.assert_allclose(images, expected, atol=1e-3)
    points, all_weights = labels()
    np.testing.assert_array_equal(weights, all_weights[indices, 0])
    np.testing.assert_allclose(
        maps, confidence_maps(tf.constant(points[indices, 0]), 32, 32, 4, 5.0), atol=1e-4
    )


@pytest.mark.parametrize("replicas", [2, 4])
def test_the_parts_of_replicas_make_the_batch_of_one(augmented: list, replicas: int) -> None:
    for found, expected in zip(batch_of(EVERYTHING, replicas=replicas), augmented, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_frames_on_the_device_and_handed_over_make_the_same_batch(augmented: list) -> None:
    for found, expected in zip(batch_of(EVERYTHING, on_device=False), augmented, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_batch_is_a_function_of_seed_and_step(augmented: list) -> None:
    for found, expected in zip(batch_of(EVERYTHING), augmented, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert not np.allclose(batch_of(EVERYTHING, step=6)[0], augmented[0])


@pytest.fixture(scope="module")
def many_steps() -> Iterator[tuple[np.ndarray, list]]:
    """Twenty augmented batches, with the indices of their frames."""
    held = DeviceCache(*map(tf.constant, (Images().images, *labels())))
    make = tf.function(batch_maker(recipe_of(EVERYTHING), held), autograph=False)
    batches = []
    indices = np.array([expected_indices(step, 1)[0] for step in range(20)])
    for step, chosen in enumerate(indices):
        batches.append(
            [
                part.numpy()
                for part in tf.nest.flatten(
                    make((tf.constant(chosen),), tf.constant(step, tf.int64), tf.constant(0), 1)
                )
            ]
        )
    return indices, batches


def test_what_is_absent_keeps_its_weight_and_has_a_map_of_zeros(many_steps: tuple) -> None:
    absent = 0
    for indices, (_, maps, weights) in zip(*many_steps, strict=True):
        for frame, maps_of_frame, weights_of_frame in zip(indices, maps, weights, strict=True):
            if frame % 2 and frame % 3:
                # Keypoint 1, or 0 where the image is mirrored.
                empty = [
                    k
                    for k in (0, 1)
                    if not maps_of_frame[..., k].any() and weights_of_frame[k] == 1
                ]
                absent += len(empty)
                assert len(empty) == 1
    assert absent > 10


def test_what_is_not_labelled_weighs_nothing_however_augmented(many_steps: tuple) -> None:
    for indices, (_, _, weights) in zip(*many_steps, strict=True):
        assert not weights[indices % 3 == 0, 2].any()


@pytest.mark.parametrize("mining", [False, True])
def test_missing_keypoints_never_give_a_loss_or_gradient_that_is_not_finite(
    many_steps: tuple, mining: bool
) -> None:
    kernel = tf.Variable(tf.fill((1, 1, 1, 3), 0.1))
    for _, (images, maps, weights) in zip(*many_steps, strict=True):
        assert np.isfinite(images).all()
        assert np.isfinite(maps).all()
        with tf.GradientTape() as tape:
            predicted = tf.nn.conv2d(images / 255, kernel, (4, 4), "SAME")
            loss = confmap_losses(predicted, tf.constant(maps), tf.constant(weights), mining)
        assert np.isfinite(loss).all()
        assert np.isfinite(tape.gradient(loss, kernel)).all()
