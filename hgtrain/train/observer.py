"""What is kept and shown of a run while it goes."""

import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hgtrain.config.schema import HeadConfig, TrainingConfig
from hgtrain.data.media.drawing import overlay
from hgtrain.log import Reporter, say
from hgtrain.pipeline.cache import available_memory, waiting_note
from hgtrain.rundir import layout
from hgtrain.train.loop import State

if TYPE_CHECKING:
    from hgtrain.train.trainer import Trainer

FLAT_CONFIDENCE = 0.05
FLAT_AFTER_STEPS = 200
OVERLAYS = 4


class NullObserver:
    """Shows and writes nothing: what a process does beside the one that keeps the record.

    Args:
        check_data: Called after every call for steps; raises when the data are not what they were.
    """

    def __init__(self, check_data: Callable[[], None]) -> None:
        self._check_data = check_data

    def stepped(self, state: State, loss: float, images_per_s: float | None) -> None:
        """Raise DatasetError when the data were changed."""
        self._check_data()

    def epoch_ended(self, state: State, row: dict[str, Any], validation: dict[str, Any]) -> None:
        """Raise DatasetError when the data were changed."""
        self._check_data()

    def left_out(self, state: State, step: int) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class TrainingObserver:
    """Shows and writes down what happens in a run.

    Progress, metrics.jsonl, TensorBoard, and a word when maps stay flat.

    Args:
        trainer: What is watched.
        folder: The run directory.
        steps: Those that are still to do.
        training: Its learning rate is named where maps stay flat.
        head: So is its sigma.
        tensorboard: Whether TensorBoard logs are written.
        check_data: Called after every call for steps; raises when the data are not what they were.
    """

    def __init__(
        self,
        trainer: "Trainer",
        folder: Path,
        steps: range,
        training: TrainingConfig,
        head: HeadConfig,
        tensorboard: bool,
        check_data: Callable[[], None] = lambda: None,
    ) -> None:
        self._check_data = check_data
        self._folder, self._trainer = folder, trainer
        self._training, self._head = training, head
        self._reporter = Reporter(steps.stop, "training", "steps", done=steps.start, delay_s=0)
        self._events = EventFile(folder / layout.TENSORBOARD) if tensorboard else None
        self._error = ""
        self._has_warned_of_waiting = False

    def stepped(self, state: State, loss: float, images_per_s: float | None) -> None:
        """Show progress.

        Raises:
            DatasetError: The data were changed; it comes before a checkpoint is written of them.
        """
        self._check_data()
        speed = "" if images_per_s is None else f", {images_per_s:.0f} images/s"
        self._reporter.update(state.step, f"loss {loss:.3g}{speed}{self._error}")

    def epoch_ended(self, state: State, row: dict[str, Any], validation: dict[str, Any]) -> None:
        """Write the epoch down."""
        self._check_data()
        layout.append_row(self._folder / layout.METRICS, row)
        if row["val_error_px"] is not None:
            self._error = f", validation {row['val_error_px']:.2f} px"
            self._warn_if_flat(row["step"], validation["val_confidence"])
        say(
            f"epoch {row['epoch']}: loss {row['loss']:.3g}, validation loss "
            f"{row['val_loss']:.3g}{self._error}"
        )
        self._warn_if_waiting(row["data_wait_fraction"])
        if self._events is not None:
            scalars = {
                key: value for key, value in (row | validation).items() if isinstance(value, float)
            }
            stacks = {f"loss/stack{i}": value for i, value in enumerate(row["loss_per_stack"])}
            outputs = {f"loss/{name}": loss for name, loss in row["loss_per_output"].items()}
            self._events.scalars(state.step, scalars | stacks | outputs)
            self._events.images(state.step, "validation", self._overlays())

    def left_out(self, state: State, step: int) -> None:
        """Say which step is done without, and cut metrics.jsonl back to where the run is again."""
        layout.write_rows(self._folder / layout.METRICS, state.history)
        say(
            f"the loss of step {step} is not finite: back to step {state.step}, to go on without it"
        )

    def _warn_if_flat(self, step: int, confidence: float) -> None:
        if confidence < FLAT_CONFIDENCE and step >= FLAT_AFTER_STEPS:
            say(
                f"the confidence maps are still flat after {step} steps (mean peak "
                f"{confidence:.3f}, "
                f"expected above {FLAT_CONFIDENCE}): raise training.learning_rate (now "
                f"{self._training.learning_rate}) or "
                f"model.head.sigma_px (now {self._head.sigma_px})"
            )

    def _warn_if_waiting(self, fraction: float | None) -> None:
        if self._has_warned_of_waiting or fraction is None:
            return
        frames = self._trainer.frames
        note = waiting_note(fraction, frames.cache, frames.size_bytes, available_memory())
        if note is not None:
            say(note)
            self._has_warned_of_waiting = True

    def _overlays(self) -> np.ndarray:
        """Return the first samples of the validation, each on the whole of its frame."""
        stored = self._trainer.frames
        side, samples = stored.split.validation, stored.validation_samples
        shown = np.arange(min(OVERLAYS, len(samples)))
        images = side.dataset.read_images(side.frames[samples.rows(shown)])
        truth = self._trainer.networks.head.labelled(samples.labels(shown).truth)
        found = self._trainer.validation_poses.points[shown]
        # Of a head that finds where animals are there are no keypoints to join.
        edges = side.dataset.edges if truth.shape[2] == len(side.dataset.keypoint_names) else ()
        return np.stack(
            [overlay(*of_sample, edges) for of_sample in zip(images, truth, found, strict=True)]
        )

    def close(self) -> None:
        """Remove the progress bar and close the event file."""
        self._reporter.close()
        if self._events is not None:
            self._events.close()


class EventFile:
    """Scalars and images for TensorBoard.

    An event file is a TFRecord file of Event messages. It is written with what TensorFlow itself
    has, because TensorBoard is no longer installed with it.
    """

    def __init__(self, folder: Path) -> None:
        import tensorflow as tf

        self._tf = tf
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}"
        self._writer = tf.io.TFRecordWriter(str(folder / name))
        self._write(file_version="brain.Event:2")

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write one point of each curve."""
        value = self._tf.compat.v1.Summary.Value
        self._summary(step, [value(tag=tag, simple_value=number) for tag, number in values.items()])

    def images(self, step: int, tag: str, images: np.ndarray) -> None:
        """Write images `(n, H, W, 3)` uint8 under `<tag>/0`, `<tag>/1`, ..."""
        summary = self._tf.compat.v1.Summary
        values = [
            summary.Value(
                tag=f"{tag}/{i}",
                image=summary.Image(
                    height=image.shape[0],
                    width=image.shape[1],
                    colorspace=3,
                    encoded_image_string=self._tf.io.encode_png(image).numpy(),
                ),
            )
            for i, image in enumerate(images)
        ]
        self._summary(step, values)

    def _summary(self, step: int, values: list[Any]) -> None:
        self._write(step=step, summary=self._tf.compat.v1.Summary(value=values))
        self._writer.flush()

    def _write(self, **fields: Any) -> None:
        self._writer.write(
            self._tf.compat.v1.Event(wall_time=time.time(), **fields).SerializeToString()
        )

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
