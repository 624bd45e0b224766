"""Chooses frames: those with the most against them, spread over time and appearance."""

import numpy as np

from hgtrain.next_frames.doubts import AN_ANIMAL, Doubts

FAR_PERCENTILE = 95
"""Of the distances between frames: that of frames which look nothing alike."""

NEAR_COPY = 0.2
"""Part of that distance below which two frames are copies of each other."""

ALIKE = 0.5
"""Part of that distance below which a frame counts less, the less it differs from one chosen."""

SPREAD = 4
"""Frames of one video are at least this part of their mean distance in time apart."""

STANDS_OUT = 0.8
"""Rank, of 0..1, from which on a measure is given as a reason."""

SAMPLED = 400
"""Frames whose distances to one another say what is far."""

ROWS_AT_ONCE = 8192


def scores(doubts: Doubts) -> tuple[np.ndarray, np.ndarray]:
    """Return how much speaks for each of N frames, and the ranks that make it up.

    A measure is ranked over all frames, so that px and confidence add up.

    Returns:
        `(N,)` in 0..1, the mean of the ranks that the frame has; and `(3, N)` ranks in 0..1, the
        higher the worse, of confidence, jump and flip, NaN where there is none.
    """
    ranks = np.stack([_ranks(-doubts.confidence), _ranks(doubts.jump.px), _ranks(doubts.flip.px)])
    # Nothing found where several animals may be: neither sure nor unsure.
    is_empty = np.isnan(doubts.confidence) & doubts.readable
    ranks[0, is_empty] = 0.5
    has = ~np.isnan(ranks)
    mean = np.where(has, ranks, 0).sum(0) / np.maximum(has.sum(0), 1)
    return np.where(doubts.readable, mean, np.nan), ranks


def _ranks(values: np.ndarray) -> np.ndarray:
    """Return ranks in 0..1, equal ones alike; NaN stays NaN."""
    known = np.flatnonzero(np.isfinite(values))
    ranks = np.full(len(values), np.nan)
    _, place, counts = np.unique(values[known], return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2
    ranks[known] = middle[place] / max(len(known) - 1, 1) if len(known) > 1 else 0.5
    return ranks


def choose(doubts: Doubts, in_time: np.ndarray, count: int) -> list[int]:
    """Return the frames to label, the most rewarding first.

    One after the other that frame is taken which has the highest score, times how little it looks
    like those that were taken. A frame that is a near-copy of one of them is never taken, so there
    may be fewer than `count`.

    Args:
        doubts: Of N frames.
        in_time: `(N,)` whether the frame is one of a video.
        count: How many, at most.
    """
    score, _ = scores(doubts)
    left = np.where(np.isnan(score), -1.0, score)
    far = far_distance(doubts.thumbnails[doubts.readable])
    gap = np.count_nonzero(in_time) // (SPREAD * count)
    nearest = np.full(len(left), np.inf)
    chosen: list[int] = []
    while len(chosen) < count:
        worth = np.where(left < 0, -1.0, left * np.minimum(nearest / (ALIKE * far or 1.0), 1.0))
        best = int(worth.argmax())
        if worth[best] < 0:
            break
        chosen.append(best)
        nearest = np.minimum(nearest, _distances(doubts.thumbnails, doubts.thumbnails[best]))
        near_in_time = (
            in_time
            & in_time[best]
            & (doubts.source == doubts.source[best])
            & (np.abs(doubts.number - doubts.number[best]) < gap)
        )
        left[near_in_time | (nearest <= NEAR_COPY * far)] = -1.0
        left[best] = -1.0
    return chosen


def far_distance(thumbnails: np.ndarray) -> float:
    """Return how far frames that look nothing alike are apart, of pictures `(N, P)` uint8."""
    places = np.unique(np.linspace(0, max(len(thumbnails) - 1, 0), SAMPLED).astype(int))
    some = thumbnails[places] if len(thumbnails) else thumbnails
    pairs = [_distances(some[i + 1 :], some[i]) for i in range(len(some))]
    apart = np.concatenate(pairs) if pairs else np.zeros(0)
    return float(np.percentile(apart, FAR_PERCENTILE)) if apart.size else 0.0


def _distances(thumbnails: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Return the root mean square difference of grey to each of `(N, P)`, `(N,)`."""
    parts = [
        np.sqrt(
            ((thumbnails[start : start + ROWS_AT_ONCE].astype(np.float32) - other) ** 2).mean(1)
        )
        for start in range(0, len(thumbnails), ROWS_AT_ONCE)
    ]
    return np.concatenate(parts) if parts else np.zeros(0, np.float32)


def reason(doubts: Doubts, ranks: np.ndarray, frame: int, names: tuple[str, ...]) -> str:
    """Return in words what speaks for a frame.

    Args:
        doubts: Of all frames.
        ranks: As `scores` gives them.
        frame: Which one.
        names: Of the keypoints.
    """
    given = np.nan_to_num(ranks[:, frame], nan=-1.0)
    stands_out = [part for part in range(3) if given[part] >= STANDS_OUT] or [int(given.argmax())]
    words = (_low_confidence, _jump, _flip)
    return "; ".join(words[part](doubts, frame, names) for part in stands_out)


def _low_confidence(doubts: Doubts, frame: int, names: tuple[str, ...]) -> str:
    points, confidence = doubts.found.points[frame], doubts.found.confidence[frame]
    is_there = np.isfinite(points).all(-1)
    if not is_there.any():
        return "no animal found"
    known = np.where(is_there, confidence, 0)
    animal = np.where(is_there.any(-1), known.mean(-1), np.inf).argmin()
    least = int(known[animal].argmin())
    of_all = f"low confidence {doubts.confidence[frame]:.2f}"
    return of_all if len(names) < 2 else f"{of_all} ({names[least]} {known[animal, least]:.2f})"


def _jump(doubts: Doubts, frame: int, names: tuple[str, ...]) -> str:
    keypoint = doubts.jump.keypoint[frame]
    if keypoint == AN_ANIMAL:
        return "an animal comes or goes"
    return f"{names[keypoint]} jumps {doubts.jump.px[frame]:.0f} px from the frame before"


def _flip(doubts: Doubts, frame: int, names: tuple[str, ...]) -> str:
    keypoint = doubts.flip.keypoint[frame]
    if keypoint == AN_ANIMAL:
        own = np.isfinite(doubts.found.points[frame]).any((1, 2)).sum()
        if own == doubts.mirrored[frame]:
            return "an animal is found elsewhere in the mirror image"
        return f"{own} animals found, {doubts.mirrored[frame]} in the mirror image"
    return f"{names[keypoint]} is {doubts.flip.px[frame]:.0f} px elsewhere in the mirror image"
