"""All metrics of the poses in a set of frames, for one animal a frame and for several."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hgtrain.evaluate.keypoint_errors import extra_metrics
from hgtrain.evaluate.matching import frame_matches
from hgtrain.evaluate.metrics import pose_metrics, visibility_metrics
from hgtrain.evaluate.pairs import group_purity, in_place_of_labels, pair_animals
from hgtrain.poses import Poses


def poses_metrics(
    truth: np.ndarray,
    visibility: np.ndarray,
    found: Poses,
    names: Sequence[str],
    groups: np.ndarray | None = None,
    several: bool = False,
) -> dict[str, Any]:
    """Return the metrics of contract section 5 but for `images_per_s`, and `extra_metrics`.

    For one animal a frame what is predicted is this animal, however far it is. For several,
    predicted animals are matched with labelled ones first (`pair_animals`): errors, `visibility`
    and `calibration` are over matched pairs, while the keypoints of a missed animal count against
    `pck`, and the animal with 0 in `oks`. Average precision and recall match on their own, as COCO
    does.

    Args:
        truth: `(N, I, K, 2)` px, NaN where missing; an animal without a labelled position does not
            count.
        visibility: `(N, I, K)`, 0 not labelled.
        found: J animals a frame, NaN where there are fewer.
        names: Of the keypoints.
        groups: `(N,)` names of the frames; None gives an empty list.
        several: Whether the head is for several animals; where not, I and J are 1.

    Returns:
        Plain JSON values, None where undefined. For several animals `instances` (`labelled`,
        `predicted`, `matched`, `missed`, `extra`) and `group_purity` are there too.
    """
    if not several:
        one = truth[:, 0], visibility[:, 0], found.points[:, 0], found.confidence[:, 0]
        return pose_metrics(*one, names) | extra_metrics(*one, groups)
    pairs = pair_animals(truth, visibility, found.points)
    poses = in_place_of_labels(found, pairs)
    of_labels = truth, visibility, poses.points, poses.confidence
    matches = frame_matches(truth, visibility, found.points, found.scores)
    is_pair = pairs >= 0
    return {
        **pose_metrics(*of_labels, names),
        "visibility": visibility_metrics(
            truth[is_pair], visibility[is_pair], poses.confidence[is_pair]
        ),
        **extra_metrics(*of_labels, groups, matches),
        "instances": _counts(truth, visibility, found, int(is_pair.sum())),
        "group_purity": group_purity(truth, visibility, found.points),
    }


def _counts(
    truth: np.ndarray, visibility: np.ndarray, found: Poses, matched: int
) -> dict[str, int]:
    labelled = int(((visibility > 0) & np.isfinite(truth).all(-1)).any(-1).sum())
    predicted = int(np.isfinite(found.points).all(-1).any(-1).sum())
    return {
        "labelled": labelled,
        "predicted": predicted,
        "matched": matched,
        "missed": labelled - matched,
        "extra": predicted - matched,
    }
