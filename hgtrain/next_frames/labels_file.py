"""Writes chosen frames: for SLEAP, with what was found as a start, and as a table with reasons."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain.data.convert.sleap_io import import_sleap_io, to_foreign_skeleton, to_foreign_video
from hgtrain.data.media.frame_source import FrameSource
from hgtrain.files import atomic_path
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton

COLUMNS = (
    "rank",
    "video",
    "frame",
    "time_s",
    "score",
    "reason",
    "confidence",
    "jump_px",
    "flip_px",
)


class Suggestion(NamedTuple):
    """A frame to label.

    Attributes:
        source: Where it comes from, a place in the list of sources.
        number: In its source, from 0.
        score: In 0..1.
        reason: In words.
        measures: Confidence, jump and flip in px, NaN where there is none.
        found: What was found in it, arrays for one frame.
    """

    source: int
    number: int
    score: float
    reason: str
    measures: tuple[float, float, float]
    found: Poses


def write_table(
    path: Path, sources: Sequence[FrameSource], suggestions: Sequence[Suggestion]
) -> None:
    """Write a CSV with a row for each suggestion, whole or not at all."""
    with atomic_path(path) as beside, beside.open("x", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(COLUMNS)
        for rank, one in enumerate(suggestions, start=1):
            source = sources[one.source]
            place = source.place(one.number)
            time_s = f"{one.number / source.rate:.3f}" if source.rate else ""
            measures = [f"{value:.4g}" if np.isfinite(value) else "" for value in one.measures]
            table.writerow(
                [rank, place.file, place.number, time_s, f"{one.score:.3f}", one.reason, *measures]
            )


def write_slp(
    path: Path,
    skeleton: Skeleton,
    sources: Sequence[FrameSource],
    suggestions: Sequence[Suggestion],
    model: str,
) -> None:
    """Write SLEAP's labels, whole or not at all.

    Each frame is a suggestion there, and a labelled frame with what was found as predicted
    instances, which a double click in SLEAP turns into labels.

    Args:
        path: The .slp.
        skeleton: Of what was found.
        sources: Where the frames come from.
        suggestions: The frames, the most rewarding first.
        model: What found it, for the file's provenance.

    Raises:
        RunError: sleap-io is not installed.
    """
    sleap_io = import_sleap_io(f"to write {path}")
    own = to_foreign_skeleton(skeleton)
    videos = [to_foreign_video(one.files, one.kind, one.shape, one.rate) for one in sources]
    frames = [
        sleap_io.LabeledFrame(
            video=videos[one.source],
            frame_idx=one.number,
            instances=_instances(sleap_io, own, one.found),
        )
        for one in suggestions
    ]
    wanted = [
        sleap_io.SuggestionFrame(video=videos[one.source], frame_idx=one.number)
        for one in suggestions
    ]
    labels = sleap_io.Labels(
        frames, videos=videos, skeletons=[own], suggestions=wanted, provenance={"model": model}
    )
    with atomic_path(path) as beside:
        sleap_io.save_slp(labels, str(beside), embed=False, verbose=False)


def _instances(sleap_io: Any, skeleton: Any, found: Poses) -> list[Any]:
    return [
        sleap_io.PredictedInstance.from_numpy(
            points.astype(np.float64),
            skeleton=skeleton,
            point_scores=np.nan_to_num(confidence.astype(np.float64)),
            score=float(score),
        )
        for points, confidence, score in zip(*found, strict=True)
        if np.isfinite(points).all(-1).any()
    ]
