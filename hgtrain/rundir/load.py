"""A run directory opened again: its config, its best model, its predictions."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from zipfile import BadZipFile, is_zipfile

import numpy as np

from hgtrain.config.load import load_config
from hgtrain.config.schema import Config
from hgtrain.data.open_split import open_with_notes
from hgtrain.data.split import Split, split_from_json
from hgtrain.errors import RunError
from hgtrain.log import doing, say
from hgtrain.poses import CENTROID, Poses
from hgtrain.predict.turns import AVERAGES, turns_of
from hgtrain.rundir import layout
from hgtrain.rundir.records import read_described_data, read_split
from hgtrain.skeleton import Skeleton, check_same_keypoints

ALL_WAYS_DEG = 270
"""A range of rotations that comes near to all quarters."""

if TYPE_CHECKING:
    import keras

    from hgtrain.predict.predictor import Predictor


def load_predictor(
    config: Config,
    folder: Path,
    image_shape: tuple[int, int, int],
    skeleton: Skeleton,
    refinement: str = "unbiased",
    average: Sequence[str] = (),
) -> "Predictor":
    """Return the best model of a run with what surrounds it.

    Args:
        config: Of the run.
        folder: Of the run.
        image_shape: `(H, W, C)` of the dataset's images.
        skeleton: Of the dataset.
        refinement: A key of `heads.decoding.peaks.DECODERS`.
        average: Of `predict.turns.AVERAGES`: over what is averaged.

    Raises:
        RunError: Where there is no model, or it cannot be opened.
    """
    _check_best(folder)
    from hgtrain.tensorflow_setup import import_tensorflow

    import_tensorflow()
    import keras

    from hgtrain.heads import make_head
    from hgtrain.pipeline.preprocess import preprocessing_of
    from hgtrain.predict.averaging import Averaging
    from hgtrain.predict.predictor import Predictor

    path = folder / layout.BEST
    try:
        with doing(f"opening {path}"):
            model = keras.models.load_model(path, compile=False, safe_mode=True)
    except (OSError, ValueError, KeyError, BadZipFile) as error:
        raise RunError(f"{path} cannot be opened, the file is damaged: {error}") from error
    backbone = config.model.backbone
    return Predictor(
        model,
        make_head(config.model.head, skeleton, backbone.output_stride),
        preprocessing_of(config.data, backbone.max_stride, image_shape),
        config.training.batch_size,
        refinement,
        Averaging(turns_of(average, config.augmentation.flip), skeleton.symmetries)
        if average
        else None,
    )


class CheckedRun(NamedTuple):
    """A run of which all is known that can be without TensorFlow.

    Attributes:
        folder: The run directory.
        config: Of the run.
        skeleton: Names, edges and partners of its keypoints.
        image_shape: `(H, W, C)` of the dataset's images.
    """

    folder: Path
    config: Config
    skeleton: Skeleton
    image_shape: tuple[int, int, int]

    @property
    def channels(self) -> int:
        """Return the channels of the images that the network takes."""
        return self.config.data.channels or self.image_shape[2]


def check_run(path: str | Path, centroids: str | Path | None = None) -> CheckedRun:
    """Return what the files of a run say, without its network.

    Args:
        path: The run directory.
        centroids: That of a run which finds animals, where the run itself sees crops around them.

    Raises:
        HgtrainError: It is no run directory, or has no best model yet, or the two do not fit
            together.
    """
    folder = Path(path)
    if not (folder / layout.CONFIG).is_file():
        raise RunError(f"{folder} is no run directory: it has no {layout.CONFIG}")
    config = load_config(folder / layout.CONFIG)
    skeleton, image_shape = read_described_data(folder)
    if centroids is not None:
        _check_centroids(folder, config, skeleton, Path(centroids))
        _check_best(Path(centroids))
    _check_best(folder)
    return CheckedRun(folder, config, skeleton, image_shape)


def _check_best(folder: Path) -> None:
    """Raise RunError where a run has no best model, or one that is no file of Keras."""
    path = folder / layout.BEST
    if not path.is_file():
        raise RunError(f"{path} is missing: the run has not finished an epoch yet")
    if not is_zipfile(path):
        raise RunError(f"{path} cannot be opened, the file is damaged: it is no zip archive")


class Run(NamedTuple):
    """A run with a best model.

    Attributes:
        folder: The run directory.
        config: Of the run.
        skeleton: Names, edges and partners of its keypoints.
        predictor: The best model with what surrounds it.
    """

    folder: Path
    config: Config
    skeleton: Skeleton
    predictor: "Predictor"

    @property
    def model(self) -> "keras.Model":
        """Return the network of best.keras.

        It leads from images `(B, H, W, C)`, 0..255, to the last stack's maps.
        """
        return self.predictor.model

    @property
    def found_skeleton(self) -> Skeleton:
        """Return the skeleton of what the run finds, which may be centroids alone."""
        if self.predictor.keypoints == len(self.skeleton.keypoint_names):
            return self.skeleton
        return Skeleton((CENTROID,))

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the keypoints of images.

        Args:
            images: `(N, H, W, C)` uint8.

        Returns:
            Keypoints `(N, K, 2)` float32 in pixels of `images`, and confidence `(N, K)`; where an
            image may hold several animals `(N, I, K, 2)` and `(N, I, K)`, NaN where there is none.
        """
        return self.as_arrays(self.predictor(images))

    def as_arrays(self, found: Poses) -> tuple[np.ndarray, np.ndarray]:
        """Return what the run found as `predict` does, without the axis of a single animal."""
        if self.predictor.head.several_animals:
            return found.points, found.confidence
        return found.points[:, 0], found.confidence[:, 0]


def load_run(
    path: str | Path,
    refinement: str = "unbiased",
    centroids: str | Path | None = None,
    average: Sequence[str] = (),
) -> Run:
    """Return the run in a run directory.

    Args:
        path: The run directory.
        refinement: A key of `heads.decoding.peaks.DECODERS`.
        centroids: That of a run which finds animals, where the run itself sees crops around them.
        average: "flips", "rotations" or both: predictions are averaged over images so changed.

    Raises:
        HgtrainError: It is no run directory, or has no best model yet, or the two do not fit
            together.
    """
    folder, config, skeleton, image_shape = check_run(path, centroids)
    for note in _unseen(config, average):
        say(f"{folder} {note}")
    predictor = load_predictor(config, folder, image_shape, skeleton, refinement, average)
    if centroids is not None:
        from hgtrain.predict.top_down import TopDownPredictor

        predictor = TopDownPredictor(
            load_run(centroids, refinement, average=average).predictor, predictor
        )
    return Run(folder, config, skeleton, predictor)


def _unseen(config: Config, average: Sequence[str]) -> Iterator[str]:
    """Give what is averaged over though the network was not trained with it.

    Raises:
        ValueError: `average` has other names.
    """
    for name in average:
        if name not in AVERAGES:
            raise ValueError(f"average must be of {', '.join(AVERAGES)}, got {name!r}")
    augmentation = config.augmentation
    if "flips" in average and augmentation.flip == "none":
        yield (
            "was trained without mirrored images (augmentation.flip: none): averaging over them "
            "may make it worse"
        )
    low, high = augmentation.rotation_deg or (0, 0)
    if "rotations" in average and high - low < ALL_WAYS_DEG:
        yield (
            "was not trained with images turned all ways (augmentation.rotation_deg: "
            f"[{low:g}, {high:g}]): averaging over them may make it worse"
        )


def check_finds_animals(folder: Path, centroids: Path | None) -> None:
    """Raise RunError where a run sees crops and no other run finds the animals for it."""
    if centroids is None and load_config(folder / layout.CONFIG).model.head.sees_crops:
        raise RunError(
            f"{folder} sees crops around animals: name the run that finds these with "
            "--centroids RUN"
        )


def _check_centroids(folder: Path, config: Config, skeleton: Skeleton, centroids: Path) -> None:
    """Raise an HgtrainError unless the run `centroids` finds the animals the other crops around."""
    if not config.model.head.sees_crops:
        raise RunError(
            f"--centroids belongs to a run that sees crops around animals, and {folder} has a "
            f"{config.model.head.type} head: leave it out"
        )
    if not (centroids / layout.CONFIG).is_file():
        raise RunError(f"{centroids} is no run directory: it has no {layout.CONFIG}")
    finder = load_config(centroids / layout.CONFIG)
    if not finder.model.head.finds_centroids:
        raise RunError(
            f"--centroids must be a run that finds centroids, and {centroids} has a "
            f"{finder.model.head.type} head"
        )
    names = read_described_data(centroids)[0].keypoint_names
    check_same_keypoints(names, skeleton.keypoint_names, centroids, folder)
    anchors = finder.model.head.anchor, config.model.head.anchor
    if anchors[0] != anchors[1]:
        raise RunError(
            f"{centroids} finds animals at {anchors[0] or 'the middle of their points'} "
            f"(model.head.anchor), and {folder} was trained around "
            f"{anchors[1] or 'the middle of their points'}: they must be the same"
        )


@contextmanager
def reopened_split(run: Run | CheckedRun) -> Iterator[Split]:
    """Give the split a run was made with, on its datasets opened again.

    Raises:
        HgtrainError: One of them has changed.
    """
    data, document = run.config.data, read_split(run.folder)
    if not {"train", "validation"} <= document.keys():
        raise RunError(
            f"{run.folder / layout.SPLIT} names no frames, the labels were not at hand: give the "
            "data itself"
        )
    own = data.validation_files
    with (
        open_with_notes(data.train_files, data.annotated_only) as train,
        nullcontext() if own is None else open_with_notes(own, data.annotated_only) as validation,
    ):
        yield split_from_json(document, train, validation)
