import numpy as np
import pytest

from hgtrain.data.media.drawing import COLOURS, PREDICTED_COLOUR, TRUTH_COLOUR, overlay

NOWHERE = np.full((1, 2, 2), np.nan)


def drawn_in(picture, colour):
    """Rows and columns, as (y, x), of the pixels of a colour."""
    return np.argwhere((picture == colour).all(-1))


def test_a_picture_is_zoomed_and_in_colour():
    picture = overlay(np.full((5, 8, 1), 70, np.uint8), None, NOWHERE, zoom=3)
    assert (picture.shape, picture.dtype) == ((15, 24, 3), np.uint8)
    assert (picture == 70).all()


def test_the_image_stays_as_it_is():
    image = np.full((20, 20, 3), 70, np.uint8)
    overlay(image, np.array([[[10.0, 10.0]]]), np.array([[[10.0, 10.0]]]))
    assert (image == 70).all()


def test_colours_are_kept():
    assert (overlay(np.full((4, 4, 3), (1, 2, 3), np.uint8), None, NOWHERE) == (1, 2, 3)).all()


@pytest.mark.parametrize("zoom", [1, 3])
def test_a_cross_is_centred_on_the_predicted_point(zoom):
    picture = overlay(np.zeros((20, 30, 1), np.uint8), None, np.array([[[20.0, 6.0]]]), zoom=zoom)
    # Pixel centre 20 of the image is 3 * 20.5 - 0.5 = 61 of a picture three times as large.
    expected = {1: (6, 20), 3: (19, 61)}[zoom]
    assert drawn_in(picture, PREDICTED_COLOUR).mean(0) == pytest.approx(expected)


def test_a_ring_is_centred_on_the_true_point_and_leaves_it_free():
    picture = overlay(np.zeros((20, 30, 1), np.uint8), np.array([[[20.0, 8.0]]]), NOWHERE, zoom=1)
    ring = drawn_in(picture, TRUTH_COLOUR)
    assert ring.mean(0) == pytest.approx((8, 20))
    assert (picture[8, 20] == 0).all()


def test_missing_points_are_not_drawn():
    truth = np.array([[[np.nan, 4.0], [4.0, np.nan]]])
    assert not overlay(np.zeros((20, 20, 1), np.uint8), truth, NOWHERE).any()


def test_points_outside_do_no_harm():
    far = np.array([[[-1000.0, 5.0], [1e6, 1e6]]])
    assert not overlay(np.zeros((20, 20, 1), np.uint8), far, far).any()


def test_each_of_several_animals_has_a_colour_and_its_edges():
    predicted = np.array([[[5.0, 5.0], [25.0, 5.0]], [[5.0, 15.0], [25.0, 15.0]]])
    picture = overlay(np.zeros((20, 30, 1), np.uint8), None, predicted, ((0, 1),), zoom=1)
    for row, colour in ((5, COLOURS[0]), (15, COLOURS[1])):
        # The edge from 5 to 25, and three more pixels at each end: the arms of the crosses.
        assert sorted(x for y, x in drawn_in(picture, colour) if y == row) == [*range(2, 29)]
    assert not drawn_in(picture, PREDICTED_COLOUR).size


def test_the_edges_of_one_animal_are_not_drawn():
    predicted = np.array([[[5.0, 5.0], [25.0, 5.0]]])
    picture = overlay(np.zeros((20, 30, 1), np.uint8), None, predicted, ((0, 1),), zoom=1)
    assert not picture[5, 9:22].any()


def test_an_edge_without_an_end_is_not_drawn():
    predicted = np.array([[[5.0, 5.0], [np.nan, 5.0]], [[5.0, 15.0], [25.0, 15.0]]])
    picture = overlay(np.zeros((20, 30, 1), np.uint8), None, predicted, ((0, 1),), zoom=1)
    assert not picture[5, 9:].any()


def test_a_frame_without_an_animal_stays_as_it_is():
    nobody = np.full((3, 2, 2), np.nan)
    assert not overlay(np.zeros((20, 30, 1), np.uint8), nobody, nobody, ((0, 1),)).any()
    assert not overlay(np.zeros((20, 30, 1), np.uint8), nobody[:0], nobody[:0], ((0, 1),)).any()
