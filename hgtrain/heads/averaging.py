"""The mean of what a network says of an image and of the image turned and mirrored.

Cells are in place already, here channels are: a mirrored left ear is a right one, and vectors are
turned with the image.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import tensorflow as tf

from hgtrain.coords import Turn

Source = tuple[int, float] | None
"""The channel that an output's channel is in the turned image, and a factor; None for none."""

Pairs = Sequence[tuple[int, int]]


def partners(count: int, symmetries: Pairs) -> list[int]:
    """Return for each of so many keypoints what it is in a mirrored image, itself or its partner.

    Args:
        count: Of the keypoints.
        symmetries: Left/right partners, by index.
    """
    other = {a: b for pair in symmetries for a, b in (pair, pair[::-1])}
    return [other.get(keypoint, keypoint) for keypoint in range(count)]


def partner_edges(edges: Pairs, symmetries: Pairs) -> list[Source]:
    """Return for each edge which one it is in a mirrored image, and -1 where that leads back.

    It is None where the skeleton has no such edge.
    """
    keypoints = 1 + max((end for edge in edges for end in edge), default=-1)
    other = partners(keypoints, symmetries)
    places: dict[tuple[int, int], Source] = {}
    for place, (first, second) in enumerate(edges):
        places.setdefault((first, second), (place, 1.0))
        places.setdefault((second, first), (place, -1.0))
    return [places.get((other[first], other[second])) for first, second in edges]


def of_maps(own: Sequence[Source]) -> Callable[[Turn], list[Source]]:
    """Return what gives the sources of maps.

    Args:
        own: Of each map in a mirrored image.
    """

    def sources(turn: Turn) -> list[Source]:
        return list(own) if turn.is_mirrored else [(channel, 1.0) for channel in range(len(own))]

    return sources


def of_vectors(own: Sequence[Source]) -> Callable[[Turn], list[Source]]:
    """Return what gives the sources of vectors, whose channels are x and y of each in turn.

    Args:
        own: Of each vector in a mirrored image.
    """

    def sources(turn: Turn) -> list[Source]:
        channels: list[Source] = []
        for vector in of_maps(own)(turn):
            for axis in (0, 1):
                component, sign = turn.component(axis)
                channels.append(
                    None if vector is None else (2 * vector[0] + component, sign * vector[1])
                )
        return channels

    return sources


def mean(
    views: Sequence[tuple[Turn, tf.Tensor]], sources: Callable[[Turn], list[Source]]
) -> tf.Tensor:
    """Return the mean of an output over views of an image, `(B, h, w, C)`.

    A view counts for those channels alone that it has.

    Args:
        views: How the image was turned, and what the network said of it, `(B, h, w, C)`, its cells
            at their places in the image.
        sources: Of the channels in a turned image.
    """
    summed, counts = [], 0.0
    for turn, maps in views:
        channels = sources(turn)
        order = [0 if source is None else source[0] for source in channels]
        factors = [0.0 if source is None else source[1] for source in channels]
        summed.append(tf.gather(maps, order, axis=-1) * tf.constant(factors, tf.float32))
        counts += tf.abs(tf.constant(factors, tf.float32))
    return tf.add_n(summed) / counts


def mean_outputs(
    views: Sequence[tuple[Turn, Mapping[str, tf.Tensor]]],
    names: Iterable[str],
    sources: Mapping[str, Callable[[Turn], list[Source]]],
) -> dict[str, tf.Tensor]:
    """Return the mean of each output over views of an image, by name.

    Args:
        views: As of `mean`, of all outputs.
        names: Of the outputs.
        sources: Of the channels of each, by name.
    """
    return {
        name: mean([(turn, outputs[name]) for turn, outputs in views], sources[name])
        for name in names
    }
