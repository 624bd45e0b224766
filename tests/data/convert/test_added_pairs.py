import pytest

from hgtrain.data.convert.added_pairs import AddedPairs, pair_notes, with_pairs
from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton

NAMES = ("snout", "leftear", "rightear", "eyeL", "eyeR", "a,b")
MOUSE = Skeleton(NAMES, ((0, 1),), ((1, 2),))
BARE = Skeleton(NAMES)


def changed(skeleton, symmetries=(), edges=()):
    return with_pairs(skeleton, AddedPairs(symmetries, edges), "mice.h5")


def test_pairs_are_added_to_those_that_the_file_has():
    found = changed(MOUSE, ("eyeL,eyeR",), ("snout,rightear", "rightear,eyeR"))
    assert found == Skeleton(NAMES, ((0, 1), (0, 2), (2, 4)), ((1, 2), (3, 4)))
    assert pair_notes(MOUSE, found) == [
        "Added left/right partners: eyeL,eyeR.",
        "Added edges: snout,rightear rightear,eyeR.",
    ]


def test_the_order_of_a_pair_is_the_users():
    assert changed(BARE, ("rightear,leftear",)).symmetries == ((2, 1),)


@pytest.mark.parametrize(
    ("symmetries", "edges"),
    [((), ()), (("leftear,rightear",), ()), (("rightear,leftear",), ("leftear,snout",))],
)
def test_what_is_there_is_not_added_again(symmetries, edges):
    found = changed(MOUSE, symmetries, edges)
    assert (found, pair_notes(MOUSE, found)) == (MOUSE, [])


def test_names_tell_pairs_beside_those_that_are_given():
    assert changed(BARE, ("auto",)).symmetries == ((1, 2), (3, 4))
    assert changed(BARE, ("auto", "leftear,snout")).symmetries == ((1, 0), (3, 4))
    assert changed(MOUSE, ("auto",)).symmetries == ((1, 2), (3, 4))


def test_a_name_may_have_a_comma():
    assert changed(BARE, (), ("snout,a,b", "a,b,eyeL")).edges == ((0, 5), (5, 3))


@pytest.mark.parametrize(
    ("symmetries", "edges", "message"),
    [
        (
            ("leftear,rigthear",),
            (),
            r"^--symmetry leftear,rigthear: mice\.h5 has no keypoint 'rigthear' "
            r"\(did you mean rightear\?\)$",
        ),
        (
            (),
            ("xyz,snout",),
            r"^--edge xyz,snout: mice\.h5 has no keypoint 'xyz' \(it has snout, leftear, .*\)$",
        ),
        (("leftear,leftear",), (), r"^--symmetry leftear,leftear must join two different"),
        ((), ("snout,snout",), r"^--edge snout,snout must join two different keypoints$"),
        (
            ("leftear,rightear", "snout,rightear"),
            (),
            r"^--symmetry snout,rightear: rightear is the partner of leftear already, and a "
            r"keypoint has one at most$",
        ),
        (("leftear",), (), r"^--symmetry leftear: expected two keypoints of mice.* or auto$"),
        ((), ("auto",), r"^--edge auto: expected two keypoints of mice.*, such as snout,a,b$"),
    ],
)
def test_pairs_that_make_no_sense_are_refused(symmetries, edges, message):
    with pytest.raises(DatasetError, match=message):
        changed(BARE, symmetries, edges)


def test_a_partner_that_the_file_has_is_not_replaced():
    with pytest.raises(DatasetError, match=r"leftear is the partner of rightear already"):
        changed(MOUSE, ("leftear,snout",))


def test_names_that_tell_nothing_are_refused():
    with pytest.raises(DatasetError, match=r"--symmetry auto: no two keypoints .* got head, tail:"):
        changed(Skeleton(("head", "tail")), ("auto",))
    known = Skeleton(("head", "tail"), (), ((0, 1),))
    assert changed(known, ("auto",)) == known
