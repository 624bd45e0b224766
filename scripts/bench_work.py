"""What `bench.py` measures: data, training as `fit` does it, the bare step, the plain Keras way."""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONFIG = Path(__file__).parents[1] / "configs" / "flies.yaml"
KEYPOINTS, SIZE, DRAWN = 32, 192, 64
OF_GROUPS = tuple(f"keypoint{i}" for i in range(24))
"""The keypoints of an animal where there are several, each joined to the next."""


def groups_skeleton() -> Any:
    """Return the skeleton of `OF_GROUPS`."""
    from hgtrain.skeleton import Skeleton

    return Skeleton(OF_GROUPS, tuple((i, i + 1) for i in range(len(OF_GROUPS) - 1)))


def write_frames(path: Path, frames: int, size: int = SIZE, animals: int | None = None) -> Path:
    """Write that many frames of drawn flies with points all over them, compressed, a chunk each.

    Few are different. With a number of animals each has the keypoints `OF_GROUPS` and their edges.
    """
    import h5py
    import numpy as np

    from hgtrain.data.flies.draw import FLIES, draw_flies

    _, drawn = draw_flies(FLIES._replace(frames=min(DRAWN, frames), size=size))
    images = np.stack([image for image, *_ in drawn])
    random = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        shape = (frames, *images.shape[1:])
        stored = file.create_dataset(
            "images", shape, np.uint8, chunks=(1, *shape[1:]), compression="gzip"
        )
        for i, image in enumerate(images):
            stored[i] = image
        chunks = [stored.id.read_direct_chunk((i, 0, 0, 0)) for i in range(len(images))]
        for i in range(len(images), frames):
            mask, chunk = chunks[i % len(chunks)]
            stored.id.write_direct_chunk((i, 0, 0, 0), chunk, mask)
        names, shape = [f"keypoint{i}" for i in range(KEYPOINTS)], (frames, KEYPOINTS, 2)
        if animals is not None:
            names, shape = list(OF_GROUPS), (frames, animals, len(OF_GROUPS), 2)
            file.attrs["edges"] = groups_skeleton().edges
        file["keypoints"] = random.uniform(0, size - 1, shape).astype(np.float32)
        file.attrs["keypoint_names"] = names
        file.attrs["format"] = "hgtrain"
    return path


Pair = tuple[Callable[[], object], Callable[[], object]]
"""What is measured, and what it is compared with."""


class Training:
    """What `fit` runs in its loop, on the frames of a file."""

    def __init__(self, folder: Path, file: Path, *overrides: str) -> None:
        from hgtrain.commands import fit
        from hgtrain.config.load import load_config
        from hgtrain.data.open import open_all
        from hgtrain.data.split import make_split
        from hgtrain.train import plan
        from hgtrain.train.distributed.devices import set_up

        validation = folder / "validation.h5"
        options = (
            f"data.train={file}",
            f"data.validation={validation}",
            "augmentation.scale=null",
            *overrides,
        )
        self.config = load_config(CONFIG, options)
        self._data = [open_all([file]), open_all([validation])]
        split = make_split(*self._data, None, None, 0, self.config.model.head)
        self.compute, self._done = set_up(self.config.training), 0
        self._steps_per_epoch = plan.steps_per_epoch(self.config.training, len(split.train.frames))
        run_dir = Path(tempfile.mkdtemp(dir=folder))
        self.trainer = fit._trainer(self.config, split, self.compute, run_dir)

    def run(self, steps: int) -> None:
        """Train as the loop does, a call for each half second or so."""
        import numpy as np

        while steps:
            count = min(steps, 4, self._steps_per_epoch - self._done % self._steps_per_epoch)
            self.trainer.steps(self._done, np.full(count, 1e-4, np.float32))
            self._done, steps = self._done + count, steps - count

    def close(self) -> None:
        """Stop its threads and processes."""
        self.trainer.close()
        for dataset in self._data:
            dataset.close()


def bare_step(training: Training, size: int = SIZE) -> Callable[[int], None]:
    """Return what runs steps on one constant batch, already augmented, on another such network."""
    import numpy as np
    import tensorflow as tf

    from hgtrain.heads import make_head
    from hgtrain.skeleton import unnamed_skeleton
    from hgtrain.train.networks import Networks, build_steps

    config, backbone = training.config, training.config.model.backbone
    head = make_head(config.model.head, unnamed_skeleton(KEYPOINTS), backbone.output_stride)
    networks = Networks(backbone, config.training, training.compute, 1, head)
    batch = config.training.images_per_step
    images = tf.random.uniform((batch, size, size, 1), 0, 255)
    points = tf.random.uniform((batch, 1, KEYPOINTS, 2), 0, size)
    targets = head.targets(points, tf.ones((batch, 1, KEYPOINTS)), size, size)
    steps = build_steps(
        config.training,
        training.compute,
        networks,
        lambda element, step, part, parts: (images, targets),
        head.losses,
    )

    def run(count: int) -> None:
        for start in range(0, count, 4):
            part = min(4, count - start)
            steps(tf.zeros((part, 1)), 0, np.full(part, 1e-4, np.float32))

    return run


def predicting_groups(config: Any, size: int, images_per_call: int) -> Pair:
    """Return what predicts images with two animals each, and the bare network on as many.

    To what the network gives in the former, which is next to nothing, is added what it should have
    learnt, so that there are two animals to put together.
    """
    import keras
    import numpy as np
    import tensorflow as tf

    from hgtrain.heads import make_head
    from hgtrain.model.network import build_network
    from hgtrain.pipeline.preprocess import preprocessing_of
    from hgtrain.predict.predictor import Predictor

    backbone = config.model.backbone
    head = make_head(config.model.head, groups_skeleton(), backbone.output_stride)
    network = build_network(backbone, head.layers, 1, all_stacks=False)
    # Two animals beside each other, each a zigzag.
    along = np.linspace(0.1, 0.9, len(OF_GROUPS)) * size
    across = size * np.where(np.arange(len(OF_GROUPS)) % 2, 0.05, -0.05)
    points = np.stack([np.stack([along, size * at + across], -1) for at in (0.3, 0.7)])
    there = tf.ones((1, *points.shape[:2]))
    targets = head.targets(tf.constant(points[None], tf.float32), there, size, size)
    learnt = {
        name: 1e-3 * maps + targets[name].values.numpy() for name, maps in network.output.items()
    }
    before = preprocessing_of(config.data, backbone.max_stride, (size, size, 1))
    predictor = Predictor(keras.Model(network.input, learnt), head, before)
    images = np.random.default_rng(0).integers(0, 256, (images_per_call, size, size, 1), np.uint8)
    found = predictor(images[:8])
    if np.isfinite(found.points).all((2, 3)).sum(1).tolist() != [2] * 8:
        raise RuntimeError(f"two animals were to be found, got scores {found.scores}")
    bare = tf.function(lambda batch: network(batch, training=False))
    constant = tf.constant(images[:8], tf.float32)

    def other() -> None:
        for _ in range(images_per_call // 8):
            bare(constant)

    return lambda: predictor(images), other


def plain_keras(config: Any, file: Path) -> Callable[[int], None]:
    """Return the function that trains steps the plain Keras way."""
    import bench_keras

    images, points = bench_keras.read(str(file))
    network = bench_keras.compiled(config, images.shape[-1], points.shape[1])
    batches = bench_keras.pipeline(config, images, points)
    return lambda count: network.fit(batches, epochs=1, steps_per_epoch=count, verbose=0)


@contextmanager
def never_in_page_cache(file: Path) -> Iterator[None]:
    """Have the system forget what it keeps of a file, ten times a second."""
    done = threading.Event()

    def forget() -> None:
        with file.open("rb") as opened:
            while not done.wait(0.1):
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    thread = threading.Thread(target=forget)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
