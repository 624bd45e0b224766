"""What the network sees in training, for people to look at."""

import numpy as np
import tensorflow as tf

from hgtrain.config.schema import Config
from hgtrain.coords import resized_points
from hgtrain.data.split import Subset
from hgtrain.pipeline.batch import BatchSpec, batch_maker
from hgtrain.pipeline.frame_store import FrameStore
from hgtrain.pipeline.order import epoch_order


def augmented_batch(config: Config, side: Subset, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of the first training step, and their points.

    Points that weigh nothing or are missing are NaN.

    Returns:
        Images `(n, H, W, C)` uint8 and points `(n, I, K, 2)` px; n is `count`, or the batch size where
        that is smaller.
    """
    training, data = config.training, config.data
    channels = data.channels or side.dataset.image_shape[2]
    store = FrameStore(side.dataset, side.frames, channels, data.input_scale, cached=False)
    indices = epoch_order(training.seed, 0, len(store), training.batch_size)
    truth, visibility = side.labels(indices)
    labelled = visibility > 0
    points = resized_points(np.where(labelled[..., None], truth, np.nan), data.input_scale).astype(
        np.float32
    )
    spec = BatchSpec(
        config.augmentation,
        side.dataset.symmetries,
        config.model.backbone.max_stride,
        # In the place of targets: the points themselves.
        lambda at, weights, height, width: (at, weights),
        training.seed,
        training.batch_size,
    )
    make = batch_maker(spec, None)
    element = tuple(
        map(tf.constant, (indices, store(indices), points, labelled.astype(np.float32)))
    )
    images, (at, weights) = make(element, tf.constant(0, tf.int64), tf.constant(0), 1)
    shown = np.where(weights.numpy()[..., None] > 0, at.numpy(), np.nan)
    return np.clip(images.numpy().round(), 0, 255).astype(np.uint8)[:count], shown[:count]
