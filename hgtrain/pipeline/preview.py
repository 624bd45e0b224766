"""What the network sees in training, for people to look at."""

import numpy as np
import tensorflow as tf

from hgtrain.config.schema import AugmentationConfig, TrainingConfig
from hgtrain.coords import resized_points
from hgtrain.data.split import Subset
from hgtrain.pipeline.batch import BatchSpec, batch_maker
from hgtrain.pipeline.frame_store import FrameStore
from hgtrain.pipeline.order import epoch_order
from hgtrain.pipeline.preprocess import Preprocessing

SHOWN = 8


def augmented_batch(
    side: Subset,
    preprocessing: Preprocessing,
    augmentation: AugmentationConfig,
    training: TrainingConfig,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of the first training step, and their points.

    Points that weigh nothing or are missing are NaN.

    Returns:
        Images `(n, H, W, C)` uint8 and points `(n, I, K, 2)` px; n is 8, or the batch size where that
        is smaller.
    """
    scale = preprocessing.input_scale
    store = FrameStore(side.dataset, side.frames, preprocessing.channels, scale, cached=False)
    indices = epoch_order(training.seed, 0, len(store), training.batch_size)
    truth, visibility = side.labels(indices)
    labelled = visibility > 0
    points = resized_points(np.where(labelled[..., None], truth, np.nan), scale).astype(np.float32)
    spec = BatchSpec(
        augmentation,
        side.dataset.symmetries,
        preprocessing.multiple,
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
    return np.clip(images.numpy().round(), 0, 255).astype(np.uint8)[:SHOWN], shown[:SHOWN]
