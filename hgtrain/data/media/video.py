"""Reads the frames of videos."""

import re
from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from hgtrain.data.media.frame_source import Place
from hgtrain.data.media.image_files import MODES
from hgtrain.errors import DatasetError

if TYPE_CHECKING:
    import av

TELL_DURATION = {"matroska", "flv", "avi", "asf", "mov"}
"""FFmpeg's names of containers whose header has the film's length.

Of others it is an estimate from what is there.
"""
FEWER_ALLOWED = 3
"""Frames that a film may end before its header says.

Durations are rounded, and frames are dropped.
"""


class VideoFrames:
    """The frames of a video's first video stream.

    They come in the order they are shown in, turned as the video's header says.
    """

    kind = "video"

    def __init__(self, path: str, channels: int) -> None:
        self.path = path
        self.files: tuple[str, ...] = (path,)
        self.channels = channels
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            self.rate = float(stream.average_rate or 0) or None
            self.is_timed = self.rate is not None or container.format.name != "gif"
            seconds = (container.duration or 0) / 1e6
            self.count = stream.frames or round(seconds * (self.rate or 0))
            height, width = first_size(container) or (stream.height, stream.width)
            self.shape: tuple[int, int, int, int] | None = (self.count, height, width, channels)

    def _open(self) -> "av.container.InputContainer":
        import av

        try:
            container = av.open(self.path)
        except (av.FFmpegError, OSError) as error:
            raise DatasetError(
                f"{self.path}: is no video that can be read ({reason(error)}), expected a video, "
                "an image, a folder of "
                "images or an HDF5 dataset"
            ) from error
        if not container.streams.video:
            container.close()
            raise DatasetError(f"{self.path}: has no video stream")
        return container

    def __iter__(self) -> Generator[np.ndarray, None, None]:
        import av

        packets = frames = 0
        end = 0.0
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            try:
                for packet in container.demux(stream):
                    packets += packet.size > 0
                    end = max(end, end_of(packet, stream))
                    for frame in packet.decode():
                        pixels = frame.to_ndarray(format=MODES[self.channels][1])
                        yield upright(
                            pixels.reshape(*pixels.shape[:2], self.channels), display_matrix(frame)
                        )
                        frames += 1
            except av.FFmpegError as error:
                raise DatasetError(
                    f"{self.path}: breaks after frame {frames - 1}: {reason(error)}"
                ) from error
            # Packets and not frames: an edit list may tell the decoder to leave frames out.
            reached = max(packets, round(end * (self.rate or 0)))
            promised, allowed = promised_frames(container)
            if reached < promised - allowed:
                raise DatasetError(
                    f"{self.path}: ends after {frames} frames, its header promises {promised}: "
                    "the file is cut off"
                )
            if not frames:
                raise DatasetError(f"{self.path}: has no frames")

    def place(self, index: int) -> Place:
        """Return the video and the frame's number."""
        return Place(self.path, index)

    def close(self) -> None:
        """Do nothing: the video is open only while it is read."""


def reason(error: Exception) -> str:
    """Return why FFmpeg gave up, without its numbers."""
    return str(getattr(error, "strerror", None) or error)


def first_size(container: "av.container.InputContainer") -> tuple[int, int] | None:
    """Return height and width of the first frame as players show it.

    None stands for a video without a frame that can be read.
    """
    import av

    try:
        frame = next(container.decode(video=0), None)
    except (av.FFmpegError, OSError):
        return None
    if frame is None:
        return None
    height, width = upright(np.empty((frame.height, frame.width, 0)), display_matrix(frame)).shape[
        :2
    ]
    return height, width


def end_of(packet: "av.Packet", stream: "av.VideoStream") -> float:
    """Return when the frame of a packet ends, in seconds from the stream's start.

    It is 0 for an empty packet.
    """
    shown = packet.dts if packet.pts is None else packet.pts
    if not packet.size or shown is None or stream.time_base is None:
        return 0.0
    lasts = (
        packet.duration * stream.time_base if packet.duration else 1 / (stream.average_rate or 1)
    )
    return float((shown - (stream.start_time or 0)) * stream.time_base + lasts)


def promised_frames(container: "av.container.InputContainer") -> tuple[int, int]:
    """Return how many frames the header promises, and how many fewer are no damage.

    The first is 0 where the header does not say.
    """
    stream, names = container.streams.video[0], set(container.format.name.split(","))
    rate = float(stream.average_rate or 0)
    if stream.frames:
        # Only MP4 and its kin list the frames; others count places, and a recorder may have dropped
        # frames at the end.
        return stream.frames, 0 if "mov" in names else FEWER_ALLOWED
    if not names & TELL_DURATION:
        return 0, 0
    tag = re.fullmatch(r"(\d+):(\d+):([\d.]+)", stream.metadata.get("DURATION", ""))
    if tag:
        return round((int(tag[1]) * 3600 + int(tag[2]) * 60 + float(tag[3])) * rate), FEWER_ALLOWED
    # The longest stream's: sound may go on for a little.
    sound = round(rate) if len(container.streams) > 1 else 0
    return round((container.duration or 0) / 1e6 * rate), FEWER_ALLOWED + sound


def display_matrix(frame: "av.VideoFrame") -> np.ndarray | None:
    """Return a, b; c, d of a frame's display matrix, None where it has none.

    A point x, y is shown at a x + c y, b x + d y.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    return None if found is None else np.frombuffer(bytes(found), np.int32)[:6].reshape(2, 3)[:, :2]  # type: ignore[call-overload]


def upright(pixels: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Return stored pixels `(H, W, C)` as players show them, to a quarter turn and mirrored."""
    if matrix is None:
        return pixels
    (a, b), (c, d) = matrix.tolist()
    if abs(b) > abs(a):
        pixels, (a, d) = pixels.swapaxes(0, 1), (c, b)
    return np.ascontiguousarray(pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1])
