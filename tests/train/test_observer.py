"""What TensorBoard is shown of a validation."""

from contextlib import closing
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from hgtrain.config.schema import HeadConfig, TrainingConfig
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.media.drawing import COLOURS, PREDICTED_COLOUR, TRUTH_COLOUR
from hgtrain.data.open import open_all
from hgtrain.data.split import Subset
from hgtrain.pipeline.samples import Samples
from hgtrain.poses import Poses, no_poses
from hgtrain.skeleton import Skeleton
from hgtrain.train.loop import State
from hgtrain.train.observer import TrainingObserver

FIRST, SECOND = ([[10, y], [40, y]] for y in (10, 40))
NOBODY = [[np.nan] * 2] * 2
LABELS = np.array([[FIRST, SECOND], [NOBODY, NOBODY], [NOBODY, FIRST]], np.float32)


@pytest.fixture
def side(tmp_path):
    frames = ((np.zeros((50, 50, 1), np.uint8), animals, None, None) for animals in LABELS)
    write_dataset(tmp_path / "a.h5", Skeleton(("a", "b"), ((0, 1),)), frames)
    with closing(open_all([str(tmp_path / "a.h5")])) as dataset:
        yield Subset(dataset, np.arange(3))


def pictures(folder, side, found, of_animals=False):
    """The pictures that TensorBoard gets after an epoch."""
    frames = SimpleNamespace(
        split=SimpleNamespace(validation=side), validation_samples=Samples(side, 1.0, of_animals)
    )
    head = SimpleNamespace(labelled=lambda points: points)
    networks = SimpleNamespace(head=head)
    trainer = SimpleNamespace(frames=frames, validation_poses=found, networks=networks)
    folder.mkdir()
    observer = TrainingObserver(trainer, folder, range(1), TrainingConfig(), HeadConfig(), True)
    row = {
        "epoch": 1,
        "step": 1,
        "loss": 1.0,
        "loss_per_stack": [1.0],
        "loss_per_output": {"confmaps": 1.0},
        "val_loss": 1.0,
        "val_error_px": None,
        "data_wait_fraction": None,
    }
    observer.epoch_ended(State(step=1), row, {"val_confidence": None})
    observer.close()
    (path,) = (folder / "tensorboard").iterdir()
    events = map(
        tf.compat.v1.Event.FromString, tf.data.TFRecordDataset(str(path)).as_numpy_iterator()
    )
    return [
        tf.io.decode_png(value.image.encoded_image_string).numpy()
        for event in events
        for value in event.summary.value
        if value.tag.startswith("validation/")
    ]


def has(picture, colour):
    return bool((picture == colour).all(-1).any())


def test_overlays_have_all_animals_each_in_its_colour(tmp_path, side):
    found = no_poses(3, 2, 3)
    found.points[0, 1], found.points[0, 2] = FIRST, SECOND
    two, none, missed = pictures(tmp_path / "run", side, found)
    assert [has(two, COLOURS[place]) for place in (0, 1, 2)] == [False, True, True]
    assert not has(two, PREDICTED_COLOUR)
    # A picture is twice as large: the animals' edges are at 2 * 10.5 - 0.5 and 2 * 40.5 - 0.5.
    assert (two[20, 50] == COLOURS[1]).all()
    assert (two[80, 50] == COLOURS[2]).all()
    assert not none.any()
    assert has(missed, TRUTH_COLOUR)
    assert not any(has(missed, colour) for colour in COLOURS)


def test_where_a_sample_is_an_animal_each_is_shown_on_its_frame(tmp_path, side):
    points = LABELS[[0, 0, 2], [0, 1, 1]][:, None]
    found = Poses(points, np.ones((3, 1, 2)), np.ones((3, 1)))
    shown = pictures(tmp_path / "run", side, found, of_animals=True)
    # Rows of the middles of the red crosses.
    middles = [np.argwhere((picture == PREDICTED_COLOUR).all(-1))[:, 0].mean() for picture in shown]
    assert middles == pytest.approx([20.5, 80.5, 20.5], abs=0.5)
    assert all(has(picture, TRUTH_COLOUR) for picture in shown)
