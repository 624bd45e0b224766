"""Partners and edges that the user names for a skeleton, beside those that a file has."""

import difflib
from collections.abc import Sequence
from typing import NamedTuple

from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton, partners_by_name

BY_NAME = "auto"
"""Instead of a pair: all that the names tell."""

Pair = tuple[int, int]


class AddedPairs(NamedTuple):
    """What to add to a skeleton, each pair as `A,B` by the keypoints' names.

    Attributes:
        symmetries: Left/right partners; `auto` takes those that the names tell, as `inspect` does.
        edges: From one keypoint to another.
    """

    symmetries: tuple[str, ...] = ()
    edges: tuple[str, ...] = ()


NONE_ADDED = AddedPairs()


def with_pairs(skeleton: Skeleton, added: AddedPairs, source: str) -> Skeleton:
    """Return the skeleton with partners and edges added to its own.

    What it has already is not added again.

    Args:
        skeleton: What the file has.
        added: What the user names.
        source: The file, as messages name it.

    Raises:
        DatasetError: A text is no pair, a keypoint is unknown, is joined with itself or would have
            two partners, or `auto` finds no partners and there are no others.
    """
    names = skeleton.keypoint_names
    symmetries, edges = list(skeleton.symmetries), list(skeleton.edges)
    for text in added.symmetries:
        if text != BY_NAME:
            _add_partners(symmetries, _pair(names, text, "--symmetry", source), text, names)
    if BY_NAME in added.symmetries:
        symmetries += partners_by_name(names, symmetries)
        if not symmetries:
            raise DatasetError(
                f"--symmetry {BY_NAME}: no two keypoints of {source} differ by left and right "
                f"alone, got {', '.join(names)}: name the pairs with --symmetry LEFT,RIGHT"
            )
    for text in added.edges:
        edge = _pair(names, text, "--edge", source)
        edges += [] if edge in edges or edge[::-1] in edges else [edge]
    return Skeleton(names, tuple(edges), tuple(symmetries))


def _add_partners(symmetries: list[Pair], pair: Pair, text: str, names: Sequence[str]) -> None:
    if pair in symmetries or pair[::-1] in symmetries:
        return
    for keypoint in pair:
        for other in symmetries:
            if keypoint in other:
                partner = other[1 - other.index(keypoint)]
                raise DatasetError(
                    f"--symmetry {text}: {names[keypoint]} is the partner of {names[partner]} "
                    "already, and a keypoint has one at most"
                )
    symmetries.append(pair)


def _pair(names: Sequence[str], text: str, option: str, source: str) -> Pair:
    if "," not in text:
        word = f", or {BY_NAME}" if option == "--symmetry" else ""
        raise DatasetError(
            f"{option} {text}: expected two keypoints of {source} with a comma between, such as "
            f"{names[0]},{names[-1]}{word}"
        )
    commas = [i for i, letter in enumerate(text) if letter == ","]
    splits = [(text[:comma], text[comma + 1 :]) for comma in commas]
    # A name may have commas of its own.
    pair = next((split for split in splits if set(split) <= set(names)), splits[0])
    for name in pair:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            fix = f"did you mean {near[0]}?" if near else f"it has {', '.join(names)}"
            raise DatasetError(f"{option} {text}: {source} has no keypoint {name!r} ({fix})")
    if pair[0] == pair[1]:
        raise DatasetError(f"{option} {text} must join two different keypoints")
    return names.index(pair[0]), names.index(pair[1])


def pair_notes(before: Skeleton, after: Skeleton) -> list[str]:
    """Return which partners and edges were added, a sentence for each kind."""
    notes = []
    kinds = (
        ("left/right partners", before.symmetries, after.symmetries),
        (
            "edges",
            before.edges,
            after.edges,
        ),
    )
    for kind, old, new in kinds:
        listed = [",".join(after.keypoint_names[i] for i in pair) for pair in new[len(old) :]]
        if listed:
            notes.append(f"Added {kind}: {' '.join(listed)}.")
    return notes
