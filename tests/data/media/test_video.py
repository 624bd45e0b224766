import gc
from itertools import islice

import av
from videos import write_video

from hgtrain.data.media.video import VideoFrames


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
