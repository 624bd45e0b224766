"""What was found in images: points and confidence."""

from typing import NamedTuple

import numpy as np


class Found(NamedTuple):
    """Predictions of some frames.

    Points `(n, I, K, 2)` px, confidence `(n, I, K)` and scores `(n, I)`.
    """

    points: np.ndarray
    confidence: np.ndarray
    scores: np.ndarray
