"""The validation frames of a report: what is labelled in them beside what was found."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain.data.split import Subset
from hgtrain.evaluate.keypoint_errors import Errors, keypoint_errors
from hgtrain.evaluate.pairs import in_place_of_labels, pair_animals
from hgtrain.poses import Poses
from hgtrain.report.tiles import EXTRA, MISSED, PAIRED, Animal, Tile, compared_tile


class Compared(NamedTuple):
    """Labelled animals with those that were found.

    Attributes:
        truth: `(N, I, K, 2)` px, NaN where nothing is labelled.
        found: J animals a frame.
        pairs: `(N, I)`, which of the found animals a labelled one is; -1 for none.
        errors: Of the pairs, `(N, I, K)`.
    """

    truth: np.ndarray
    found: Poses
    pairs: np.ndarray
    errors: Errors

    @property
    def missed(self) -> np.ndarray:
        """Return which labelled animals were not found, `(N, I)` bool."""
        return self.errors.labelled.any(-1) & (self.pairs < 0)

    @property
    def extra(self) -> np.ndarray:
        """Return which found animals are no labelled one, `(N, J)` bool."""
        is_found = np.isfinite(self.found.points).all(-1).any(-1)
        places = np.arange(is_found.shape[1])[:, None]
        return is_found & ~(places == self.pairs[:, None]).any(-1)

    @property
    def mean_errors(self) -> np.ndarray:
        """Return the mean error of each frame, `(N,)` px; NaN where none could be measured."""
        count, instances, keypoints = self.errors.located.shape
        counts = self.errors.located.sum((1, 2))
        sums = np.nansum(self.errors.distance.reshape(count, instances * keypoints), -1)
        return np.where(counts, sums / np.maximum(counts, 1), np.nan)


def compare(truth: np.ndarray, visibility: np.ndarray, found: Poses, several: bool) -> Compared:
    """Return labelled animals with those that were found.

    Args:
        truth: `(N, I, K, 2)` px, NaN where missing.
        visibility: `(N, I, K)`, 0 not labelled.
        found: `(N, J, ...)`.
        several: Whether a frame may hold several animals. Where not, I and J are 1, and what is
            found is the labelled animal, however far it is.
    """
    pairs = np.zeros(truth.shape[:2], int)
    if several:
        pairs = pair_animals(truth, visibility, found.points)
    errors = keypoint_errors(truth, visibility, in_place_of_labels(found, pairs).points)
    return Compared(np.where(errors.labelled[..., None], truth, np.nan), found, pairs, errors)


def worst_first(compared: Compared) -> np.ndarray:
    """Return the frames that are not without fault, the worst first.

    Those with more animals missed and extra come before those with fewer; among these those with
    the larger mean error.
    """
    wrong = compared.missed.sum(-1) + compared.extra.sum(-1)
    mean = np.nan_to_num(compared.mean_errors, nan=-1.0)
    order = np.lexsort((-mean, -wrong))
    return order[(wrong[order] > 0) | (mean[order] >= 0)]


def frame_tile(compared: Compared, row: int, side: Subset, names: Sequence[str]) -> Tile:
    """Return the picture of a frame with all its animals.

    Args:
        compared: All frames of the side.
        row: Which of them.
        side: Whose frames they are.
        names: Of the keypoints that are looked for.
    """
    dataset, frame = side.dataset, int(side.frames[row])
    image = dataset.read_images([frame])[0]
    caption = {"frame": frame, "where": _short_location(dataset.location(frame))}
    animals = frame_animals(compared, row)
    return compared_tile(image, animals, caption | frame_caption(compared, row, names))


def frame_animals(compared: Compared, row: int) -> list[Animal]:
    """Return the animals of a frame: pairs and what was missed, then what is extra."""
    points = compared.found.points[row]
    nothing = np.full(points.shape[1:], np.nan)
    labelled = [
        Animal(truth, nothing if pair < 0 else points[pair], MISSED if is_missed else PAIRED)
        for truth, pair, is_missed in zip(
            compared.truth[row], compared.pairs[row], compared.missed[row], strict=True
        )
        if pair >= 0 or is_missed
    ]
    extra = np.flatnonzero(compared.extra[row])
    return labelled + [Animal(nothing, points[place], EXTRA) for place in extra]


def frame_caption(compared: Compared, row: int, names: Sequence[str]) -> dict[str, Any]:
    """Return what is said of a frame.

    Args:
        compared: All frames.
        row: Which of them.
        names: Of the keypoints.

    Returns:
        `mean` error, `worst_px` and the keypoint `worst_name` that has it, mean `confidence` of
        what was found, each None where there is none; and `labelled`, `missed` and `extra` animals.
    """
    distance = compared.errors.distance[row].ravel()
    caption: dict[str, Any] = {
        "mean": None,
        "worst_px": None,
        "worst_name": None,
        "confidence": None,
        "labelled": int(compared.errors.labelled[row].any(-1).sum()),
        "missed": int(compared.missed[row].sum()),
        "extra": int(compared.extra[row].sum()),
    }
    if compared.errors.located[row].any():
        worst = int(np.nanargmax(distance))
        caption |= {
            "mean": float(np.nanmean(distance)),
            "worst_px": float(distance[worst]),
            "worst_name": names[worst % len(names)],
        }
    sure = compared.found.confidence[row]
    sure = sure[np.isfinite(sure)]
    return caption | ({"confidence": float(sure.mean())} if len(sure) else {})


def _short_location(location: str) -> str:
    """Return a location without the folders of its file: `flies.h5:/images[5]`."""
    file, colon, inside = location.partition(":")
    return Path(file).name + colon + inside
