"""A network's outputs for an image, averaged over the image turned and mirrored.

It is done in the maps, before peaks are looked for. Cell j of the maps is at pixel `j * stride`, so
an image is mirrored about a cell: pixel x goes to `last - x`, `last` being the first multiple of
the stride that is not below the image's last pixel. Cells then lie upon cells, whatever the size,
and no pixel is lost; what that needs beyond the image is black, as all that is padded.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from hgtrain.coords import Turn
from hgtrain.heads import Head
from hgtrain.heads.decoding.extent import Size, within_image
from hgtrain.pipeline.preprocess import pad

Outputs = dict[str, tf.Tensor]


class Averaging(NamedTuple):
    """What is averaged over.

    Attributes:
        turns: Of the image, the first of them none.
        symmetries: Left/right partners among the keypoints, by index.
    """

    turns: tuple[Turn, ...]
    symmetries: tuple[tuple[int, int], ...]

    def outputs(
        self,
        compute: Callable[[tf.Tensor], Outputs],
        images: tf.Tensor,
        size: Size,
        head: Head,
        multiple: int,
    ) -> Outputs:
        """Return the mean outputs `(B, h, w, C)` by name, 0 beyond the image.

        Args:
            compute: Gives the outputs of images whose sides are multiples of `multiple`.
            images: `(B, H, W, C)` as the network takes them, padded.
            size: Height and width before they were padded.
            head: That made the outputs.
            multiple: Of the network's input, px.
        """
        content = images[:, : size[0], : size[1]]
        views = []
        for turn in self.turns:
            if turn == Turn():
                own = compute(images)
                maps = dict(within_image(own, size, head.stride))
            else:
                seen = compute(pad(turned(content, turn, head.stride), multiple))
                maps = {
                    name: turned_back(each, size, turn, head.stride) for name, each in seen.items()
                }
            views.append((turn, maps))
        averaged = head.averaged(views, self.symmetries)
        return {name: _as_large_as(own[name], maps) for name, maps in averaged.items()}


def turned(images: tf.Tensor, turn: Turn, stride: int) -> tf.Tensor:
    """Return images `(B, H, W, C)` turned, with black before the first pixel of a mirrored side."""
    if turn.transposes:
        images = tf.transpose(images, (0, 2, 1, 3))
    for axis, mirrors in ((1, turn.mirrors_y), (2, turn.mirrors_x)):
        if mirrors:
            last = _length(images, axis) - 1
            before = [[0, 0]] * 4
            before[axis] = [(stride - last % stride) % stride, 0]
            images = tf.pad(tf.reverse(images, [axis]), before)
    return images


def turned_back(maps: tf.Tensor, size: Size, turn: Turn, stride: int) -> tf.Tensor:
    """Return the cells of an image, `(B, h, w, C)`, from the maps of what `turned` made of it.

    Args:
        maps: Of the turned image, `(B, h', w', C)`, padded or not.
        size: Height and width of the image, px.
        turn: As it was turned.
        stride: Px for each cell.
    """
    sides = size[::-1] if turn.transposes else size
    for axis, side, mirrors in ((1, sides[0], turn.mirrors_y), (2, sides[1], turn.mirrors_x)):
        if mirrors:
            # From the cell of pixel 0 to that of the last pixel or the first one beyond.
            cells = (side + stride - 2) // stride + 1
            maps = tf.reverse(_first(maps, cells, axis), [axis])
        maps = _first(maps, (side + stride - 1) // stride, axis)
    return tf.transpose(maps, (0, 2, 1, 3)) if turn.transposes else maps


def _first(maps: tf.Tensor, count: int | tf.Tensor, axis: int) -> tf.Tensor:
    return maps[:, :count] if axis == 1 else maps[:, :, :count]


def _length(images: tf.Tensor, axis: int) -> Any:
    known = images.shape[axis]
    return tf.shape(images)[axis] if known is None else known


def _as_large_as(maps: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Return `cells` with zeros at the right and the bottom, of the shape of `maps`."""
    bottom, right = (_length(maps, axis) - _length(cells, axis) for axis in (1, 2))
    padded = tf.pad(cells, [[0, 0], [0, bottom], [0, right], [0, 0]])
    padded.set_shape(maps.shape)
    return padded
