"""Predictions for images from anywhere into a file; reading, inference and writing overlap."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import numpy as np

from hgtrain.data.media.frame_source import FrameSource
from hgtrain.errors import DatasetError
from hgtrain.log import Reporter, doing, say
from hgtrain.poses import Poses
from hgtrain.predict.inputs import Batch, batches
from hgtrain.predict.writers import PredictionFile

T = TypeVar("T")

BATCHES_AHEAD = 3
"""Read and not yet predicted, or predicted and not yet written.

All that memory holds of a video.
"""

WARNINGS = 5
"""Damaged frames of a source that are named; there may be thousands."""


class Model(Protocol):
    """What predicts the animals of images `(n, H, W, C)` uint8, points in their px."""

    batch_size: int

    def __call__(self, images: np.ndarray) -> Poses:
        """Return the predictions of a batch."""
        ...


class Sink(Protocol):
    """Takes the images of a batch with what was found in them; in one thread, in order."""

    def __call__(self, source: int, first: int, images: np.ndarray, found: Poses) -> None:
        """Take a batch."""
        ...


def predict_all(model: Model, sources: Sequence[FrameSource], sink: Sink) -> list[DatasetError]:
    """Predict every frame of every source.

    A frame that cannot be read is skipped with a warning: it has its place, with NaN. A source that
    breaks gives the frames before the break, and the next one follows.

    Returns:
        What broke or had no frame that can be read, empty when nothing did.
    """
    problems: list[DatasetError] = []
    counts = [source.count for source in sources]
    total = sum(counts) if all(counts) else 0
    # The first batch compiles the network.
    reporter = Reporter(total, "predicting", "frames", counts_first=False)
    done = 0
    try:
        with background(sink) as take:
            for index, source in enumerate(sources):
                first = damaged = 0
                try:
                    for batch in prefetch(batches(source, model.batch_size), BATCHES_AHEAD):
                        images = batch.images
                        damaged += warn_of_damage(batch, damaged)
                        with nullcontext() if done else doing("preparing the network"):
                            found = find(model, images)
                        take(index, first, images, without(found, batch.damaged))
                        first += len(images)
                        done += len(images)
                        reporter.update(done)
                    if not first:
                        problems.append(
                            DatasetError(f"{source.path}: has no frames, nothing is predicted")
                        )
                except DatasetError as error:
                    problems.append(error)
                if damaged:
                    say(
                        f"{source.path}: {damaged} of {first} frames cannot be read, they are "
                        "without a prediction (NaN)"
                    )
    finally:
        reporter.close()
    return problems


def find(model: Model, images: np.ndarray) -> Poses:
    """Return the predictions of up to a batch of images `(n, H, W, C)`."""
    # Filled up: another shape would be another compilation.
    missing = model.batch_size - len(images)
    filled = (
        np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing > 0 else images
    )
    return Poses(*(values[: len(images)] for values in model(filled)))


def warn_of_damage(batch: Batch, before: int) -> int:
    """Name the damaged frames of a batch; return how many there are.

    Args:
        batch: Of a source.
        before: How many of the source were damaged before it, of which the first are named.
    """
    for error in list(batch.damaged.values())[: max(WARNINGS - before, 0)]:
        say(f"skipped: {error}")
    return len(batch.damaged)


def without(found: Poses, rows: Collection[int]) -> Poses:
    """Return what was found with NaN in some frames."""
    if not rows:
        return found
    kept = ~np.isin(np.arange(len(found.points)), list(rows))
    return Poses(
        *(np.where(kept.reshape(-1, *[1] * (part.ndim - 1)), part, np.nan) for part in found)
    )


def prefetch(items: Iterable[T], depth: int) -> Iterator[T]:
    """Pass items on while a thread gets up to `depth` more.

    An error comes at its place in the order.
    """
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, thread_name_prefix="reader") as reader:
        pending = deque(reader.submit(next, iterator, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
            pending.append(reader.submit(next, iterator, end))
            yield item  # type: ignore[misc]


@contextmanager
def background(sink: Sink) -> Iterator[Callable[..., None]]:
    """Give a function that hands its arguments to `sink` in a thread.

    It waits when the sink is far behind. All is written when the block ends; an error of the sink
    is raised here.
    """
    pending: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="writer") as writer:

        def take(*arguments: Any) -> None:
            pending.append(writer.submit(sink, *arguments))
            while len(pending) > BATCHES_AHEAD:
                pending.popleft().result()

        yield take
        while pending:
            pending.popleft().result()


def file_sink(
    file: PredictionFile, draw: Callable[[int, np.ndarray, Poses], None] | None = None
) -> Sink:
    """Return the sink that writes into a file and, where there is one, into an overlay video."""

    def sink(source: int, first: int, images: np.ndarray, found: Poses) -> None:
        file.write(source, first, found)
        if draw is not None:
            draw(source, images, found)

    return sink
