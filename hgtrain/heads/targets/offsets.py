"""Offset maps: from each cell near a keypoint, how far the keypoint is.

They say what is below a cell, as in Papandreou et al. 2017 (Towards Accurate Multi-person Pose
Estimation in the Wild, arXiv:1701.01779).
"""

import tensorflow as tf

from hgtrain.heads.targets.confidence_maps import over_animals

DISC_HEIGHT = 0.2
"""A keypoint's disc is where its own confidence map is higher: 1.8 sigma."""

FAR_CELLS = 1e6


def offset_maps(points: tf.Tensor, height: int, width: int, stride: int) -> tf.Tensor:
    """Return the way from each cell to each keypoint, `(B, h, w, 2 K)` float32, in cells.

    Args:
        points: `(B, K, 2)` float32, x then y, px of the network's input; NaN stays NaN.
        height: Of the network's input, px, a multiple of `stride`.
        width: The same.
        stride: Px for each cell.

    Returns:
        Channels `2 k` and `2 k + 1` are x and y of keypoint k.
    """
    ys, xs = (tf.range(0, side, stride, dtype=tf.float32) for side in (height, width))
    cells = tf.stack(tf.meshgrid(xs, ys), axis=-1)
    ways = (points[:, None, None] - cells[:, :, None]) / stride
    return tf.reshape(ways, (-1, height // stride, width // stride, 2 * points.shape[1]))


def nearest_offset_maps(points: tf.Tensor, height: int, width: int, stride: int) -> tf.Tensor:
    """Return the way from each cell to the nearest of several animals' keypoints.

    Args:
        points: `(B, I, K, 2)` float32, x then y, px of the network's input; NaN where missing.
        height: Of the network's input, px, a multiple of `stride`.
        width: The same.
        stride: Px for each cell.

    Returns:
        As `offset_maps`; a way is far longer than any image where no animal has the keypoint.
    """
    rows, columns, keypoints = height // stride, width // stride, points.shape[2]
    nothing = tf.fill((tf.shape(points)[0], rows, columns, keypoints, 2), FAR_CELLS)

    def nearer(ways: tf.Tensor, animal: tf.Tensor) -> tf.Tensor:
        own = tf.reshape(offset_maps(animal, height, width, stride), tf.shape(ways))
        squared, own_squared = (
            tf.reduce_sum(tf.square(each), axis=-1, keepdims=True) for each in (ways, own)
        )
        # False where there is NaN.
        return tf.where(own_squared < squared, own, ways)

    ways = over_animals(points, nothing, nearer)
    return tf.reshape(ways, (-1, rows, columns, 2 * keypoints))


def offsets_at_peaks(offsets: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Return the offsets `(B, K, P, 2)`, in cells, at several peaks of each keypoint.

    Args:
        offsets: `(B, h, w, 2 K)`, in cells.
        cells: `(B, K, P, 2)` float32, x then y, whole numbers within the maps.
    """
    keypoints, room = cells.shape[1], cells.shape[2]
    height, width = _sides(offsets)
    column, row = tf.unstack(tf.cast(cells, tf.int32), axis=-1)
    place = (row * width + column) * keypoints + tf.range(keypoints)[:, None]
    vectors = tf.gather(
        tf.reshape(offsets, (-1, height * width * keypoints, 2)),
        tf.reshape(place, (-1, keypoints * room)),
        batch_dims=1,
    )
    return tf.reshape(vectors, (-1, keypoints, room, 2))


def disc_weights(confmaps: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return what each cell's offset counts, `(B, h, w, K)`: 1 in the disc of a labelled keypoint.

    Args:
        confmaps: The targets, `(B, h, w, K)`; zero where a keypoint is missing.
        weights: `(B, K)`.
    """
    return tf.where(confmaps > DISC_HEIGHT, weights[:, None, None, :], 0.0)


def offset_losses(offsets: tf.Tensor, targets: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Return the mean smooth L1 distance over the discs of each example, `(B,)` float32.

    It is quadratic up to a cell and linear beyond (Girshick 2015, Fast R-CNN, arXiv:1504.08083).

    Args:
        offsets: `(B, h, w, 2 K)`, in cells.
        targets: The same, from `offset_maps`.
        weights: `(B, h, w, K)`, from `disc_weights`.
    """
    counted = tf.repeat(weights, 2, axis=-1)
    # Chosen, not multiplied alone: NaN times a weight of zero is still NaN.
    distance = tf.abs(tf.where(counted > 0, offsets - targets, 0.0))
    smooth = tf.where(distance < 1, 0.5 * tf.square(distance), distance - 0.5)
    total = tf.reduce_sum(counted * smooth, axis=(1, 2, 3))
    return tf.math.divide_no_nan(total, tf.reduce_sum(counted, axis=(1, 2, 3)))


def offsets_at(offsets: tf.Tensor, cells: tf.Tensor) -> tf.Tensor:
    """Return the offsets `(B, K, 2)`, in cells, that each keypoint has at its own cell.

    Args:
        offsets: `(B, h, w, 2 K)`, in cells.
        cells: `(B, K, 2)` float32, x then y, whole numbers within the maps.
    """
    keypoints = cells.shape[1]
    by_keypoint = tf.reshape(offsets, (-1, *_sides(offsets), keypoints, 2))
    # Keypoints before the maps' sides, so that one gather takes row and column of each.
    ways = tf.transpose(by_keypoint, (0, 3, 1, 2, 4))
    return tf.gather_nd(ways, tf.cast(cells[..., ::-1], tf.int32), batch_dims=2)


def _sides(maps: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(maps)
    return shape[1], shape[2]
