"""The second head of top-down: the keypoints of the one animal in the middle of a crop."""

from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from hgtrain.coords import Crop
from hgtrain.heads.one_animal import CONFMAPS, OFFSETS, OneAnimal
from hgtrain.heads.targets.centroids import centroids
from hgtrain.skeleton import Skeleton


@dataclass(frozen=True)
class CenteredInstance(OneAnimal):
    """Confidence maps of the animal that a crop is around; others in the crop are background.

    Attributes:
        crop_size_px: Side of the crop, px of the network's input.
        anchor: The keypoint that is an animal's centroid; None for the middle of its points.
        centroid_jitter: Standard deviation of the crop's place in training, part of its side.
    """

    crop_size_px: int = 0
    anchor: int | None = None
    centroid_jitter: float = 0.0
    LAYERS: ClassVar[dict[str, str]] = {
        CONFMAPS: "CenteredInstanceConfmapsHead",
        OFFSETS: "OffsetRefinementHead",
    }
    several_animals: ClassVar[bool] = True

    @classmethod
    def of_skeleton(
        cls,
        skeleton: Skeleton,
        stride: int,
        complete: bool,
        crop_size_px: int | None,
        anchor: str | None,
        **keys: Any,
    ) -> "CenteredInstance":
        """Return the head of a dataset's skeleton, with the keys of its section.

        Raises:
            ValueError: The size of the crop is not known.
        """
        if crop_size_px is None:
            raise ValueError("model.head.crop_size_px is null: it is taken from labels")
        keys |= {"crop_size_px": crop_size_px, "anchor": skeleton.keypoint_index(anchor)}
        return cls(len(skeleton.keypoint_names), stride, **keys)

    @property
    def crop(self) -> Crop:
        """What the network sees of an image."""
        around = partial(centroids, anchor=self.anchor)
        return Crop(self.crop_size_px, self.centroid_jitter, around)
