"""From peaks and part affinity fields to animals, inside the graph and in fixed shapes.

The line through two peaks is scored by the field along it, edge by edge peaks are matched one to
one, and matched peaks are one animal.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from hgtrain.heads.decoding.assignment import ASSIGNMENTS
from hgtrain.heads.decoding.peaks import Peaks
from hgtrain.poses import Poses
from hgtrain.skeleton import Tree


class LineScoring(NamedTuple):
    """How the line between two peaks is scored; the values are the reference's.

    Attributes:
        points: How many the field is read at, both ends included.
        longest: Up to this part of the longer side of the fields a line is not too long.
        penalty: What an endless line loses.
    """

    points: int = 10
    longest: float = 0.25
    penalty: float = 1.0


class Rules(NamedTuple):
    """Which animals are kept.

    Attributes:
        max_instances: I, how many at most.
        min_line_score: Two peaks whose line has less do not belong together.
        min_keypoints: An animal has as many; of one that is put together, two are the least.
        assignment: A key of `ASSIGNMENTS`.
        lines: How lines are scored.
    """

    max_instances: int
    min_line_score: float = 0.25
    min_keypoints: int = 1
    assignment: str = "exact"
    lines: LineScoring = LineScoring()


def line_scores(
    fields: tf.Tensor,
    peaks: Peaks,
    edges: Sequence[tuple[int, int]],
    stride: int,
    lines: LineScoring = LineScoring(),  # noqa: B008 - a tuple does not change
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return how well the fields agree with the line from each first to each second peak.

    It is the mean, over points along the line, of the field in the line's direction, less a penalty
    for long lines. The field is read at the nearest cell; beyond the border at the outermost.

    Args:
        fields: `(B, h, w, 2 E)`, from `part_affinity_fields`.
        peaks: Points in px.
        edges: Pairs of keypoints, E of them.
        stride: Px for each cell of the fields.
        lines: How lines are scored.

    Returns:
        Scores `(B, E, P, P)` float32, 0 for two peaks at the same place, and which are of two peaks
        that exist, `(B, E, P, P)` bool.
    """
    first, second = (tf.constant([edge[i] for edge in edges], tf.int32) for i in (0, 1))
    starts, ends = (tf.gather(peaks.points, end, axis=1) for end in (first, second))
    is_start, is_end = (tf.gather(peaks.valid, end, axis=1) for end in (first, second))
    room = starts.shape[2]
    # TensorFlow Lite takes no slices of more than five axes: x and y apart, pairs flattened.
    # Its converter loses the number of edges in a repetition where that of images is open.
    shape = (-1, len(edges), room * room)
    start_x, start_y = (
        tf.reshape(tf.repeat(starts[..., axis], room, axis=2), shape) for axis in (0, 1)
    )
    end_x, end_y = (tf.tile(ends[..., axis], (1, 1, room)) for axis in (0, 1))
    way_x, way_y = end_x - start_x, end_y - start_y
    length = tf.sqrt(tf.square(way_x) + tf.square(way_y))
    at = tf.linspace(0.0, 1.0, lines.points)
    field = _read(
        fields,
        (start_x[..., None] + at * way_x[..., None]) / stride,
        (start_y[..., None] + at * way_y[..., None]) / stride,
    )
    mean = tf.reduce_mean(field, axis=3)
    along = tf.math.divide_no_nan(mean[..., 0] * way_x + mean[..., 1] * way_y, length)
    longer_side = tf.cast(tf.reduce_max(tf.shape(fields)[1:3]), tf.float32)
    longest = lines.longest * longer_side * stride
    excess = tf.where(length > longest, 1.0 - tf.math.divide_no_nan(longest, length), 0.0)
    scores = tf.reshape(along - lines.penalty * excess, (-1, len(edges), room, room))
    return scores, is_start[..., None] & is_end[:, :, None]


def _read(fields: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Return the fields at the cells nearest to x and y.

    Args:
        fields: `(B, h, w, 2 E)`.
        x: `(B, E, pairs, points)` float32, in cells.
        y: The same.

    Returns:
        Vectors `(B, E, pairs, points, 2)`.
    """
    _, edges, pairs, points = x.shape
    # Not int32: TensorFlow would compute it on the CPU when the rest is on a GPU.
    height, width = tf.unstack(tf.cast(tf.shape(fields)[1:3], tf.int64))
    column, row = (
        tf.cast(tf.clip_by_value(tf.round(each), 0.0, tf.cast(side - 1, tf.float32)), tf.int64)
        for each, side in ((x, width), (y, height))
    )
    place = (row * width + column) * edges + tf.range(edges, dtype=tf.int64)[:, None, None]
    vectors = tf.gather(
        tf.reshape(fields, tf.stack([-1, height * width * edges, 2])),
        tf.reshape(place, (-1, edges * pairs * points)),
        batch_dims=1,
    )
    return tf.reshape(vectors, (-1, edges, pairs, points, 2))


def group_peaks(
    fields: tf.Tensor | None, peaks: Peaks, tree: Tree, stride: int, rules: Rules
) -> Poses:
    """Return the animals that the peaks belong to.

    An animal has two keypoints or more that edges join; of a skeleton without edges each peak is an
    animal. A keypoint at no edge goes to the animal that it is nearest to, and no farther away from
    than the animal is long.

    Args:
        fields: `(B, h, w, 2 E)`, from `part_affinity_fields`; None where there are no edges.
        peaks: Points in px.
        tree: Of the skeleton.
        stride: Px for each cell of the fields.
        rules: Which animals are kept.

    Returns:
        The animals, best first, NaN filling up to `max_instances`. An animal's score is the mean
        over its keypoints of the peak's value times the score of the lines to it.
    """
    keypoints, room = peaks.points.shape[1:3]
    linked, quality = peaks.valid, tf.clip_by_value(peaks.values, 0.0, 1.0)
    labels = tf.reshape(tf.range(keypoints * room), (keypoints, room))
    labels += tf.zeros_like(peaks.valid, tf.int32)
    if tree.order:
        scores, candidates = line_scores(fields, peaks, tree.edges, stride, rules.lines)
        scores, candidates = (tf.gather(each, tree.order, axis=1) for each in (scores, candidates))
        joined = _joined(scores, candidates, rules)
        labels = _labels(labels, joined, tree)
        count, total = (_at_keypoints(tf.where(joined, each, 0.0), tree) for each in (1.0, scores))
        linked = count > 0
        quality *= tf.clip_by_value(tf.math.divide_no_nan(total, count), 0.0, 1.0)
    members, animal_scores = _best(labels, linked, quality, rules)
    points, confidence = _members(peaks, members)
    if tree.order and tree.lone:
        members = _with_lone(members, points, peaks, tree.lone)
        points, confidence = _members(peaks, members)
    return Poses(points, confidence, animal_scores)


def _joined(scores: tf.Tensor, candidates: tf.Tensor, rules: Rules) -> tf.Tensor:
    """Return which peaks belong together, `(B, E, P, P)` bool, one to one for each edge."""
    _, edges, room, _ = scores.shape
    matches = ASSIGNMENTS[rules.assignment](
        tf.reshape(scores, (-1, room, room)), tf.reshape(candidates, (-1, room, room))
    )
    matches = tf.reshape(matches, (-1, edges, room, 1))
    return (matches == tf.range(room)) & (scores >= rules.min_line_score)


def _labels(own: tf.Tensor, joined: tf.Tensor, tree: Tree) -> tf.Tensor:
    """Return the label of each peak `(B, K, P)`: that of the peak where its animal begins.

    In a tree each peak has one edge that leads to it, so that labels run along the edges, one edge
    after the other, without a loop over animals.

    Args:
        own: The labels of peaks where an animal begins, `(B, K, P)` int32.
        joined: `(B, E, P, P)`, the edges in the tree's order.
        tree: Of the skeleton.
    """
    labels = tf.unstack(own, axis=1)
    for place, (index, is_backwards) in enumerate(zip(tree.order, tree.backwards, strict=True)):
        start, end = tree.edges[index]
        pairs = joined[:, place]
        if is_backwards:
            start, end = end, start
            pairs = tf.transpose(pairs, (0, 2, 1))
        passed_on = tf.reduce_sum(tf.where(pairs, labels[start][:, :, None], 0), axis=1)
        labels[end] = tf.where(tf.reduce_any(pairs, axis=1), passed_on, labels[end])
    return tf.stack(labels, axis=1)


def _at_keypoints(pairs: tf.Tensor, tree: Tree) -> tf.Tensor:
    """Return the sums `(B, K, P)` at each peak over its pairs `(B, E, P, P)`."""
    total: list[list[tf.Tensor]] = [[] for _ in range(tree.keypoints)]
    for axis, end in ((3, 0), (2, 1)):
        at_ends = tf.unstack(tf.reduce_sum(pairs, axis=axis), axis=1)
        for index, values in zip(tree.order, at_ends, strict=True):
            total[tree.edges[index][end]].append(values)
    nothing = tf.zeros_like(pairs[:, 0, 0])
    return tf.stack([tf.add_n(values or [nothing]) for values in total], axis=1)


def _best(
    labels: tf.Tensor, linked: tf.Tensor, quality: tf.Tensor, rules: Rules
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which peaks the best animals have, and how good these are.

    Args:
        labels: `(B, K, P)` int32, from `_labels`.
        linked: `(B, K, P)` bool, which peaks may be of an animal.
        quality: `(B, K, P)` in 0..1.
        rules: Which animals are kept.

    Returns:
        Members `(B, I, K, P)` bool, and scores `(B, I)`, NaN where there is no animal.
    """
    keypoints, room = labels.shape[1:]
    count = keypoints * room
    weights = tf.stack([tf.cast(linked, tf.float32), tf.where(linked, quality, 0.0)], axis=1)
    has_label = tf.one_hot(tf.reshape(labels, (-1, count)), count)
    size, total = tf.unstack(tf.reshape(weights, (-1, 2, count)) @ has_label, axis=1)
    is_animal = size >= max(rules.min_keypoints, 1)
    rank = tf.where(is_animal, tf.math.divide_no_nan(total, size), -1.0)
    scores, best = tf.math.top_k(rank, min(rules.max_instances, count))
    empty = [[0, 0], [0, max(rules.max_instances - count, 0)]]
    scores, best = tf.pad(scores, empty, constant_values=-1.0), tf.pad(best, empty)
    is_there = scores >= 0
    members = (labels[:, None] == best[:, :, None, None]) & linked[:, None]
    return members & is_there[:, :, None, None], tf.where(is_there, scores, math.nan)


def _members(peaks: Peaks, members: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the points `(B, I, K, 2)` and confidence `(B, I, K)` of animals, NaN where none is.

    Args:
        peaks: Of which an animal has one or none for each keypoint.
        members: `(B, I, K, P)` bool, which.
    """
    confidence = tf.clip_by_value(peaks.values, 0.0, 1.0)
    x, y, confidence = (
        tf.reduce_sum(tf.where(members, each[:, None], 0.0), axis=3)
        for each in (peaks.points[..., 0], peaks.points[..., 1], confidence)
    )
    is_there = tf.reduce_any(members, axis=3)
    points = tf.where(is_there[..., None], tf.stack([x, y], axis=-1), math.nan)
    return points, tf.where(is_there, confidence, math.nan)


def _with_lone(
    members: tf.Tensor, points: tf.Tensor, peaks: Peaks, lone: tuple[int, ...]
) -> tf.Tensor:
    """Return the members with peaks of keypoints at no edge, each given to the nearest animal.

    Args:
        members: `(B, I, K, P)` bool, without such.
        points: Of the animals, `(B, I, K, 2)`.
        peaks: All.
        lone: The keypoints at no edge.
    """
    instances, room = members.shape[1], members.shape[3]
    is_there = tf.math.is_finite(points)
    low, high = (
        reduce(tf.where(is_there, points, empty), axis=2)
        for reduce, empty in ((tf.reduce_min, tf.float32.max), (tf.reduce_max, tf.float32.min))
    )
    # Of no animal it is not finite, and nothing is near.
    length = tf.norm(tf.where(high >= low, high - low, math.nan), axis=-1)
    at = tf.reshape(tf.gather(peaks.points, lone, axis=1), (-1, 1, 1, len(lone) * room, 2))
    away_x, away_y = (points[..., axis, None] - at[..., axis] for axis in (0, 1))
    away = tf.sqrt(tf.square(away_x) + tf.square(away_y))
    away = tf.reduce_min(tf.where(tf.math.is_finite(away), away, tf.float32.max), axis=2)
    # One table for each of the keypoints: animals, peaks.
    away = tf.reshape(away, (-1, instances, len(lone), room))
    is_near = away <= length[:, :, None, None]
    is_near &= tf.gather(peaks.valid, lone, axis=1)[:, None]
    tables = [tf.transpose(each, (0, 2, 1, 3)) for each in (-away, is_near)]
    matches = ASSIGNMENTS["exact"](*(tf.reshape(each, (-1, instances, room)) for each in tables))
    taken = tf.reshape(matches, (-1, len(lone), instances, 1)) == tf.range(room)
    columns = tf.unstack(members, axis=2)
    for keypoint, its in zip(lone, tf.unstack(taken, axis=1), strict=True):
        columns[keypoint] = its
    return tf.stack(columns, axis=2)
