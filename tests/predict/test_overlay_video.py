import av
import numpy as np
import pytest
from videos import write_video

from hgtrain.data.media.drawing import COLOURS
from hgtrain.errors import RunError
from hgtrain.poses import Poses, no_poses
from hgtrain.predict.inputs import open_frames
from hgtrain.predict.overlay_video import OverlayVideo
from hgtrain.skeleton import Skeleton

ONE = Skeleton(("a",))
TWO = Skeleton(("a", "b"), ((0, 1),))


@pytest.fixture
def film(tmp_path):
    return open_frames(str(write_video(tmp_path / "film.mp4", 3, rate=10)), 1)


def found(x, y, confidence=1.0):
    return Poses(
        np.array([[[[x, y]]]], np.float32), np.full((1, 1, 1), confidence), np.ones((1, 1))
    )


def drawn(tmp_path, film, part, size=(480, 480), form="gray", skeleton=ONE):
    video = OverlayVideo(tmp_path / "out.mp4", skeleton, [film])
    for _ in range(2):
        video.write(0, np.zeros((1, *size, 1), np.uint8), part)
    video.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        rate = container.streams.video[0].average_rate
        return [frame.to_ndarray(format=form) for frame in container.decode(video=0)], rate


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


def test_each_of_several_animals_has_a_colour(tmp_path, film):
    # Large, for discs of 6 px: H.264 halves the resolution of colours.
    animals = np.array([[[200, 200], [600, 200]], [[200, 800], [600, 800]], [[np.nan] * 2] * 2])
    several = Poses(animals[None].astype(np.float32), np.ones((1, 3, 2)), np.ones((1, 3)))
    frame = drawn(tmp_path, film, several, (1200, 1200), "rgb24", TWO)[0][0].astype(int)
    for row, colour in ((200, COLOURS[0]), (800, COLOURS[1])):
        for column in (200, 600):
            assert frame[row, column] == pytest.approx(colour, abs=25)
        # The edge is 3 px wide, its colour mixed with the black around it.
        assert frame[row, 400].max() > 60
    assert frame[500].max() < 30


def film_of(tmp_path, film, *frames, sources=(0, 0, 0)):
    """The frames of a video of several animals, of one keypoint each."""
    video = OverlayVideo(tmp_path / "out.mp4", ONE, [film, film])
    for source, animals in zip(sources, frames, strict=False):
        points = np.array(animals, np.float32)[None, :, None]
        sure = np.ones(points.shape[:3])
        image = np.zeros((1, 1200, 1200, 1), np.uint8)
        video.write(source, image, Poses(points, sure, sure[..., 0]))
    video.close()
    with av.open(str(tmp_path / "out.mp4")) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


NOBODY = [np.nan, np.nan]


def test_an_animal_keeps_its_colour_in_the_next_frame(tmp_path, film):
    # They change places in the second frame, and a third comes in the last.
    before, after, last = film_of(
        tmp_path,
        film,
        [[200, 200], [800, 800], NOBODY],
        [[810, 790], [210, 190], NOBODY],
        [[210, 190], [820, 780], [500, 100]],
    )
    assert before[200, 200] == pytest.approx(COLOURS[0], abs=25)
    assert after[190, 210] == pytest.approx(COLOURS[0], abs=25)
    assert after[790, 810] == pytest.approx(COLOURS[1], abs=25)
    assert last[780, 820] == pytest.approx(COLOURS[1], abs=25)
    assert last[100, 500] == pytest.approx(COLOURS[2], abs=25)


def test_an_animal_has_its_colour_again_after_a_frame_without_animals(tmp_path, film):
    frames = [[400, 400], [800, 800]], [NOBODY, NOBODY], [[800, 800], NOBODY]
    *_, last = film_of(tmp_path, film, *frames)
    assert last[800, 800] == pytest.approx(COLOURS[1], abs=25)


def test_the_colours_of_another_film_start_over(tmp_path, film):
    frames = [[400, 400], [800, 800]], [[800, 800], [400, 400]]
    _, last = film_of(tmp_path, film, *frames, sources=(0, 1))
    assert last[800, 800] == pytest.approx(COLOURS[0], abs=25)


def test_the_keypoints_of_one_animal_have_colours_of_their_own(tmp_path, film):
    animal = np.array([[[[200, 200], [600, 200]]]], np.float32)
    one = Poses(animal, np.ones((1, 1, 2)), np.ones((1, 1)))
    frame = drawn(tmp_path, film, one, (1200, 1200), "rgb24", TWO)[0][0].astype(int)
    assert frame[200, 200] == pytest.approx(COLOURS[0], abs=25)
    assert frame[200, 600] == pytest.approx(COLOURS[1], abs=25)


def test_a_frame_without_an_animal_stays_as_it_is(tmp_path, film):
    assert drawn(tmp_path, film, no_poses(3, 1, 1))[0][0].max() < 30
