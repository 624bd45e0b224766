"""`hgtrain.load_run`, and a run as Python programs have it."""

import os
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hgtrain.config.schema import Config
from hgtrain.errors import DatasetError, RunError
from hgtrain.log import say
from hgtrain.poses import Poses, joined
from hgtrain.predict.turns import AVERAGES
from hgtrain.rundir import load
from hgtrain.skeleton import Skeleton

if TYPE_CHECKING:
    import keras

Paths = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""One path or several; also the name of a built-in dataset."""


class Run:
    """A trained network: what `hgtrain.fit` and `hgtrain.load_run` return."""

    def __init__(
        self, opened: load.Run, centroids: Path | None, average: Sequence[str] = ()
    ) -> None:
        self._opened = opened
        self._centroids = centroids
        self._average = tuple(average)

    def __repr__(self) -> str:
        return f"<hgtrain run {self.folder}>"

    @property
    def folder(self) -> Path:
        """Return the run directory."""
        return self._opened.folder

    @property
    def config(self) -> Config:
        """Return the config the run was trained with."""
        return self._opened.config

    @property
    def skeleton(self) -> Skeleton:
        """Return names, edges and left/right partners of the keypoints of the run's dataset."""
        return self._opened.skeleton

    @property
    def model(self) -> "keras.Model":
        """Return the network of best.keras.

        It leads from images `(B, H, W, C)`, 0..255, to the last stack's maps.
        """
        return self._opened.model

    def evaluate(self, data: Paths | None = None) -> dict[str, Any]:
        """Measure the network against labels, as `hgtrain evaluate --json` does.

        Args:
            data: One or several datasets, of which all frames are taken; None for the run's own
                validation frames.

        Returns:
            The metrics by name, errors in px of the dataset's own images: plain numbers, lists and
            dicts, None where a metric is not defined.

        Raises:
            HgtrainError: The data cannot be used, or its keypoints differ from the run's.
        """
        from hgtrain.commands.evaluate import evaluate

        refinement = self._opened.predictor.refinement
        return evaluate(self.folder, _names(data), refinement, self._centroids, self._average)

    def predict(self, images: np.ndarray | str | os.PathLike[str]) -> tuple[np.ndarray, np.ndarray]:
        """Find the keypoints of images, or of all frames of a video.

        Args:
            images: `(N, H, W, C)` uint8 of any size, C 1 or 3. Or a path: of a video, an image, a
                folder of images or a dataset, read frame by frame, so that memory holds the results
                alone.

        Returns:
            Keypoints `(N, K, 2)` float32, x then y in px of the images, pixel centres at integers,
            and confidence `(N, K)` in 0..1. Of a run that finds several animals in an image
            `(N, I, K, 2)` and `(N, I, K)`, NaN where there is none. All is NaN for a frame that
            cannot be read; a line on stderr names it.

        Raises:
            HgtrainError: The file cannot be read, or ends too early; or the run sees crops and was
                opened without `centroids`.
            ValueError: An array of another shape or type.
        """
        self._check_finds_animals()
        if isinstance(images, str | os.PathLike):
            return self._opened.as_arrays(self._found_in(os.fspath(images)))
        return self._opened.predict(images)

    def export(
        self,
        folder: str | os.PathLike[str],
        format: str = "savedmodel",
        size: tuple[int, int] | None = None,
        data: Paths | None = None,
    ) -> Path:
        """Write the network for programs without hgtrain, as `hgtrain export` does.

        What was written is loaded and compared with the run's own predictions on real frames.

        Args:
            folder: The folder to write; it must not hold anything yet.
            format: `savedmodel`, `tflite` or `onnx`.
            size: Height and width in px to which images are fixed; None: any size, for tflite that
                of the dataset's images.
            data: Datasets with the frames for the check; None for the run's own.

        Returns:
            The folder. Lines on stderr say what the check found.

        Raises:
            HgtrainError: There is something in the folder, the format's library is missing, the
                data cannot be used or the check fails; the folder is then as it was.
        """
        from hgtrain.commands.export import export
        from hgtrain.export.formats import FORMATS

        if format not in FORMATS:
            raise RunError(f"format must be one of {', '.join(FORMATS)}, got {format!r}")
        self._check_finds_animals()
        for line in export(
            self.folder, Path(folder), format, size, _names(data), self._centroids, self._average
        ):
            say(line)
        return Path(folder)

    def _check_finds_animals(self) -> None:
        if self._opened.predictor.needs_centroids:
            raise RunError(
                f"{self.folder} sees crops around animals: open it together with the run that "
                f"finds these, hgtrain.load_run({str(self.folder)!r}, centroids=RUN)"
            )

    def _found_in(self, path: str) -> Poses:
        """Return what is found in every frame behind a path."""
        from hgtrain.predict.inputs import open_frames
        from hgtrain.predict.stream import predict_all

        parts: list[Poses] = []
        predictor = self._opened.predictor
        with closing(open_frames(path, predictor.preprocessing.channels)) as frames:
            problems = predict_all(
                predictor, [frames], lambda source, first, images, found: parts.append(found)
            )
        if problems:
            raise DatasetError("\n".join(map(str, problems))) from problems[0]
        return joined(parts)


def load_run(
    path: str | os.PathLike[str],
    refinement: str = "unbiased",
    centroids: str | os.PathLike[str] | None = None,
    average: Sequence[str] = (),
) -> Run:
    """Open the run in a run directory.

    Args:
        path: The run directory.
        refinement: How peaks are refined: `unbiased`, `integral`, `local` or `none`.
        centroids: The directory of the run that finds the animals, for a run that sees crops around
            them.
        average: `flips`, `rotations` or both: what `predict`, `evaluate` and `export` average over,
            as the option `--average` of the commands.

    Raises:
        HgtrainError: It is no run directory, or has no best model yet, or the two runs do not fit
            together.
    """
    # Its module has click's options too.
    from hgtrain.commands.options import DECODERS

    if refinement not in DECODERS.choices:
        known = ", ".join(DECODERS.choices)
        raise RunError(f"refinement must be one of {known}, got {refinement!r}")
    if isinstance(average, str) or not set(average) <= set(AVERAGES):
        raise RunError(f"average must be a list of {', '.join(AVERAGES)}, got {average!r}")
    finder = None if centroids is None else Path(centroids)
    return Run(load.load_run(Path(path), refinement, finder, average), finder, average)


def _names(data: Paths | None) -> list[str]:
    if data is None:
        return []
    several = [data] if isinstance(data, str | os.PathLike) else data
    return [os.fspath(path) for path in several]
