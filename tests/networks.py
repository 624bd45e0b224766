"""Networks, predictors and what they are built for, as `fit` puts them together from a config."""

import keras

from hgtrain.config.schema import Config, ModelConfig
from hgtrain.heads import Head, make_head
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.model.network import build_network
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.planning.input_spec import InputSpec
from hgtrain.predict.predictor import Predictor
from hgtrain.skeleton import unnamed_skeleton


def spec_of(
    config: Config,
    image_shape: tuple[int, int, int],
    keypoints: int,
    animal_px: float | None = None,
) -> InputSpec:
    sections = (config.data, config.model, config.training)
    return InputSpec(*sections, image_shape, unnamed_skeleton(keypoints), animal_px)


def head_of(model: ModelConfig, keypoints: int) -> Head:
    return make_head(model.head, unnamed_skeleton(keypoints), model.backbone.output_stride)


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
