import gc
from itertools import islice

import av
import numpy as np
import pytest
from videos import write_video

from hgtrain.data.media.video import VideoFrames
from hgtrain.errors import DatasetError


def test_frames_are_given_back_as_soon_as_they_are_read(tmp_path):
    write_video(tmp_path / "film.mp4", 120)
    gc.collect()
    gc.disable()
    try:
        images = iter(VideoFrames(str(tmp_path / "film.mp4"), 1))
        last = next(islice(images, 99, None))
        kept = sum(isinstance(item, av.VideoFrame) for item in gc.get_objects())
    finally:
        gc.enable()
    assert last.shape == (32, 48, 1)
    # A few of the decoder's threads, and not the hundred that were read.
    assert kept < 20


def test_a_codec_that_nobody_knows_is_named_as_the_reason(tmp_path):
    film = write_video(tmp_path / "film.avi", 3, codec="mjpeg")
    data = film.read_bytes()
    assert data.count(b"MJPG") == 2
    film.write_bytes(data.replace(b"MJPG", b"ZZZZ"))
    with pytest.raises(DatasetError, match=r"film\.avi: FFmpeg has no decoder for its video"):
        VideoFrames(str(film), 1)


def test_a_title_in_another_encoding_does_no_harm(tmp_path):
    film = tmp_path / "film.mkv"
    with av.open(str(film), "w") as container:
        container.metadata["title"] = "a cage at noon"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width = stream.height = 32
        for grey in (40, 80):
            image = np.full((32, 32, 3), grey, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    data = film.read_bytes()
    assert data.count(b"a cage at noon") == 1
    film.write_bytes(data.replace(b"a cage at noon", "a c\xe2ge at noon".encode("latin-1")))
    images = list(VideoFrames(str(film), 1))
    assert [round(float(image.mean())) for image in images] == pytest.approx([40, 80], abs=3)


def test_a_frame_whose_pixels_ffmpeg_cannot_convert_costs_itself_alone(tmp_path, monkeypatch):
    film = write_video(tmp_path / "film.mp4", 3)
    convert = av.VideoFrame.to_ndarray
    given = []

    def fails_once(self, frame):
        given.append(frame.pts)
        if len(given) == 2:
            raise av.error.BlockingIOError(11, "Resource temporarily unavailable")
        return convert(frame, format="gray")

    monkeypatch.setattr(VideoFrames, "_pixels", fails_once)
    first, second, third = VideoFrames(str(film), 1)
    assert str(second) == (f"{film}: frame 1 cannot be converted: Resource temporarily unavailable")
    assert [round(float(image.mean())) for image in (first, third)] == pytest.approx([0, 40], abs=3)
