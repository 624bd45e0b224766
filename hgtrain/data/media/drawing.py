"""Keypoints drawn over images, for people to look at."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw

Edge = tuple[int, int]
Colour = tuple[int, int, int] | str

TRUTH_COLOUR, PREDICTED_COLOUR = (80, 220, 100), (255, 80, 80)
BONE_COLOUR = (255, 255, 255)

# Okabe and Ito's palette: distinguishable with any colour vision.
COLOURS: tuple[Colour, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (213, 94, 0),
    (204, 121, 167),
)


class Drawing:
    """An image, enlarged or made smaller, on which animals are drawn.

    Points are given in px of the image; what is NaN is not drawn.

    Attributes:
        picture: What is drawn on.
    """

    def __init__(
        self,
        image: np.ndarray,
        scale: float,
        size: tuple[int, int] | None = None,
        resample: Image.Resampling = Image.Resampling.BILINEAR,
    ) -> None:
        """Take an image.

        Args:
            image: `(H, W, C)` uint8, C 1 or 3; it stays as it is.
            scale: Factor by which the picture is larger than the image.
            size: Width and height of the picture where they are not just the factor's.
            resample: How it is resized.
        """
        grey_as_colour = np.broadcast_to(image, (*image.shape[:2], 3))
        picture = Image.fromarray(np.ascontiguousarray(grey_as_colour))
        if size is None:
            size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
        self.picture = picture.resize(size, resample)
        self._scale = scale
        self._pen = ImageDraw.Draw(self.picture)

    def bones(
        self,
        animal: np.ndarray,
        edges: Iterable[Edge],
        colour: Colour = BONE_COLOUR,
        width: int = 1,
    ) -> None:
        """Draw the edges of an animal `(K, 2)` whose ends are both there."""
        places = self._places(animal)
        for a, b in edges:
            if (start := places[a]) and (end := places[b]):
                self._pen.line((start, end), fill=colour, width=width)

    def dots(self, animal: np.ndarray, colours: Sequence[Colour], radius: int) -> None:
        """Draw a disc on each keypoint of an animal `(K, 2)`; colours follow one another."""
        for keypoint, place in enumerate(self._places(animal)):
            if place:
                self._pen.ellipse(_around(place, radius), fill=colours[keypoint % len(colours)])

    def rings(self, animal: np.ndarray, colour: Colour, radius: int) -> None:
        """Draw a ring around each keypoint of an animal `(K, 2)`."""
        for place in filter(None, self._places(animal)):
            self._pen.ellipse(_around(place, radius), outline=colour)

    def crosses(self, animal: np.ndarray, colour: Colour, radius: int) -> None:
        """Draw a cross on each keypoint of an animal `(K, 2)`."""
        for x, y in filter(None, self._places(animal)):
            self._pen.line((x - radius, y, x + radius, y), fill=colour)
            self._pen.line((x, y - radius, x, y + radius), fill=colour)

    def _places(self, animal: np.ndarray) -> list[tuple[float, float] | None]:
        """Return where the keypoints are in the picture, None where they are missing."""
        places = (animal + 0.5) * self._scale - 0.5
        return [
            (float(x), float(y)) if np.isfinite(x) and np.isfinite(y) else None for x, y in places
        ]


def _around(place: tuple[float, float], radius: int) -> tuple[float, float, float, float]:
    x, y = place
    return x - radius, y - radius, x + radius, y + radius


def animal_colour(animal: int) -> Colour:
    """Return the colour of the animal at a place among those of a frame."""
    return COLOURS[animal % len(COLOURS)]


def overlay(
    image: np.ndarray,
    truth: np.ndarray | None,
    predicted: np.ndarray,
    edges: Sequence[Edge] = (),
    zoom: int = 2,
) -> np.ndarray:
    """Return the image with truth as green rings and predictions as red crosses.

    Where several animals can be predicted each has a colour of its own, and its edges are drawn:
    they show which keypoints were taken for one animal.

    Args:
        image: `(H, W, C)` uint8, C 1 or 3.
        truth: `(I, K, 2)` px; NaN is not drawn.
        predicted: `(J, K, 2)` px; NaN is not drawn.
        edges: Of the skeleton.
        zoom: Factor by which the picture is larger than the image.

    Returns:
        `(zoom * H, zoom * W, 3)` uint8.
    """
    drawing, several = Drawing(image, zoom), len(predicted) > 1
    for animal in () if truth is None else truth:
        drawing.rings(animal, TRUTH_COLOUR, 4)
    for place, animal in enumerate(predicted):
        if several:
            drawing.bones(animal, edges, animal_colour(place))
        drawing.crosses(animal, animal_colour(place) if several else PREDICTED_COLOUR, 3)
    return np.asarray(drawing.picture)
