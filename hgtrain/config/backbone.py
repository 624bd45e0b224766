"""The section `model.backbone`: the network without its head."""

from typing import Annotated, Literal

from pydantic import Field

from hgtrain.config import fields
from hgtrain.config.choices import BACKBONE_TYPES, BACKBONES_OF_KEY
from hgtrain.config.section import TypedSection


class BackboneConfig(TypedSection):
    """The stacked hourglass: the reference's with its names and defaults, or one of two papers.

    Keys that belong to other types than `type` are mistakes where they are given, and are left out
    where a config is written.
    """

    TYPES = BACKBONE_TYPES
    TYPES_OF_KEY = BACKBONES_OF_KEY

    type: Literal["hourglass", "associative_embedding", "residual_hourglass"] = Field(
        default="hourglass",
        description="Kind of backbone; hourglass: the reference's; associative_embedding: plain "
        "convolutions without normalisation (Newell, Huang and Deng 2017); residual_hourglass: "
        "residual blocks (Newell, Yang and Deng 2016)",
    )
    reinject: bool = Field(
        default=False,
        description="hourglass: features and outputs of a stack are added to what it saw, and make "
        "the next stack's input, as in the other two; false: its features alone",
    )
    stem_stride: Annotated[Literal[1, 2, 4], fields.one_of(1, 2, 4)] = Field(
        default=4, description="Stride of the stem"
    )
    max_stride: fields.PowerOfTwo = Field(
        default=64, description="Stride of the coarsest features, a power of two"
    )
    output_stride: fields.PowerOfTwo = Field(
        default=4, description="Stride of the confidence maps, a power of two"
    )
    stem_filters: fields.Filters = Field(
        default=128, description="hourglass: filters of the stem's first convolution"
    )
    filters: fields.Filters = Field(
        default=256, description="Filters of the first block; the papers' stems have a quarter"
    )
    filter_increase: Annotated[int, Field(ge=0, le=4096)] = Field(
        default=128,
        description="hourglass, associative_embedding: filters added with each block down",
    )
    stacks: Annotated[int, Field(ge=1, le=64)] = Field(
        default=3, description="Hourglasses in a row, each supervised; the papers have 4 and 8"
    )
    interp_method: Literal["nearest", "bilinear"] = Field(
        default="nearest", description="Interpolation on the way up"
    )
