import json

import pytest
import tensorflow as tf

from hgtrain.errors import RunError
from hgtrain.predict.saved_model import SavedModelPredictor, is_export


def save(folder, channels=1, outputs=("keypoints", "confidence"), metadata=None):
    class Model(tf.Module):
        @tf.function(
            input_signature=[tf.TensorSpec((None, None, None, channels), tf.uint8, name="image")]
        )
        def serve(self, image):
            batch = tf.shape(image)[0]
            return {
                name: tf.zeros((batch, 2, 2) if name == "keypoints" else (batch, 2))
                for name in outputs
            }

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})
    document = {"keypoint_names": ["a", "b"], "edges": [[0, 1]]} if metadata is None else metadata
    (folder / "metadata.json").write_text(json.dumps(document))
    return folder


def test_an_export_has_the_skeleton_and_channels_it_was_written_with(tmp_path):
    model = SavedModelPredictor(save(tmp_path, 3))
    assert model.channels == 3
    assert (model.skeleton.keypoint_names, model.skeleton.edges) == (("a", "b"), ((0, 1),))


def test_a_saved_model_is_recognised(tmp_path):
    assert not is_export(tmp_path)
    assert is_export(save(tmp_path))


def test_an_export_of_four_channels_is_refused(tmp_path):
    with pytest.raises(RunError, match="takes images of 4 channels, expected 1 or 3"):
        SavedModelPredictor(save(tmp_path, 4))


def test_a_model_without_the_outputs_is_refused(tmp_path):
    with pytest.raises(
        RunError, match=r"has no signature serving_default .*it has \['image'\] to \['keypoints'\]"
    ):
        SavedModelPredictor(save(tmp_path, outputs=("keypoints",)))


@pytest.mark.parametrize("metadata", [{"edges": []}, [], {"keypoint_names": ["a"], "edges": [[0]]}])
def test_metadata_that_describes_no_skeleton_is_named(tmp_path, metadata):
    with pytest.raises(RunError, match=r"metadata\.json does not describe an export"):
        SavedModelPredictor(save(tmp_path, metadata=metadata))


def test_a_damaged_model_is_named(tmp_path):
    save(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"broken")
    with pytest.raises(RunError, match=r"cannot be loaded as a SavedModel"):
        SavedModelPredictor(tmp_path)
