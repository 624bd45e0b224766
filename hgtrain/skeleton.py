"""The skeleton of an animal: names of its keypoints, edges between them, left/right partners."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from hgtrain.errors import DatasetError

RIGHT = {"left": "right", "Left": "Right", "LEFT": "RIGHT", "l": "r", "L": "R"}


class Skeleton(NamedTuple):
    """The skeleton of an animal.

    Attributes:
        keypoint_names: Names of the keypoints.
        edges: `(from, to)` by index.
        symmetries: Left/right partners as `(left, right)`, by index.
    """

    keypoint_names: tuple[str, ...]
    edges: tuple[tuple[int, int], ...] = ()
    symmetries: tuple[tuple[int, int], ...] = ()

    def keypoint_index(self, name: str | None) -> int | None:
        """Return the place of a keypoint, None for none.

        Raises:
            ValueError: There is no such keypoint.
        """
        return None if name is None else self.keypoint_names.index(name)


class Tree(NamedTuple):
    """How an animal is put together along the edges of its skeleton.

    Attributes:
        keypoints: How many the skeleton has.
        edges: Pairs of keypoints, all of the skeleton's.
        order: Indices of the edges that are used, each after the one that leads to it.
        backwards: For each of `order`, whether it leads from its second keypoint to its first.
        unused: Indices of edges that would close a circle; what they say is not needed.
        lone: Keypoints at no edge.
    """

    keypoints: int
    edges: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    backwards: tuple[bool, ...]
    unused: tuple[int, ...]
    lone: tuple[int, ...]


def check_skeleton(skeleton: Skeleton, where: str) -> Skeleton:
    """Return the skeleton after checking it.

    Raises:
        DatasetError: Names are empty or repeated, or pairs make no sense.
    """
    names = skeleton.keypoint_names
    for index, name in enumerate(names):
        if not name or name in names[:index]:
            problem = f"is also keypoint {names.index(name)}" if name else "is empty"
            raise DatasetError(
                f"{where}: the name {name!r} of keypoint {index} {problem}; names must differ"
            )
    for kind, pairs in (("edge", skeleton.edges), ("symmetry", skeleton.symmetries)):
        for pair in pairs:
            if pair[0] == pair[1] or not all(0 <= i < len(names) for i in pair):
                raise DatasetError(
                    f"{where}: {kind} {tuple(pair)} must join two different keypoints out of 0 to "
                    f"{len(names) - 1}"
                )
    partners = [i for pair in skeleton.symmetries for i in pair]
    for index in partners:
        if partners.count(index) > 1:
            raise DatasetError(
                f"{where}: keypoint {index} ({names[index]}) is in more than one symmetry"
            )
    return skeleton


def unnamed_skeleton(keypoints: int) -> Skeleton:
    """Return the skeleton of so many keypoints of which nothing is known."""
    return Skeleton(default_names(keypoints))


def left_right_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Return the names that differ by left and right, or by an L and an R, and nothing else.

    The left one of each pair comes first, and no name is in two pairs.
    """
    pairs: list[tuple[str, str]] = []
    paired: set[str] = set()
    for name in names:
        for side in re.finditer(r"left|L(?:EFT|eft)?|l(?![a-z])|(?<![a-z])l", name):
            other = name[: side.start()] + RIGHT[side[0]] + name[side.end() :]
            if other in names and paired.isdisjoint((name, other)):
                pairs.append((name, other))
                paired.update((name, other))
                break
    return pairs


def partners_by_name(
    names: Sequence[str], symmetries: Sequence[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Return the pairs by index that names tell, of keypoints without a partner in `symmetries`."""
    taken = {keypoint for pair in symmetries for keypoint in pair}
    pairs = [(names.index(left), names.index(right)) for left, right in left_right_pairs(names)]
    return [pair for pair in pairs if taken.isdisjoint(pair)]


def default_names(count: int) -> tuple[str, ...]:
    """Return `keypoint0`, `keypoint1`, ... for files that name no keypoints."""
    return tuple(f"keypoint{i}" for i in range(count))


def tree_edges(edges: Sequence[tuple[int, int]], keypoints: int) -> Tree:
    """Return in which order edges are followed, breadth first, so that none closes a circle.

    First come keypoints that are nobody's second; direction only decides where to begin: a keypoint
    with two parents joins both.

    Args:
        edges: Pairs of keypoints.
        keypoints: How many there are.
    """
    seconds = {second for _, second in edges}
    ends = {end for edge in edges for end in edge}
    order: list[int] = []
    backwards: list[bool] = []
    reached: set[int] = set()
    for root in sorted(ends, key=lambda keypoint: (keypoint in seconds, keypoint)):
        waiting = [] if root in reached else [root]
        reached.add(root)
        # Grows while it is read.
        for keypoint in waiting:
            for index, (first, second) in enumerate(edges):
                other = {first: second, second: first}.get(keypoint, keypoint)
                if other not in reached:
                    reached.add(other)
                    waiting.append(other)
                    order.append(index)
                    backwards.append(keypoint == second)
    return Tree(
        keypoints,
        tuple((int(first), int(second)) for first, second in edges),
        tuple(order),
        tuple(backwards),
        tuple(sorted(set(range(len(edges))) - set(order))),
        tuple(sorted(set(range(keypoints)) - ends)),
    )


def check_same_keypoints(
    names: Sequence[str], others: Sequence[str], where: object, other: object
) -> None:
    """Check that keypoints agree by name and order.

    Args:
        names: Of the one.
        others: Of the other.
        where: What has the one, as a message says it: a file, a run.
        other: What has the other.

    Raises:
        DatasetError: They do not.
    """
    if len(names) != len(others):
        raise DatasetError(
            f"{where} has {len(names)} keypoints ({', '.join(names)}) but {other} has "
            f"{len(others)} ({', '.join(others)}): they must be the same, in the same order"
        )
    for index, (name, its) in enumerate(zip(names, others, strict=True)):
        if name != its:
            raise DatasetError(
                f"keypoint {index} of {where} is {name!r} but that of {other} is {its!r}: "
                "keypoints must be the same, in the same order"
            )
