"""Validation looks for points in the images, not in what they are padded with."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from keras import layers

from hgtrain.coords import resized_points
from hgtrain.data.split import Split, Subset
from hgtrain.heads.single_instance import SingleInstance
from hgtrain.pipeline.frame_store import StoredSplit
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.pipeline.samples import Samples
from hgtrain.train.validation import Validation

STRIDE = 2


class Stored:
    """Images in memory."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __call__(self, chosen: np.ndarray) -> np.ndarray:
        return self.images[chosen]


@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_no_point_is_found_in_the_padding(input_scale: float) -> None:
    image = keras.Input((None, None, 1))
    dark = layers.AveragePooling2D(1, STRIDE)(layers.Rescaling(-1 / 255, 1)(image))
    truth = np.random.default_rng(0).uniform([8, 8], [41, 32], (5, 2)).astype(np.float32)
    y, x = np.mgrid[:41, :50]
    squared = (x - truth[:, :1, None]) ** 2 + (y - truth[:, 1:, None]) ** 2
    images = (255 - 250 * np.exp(-squared / (2 * 4.0**2))).astype(np.uint8)[..., None]

    side = Subset(
        SimpleNamespace(
            points=((truth + 0.5) / input_scale - 0.5)[:, None, None],
            visibility=np.full((5, 1, 1), 2, np.uint8),
        ),
        np.arange(5),
    )
    samples, store = Samples(side, input_scale, of_animals=False), Stored(images)
    preprocessing = Preprocessing(1, input_scale, multiple=64)
    frames = StoredSplit(
        Split(side, side), preprocessing, store, store, samples, samples, "ram", None
    )
    network = keras.Model(image, dark)
    validate = Validation(network, SingleInstance(1, STRIDE, sigma_px=4.0), frames, batch_size=2)
    row, found = validate()
    np.testing.assert_allclose(resized_points(found.points[:, 0, 0], input_scale), truth, atol=0.5)
    assert row["val_error_px"] < 0.5 / input_scale
    assert 0.9 < row["val_confidence"] < 0.99
