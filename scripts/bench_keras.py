"""The plain Keras way to train the same network, as its tutorials teach it.

What `bench.py` compares with.

    python scripts/bench_keras.py CONFIG    trains one step and prints the seconds since this
    process was started

`Model.fit` with Keras's Adam over a `tf.data` pipeline that reads all frames into memory, shuffles
them, augments them and draws the maps on the host, in whole batches and ahead of the step. Network,
augmentation, targets, loss and batch are hgtrain's own functions, so that only the way they are put
together differs.
"""

import os
import sys
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import h5py
import keras
import numpy as np
import tensorflow as tf
from bench import seconds_since_start

from hgtrain.config.load import load_config
from hgtrain.config.schema import Config
from hgtrain.heads import make_head
from hgtrain.heads.losses import confmap_losses
from hgtrain.heads.targets.confidence_maps import confidence_maps
from hgtrain.model.network import build_network
from hgtrain.pipeline.augment import augment_geometry, augment_intensity, draw
from hgtrain.pipeline.preprocess import pad
from hgtrain.skeleton import unnamed_skeleton


def pipeline(config: Config, images: np.ndarray, points: np.ndarray) -> tf.data.Dataset:
    """Return endless batches of images and, for each stack, maps."""
    training, backbone = config.training, config.model.backbone

    all_images, all_points = tf.constant(images), tf.constant(points)

    def prepared(step: tf.Tensor, chosen: tf.Tensor) -> tuple[tf.Tensor, tuple[tf.Tensor, ...]]:
        frames, at = tf.gather(all_images, chosen), tf.gather(all_points, chosen)
        draws = draw(training.seed, step, training.batch_size)
        at, weights = at[:, None], tf.ones((at.shape[0], 1, at.shape[1]))
        augmented, moved, _ = augment_geometry(frames, at, weights, draws, config.augmentation, ())
        examples = step * training.batch_size + tf.range(training.batch_size, dtype=tf.int64)
        augmented = pad(
            augment_intensity(augmented, draws, config.augmentation, training.seed, examples),
            backbone.max_stride,
        )
        height, width = augmented.shape[1:3]
        maps = confidence_maps(
            moved[:, 0], height, width, backbone.output_stride, config.model.head.sigma_px
        )
        return augmented, (maps,) * backbone.stacks

    # Numbers are shuffled, which is cheaper than images.
    frames = tf.data.Dataset.range(len(images)).shuffle(len(images)).repeat()
    batches = frames.batch(training.batch_size, drop_remainder=True).enumerate()
    return batches.map(prepared, num_parallel_calls=tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)


def compiled(config: Config, channels: int, keypoints: int) -> keras.Model:
    """Return the network, ready for `fit`."""
    head = make_head(
        config.model.head, unnamed_skeleton(keypoints), config.model.backbone.output_stride
    )
    network = build_network(config.model.backbone, head.layers, channels, config.training.precision)

    def loss(maps: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
        return confmap_losses(
            predicted, maps, tf.ones((tf.shape(maps)[0], keypoints)), hard_keypoint_mining=False
        )

    network.compile(
        keras.optimizers.Adam(config.training.learning_rate),
        loss=[loss] * config.model.backbone.stacks,
    )
    return network


def read(path: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images `(N, H, W, C)` and points `(N, K, 2)` of a file in the hgtrain format."""
    with h5py.File(path) as file:
        points = file["keypoints"][:]
        return file["images"][:], points.reshape(len(points), *points.shape[-2:])


def main() -> None:
    """Train one step."""
    config = load_config(sys.argv[1])
    images, points = read(config.data.train_files[0])
    network = compiled(config, images.shape[-1], points.shape[1])
    report = partial(print, flush=True)
    stop = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: (report(seconds_since_start()), os._exit(0))
    )
    network.fit(
        pipeline(config, images, points), epochs=1, steps_per_epoch=2, verbose=0, callbacks=[stop]
    )


if __name__ == "__main__":
    main()
