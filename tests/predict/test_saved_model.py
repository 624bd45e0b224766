import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from networks import predictor_with
from test_export import METADATA, spot_finder
from tiny_run import make_frames

import hgtrain.export.export
import hgtrain.export.formats
from hgtrain.errors import RunError
from hgtrain.export.check import Sample
from hgtrain.export.export import export
from hgtrain.export.readme import check_lines
from hgtrain.export.served import ExportedFile, Tolerance
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.poses import Poses
from hgtrain.predict.predictor import Predictor
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


# What becomes of files that were checked


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return predictor_with(spot_finder(), Preprocessing(1, 1.0, multiple=8), 2)


@pytest.fixture(scope="module")
def sample() -> Sample:
    images, points = (np.stack(parts) for parts in list(zip(*make_frames(20), strict=True))[:2])
    return Sample(images, points[:, None], images[:5])


def lite_files(monkeypatch: pytest.MonkeyPatch, predict) -> None:
    """Let the format tflite write two files, of which `a.lite` is opened as `predict` and `b.lite`
    as the run."""

    def write(served, folder: Path, calibration: np.ndarray) -> list[ExportedFile]:
        for name in predict:
            (folder / name).touch()
        return [
            ExportedFile(name, lambda path: predict[path.name], Tolerance(0.05, 0.01))
            for name in predict
        ]

    monkeypatch.setitem(
        hgtrain.export.formats.FORMATS,
        "tflite",
        hgtrain.export.formats.Format(write, needs_size=True),
    )


def test_a_file_that_fails_its_check_goes_and_the_others_stay(
    predictor: Predictor, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lite_files(
        monkeypatch,
        {
            "a.lite": lambda images: Poses(predictor(images).points * np.nan, images, images),
            "b.lite": predictor,
        },
    )
    failed, passed = export(predictor, sample, tmp_path / "out", "tflite", None, METADATA)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "README.md",
        "b.lite",
        "metadata.json",
    ]
    assert failed["problem"].endswith(
        "it was removed: use b.lite, or check on other frames with --data"
    )
    assert check_lines([failed, passed])[0] == failed["problem"]
    document = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert (document["files"], document["check"][0]["keypoints_px"]) == (["b.lite"], None)
    assert 'Interpreter("out/b.lite")' in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    "case",
    [
        # At stride 2 a twentieth of a cell is 0.1 px; 3 of 60 positions are 5%.
        (2, 0.09, 60, True),
        (2, 0.12, 60, False),
        (2, 0.12, 2, True),
        (2, 0.95, 2, True),
        (2, 1.05, 2, False),
        (4, 0.19, 60, True),
        (4, 0.22, 60, False),
    ],
)
def test_most_positions_must_be_near_by_the_stride_and_none_too_far(
    predictor: Predictor,
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: tuple,
) -> None:
    stride, off_px, of_60, is_kept = case
    scaled = predictor_with(predictor.model, predictor.preprocessing, stride)
    monkeypatch.setattr("hgtrain.export.check._are_ties", lambda *arguments: np.zeros(3, bool))
    monkeypatch.setattr("hgtrain.export.check.BATCHES", (20,))

    def moved(images: np.ndarray) -> Poses:
        found = scaled(images)
        found.points.reshape(-1, 2)[:of_60, 0] += np.float32(off_px)
        return found

    lite_files(monkeypatch, {"a.lite": moved, "b.lite": scaled})
    check, _ = export(scaled, sample, tmp_path / "out", "tflite", None, METADATA)
    assert ("problem" not in check) == is_kept
    assert (tmp_path / "out" / "a.lite").exists() == is_kept
