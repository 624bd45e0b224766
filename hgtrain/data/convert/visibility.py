"""What other programs' visibility of keypoints means."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

from hgtrain.data.dataset import HIDDEN, NOT_LABELLED, VISIBLE

HIDDEN_KEPT = "hidden points have places"
"""In the provenance of labels: points that are not visible are labelled all the same."""

LEFT_OUT = "left out"
"""In the provenance of labels: a Counter of what was left out when they were read, and why."""

UNLABELLED = "point marked as not labelled (visibility 0)"
AT_ORIGIN = "point at 0, 0, which stands for none"


def checked_visibility(x: float, y: float, seen: float, left_out: Counter[str]) -> int:
    """Return the visibility of a keypoint that a file gives, 0 where it is not to be used.

    A point at 0, 0 is none, whatever its visibility, and one of visibility 0 is not labelled,
    wherever it is: programs leave old or guessed places there.

    Args:
        x: In any unit.
        y: In the same.
        seen: 0, 1 or 2 as in COCO; anything else above 0 is a confidence.
        left_out: Counts what looks labelled and is not used.
    """
    is_placed = not x == y == 0
    if not seen > 0:
        left_out[UNLABELLED] += is_placed
        return NOT_LABELLED
    if not is_placed:
        left_out[AT_ORIGIN] += 1
        return NOT_LABELLED
    return HIDDEN if seen == HIDDEN else VISIBLE


def mark_hidden(labels: Any, seen: Sequence[Sequence[Sequence[int]]]) -> None:
    """Mark the points of visibility 1 as not visible, which sleap-io takes for visible.

    Where no point has 2, visibility is written as 0 and 1, and 1 means visible.

    Args:
        labels: sleap-io's.
        seen: The visibility of each keypoint of each animal of each frame.
    """
    if not any(VISIBLE in animal for animals in seen for animal in animals):
        return
    labels.provenance[HIDDEN_KEPT] = True
    for frame, animals in zip(labels.labeled_frames, seen, strict=True):
        for instance, animal in zip(frame.instances, animals, strict=True):
            instance.points["visible"] &= [value != HIDDEN for value in animal]
