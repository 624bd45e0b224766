"""Part affinity fields: along every edge of every animal, which way the edge points.

They say which keypoints belong to the same animal, as in Cao et al. 2017 (Realtime Multi-Person 2D
Pose Estimation using Part Affinity Fields, arXiv:1611.08050).
"""

import math
from collections.abc import Sequence

import tensorflow as tf

from hgtrain.heads.targets.confidence_maps import over_animals

SHORTEST_PX = 1.0
"""An edge below it has no middle to speak of: the distance is taken as if it were that long."""


def part_affinity_fields(
    points: tf.Tensor,
    edges: Sequence[tuple[int, int]],
    height: int,
    width: int,
    stride: int,
    width_px: float,
) -> tf.Tensor:
    """Return each edge's unit vector, from its first keypoint to its second, in a band along it.

    At d px from the edge it is weighted with `2 ** -((d / width_px) ** 4)`, which is nearly flat in
    the middle: decoding reads the nearest cell. Animals are summed. An edge without length, or
    with an end that is NaN, gives zeros. Cells lie at pixels as those of `confidence_maps`.

    Args:
        points: `(B, I, K, 2)` float32, x then y, px of the network's input.
        edges: Pairs of keypoints.
        height: Of the network's input, px.
        width: The same.
        stride: Px for each cell.
        width_px: From the edge to where the weight is a half.

    Returns:
        Fields `(B, ceil(height / stride), ceil(width / stride), 2 E)` float32; channels `2 e` and
        `2 e + 1` are x and y of edge e.
    """
    xs = tf.range(0, width, stride, dtype=tf.float32)
    ys = tf.range(0, height, stride, dtype=tf.float32)[:, None]
    # Distances are taken in units in which the weight is exp(-distance ** 4).
    unit = math.log(2) ** 0.25 / width_px

    # Cells last, so that what broadcasts runs along them, which is three times as fast.
    def add(fields: tf.Tensor, animal: tf.Tensor) -> tf.Tensor:
        start, direction, length = _edges_of(animal, edges)
        start_x, start_y, to_x, to_y = (
            vectors[..., axis, None, None] for vectors in (start, direction) for axis in (0, 1)
        )
        from_x, from_y = unit * (xs - start_x), unit * (ys - start_y)
        along, across = from_x * to_x + from_y * to_y, from_y * to_x - from_x * to_y
        end = unit * length[..., None, None]
        short = tf.square(tf.minimum(length / SHORTEST_PX, 1.0))[..., None, None]
        beyond = along - tf.clip_by_value(short * along, 0.0, end)
        weight = tf.exp(-tf.square(tf.square(across) + tf.square(beyond)))
        return fields + weight[:, :, None] * direction[..., None, None]

    rows, columns = -(-height // stride), -(-width // stride)
    frames = tf.shape(points)[0]
    fields = over_animals(points, tf.zeros((frames, len(edges), 2, rows, columns)), add)
    return tf.transpose(tf.reshape(fields, (frames, 2 * len(edges), rows, columns)), (0, 2, 3, 1))


def _edges_of(
    animal: tf.Tensor, edges: Sequence[tuple[int, int]]
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return start and unit vector `(B, E, 2)`, and length `(B, E)`, of each edge.

    All are 0 where an edge is not drawn.
    """
    # Without a type TensorFlow would take ends of no edge for float32.
    first, second = (tf.constant([edge[i] for edge in edges], tf.int32) for i in (0, 1))
    starts, ends = (tf.gather(animal, end, axis=1) for end in (first, second))
    lengths = tf.norm(ends - starts, axis=-1)
    is_drawn = tf.math.is_finite(lengths) & (lengths > 0)
    lengths = tf.where(is_drawn, lengths, 0.0)
    starts, ways = (tf.where(is_drawn[..., None], each, 0.0) for each in (starts, ends - starts))
    return starts, tf.math.divide_no_nan(ways, lengths[..., None]), lengths
