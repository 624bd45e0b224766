"""Networks and predictors as `fit` puts them together, from a `model` section."""

import keras

from hgtrain.config.schema import ModelConfig
from hgtrain.heads import Head, make_head
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.model.network import build_network
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.predict.predictor import Predictor


def head_of(model: ModelConfig, keypoints: int) -> Head:
    return make_head(model.head, keypoints, model.backbone.output_stride)


def whole_network(
    model: ModelConfig,
    channels: int,
    keypoints: int,
    precision: str = "float32",
    all_stacks: bool = True,
) -> keras.Model:
    head = head_of(model, keypoints)
    return build_network(model.backbone, head.layers, channels, precision, all_stacks)


def predictor_with(
    model: keras.Model, preprocessing: Preprocessing, stride: int, batch_size: int = 8
) -> Predictor:
    """Return a predictor whose head refines peaks within three cells."""
    head = SingleInstance(model.output_shape[-1], stride, sigma_px=1.1 * stride)
    return Predictor(model, head, preprocessing, batch_size)
