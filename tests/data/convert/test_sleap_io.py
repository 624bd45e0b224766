import sys

import pytest

from hgtrain.data.convert.sleap_io import (
    from_foreign_skeleton,
    import_sleap_io,
    to_foreign_skeleton,
)
from hgtrain.errors import RunError
from hgtrain.skeleton import Skeleton


def test_without_sleap_io_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    with pytest.raises(
        RunError, match=r"sleap-io is needed to write a\.slp: pip install 'hgtrain\[convert\]'"
    ):
        import_sleap_io("to write a.slp")


def test_a_skeleton_comes_back_as_it_was():
    pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")
    skeleton = Skeleton(("nose", "left", "right"), ((0, 2), (0, 1)), ((1, 2),))
    assert from_foreign_skeleton(to_foreign_skeleton(skeleton), "a.slp") == skeleton
