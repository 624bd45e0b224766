"""What the network sees in training, for people to look at."""

import numpy as np
import tensorflow as tf

from hgtrain.config.schema import AugmentationConfig, TrainingConfig
from hgtrain.coords import Crop
from hgtrain.data.split import Subset
from hgtrain.pipeline.batch import BatchSpec, batch_maker
from hgtrain.pipeline.frame_store import FrameStore
from hgtrain.pipeline.order import epoch_order
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.pipeline.samples import Samples

SHOWN = 8


def augmented_batch(
    side: Subset,
    preprocessing: Preprocessing,
    augmentation: AugmentationConfig,
    training: TrainingConfig,
    crop: Crop | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the first images of the first training step, and their points.

    Points that weigh nothing or are missing are NaN.

    Returns:
        Images `(n, H, W, C)` uint8 and points `(n, I, K, 2)` px; n is 8, or the batch size where
        that is smaller.
    """
    scale = preprocessing.input_scale
    store = FrameStore(side.dataset, side.frames, preprocessing.channels, scale, cached=False)
    samples = Samples(side, scale, crop is not None)
    indices = epoch_order(training.seed, 0, len(samples), training.batch_size)
    labels = samples.labels(indices)
    spec = BatchSpec(
        augmentation,
        side.dataset.symmetries,
        preprocessing.multiple,
        # In the place of targets: the points themselves.
        lambda at, weights, height, width: (at, weights),
        training.seed,
        training.batch_size,
        crop,
    )
    make = batch_maker(spec, None)
    images = store(samples.rows(indices))
    element = tuple(map(tf.constant, (indices, images, labels.points, labels.weights)))
    images, (at, weights) = make(element, tf.constant(0, tf.int64), tf.constant(0), 1)
    shown = np.where(weights.numpy()[..., None] > 0, at.numpy(), np.nan)
    return np.clip(images.numpy().round(), 0, 255).astype(np.uint8)[:SHOWN], shown[:SHOWN]
