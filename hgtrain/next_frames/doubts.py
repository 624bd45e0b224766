"""What speaks for labelling a frame: low confidence, jumps, another result in the mirror image."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from hgtrain.data.media.frame_source import FrameSource
from hgtrain.evaluate.pairs import SMALLEST_REACH_PX, pair_animals
from hgtrain.next_frames.both_ways import halves
from hgtrain.poses import Poses, joined

THUMBNAIL_PX = 24
"""Side of the small grey pictures by which frames are compared."""

AN_ANIMAL = -1
"""In place of a keypoint: a whole animal has no counterpart."""


class Difference(NamedTuple):
    """How far animals of one picture are from those of another, for each of N pairs of pictures.

    Attributes:
        px: Of the keypoint that is farthest away; NaN where there is nothing to compare.
        keypoint: Which one that is, AN_ANIMAL where an animal has no counterpart.
    """

    px: np.ndarray
    keypoint: np.ndarray


class Doubts(NamedTuple):
    """What is known of N frames.

    Attributes:
        source: Of each frame, as a place in the list of sources.
        number: Of each frame in its source, from 0.
        found: What was found in them.
        mirrored: How many animals were found in the mirror images.
        confidence: Mean of the keypoints, of the animal with the lowest; 0 where the only animal
            was not found, NaN where several may be there and none was found, or the frame cannot
            be read.
        jump: From the frame before; NaN for all but videos.
        flip: From what is found in the mirror image.
        thumbnails: `(N, THUMBNAIL_PX ** 2)` uint8.
        readable: Whether the frame could be read.
    """

    source: np.ndarray
    number: np.ndarray
    found: Poses
    mirrored: np.ndarray
    confidence: np.ndarray
    jump: Difference
    flip: Difference
    thumbnails: np.ndarray
    readable: np.ndarray


class DoubtsSink:
    """Takes batches of frames with what `BothWays` found, in order, and keeps what says of them.

    That is some hundred bytes a frame, not the images.

    Args:
        sources: Where the frames come from.
        several_animals: Whether an image may hold several.
    """

    def __init__(self, sources: Sequence[FrameSource], several_animals: bool) -> None:
        self._sources = sources
        self._several = several_animals
        self._parts: list[Doubts] = []
        self._last: Poses | None = None
        self._is_last_readable = False

    def __call__(self, source: int, first: int, images: np.ndarray, found: Poses) -> None:
        """Take a batch; see `predict.stream.Sink`."""
        own, other = halves(found)
        count = len(images)
        # Of a frame that cannot be read the stream gives a black image and NaN for all.
        readable = np.isfinite(found.scores).any(1) | images.any((1, 2, 3))
        confidence = frame_confidence(own, self._several)
        self._parts.append(
            Doubts(
                np.full(count, source),
                first + np.arange(count),
                own,
                np.isfinite(other.points).any((2, 3)).sum(1),
                np.where(readable, confidence, np.nan),
                self._jump(source, first, own, readable),
                difference(own.points, other.points, self._several),
                np.stack([thumbnail(image) for image in images]),
                readable,
            )
        )

    def _jump(self, source: int, first: int, own: Poses, readable: np.ndarray) -> Difference:
        """Return how far animals are from where they were in the frame before."""
        if self._last is None or first == 0:
            self._last, self._is_last_readable = own, False
        before = np.concatenate([self._last.points[-1:], own.points[:-1]])
        is_known = readable & np.append(self._is_last_readable, readable[:-1])
        self._last, self._is_last_readable = own, bool(readable[-1])
        jump = difference(own.points, before, self._several)
        is_known &= self._sources[source].kind == "video"
        return jump._replace(px=np.where(is_known, jump.px, np.nan))

    def doubts(self) -> Doubts | None:
        """Return what is known of all frames, None where there were none."""
        if not self._parts:
            return None
        return _joined(self._parts)


def _joined(parts: Sequence[Doubts]) -> Doubts:
    def column(name: str) -> np.ndarray:
        return np.concatenate([getattr(part, name) for part in parts])

    def differences(name: str) -> Difference:
        both = [getattr(part, name) for part in parts]
        return Difference(*(np.concatenate(values) for values in zip(*both, strict=True)))

    return Doubts(
        column("source"),
        column("number"),
        joined([part.found for part in parts]),
        column("mirrored"),
        column("confidence"),
        differences("jump"),
        differences("flip"),
        column("thumbnails"),
        column("readable"),
    )


def frame_confidence(found: Poses, several_animals: bool) -> np.ndarray:
    """Return the mean confidence of the keypoints of each frame `(N,)`, of its least sure animal.

    A keypoint that was not found counts as 0. Where no animal was found it is NaN if there may be
    several, who may all have left, or else 0.
    """
    is_there = np.isfinite(found.points).all(-1)
    mean = np.where(is_there, found.confidence, 0).mean(-1)
    lowest = np.where(is_there.any(-1), mean, np.inf).min(-1)
    return np.where(np.isinf(lowest), np.nan if several_animals else 0.0, lowest)


def difference(points: np.ndarray, others: np.ndarray, several_animals: bool) -> Difference:
    """Return how far the animals of frames are from those of others.

    Several animals are matched as `evaluate.pairs` does; one that has no counterpart is as far away
    as it is large.

    Args:
        points: `(N, I, K, 2)` px, NaN where not found.
        others: The same.
        several_animals: Whether there may be several.
    """
    here, there = (np.isfinite(each).all(-1) for each in (points, others))
    lonely = np.full(len(points), np.nan)
    if several_animals:
        pairs = pair_animals(points, here, others)
        is_paired = pairs >= 0
        others_paired = np.zeros(there.shape[:2], bool)
        frames, places = np.nonzero(is_paired)
        others_paired[frames, pairs[frames, places]] = True
        lonely = np.fmax(
            _largest(points, here & ~is_paired[..., None]),
            _largest(others, there & ~others_paired[..., None]),
        )
        others = np.where(
            is_paired[..., None, None],
            np.take_along_axis(others, np.maximum(pairs, 0)[..., None, None], axis=1),
            np.nan,
        )
    distance = np.linalg.norm(points - others, axis=-1)
    of_keypoint = np.where(np.isfinite(distance), distance, -1).max(1)
    farthest = of_keypoint.argmax(-1)
    px = np.take_along_axis(of_keypoint, farthest[:, None], axis=1)[:, 0].astype(np.float64)
    px[px < 0] = np.nan
    is_lonely = ~np.isnan(lonely) & ~(px > lonely)
    return Difference(np.where(is_lonely, lonely, px), np.where(is_lonely, AN_ANIMAL, farthest))


def _largest(points: np.ndarray, is_there: np.ndarray) -> np.ndarray:
    """Return the longer side in px of the largest animal of each frame, NaN where there is none."""
    low = np.where(is_there[..., None], points, np.inf).min(2)
    high = np.where(is_there[..., None], points, -np.inf).max(2)
    sides = np.maximum((high - low).max(-1), SMALLEST_REACH_PX)
    sides = np.where(is_there.any(-1), sides, -1).max(1)
    return np.where(sides < 0, np.nan, sides)


def thumbnail(image: np.ndarray) -> np.ndarray:
    """Return an image `(H, W, C)` uint8 as a small grey picture, `(THUMBNAIL_PX ** 2,)` uint8."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    small = picture.convert("L").resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
    return np.asarray(small).ravel()
