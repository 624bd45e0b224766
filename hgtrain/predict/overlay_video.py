"""A video of the predicted images with the predictions drawn in."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL.Image import Image

from hgtrain.data.media.drawing import BONE_COLOUR, COLOURS, Drawing, animal_colour
from hgtrain.data.media.frame_source import FrameSource
from hgtrain.data.media.video import reason
from hgtrain.errors import RunError
from hgtrain.files import path_beside, take_place
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton

if TYPE_CHECKING:
    from av import VideoStream
    from av.container import OutputContainer

DEFAULT_RATE = 10.0
LEAST_SIDE_PX = 480
MAX_RATE = 240
DRAWN_CONFIDENCE = 0.1


def check_video(path: Path) -> None:
    """Raise RunError where no video can be written to a path."""
    beside = path_beside(path)
    try:
        _opened(beside, path).close()
    finally:
        beside.unlink(missing_ok=True)


def _opened(beside: Path, path: Path) -> "OutputContainer":
    import av

    try:
        return av.open(str(beside), "w")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise RunError(f"{path} cannot be written as a video: {reason(error)}") from error


class OverlayVideo:
    """An H.264 video, opened with the first frame, whose size and rate the others follow.

    One animal has a colour for each keypoint. Where a frame may hold several, each has a colour of
    its own, which the nearest animal of the next frame takes over; more than that is not tracked.
    Points of less than DRAWN_CONFIDENCE are not drawn.
    """

    def __init__(self, path: Path, skeleton: Skeleton, sources: Sequence[FrameSource]) -> None:
        self.path = path
        self._skeleton, self._sources = skeleton, sources
        self._places, self._source = _Places(), -1
        self._beside = path_beside(path)
        self._stream: VideoStream | None = None
        self._container = _opened(self._beside, path)

    def write(self, source: int, images: np.ndarray, found: Poses) -> None:
        """Add images `(n, H, W, C)` uint8 of a source with what was found in them."""
        import av

        if source != self._source:
            self._places, self._source = _Places(), source
        for image, points, confidence in zip(images, found.points, found.confidence, strict=True):
            picture = self._drawn(image, points, confidence)
            if self._stream is None:
                rate = min(self._sources[source].rate or DEFAULT_RATE, MAX_RATE)
                self._stream = self._container.add_stream(
                    "libx264", rate=Fraction(rate).limit_denominator(1001)
                )
                self._stream.width, self._stream.height = picture.size
                self._stream.pix_fmt = "yuv420p"
            size = self._stream.width, self._stream.height
            if picture.size != size:
                picture = picture.resize(size)
            self._container.mux(self._stream.encode(av.VideoFrame.from_image(picture)))

    def _drawn(self, image: np.ndarray, points: np.ndarray, confidence: np.ndarray) -> Image:
        zoom = max(1, -(-LEAST_SIDE_PX // max(image.shape[:2])))
        # H.264 with halved colour needs even sides.
        height, width = (side * zoom + side * zoom % 2 for side in image.shape[:2])
        drawing = Drawing(image, zoom, (width, height))
        radius, several = max(2, max(width, height) // 200), len(points) > 1
        sure = np.where((confidence >= DRAWN_CONFIDENCE)[..., None], points, np.nan)
        for place, animal in zip(self._places(sure), sure, strict=True):
            own = animal_colour(place)
            drawing.bones(
                animal, self._skeleton.edges, own if several else BONE_COLOUR, max(1, radius // 2)
            )
            drawing.dots(animal, (own,) if several else COLOURS, radius)
        return drawing.picture

    def close(self) -> None:
        """Finish the video; without a frame there is none."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if self._stream is not None:
            take_place(self._beside, self.path)
        else:
            self._beside.unlink(missing_ok=True)


class _Places:
    """Gives each animal of a frame a place of its own, in one frame after the other.

    It is that of the nearest animal seen before, the nearest pairs first.
    """

    def __init__(self) -> None:
        self._middles = np.empty((0, 2))

    def __call__(self, points: np.ndarray) -> list[int]:
        """Return the places of animals `(J, K, 2)` px, each of 0 to J - 1 once."""
        if len(self._middles) != len(points):
            self._middles = np.full((len(points), 2), np.nan)
        is_there = np.isfinite(points).all(-1, keepdims=True)
        counts = is_there.sum(1)
        middles = np.where(is_there, points, 0).sum(1) / np.where(counts, counts, np.nan)
        distance = np.linalg.norm(middles[:, None] - self._middles, axis=-1)
        places = dict(_nearest_first(np.where(np.isnan(distance), np.inf, distance)))
        free = iter(sorted(set(range(len(points))) - set(places.values())))
        # Those that are there first, for the low places.
        for animal in np.argsort(counts[:, 0] == 0, kind="stable").tolist():
            if animal not in places:
                places[animal] = next(free)
            if counts[animal, 0]:
                self._middles[places[animal]] = middles[animal]
        return [places[animal] for animal in range(len(points))]


def _nearest_first(distance: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield pairs of `(J, J)` with the smallest distance, each row and column once."""
    left = distance.copy()
    while left.size and np.isfinite(left.min()):
        row, column = divmod(int(left.argmin()), left.shape[1])
        yield row, column
        left[row], left[:, column] = np.inf, np.inf
