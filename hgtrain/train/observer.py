"""What is kept and shown of a run while it goes."""

import os
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hgtrain.config.schema import HeadConfig, TrainingConfig
from hgtrain.data.media.drawing import overlay
from hgtrain.log import Reporter, coloured, duration, format_seconds, say
from hgtrain.pipeline.cache import available_memory, waiting_note
from hgtrain.rundir import layout
from hgtrain.train.loop import State
from hgtrain.train.plan import steps_per_epoch

if TYPE_CHECKING:
    from hgtrain.train.trainer import Trainer

Row = dict[str, Any]

FLAT_CONFIDENCE = 0.05
FLAT_AFTER_STEPS = 200
OVERLAYS = 4
ESTIMATE_AFTER_S, ESTIMATED_S = 5.0, 20.0
"""How long steps are watched before it is said how long a run takes, where it takes longer."""
FIGURES = {"val_oks_map": "OKS mAP", "val_f1": "F1", "val_error_px": "error"}
"""By what the best epoch is chosen, the first that a row of metrics.jsonl has, and its name."""


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

    Attributes:
        show_epochs: Called after every epoch with the rows of metrics.jsonl and the best of them.
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
        self.show_epochs: Callable[[Sequence[Row], Row | None], None] = lambda rows, best: None
        self._folder, self._trainer = folder, trainer
        self._training, self._head = training, head
        self._steps = steps
        self._epoch_steps = max(1, steps.stop // training.epochs)
        if training.max_minutes is not None:
            # Fewer epochs than were asked for may fit.
            self._epoch_steps = steps_per_epoch(training, len(trainer.frames.train_samples))
        self._epochs = -(-steps.stop // self._epoch_steps)
        # The first call compiles the step.
        self._reporter = Reporter(
            steps.stop, "training", "steps", steps.start, delay_s=0, counts_first=False
        )
        self._reporter.begin("preparing the first step")
        self._first_stepped: float | None = None
        self._is_estimated = self._has_header = False
        self._events = EventFile(folder / layout.TENSORBOARD) if tensorboard else None
        self._has_warned_of_waiting = False

    def stepped(self, state: State, loss: float, images_per_s: float | None) -> None:
        """Show progress.

        Raises:
            DatasetError: The data were changed; it comes before a checkpoint is written of them.
        """
        self._check_data()
        self._reporter.show(state.step, self._texts(state, loss, images_per_s))
        now = time.monotonic()
        self._first_stepped = self._first_stepped or now
        if not self._is_estimated and now - self._first_stepped >= ESTIMATE_AFTER_S:
            self._is_estimated = True
            seconds = self._reporter.left_s(state.step)
            if seconds is not None and seconds >= ESTIMATED_S:
                rest = "" if state.history else ", and validation comes on top"
                say(f"training takes about {duration(seconds)}{rest}")

    def _texts(self, state: State, loss: float, images_per_s: float | None) -> list[str]:
        """Return where the run stands, in more and more narrow forms."""
        epoch = f"epoch {1 + (state.step - 1) // self._epoch_steps}/{self._epochs}"
        step, total = f"step {state.step}", f"/{self._steps.stop}"
        left = self._reporter.left(state.step)
        # The first call's is that of compiling.
        rate = f"{images_per_s:.0f} images/s" if left and images_per_s is not None else ""
        figures = [f"loss {loss:.3g}"]
        best = best_row(state.history, state.epochs_without_best)
        if best is not None:
            name, value = figure(state.history[-1])
            figures += [f"{name} {value}", f"best {figure(best)[1]}"]
        texts = [
            [epoch, step + total, left, rate, *figures],
            [epoch, step + total, left, *figures],
            [epoch, step, left, *figures],
        ]
        wide, middle, narrow = (list(filter(None, text)) for text in texts)
        return [", ".join(wide), ", ".join(middle), " ".join(middle), " ".join(narrow)]

    def epoch_ended(self, state: State, row: dict[str, Any], validation: dict[str, Any]) -> None:
        """Write the epoch down."""
        self._check_data()
        layout.append_row(self._folder / layout.METRICS, row)
        if not self._has_header:
            self._has_header = True
            say(coloured(epoch_header(row), "bold"))
        best = best_row(state.history, state.epochs_without_best)
        say(epoch_line(row, self._epochs, best is row))
        if row["val_error_px"] is not None:
            self._warn_if_flat(row["step"], validation["val_confidence"])
        self._warn_if_waiting(row["data_wait_fraction"])
        if self._events is not None:
            scalars = {
                key: value for key, value in (row | validation).items() if isinstance(value, float)
            }
            stacks = {f"loss/stack{i}": value for i, value in enumerate(row["loss_per_stack"])}
            outputs = {f"loss/{name}": loss for name, loss in row["loss_per_output"].items()}
            self._events.scalars(state.step, scalars | stacks | outputs)
            self._events.images(state.step, "validation", self._overlays())
        self.show_epochs(state.history, best)

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


def best_row(history: Sequence[Row], epochs_without_best: int) -> Row | None:
    """Return the row of the best epoch, None before the first."""
    return history[-1 - epochs_without_best] if history else None


def figure(row: Row) -> tuple[str, str]:
    """Return by what an epoch is judged, as its name and its value."""
    key = next((key for key in FIGURES if row.get(key) is not None), None)
    if key is None:
        return "validation loss", f"{row['val_loss']:.3g}"
    value = row[key]
    return FIGURES[key], f"{value:.2f} px" if key == "val_error_px" else f"{value:.3f}"


COLUMNS: tuple[tuple[str, str, int, Callable[[Any], str]], ...] = (
    ("step", "step", 8, str),
    ("loss", "loss", 10, "{:.3g}".format),
    ("val_loss", "val. loss", 11, "{:.3g}".format),
    ("val_error_px", "val. error", 12, "{:.2f} px".format),
    ("val_oks_map", "OKS mAP", 9, "{:.3f}".format),
    ("val_f1", "F1", 9, "{:.3f}".format),
    ("elapsed_s", "time", 10, format_seconds),
)
"""Of the lines of the epochs: key of metrics.jsonl, title, width, how a value is written."""
EPOCH_WIDTH = 9


def epoch_header(row: Row) -> str:
    """Return the titles of the columns that rows like this one have."""
    titles = [f"{title:>{width}}" for key, title, width, _ in COLUMNS if key in row]
    return f"{'epoch':>{EPOCH_WIDTH}}" + "".join(titles)


def epoch_line(row: Row, epochs: int, is_best: bool) -> str:
    """Return an epoch as a line below its header; the best so far is marked."""
    cells = [
        f"{'-' if row[key] is None else form(row[key]):>{width}}"
        for key, _, width, form in COLUMNS
        if key in row
    ]
    epoch = f"{row['epoch']}/{epochs}"
    line = f"{epoch:>{EPOCH_WIDTH}}" + "".join(cells)
    return f"{line}  {coloured('best', 'green')}" if is_best else line


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
