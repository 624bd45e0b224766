"""Everything of a `fit` that knows TensorFlow, put together from a config; the loop drives it."""

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from hgtrain.config import Config, TrainingConfig
from hgtrain.coords import resized_points
from hgtrain.data.pipeline import Feed, FrameStore, Recipe, batch_maker, in_turn
from hgtrain.data.readers import reader_count
from hgtrain.data.resize import pad
from hgtrain.data.source import Side, Split, single_instance_labels
from hgtrain.data.targets import TARGETS
from hgtrain.device import Compute
from hgtrain.errors import RunError
from hgtrain.faults import stacks_shown_when_stalled
from hgtrain.initial_weights import InitialWeights, Taken, take_weights
from hgtrain.loss import confmap_losses
from hgtrain.model.network import build_network, copy_weights, synchronize_batch_norm
from hgtrain.model.training_pass import TrainingPass
from hgtrain.peaks import decode, refinement_radius
from hgtrain.predictor import Geometry
from hgtrain.rundir import BEST, CHECKPOINTS, atomic_path
from hgtrain.train.checkpoint import Checkpoints
from hgtrain.train.log import progress
from hgtrain.train.loop import State
from hgtrain.train.optimizer import build_optimizer
from hgtrain.train.step import Batch, Parts, Steps, WeightAverage


class Labels(NamedTuple):
    """Labels of one side.

    points: `(N, K, 2)` in px of the network's input, NaN where missing. weights: `(N, K)`, 1 where labelled. truth:
    points in px of the dataset's images.
    """

    points: np.ndarray
    weights: np.ndarray
    truth: np.ndarray


def side_labels(side: Side, input_scale: float, indices: np.ndarray) -> Labels:
    """Return the labels of some of a side's frames, for a head for one animal."""
    points, visibility = single_instance_labels(side.dataset, side.frames[indices])
    labelled = visibility > 0
    truth = np.where(labelled[..., None], points, np.nan).astype(np.float32)
    return Labels(resized_points(truth, input_scale).astype(np.float32), labelled.astype(np.float32), truth)


def geometry_of(config: Config, image_shape: tuple[int, int, int]) -> Geometry:
    """Return what surrounds the network that the config describes, for images of this shape."""
    backbone = config.model.backbone
    return Geometry(
        channels=config.data.channels or image_shape[2],
        input_scale=config.data.input_scale,
        multiple=backbone.max_stride,
        stride=backbone.output_stride,
        radius=refinement_radius(config.model.head.sigma_px, backbone.output_stride),
    )


class Networks:
    """The trained network, its moving average where there is one, and the optimizer."""

    def __init__(self, config: Config, compute: Compute, channels: int, keypoints: int) -> None:
        training = config.training

        def build(precision: str, all_stacks: bool = True) -> keras.Model:
            return build_network(config.model, channels, keypoints, precision, all_stacks)

        self._build = build
        with compute.strategy.scope():
            self.trained = build(compute.precision)
            if training.synchronize_batch_norm and compute.replicas > 1:
                synchronize_batch_norm(self.trained)
            self.average = None
            if training.ema is not None:
                self.average = WeightAverage(build(compute.precision), training.ema)
                copy_weights(self.trained, self.average.network)
            self.optimizer = build_optimizer(
                training.optimizer,
                training.learning_rate,
                training.weight_decay,
                training.gradient_clip_norm,
                compute.precision,
            )

    @cached_property
    def _best(self) -> keras.Model:
        # In float32 whatever was trained in, so that it gives the same maps wherever it is opened. Not built before the
        # first step, which people wait for.
        return self._build("float32", all_stacks=False)

    @property
    def judged(self) -> keras.Model:
        """Return the network that is validated and kept: the moving average where there is one."""
        return self.trained if self.average is None else self.average.network

    def start_from(self, initial: InitialWeights, keypoint_names: tuple[str, ...]) -> Taken:
        """Assign what fits of another network's weights; the moving average starts from there too."""
        taken = take_weights(self.trained, initial, keypoint_names)
        if self.average is not None:
            copy_weights(self.trained, self.average.network)
        return taken

    def keep_best(self) -> None:
        """Copy the judged network, last stack only, as the best so far."""
        copy_weights(self.judged, self._best)

    def write_best(self, folder: Path) -> None:
        """Write what was best, which a checkpoint holds too, as `best.keras`."""
        try:
            with atomic_path(folder / BEST) as beside:
                self._best.save(beside)
        # Keras and HDF5 have several exceptions for a disk that is full.
        except (OSError, RuntimeError) as error:
            raise RunError(
                f"{folder / BEST} cannot be written: {error}; what was there before is as it was: make room or mend "
                "the folder, then go on with --resume"
            ) from error

    def variables(self) -> dict[str, list[tf.Variable]]:
        """Return every variable that training changes, by what it belongs to."""
        average = [] if self.average is None else self.average.network.variables
        groups = {
            "network": self.trained.variables,
            "average": average,
            "optimizer": self.optimizer.variables,
        }
        return {name: [variable.value for variable in group] for name, group in groups.items()}

    def saved_variables(self) -> dict[str, list[tf.Variable]]:
        """Return `variables` and, as `best`, those of the best network so far."""
        return self.variables() | {"best": [variable.value for variable in self._best.variables]}


class Validation:
    """The clean frames of the validation side, all of them, in order."""

    def __init__(
        self,
        network: keras.Model,
        geometry: Geometry,
        store: FrameStore,
        labels: Callable[[np.ndarray], Labels],
        config: Config,
    ) -> None:
        self._network = network
        self._geometry = geometry
        self._store = store
        self._labels = labels
        self._head = config.model.head
        self._batch_size = min(config.training.batch_size, len(store))
        self._compiled = tf.function(self._batch, autograph=False)

    def __call__(self) -> tuple[dict[str, Any], np.ndarray]:
        """Return the row of metrics, and the points `(N, K, 2)` in px of the dataset's images."""
        losses: list[np.ndarray] = []
        points: list[np.ndarray] = []
        confidence: list[np.ndarray] = []
        errors: list[np.ndarray] = []
        starts = range(0, len(self._store), self._batch_size)
        # The last batch starts over with the first frames: another shape would be another compilation.
        batches = [np.arange(start, start + self._batch_size) % len(self._store) for start in starts]
        read = zip(starts, batches, in_turn(self._store, batches), strict=True)
        for start, chosen, images in progress(read, len(starts), "validating", "batches"):
            labels = self._labels(chosen)
            batch = self._compiled(tf.constant(images), tf.constant(labels.points), tf.constant(labels.weights))
            for parts, part in zip((losses, points, confidence), batch, strict=True):
                parts.append(part.numpy()[: len(self._store) - start])
            errors.append(np.linalg.norm(points[-1] - labels.truth[: len(points[-1])], axis=-1))
        predicted, error = np.concatenate(points), np.concatenate(errors)
        located = np.isfinite(error)
        row = {
            "val_loss": float(np.concatenate(losses).mean(dtype=np.float64)),
            "val_error_px": float(error[located].mean(dtype=np.float64)) if located.any() else None,
            "val_confidence": float(np.concatenate(confidence)[located].mean(dtype=np.float64))
            if located.any()
            else None,
        }
        return row, predicted

    def _batch(self, images: tf.Tensor, points: tf.Tensor, weights: tf.Tensor) -> tuple[tf.Tensor, ...]:
        padded = pad(images, self._geometry.multiple)
        stacks = tf.nest.flatten(self._network(padded, training=False))
        targets = draw_targets(self._head, self._geometry.stride)(points, padded.shape[1], padded.shape[2])
        losses = tf.add_n([confmap_losses(maps, targets, weights, hard_keypoint_mining=False) for maps in stacks])
        geometry = self._geometry
        decoded = decode(stacks[-1], geometry.stride, geometry.input_scale, radius=geometry.radius)
        return losses * self._head.loss_weight, *decoded


def draw_targets(head: Any, stride: int) -> Callable[[tf.Tensor, int, int], tf.Tensor]:
    """Return the function (points, height, width) -> maps of a `model.head` section."""
    targets = TARGETS[head.type]
    return lambda points, height, width: targets(points, height, width, stride, head.sigma_px)


def build_steps(
    training: TrainingConfig,
    compute: Compute,
    networks: Networks,
    make_batch: Callable[..., Batch],
    loss: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor],
) -> Steps:
    """Return the compiled training steps of a `training` section."""
    parts = Parts(
        networks.trained,
        TrainingPass(networks.trained, training.recompute),
        networks.optimizer,
        make_batch,
        loss,
        training.images_per_step,
        training.accumulate_steps,
    )
    return Steps(compute.strategy, parts, networks.average, bool(compute.jit))


class Trainer:
    """Fulfils `train.loop.Inner` for a config, a split and the devices; `folder` is the run directory.

    Of several processes that train together only the chief validates, reads and writes; the others get what it has.
    cache: where frames are kept: device, ram, none. frames_bytes: what they take there, both sides.
    """

    def __init__(
        self,
        config: Config,
        split: Split,
        compute: Compute,
        folder: Path,
        steps_per_epoch: int,
        cache: str,
        progress: Callable[[range], Iterable[int]],
    ) -> None:
        training, dataset = config.training, split.train.dataset
        self.geometry = geometry = geometry_of(config, dataset.image_shape)
        stores = [
            FrameStore(side.dataset, side.frames, geometry.channels, geometry.input_scale, cache != "none", progress)
            for side in (split.train, split.validation)
        ]
        self.cache, self.frames_bytes = cache, sum(len(store) * int(np.prod(store.shape)) for store in stores)
        self.networks = Networks(config, compute, geometry.channels, len(dataset.keypoint_names))
        self._folder = folder
        self._keypoint_names = dataset.keypoint_names
        labels = [partial(side_labels, side, geometry.input_scale) for side in (split.train, split.validation)]
        self._feed = Feed(
            stores[0],
            lambda indices: labels[0](indices)[:2],
            (training.seed, training.images_per_step, steps_per_epoch),
            cache == "device",
            reader_count() if cache == "none" else 0,
        )
        recipe = Recipe(
            config.augmentation,
            dataset.symmetries,
            geometry.multiple,
            draw_targets(config.model.head, geometry.stride),
            training.seed,
            training.images_per_step,
        )
        make_batch = batch_maker(recipe, self._feed.held)

        def loss(maps: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
            factor = config.model.head.loss_weight
            return factor * confmap_losses(maps, targets, weights, training.hard_keypoint_mining)

        self._steps = build_steps(config.training, compute, self.networks, make_batch, loss)
        self._validation = Validation(self.networks.judged, geometry, stores[1], labels[1], config)
        self.validation_points = np.empty((0, len(dataset.keypoint_names), 2), np.float32)
        self.workers = compute.workers
        self._checkpoints = None
        if self.workers.is_chief:
            self._checkpoints = Checkpoints(folder / CHECKPOINTS, config.checkpoint.keep, self.networks.saved_variables)

    def steps(self, first_step: int, learning_rates: np.ndarray) -> tuple[np.ndarray, float]:
        """Run one update for each learning rate; return the losses `(n, stacks)` and the seconds waited for data."""
        losses: list[np.ndarray] = []
        done, waited = 0, 0.0
        while done < len(learning_rates):
            with stacks_shown_when_stalled():
                element, seconds = self._feed(first_step + done, len(learning_rates) - done)
                count = len(element[0])
                losses.append(self._steps(element, first_step + done, learning_rates[done : done + count]))
            done, waited = done + count, waited + seconds
        return np.concatenate(losses), waited

    def validate(self) -> dict[str, Any]:
        """Return `val_loss`, `val_error_px` and `val_confidence` of the network that is judged."""
        row: dict[str, Any] = {}
        if self.workers.is_chief:
            row, self.validation_points = self._validation()
        return self.workers.from_chief(row)

    def save_best(self) -> None:
        """Keep the network as best.keras; it is written as a checkpoint is."""
        if self._checkpoints is not None:
            self._checkpoints.save_best(self.networks.keep_best, lambda: self.networks.write_best(self._folder))

    def save_state(self, state: State) -> None:
        """Write a checkpoint; in the background where that takes long, until `finish_writing`."""
        if self._checkpoints is not None:
            self._checkpoints.save(state.step, state.to_json())

    def finish_writing(self) -> None:
        """Return when the last checkpoint and best.keras are on the disk."""
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def start_from(self, initial: InitialWeights) -> Taken:
        """Give the network the weights of another, by layer name, and its moving average the same."""
        return self.networks.start_from(initial, self._keypoint_names)

    def restore(self) -> State | None:
        """Restore the newest checkpoint, best.keras with it; return its state, None where there is none."""
        saved = None if self._checkpoints is None else self._checkpoints.restore_newest()
        # Not read by each: what a file system shared by machines shows may be of a moment ago.
        saved = self.workers.from_chief(saved)
        for group in self.networks.variables().values():
            self.workers.share(group)
        if saved is None:
            return None
        state = State(**saved)
        if state.best is not None and self.workers.is_chief:
            # The one there may be of epochs after the checkpoint, which will not be the same when epochs are added.
            self.networks.write_best(self._folder)
        return state

    def close(self) -> None:
        """Stop the threads that read and write."""
        self._feed.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
