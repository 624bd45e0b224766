"""The stacked hourglass as a functional graph of stock Keras layers."""

from hgtrain.model.backbones import BACKBONES
from hgtrain.model.blocks import DownsamplingBlock, StemBlock, UpsamplingBlock, conv
from hgtrain.model.hourglass import Hourglass

__all__ = ["BACKBONES", "DownsamplingBlock", "Hourglass", "StemBlock", "UpsamplingBlock", "conv"]
