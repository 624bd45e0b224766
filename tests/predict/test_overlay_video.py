import av
import numpy as np
import pytest
from videos import write_video

from hgtrain.errors import RunError
from hgtrain.poses import Poses
from hgtrain.predict.inputs import open_frames
from hgtrain.predict.overlay_video import OverlayVideo
from hgtrain.skeleton import Skeleton


@pytest.fixture
def film(tmp_path):
    return open_frames(str(write_video(tmp_path / "film.mp4", 3, rate=10)), 1)


def found(x, y, confidence=1.0):
    return Poses(
        np.array([[[[x, y]]]], np.float32), np.full((1, 1, 1), confidence), np.ones((1, 1))
    )


def drawn(tmp_path, film, part, size=(480, 480)):
    video = OverlayVideo(tmp_path / "out.mp4", Skeleton(("a",)), [film])
    for _ in range(2):
        video.write(0, np.zeros((1, *size, 1), np.uint8), part)
    video.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        rate = container.streams.video[0].average_rate
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)], rate


def test_the_video_has_a_frame_for_each_image_at_the_rate_of_the_source(tmp_path, film):
    frames, rate = drawn(tmp_path, film, found(100, 200))
    assert len(frames) == 2
    assert rate == 10


def test_a_point_is_drawn_where_it_was_found(tmp_path, film):
    frame = drawn(tmp_path, film, found(100, 200))[0][0]
    assert frame[200, 100] > 100
    assert frame[300, 300] < 30


def test_a_point_of_low_confidence_is_not_drawn(tmp_path, film):
    assert drawn(tmp_path, film, found(100, 200, 0.05))[0][0].max() < 30


def test_small_images_are_enlarged_with_their_points(tmp_path, film):
    frame = drawn(tmp_path, film, found(10, 20), size=(51, 51))[0][0]
    assert frame.shape == (510, 510)
    assert frame[205, 105] > 100


def test_without_a_frame_there_is_no_video(tmp_path, film):
    OverlayVideo(tmp_path / "out.mp4", Skeleton(("a",)), [film]).close()
    assert [path.name for path in tmp_path.iterdir()] == ["film.mp4"]


def test_a_name_that_is_no_video_is_refused(tmp_path, film):
    with pytest.raises(RunError, match=r"out\.nothing cannot be written as a video"):
        OverlayVideo(tmp_path / "out.nothing", Skeleton(("a",)), [film])
