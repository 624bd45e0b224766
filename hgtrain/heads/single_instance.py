"""The head for one animal in an image."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hgtrain.heads.one_animal import CONFMAPS, OFFSETS, OneAnimal
from hgtrain.skeleton import Skeleton


@dataclass(frozen=True)
class SingleInstance(OneAnimal):
    """Confidence maps of the one animal in an image."""

    LAYERS: ClassVar[dict[str, str]] = {
        CONFMAPS: "SingleInstanceConfmapsHead",
        OFFSETS: "OffsetRefinementHead",
    }
    several_animals: ClassVar[bool] = False
    crop: ClassVar[None] = None

    @classmethod
    def of_skeleton(
        cls, skeleton: Skeleton, stride: int, complete: bool, **keys: Any
    ) -> "SingleInstance":
        """Return the head of a dataset's skeleton, with the keys of its section."""
        return cls(len(skeleton.keypoint_names), stride, **keys)
