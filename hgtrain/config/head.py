"""The section `model.head`: what the network predicts."""

from typing import Annotated, Literal

from pydantic import Field

from hgtrain.config import fields
from hgtrain.config.choices import HEAD_TYPES, HEADS_OF_KEY
from hgtrain.config.section import TypedSection


class HeadConfig(TypedSection):
    """What the network predicts.

    Keys that belong to other types than `type` are mistakes where they are given, and are left out
    where a config is written.
    """

    TYPES = HEAD_TYPES
    TYPES_OF_KEY = HEADS_OF_KEY

    type: Literal["single_instance", "multi_instance", "centroid", "centered_instance"] = Field(
        default="single_instance",
        description="Kind of head; single_instance: one animal per image; multi_instance: "
        "several, bottom-up; centroid and centered_instance: several, top-down",
    )
    sigma_px: Annotated[float, Field(ge=0.1, le=256)] = Field(
        default=5.0, description="Sigma of the Gaussian, pixels of the network's input"
    )
    loss_weight: fields.Positive = Field(default=1.0, description="Factor of the maps' loss")
    offsets: bool = Field(
        default=False, description="Predict too where in its cell a keypoint lies"
    )
    offsets_loss_weight: fields.Positive = Field(
        default=1.0, description="Factor of the offsets' loss"
    )
    paf_width_px: Annotated[float, Field(ge=0.1, le=1000)] = Field(
        default=10.0,
        description="multi_instance: half width at half height of the part affinity fields, "
        "pixels of the network's input",
    )
    paf_loss_weight: fields.Positive = Field(
        default=1.0, description="multi_instance: factor of the part affinity fields' loss"
    )
    max_instances: Annotated[int, Field(ge=1, le=256)] | None = Field(
        default=None,
        description="multi_instance, centroid: the most animals to find in an image; null: two "
        "more than the most in a labelled frame",
    )
    peak_threshold: fields.Fraction = Field(
        default=0.2, description="multi_instance, centroid: height from which a peak counts"
    )
    min_line_score: Annotated[float, Field(ge=-1, le=1)] = Field(
        default=0.25,
        description="multi_instance: score of the field from which two peaks are of one animal",
    )
    min_keypoints: fields.Size = Field(
        default=1, description="multi_instance: keypoints an animal has at least"
    )
    assignment: Literal["exact", "greedy"] = Field(
        default="exact", description="multi_instance: how peaks are matched along an edge"
    )
    anchor: fields.Name | None = Field(
        default=None,
        description="centroid, centered_instance: the keypoint that is an animal's centroid; "
        "null: the middle of the bounding box",
    )
    crop_size_px: fields.Size | None = Field(
        default=None,
        description="centered_instance: side of the crop, pixels of the network's input; null: "
        "from the labels",
    )
    centroid_jitter: Annotated[float, Field(ge=0, le=0.5)] = Field(
        default=0.05,
        description="centered_instance: standard deviation of the crop's place in training, part "
        "of its side",
    )

    @property
    def several_animals(self) -> bool:
        """Return whether a frame may hold several animals."""
        return self.type != "single_instance"

    @property
    def needs_animals(self) -> bool:
        """Return whether a frame without animals is of no use."""
        return self.type in ("single_instance", "centered_instance")

    @property
    def sees_crops(self) -> bool:
        """Return whether the network sees a crop around each animal instead of the image."""
        return self.type == "centered_instance"

    @property
    def finds_centroids(self) -> bool:
        """Return whether the network finds where animals are, and no more."""
        return self.type == "centroid"


SINGLE_INSTANCE = HeadConfig()
"""The head for one animal, with its defaults."""

MULTI_INSTANCE = HeadConfig(type="multi_instance")
"""The head for several animals in one network, with its defaults."""
