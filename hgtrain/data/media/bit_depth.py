"""How many of 16 bits a camera used.

Cameras of 10, 12 and 14 bits write their values as they are into pixels of 16 bits: the upper 8 of
these are nearly black.
"""

from collections.abc import Callable, Iterable
from functools import cached_property

import numpy as np

from hgtrain.log import Reporter, say

DEPTHS = (8, 10, 12, 14, 16)


def depth_for(largest: int) -> int:
    """Return the fewest bits of a camera that a pixel of this value can come from."""
    return next(bits for bits in DEPTHS if largest < 1 << bits)


class BitDepth:
    """The bits in use by the 16-bit images of a source.

    One number for all images, so that a dark image stays darker than the others. It is found when
    it is first asked for: images of 8 bits cost nothing.
    """

    def __init__(self, name: str, count: int, largest: Callable[[], Iterable[int]]) -> None:
        """Look at nothing yet.

        Args:
            name: Of the source, for the log.
            count: How many images there are, 0 where nobody knows.
            largest: Gives the largest value of each image; of images of 8 bits 0.
        """
        self._name, self._count, self._largest = name, count, largest

    @cached_property
    def bits(self) -> int:
        """The bits, one of `DEPTHS`; a line of the log says so where they are not 16."""
        found, value = DEPTHS[0], 0
        reporter = Reporter(self._count, "looking for the bit depth", "frames")
        try:
            for done, largest in enumerate(self._largest(), start=1):
                value = max(value, largest)
                found = depth_for(value)
                if found == DEPTHS[-1]:
                    return found
                reporter.update(done)
        finally:
            reporter.close()
        say(
            f"{self._name}: its 16-bit images use {found} bits (the largest value is {value}): "
            f"all are read as images of {found} bits"
        )
        return found

    def upper_8(self, pixels: np.ndarray) -> np.ndarray:
        """Return pixels of 16 bits as uint8, the depth's upper 8 bits."""
        return (pixels >> (self.bits - 8)).astype(np.uint8)
