"""A video of the predicted images with the predictions drawn in."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from hgtrain.data.media.frame_source import FrameSource
from hgtrain.data.media.video import reason
from hgtrain.errors import RunError
from hgtrain.files import path_beside, take_place
from hgtrain.poses import Poses
from hgtrain.skeleton import Skeleton

DEFAULT_RATE = 10.0
LEAST_SIDE_PX = 480
MAX_RATE = 240
DRAWN_CONFIDENCE = 0.1
# Okabe and Ito's palette: distinguishable with any colour vision.
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
)


class OverlayVideo:
    """An H.264 video, opened with the first frame, whose size and rate the others follow.

    Points of less than DRAWN_CONFIDENCE are not drawn.
    """

    def __init__(self, path: Path, skeleton: Skeleton, sources: Sequence[FrameSource]) -> None:
        import av

        self.path = path
        self._skeleton, self._sources = skeleton, sources
        self._beside = path_beside(path)
        self._stream: av.VideoStream | None = None
        try:
            self._container = av.open(str(self._beside), "w")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise RunError(f"{path} cannot be written as a video: {reason(error)}") from error

    def write(self, source: int, images: np.ndarray, found: Poses) -> None:
        """Add images `(n, H, W, C)` uint8 of a source with what was found in them."""
        import av

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

    def _drawn(self, image: np.ndarray, points: np.ndarray, confidence: np.ndarray) -> Image.Image:
        zoom = max(1, -(-LEAST_SIDE_PX // max(image.shape[:2])))
        picture = Image.fromarray(
            np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
        )
        # H.264 with halved colour needs even sides.
        width, height = (side * zoom + side * zoom % 2 for side in picture.size)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
        pen, radius = ImageDraw.Draw(picture), max(2, max(width, height) // 200)
        for animal, sure in zip((points + 0.5) * zoom - 0.5, confidence, strict=True):
            shown = np.isfinite(animal).all(-1) & (sure >= DRAWN_CONFIDENCE)
            for a, b in self._skeleton.edges:
                if shown[a] and shown[b]:
                    pen.line(
                        [tuple(animal[a]), tuple(animal[b])],
                        fill=(255, 255, 255),
                        width=max(1, radius // 2),
                    )
            for k in np.flatnonzero(shown):
                x, y = animal[k]
                pen.ellipse(
                    (x - radius, y - radius, x + radius, y + radius), fill=COLOURS[k % len(COLOURS)]
                )
        return picture

    def close(self) -> None:
        """Finish the video; without a frame there is none."""
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
        if self._stream is not None:
            take_place(self._beside, self.path)
        else:
            self._beside.unlink(missing_ok=True)
