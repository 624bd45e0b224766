"""Training steps on made-up images: how fast they are, and what memory they take."""

import time
from functools import partial

import numpy as np
import tensorflow as tf

from hgtrain.heads import make_head
from hgtrain.planning.input_spec import InputSpec
from hgtrain.planning.summary import input_size
from hgtrain.train.distributed.devices import Compute
from hgtrain.train.networks import Networks, build_steps
from hgtrain.train.step import Batch

STEPS_AT_ONCE = 2


class StepBenchmark:
    """The networks, optimizer and compiled step of `fit`, fed with images drawn on the device."""

    def __init__(self, spec: InputSpec, compute: Compute) -> None:
        backbone, training = spec.model.backbone, spec.training
        size = input_size(spec)
        head = make_head(spec.model.head, spec.skeleton, backbone.output_stride)
        self.networks = Networks(backbone, training, compute, size.channels, head)
        images_per_step = training.images_per_step

        def make_batch(
            element: tf.Tensor, step: tf.Tensor, shard: tf.Tensor, num_shards: int
        ) -> Batch:
            count = images_per_step // num_shards
            images = tf.random.uniform((count, size.height, size.width, size.channels), 0, 255)
            animals = count, head.max_instances, len(spec.skeleton.keypoint_names)
            points = tf.random.uniform((*animals, 2), 0, min(size.height, size.width))
            return images, head.targets(points, tf.ones(animals), size.height, size.width)

        loss = partial(head.losses, hard_keypoint_mining=training.hard_keypoint_mining)
        self._steps = build_steps(training, compute, self.networks, make_batch, loss)
        self._done = 0

    def run(self) -> None:
        """Run a few steps."""
        self._steps(
            tf.zeros((STEPS_AT_ONCE, 1)), self._done, np.full(STEPS_AT_ONCE, 1e-6, np.float32)
        )
        self._done += STEPS_AT_ONCE

    def steps_per_s(self, seconds: float) -> float:
        """Return the speed over `seconds` or a little more; compiling does not count."""
        self.run()
        first, started = self._done, time.monotonic()
        while time.monotonic() - started < seconds:
            self.run()
        return (self._done - first) / (time.monotonic() - started)
