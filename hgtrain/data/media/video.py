"""Reads the frames of videos."""

import re
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hgtrain.data.media.bit_depth import DEPTHS, BitDepth
from hgtrain.data.media.frame_source import Image, Place
from hgtrain.data.media.image_files import MODES
from hgtrain.errors import DatasetError

if TYPE_CHECKING:
    import av

TELL_DURATION = {"matroska", "flv", "avi", "asf", "mov"}
"""FFmpeg's names of containers whose header has the film's length.

Of others it is an estimate from what is there.
"""
TS_PACKETS, TS_SYNC = {188: 0, 192: 4, 204: 0}, b"G"
"""Sizes of the packets of MPEG transport streams, and at which of its bytes each has the same."""
DEEP_FORMATS = {1: "gray16le", 3: "rgb48le"}
"""Channels to FFmpeg's name of the layout with 16 bits."""

FEWER_ALLOWED = 3
"""Frames that a film may end before its header says.

Durations are rounded, and frames are dropped.
"""


class VideoFrames:
    """The frames of a video's first video stream.

    They come in the order they are shown in, turned as the video's header says.

    Attributes:
        depth: Of frames of 16 bits.
    """

    kind = "video"

    def __init__(self, path: str, channels: int, depth: BitDepth | None = None) -> None:
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
        self.depth = depth or BitDepth(path, self.count, self._largest_values)

    def _open(self) -> "av.container.InputContainer":
        import av

        try:
            # Titles and the like are in any encoding.
            container = av.open(self.path, metadata_errors="replace")
        except (av.FFmpegError, OSError) as error:
            raise DatasetError(
                f"{self.path}: is no video that can be read ({reason(error)}), expected a video, "
                "an image, a folder of "
                "images or an HDF5 dataset"
            ) from error
        if not container.streams.video:
            container.close()
            raise DatasetError(f"{self.path}: has no video stream")
        if container.streams.video[0].codec_context is None:
            container.close()
            raise DatasetError(f"{self.path}: FFmpeg has no decoder for its video")
        return container

    def __iter__(self) -> Generator[Image, None, None]:
        matrix, is_first = None, True
        for number, frame in enumerate(self._frames()):
            if isinstance(frame, str):
                yield DatasetError(f"{self.path}: frame {number} cannot be decoded: {frame}")
            else:
                # It is the header's. PyAV keeps a frame that is asked for it, with its pixels,
                # until cyclic garbage is collected: hundreds of large ones.
                matrix, is_first = display_matrix(frame) if is_first else matrix, False
                try:
                    pixels = self._pixels(frame)
                except (OSError, ValueError, RuntimeError, MemoryError) as error:
                    why = reason(error) or type(error).__name__
                    yield DatasetError(f"{self.path}: frame {number} cannot be converted: {why}")
                    continue
                yield upright(pixels.reshape(*pixels.shape[:2], self.channels), matrix)

    def _pixels(self, frame: "av.VideoFrame") -> np.ndarray:
        if is_deep(frame) and self.depth.bits < DEPTHS[-1]:
            return self.depth.upper_8(frame.to_ndarray(format=DEEP_FORMATS[self.channels]))
        return frame.to_ndarray(format=MODES[self.channels][1])

    def _largest_values(self) -> Iterator[int]:
        with suppress(DatasetError):
            for frame in self._frames():
                if not isinstance(frame, str) and is_deep(frame):
                    yield int(frame.to_ndarray(format=DEEP_FORMATS[3]).max())

    def _frames(self) -> "Iterator[av.VideoFrame | str]":
        """Give each frame in the order they are shown in, of a damaged one the reason."""
        given = 0
        try:
            for frame in self._decoded(is_threaded=True):
                yield frame
                given += 1
        except DamagedFrameError:
            # Threads tell of a damaged frame some frames late. Which it is shows without them.
            yield from islice(self._decoded(is_threaded=False), given, None)

    def _decoded(self, is_threaded: bool) -> "Iterator[av.VideoFrame | str]":
        """Give what `_frames` does; with threads raise DamagedFrameError at the first damaged."""
        import av

        packets = frames = 0
        end = 0.0
        with closing(self._open()) as container:
            stream = container.streams.video[0]
            lost = LostFrames(stream.time_base == 1 / (stream.average_rate or 1))
            stream.thread_type = "AUTO" if is_threaded else "SLICE"
            try:
                for packet in container.demux(stream):
                    packets += packet.size > 0
                    end = max(end, end_of(packet, stream))
                    for item in _decode(packet, lost, is_threaded):
                        yield item
                        frames += 1
            except av.FFmpegError as error:
                raise DatasetError(
                    f"{self.path}: breaks after frame {frames - 1}: {reason(error)}"
                ) from error
            for why in lost.before(None):
                yield why
                frames += 1
            # Packets and not frames: an edit list may tell the decoder to leave frames out.
            reached = max(packets, round(end * (self.rate or 0)))
            promised, allowed = promised_frames(container)
            if reached < promised - allowed:
                raise DatasetError(
                    f"{self.path}: ends after {frames} frames, its header promises {promised}: "
                    "the file is cut off"
                )
            if container.format.name == "mpegts" and ends_in_packet(Path(self.path)):
                raise DatasetError(
                    f"{self.path}: ends after {frames} frames in the middle of a packet: the file "
                    "is cut off"
                )
            if not frames:
                raise DatasetError(f"{self.path}: has no frames")

    def place(self, index: int) -> Place:
        """Return the video and the frame's number."""
        return Place(self.path, index)

    def close(self) -> None:
        """Do nothing: the video is open only while it is read."""


class DamagedFrameError(Exception):
    """A packet cannot be decoded."""


class LostFrames:
    """Where in a damaged film frames are missing, by the times of its packets.

    From a packet that cannot be decoded on, until the frames go on behind it, what went into the
    decoder and does not come out is lost: a decoder may swallow more than it complains of.

    Args:
        are_numbered: Whether the times are the frames' numbers, as in AVI. Then a packet that was
            glued to the damaged one is missed too.
    """

    def __init__(self, are_numbered: bool) -> None:
        self._are_numbered = are_numbered
        self._last = -1
        self._waiting: set[int] = set()
        self._failed: int | None = None
        self._without_time = 0
        self._reason = ""

    def fed(self, packet: "av.Packet", error: Exception | None) -> None:
        """Take note of a packet that the decoder got, and of what went wrong with it."""
        if not packet.size or packet.is_discard:
            return
        time = packet.dts if packet.pts is None else packet.pts
        if error is not None:
            self._reason = reason(error)
            self._without_time += time is None
            if time is not None:
                self._failed = max(time, time if self._failed is None else self._failed)
        if self._failed is not None and time is not None:
            self._waiting.add(time)
            if self._are_numbered and packet.pts in (None, packet.dts):
                self._waiting.update(range(self._last + 1, time))
        if time is not None:
            self._last = time

    def before(self, time: int | None) -> list[str]:
        """Return the reason for each lost frame shown before a time, None for the film's end."""
        self._waiting.discard(time)
        gone = {waits for waits in self._waiting if time is None or waits < time}
        self._waiting -= gone
        if time is not None and self._failed is not None and time > self._failed:
            self._failed = None
        count, self._without_time = len(gone) + self._without_time, 0
        return [self._reason] * count


def _decode(
    packet: "av.Packet", lost: LostFrames, is_threaded: bool
) -> "Iterator[av.VideoFrame | str]":
    """Give the frames that come with a packet, after the reasons for those lost before them."""
    import av

    frames: list[av.VideoFrame] = []
    try:
        frames, error = packet.decode(), None
    except av.FFmpegError as raised:
        if is_threaded:
            raise DamagedFrameError from raised
        error = raised
    lost.fed(packet, error)
    for frame in frames:
        time = frame.dts if frame.pts is None else frame.pts
        if time is not None:
            yield from lost.before(time)
        yield frame


def is_deep(frame: "av.VideoFrame") -> bool:
    """Return whether grey or colours are stored in 16 bits, of which the camera may use fewer."""
    return _is_deep_format(frame.format.name)


@lru_cache(maxsize=16)
def _is_deep_format(name: str) -> bool:
    import av

    layout = av.VideoFormat(name)
    parts = layout.components
    return parts[0].bits == DEPTHS[-1] and (len(parts) < 3 or layout.is_rgb)


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


def ends_in_packet(path: Path) -> bool:
    """Return whether an MPEG transport stream ends within one of its packets.

    It has no header that says how long it is. All its packets are of one size, which their first
    bytes tell.
    """
    with path.open("rb") as file:
        start = file.read(4 * max(TS_PACKETS))
    for size, first in TS_PACKETS.items():
        if all(start[i * size + first : i * size + first + 1] == TS_SYNC for i in range(4)):
            return path.stat().st_size % size > 0
    return False


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
