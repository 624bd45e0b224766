"""Reads the frames of videos."""

from collections.abc import Generator
from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np

from hgtrain.data.media.frame_source import Place
from hgtrain.data.media.image_files import MODES
from hgtrain.errors import DatasetError
from hgtrain.predict.inputs import display_matrix, end_of, first_size, promised_frames, upright

if TYPE_CHECKING:
    import av


class VideoFrames:
    """The frames of a video's first video stream, in the order they are shown in, turned as its header says."""

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
