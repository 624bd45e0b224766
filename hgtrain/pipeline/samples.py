"""What a batch is made of: whole frames, or the animals in them one by one."""

from typing import NamedTuple

import numpy as np

from hgtrain.coords import resized_points
from hgtrain.data.split import Subset


class Labels(NamedTuple):
    """Labels of samples.

    Attributes:
        points: `(n, I, K, 2)` float32 in px of the network's input, NaN where missing.
        weights: `(n, I, K)` float32, 1 where labelled.
        truth: Points in px of the dataset's images.
    """

    points: np.ndarray
    weights: np.ndarray
    truth: np.ndarray


class Samples:
    """The samples of one side of a split, by number.

    Attributes:
        frame_of: The row of the side's frames that a sample is of, `(S,)` int64; None where each
            frame is one sample.
    """

    def __init__(self, side: Subset, input_scale: float, of_animals: bool) -> None:
        """Number the samples.

        Args:
            side: Whose frames.
            input_scale: Factor by which images are resized.
            of_animals: Whether a sample is a labelled animal (I is 1) instead of a frame.
        """
        self._side, self._scale = side, input_scale
        self.frame_of: np.ndarray | None = None
        if of_animals:
            self.frame_of, self._slot = np.nonzero((side.labels()[1] > 0).any(-1))

    def __len__(self) -> int:
        return len(self._side.frames if self.frame_of is None else self.frame_of)

    def rows(self, samples: np.ndarray) -> np.ndarray:
        """Return the rows of the side's frames that samples `(n,)` are of."""
        return samples if self.frame_of is None else self.frame_of[samples]

    def labels(self, samples: np.ndarray) -> Labels:
        """Return the labels of samples `(n,)`."""
        points, visibility = self._side.labels(self.rows(samples))
        if self.frame_of is not None:
            animal = np.arange(len(samples))[:, None], self._slot[samples][:, None]
            points, visibility = points[animal], visibility[animal]
        labelled = visibility > 0
        truth = np.where(labelled[..., None], points, np.nan).astype(np.float32)
        return Labels(
            resized_points(truth, self._scale).astype(np.float32),
            labelled.astype(np.float32),
            truth,
        )
