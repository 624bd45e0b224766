"""Everything of a `fit` that knows TensorFlow, put together; the loop drives it."""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hgtrain.config.schema import AugmentationConfig, TrainingConfig
from hgtrain.pipeline.batch import BatchSpec, batch_maker
from hgtrain.pipeline.feed import Feed
from hgtrain.pipeline.frame_store import StoredSplit
from hgtrain.pipeline.reader_processes import reader_count
from hgtrain.poses import no_poses
from hgtrain.rundir.layout import CHECKPOINTS
from hgtrain.train.checkpoint import Checkpoints
from hgtrain.train.distributed.devices import Compute
from hgtrain.train.failures import stacks_shown_when_stalled
from hgtrain.train.initial_weights import InitialWeights, TransferReport
from hgtrain.train.loop import State
from hgtrain.train.networks import Networks, build_steps
from hgtrain.train.plan import Pace, steps_per_epoch
from hgtrain.train.validation import Validation

WRITTEN_OF_BEST = 3.0
"""What an epoch writes beside best.keras takes so many times as long as that does, at most."""

REPORT_S = 4.0
"""What loading best.keras and writing the report take at the end, besides the evaluation."""


class Trainer:
    """Fulfils `train.loop.Inner` for networks, a split and the devices.

    Of several processes that train together only the chief validates, reads and writes; the others
    get what it has.

    Attributes:
        networks: What is trained.
        frames: What it is trained and validated on.
        validation_poses: What the last validation found, of no frames before the first.
        workers: The processes that train together.
    """

    def __init__(
        self,
        networks: Networks,
        frames: StoredSplit,
        augmentation: AugmentationConfig,
        training: TrainingConfig,
        compute: Compute,
        folder: Path,
        keep_checkpoints: int,
    ) -> None:
        self.networks, self.frames = networks, frames
        self._folder = folder
        head, dataset = networks.head, frames.split.train.dataset
        self._keypoint_names = dataset.keypoint_names
        epoch = steps_per_epoch(training, len(frames.train_samples))
        self._feed = Feed(
            frames.train,
            frames.train_samples,
            (training.seed, training.images_per_step, epoch),
            frames.cache == "device",
            reader_count() if frames.cache == "none" else 0,
        )
        spec = BatchSpec(
            augmentation,
            dataset.symmetries,
            frames.preprocessing.multiple,
            head.targets,
            training.seed,
            training.images_per_step,
            frames.crop,
        )
        make_batch = batch_maker(spec, self._feed.held)
        self._head = head
        loss = partial(head.losses, hard_keypoint_mining=training.hard_keypoint_mining)
        self._steps = build_steps(training, compute, networks, make_batch, loss)
        self._validation = Validation(networks.eval_network, head, frames, training.batch_size)
        self.validation_poses = no_poses(head.max_instances, head.keypoints)
        self.workers = compute.workers
        self._checkpoints = None
        if self.workers.is_chief:
            self._checkpoints = Checkpoints(
                folder / CHECKPOINTS, keep_checkpoints, networks.saved_variables
            )

    @property
    def output_names(self) -> tuple[str, ...]:
        """Return what a stack gives, in the order of its losses."""
        return tuple(sorted(self._head.outputs))

    def steps(self, first_step: int, learning_rates: np.ndarray) -> tuple[np.ndarray, float]:
        """Run one update for each learning rate.

        Returns:
            The losses `(n, stacks, outputs)`, and the seconds spent waiting for data.
        """
        losses: list[np.ndarray] = []
        done, waited = 0, 0.0
        while done < len(learning_rates):
            with stacks_shown_when_stalled():
                element, seconds = self._feed(first_step + done, len(learning_rates) - done)
                count = len(element[0])
                losses.append(
                    self._steps(element, first_step + done, learning_rates[done : done + count])
                )
            done, waited = done + count, waited + seconds
        return np.concatenate(losses), waited

    def measure(self, first_step: int, seconds: float) -> Pace:
        """Return what takes how long, after compiling; everything is as before afterwards.

        Args:
            first_step: Where the run stands.
            seconds: How long steps are measured, one at least.
        """
        variables = [each for group in self.networks.variables().values() for each in group]
        before = [variable.numpy() for variable in variables]
        step_s = self._measured_step(first_step, seconds)
        first, again = self._seconds_of_validation(), self._seconds_of_validation()
        written = 0.0
        if self.workers.is_chief:
            with tempfile.TemporaryDirectory() as folder:
                self.networks.write_best(Path(folder))
                started = time.monotonic()
                self.networks.write_best(Path(folder))
                written = WRITTEN_OF_BEST * (time.monotonic() - started)
        for variable, value in zip(variables, before, strict=True):
            variable.assign(value)
        return Pace(step_s, again + written, max(first, again) + again + REPORT_S)

    def _measured_step(self, first_step: int, seconds: float) -> float:
        """Return the mean seconds of a step; all processes go on as long as the chief."""
        self.steps(first_step, np.zeros(1, np.float32))
        done, count, started = 0, 1, time.monotonic()
        while True:
            before = time.monotonic()
            self.steps(first_step + done, np.zeros(count, np.float32))
            now = time.monotonic()
            done += count
            left = seconds - (now - started)
            wanted = int(min(2 * count, left * count / max(now - before, 1e-6)))
            # The same in all: a step is done by all of them, or by none.
            count = self.workers.from_chief(wanted)
            if count < 1:
                return (now - started) / done

    def _seconds_of_validation(self) -> float:
        started = time.monotonic()
        self.validate()
        return time.monotonic() - started

    def validate(self) -> dict[str, Any]:
        """Return `val_loss`, `val_error_px` and `val_confidence` of the network that is judged."""
        row: dict[str, Any] = {}
        if self.workers.is_chief:
            row, self.validation_poses = self._validation()
        return self.workers.from_chief(row)

    def save_best(self) -> None:
        """Keep the network as best.keras; it is written as a checkpoint is."""
        if self._checkpoints is not None:
            self._checkpoints.save_best(
                self.networks.keep_best, lambda: self.networks.write_best(self._folder)
            )

    def save_state(self, state: State) -> None:
        """Write a checkpoint; in the background where that takes long, until `finish_writing`."""
        if self._checkpoints is not None:
            self._checkpoints.save(state.step, state.to_json())

    def finish_writing(self) -> None:
        """Return when the last checkpoint and best.keras are on the disk."""
        if self._checkpoints is not None:
            self._checkpoints.wait()

    def start_from(self, initial: InitialWeights) -> TransferReport:
        """Give the network, and its moving average, the weights of another by layer name."""
        return self.networks.start_from(initial, self._keypoint_names)

    def restore(self) -> State | None:
        """Restore the newest checkpoint, and best.keras with it.

        Returns:
            Its state, None where there is none.
        """
        saved = None if self._checkpoints is None else self._checkpoints.restore_newest()
        # Not read by each: what a file system shared by machines shows may be of a moment ago.
        saved = self.workers.from_chief(saved)
        for group in self.networks.variables().values():
            self.workers.share(group)
        if saved is None:
            return None
        state = State(**saved)
        if state.best is not None and self.workers.is_chief:
            # The one there may be of epochs after the checkpoint, which will not be the same when
            # epochs are added.
            self.networks.write_best(self._folder)
        return state

    def close(self) -> None:
        """Stop the threads that read and write."""
        self._feed.close()
        if self._checkpoints is not None:
            self._checkpoints.close()
