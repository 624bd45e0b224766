"""Networks for several animals, trained for real, find the same animals whatever runs them."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from hgtrain.cli import commands
from hgtrain.data.sandbox.open import open_all
from hgtrain.export.formats import FORMATS
from hgtrain.export.served import Served
from hgtrain.poses import Poses, joined
from hgtrain.rundir.load import Run, load_run

pytestmark = [
    pytest.mark.slow,
    # Of TensorFlow Lite's interpreter, of tf2onnx, of Keras's saving and NumPy 2.
    pytest.mark.filterwarnings("ignore"),
]

FRAMES, TOLERANCE_PX = 50, 0.01

CONFIG = """\
data: {{train: {data}, validation: {fraction}, input_scale: 0.5}}
augmentation: {{rotation_deg: [-20, 20]}}
model:
  backbone:
    {{stem_stride: 2, max_stride: 16, output_stride: 2, stem_filters: 8, filters: 16,
      filter_increase: 8, stacks: 1}}
  head: {{sigma_px: 4, {head}}}
training: {{batch_size: 8, epochs: 1, steps_per_epoch: 120, learning_rate: 5e-3, xla: "off",
  device: cpu}}
output: {{tensorboard: false}}
"""


# Low thresholds, since so short a training draws low maps.
BOTTOM_UP = "type: multi_instance, paf_width_px: 5, peak_threshold: 0.1, min_line_score: 0.1"
CENTROID = "type: centroid, peak_threshold: 0.1"
CENTERED = "type: centered_instance, crop_size_px: 128"


class Trained(NamedTuple):
    """A run, its data, and the images that it was validated on, `(50, H, W, 1)`.

    Attributes:
        centroids: What a command is told of the run that finds the animals.
    """

    run: Run
    centroids: tuple[object, ...]
    data: str
    frames: np.ndarray
    images: np.ndarray


def hgtrain(*arguments: object) -> str:
    """Return what a command prints; it must succeed."""
    done = CliRunner().invoke(commands, list(map(str, arguments)))
    if done.exception is not None:
        raise done.exception
    return done.stdout


def flies(folder: Path, real_data: Path) -> str:
    """Return the 70 frames of two flies as a dataset."""
    source = real_data / "centered_pair" / "centered_pair.slp"
    hgtrain("convert", source, folder / "flies.h5", "--images", source.parent)
    return str(folder / "flies.h5")


@pytest.fixture(scope="module", params=["two flies", "drawn groups", "two flies, top-down"])
def trained(
    request: pytest.FixtureRequest, real_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    folder = tmp_path_factory.mktemp("trained")
    is_drawn = request.param == "drawn groups"
    data = "builtin:fly-groups" if is_drawn else flies(folder, real_data)
    fraction = FRAMES / (500 if is_drawn else 70)
    heads = {"run": BOTTOM_UP if is_drawn else f"{BOTTOM_UP}, offsets: true"}
    if "top-down" in request.param:
        heads = {"run": CENTERED, "centroids": CENTROID}
    for name, head in heads.items():
        config = folder / f"{name}.yaml"
        config.write_text(CONFIG.format(data=data, fraction=fraction, head=head))
        hgtrain("fit", config, "--run-dir", folder / name)
    finder = folder / "centroids" if "centroids" in heads else None
    run = load_run(folder / "run", centroids=finder)
    frames = np.array(json.loads((run.folder / "split.json").read_text())["validation"]["frames"])
    assert len(frames) == FRAMES
    with closing(open_all([data])) as dataset:
        images = dataset.read_images(frames)
    found = run.predictor(images)
    assert np.isfinite(found.scores).sum() >= FRAMES, "the network finds too little to compare"
    return Trained(run, ("--centroids", finder) if finder else (), data, frames, images)


def assert_same_animals(found: Poses, expected: Poses) -> None:
    """Assert that each frame has the same animals, in any order, of the same keypoints."""
    for frame in range(len(expected.points)):
        left = [animal for animal in found.points[frame] if np.isfinite(animal).any()]
        for animal in expected.points[frame]:
            if not np.isfinite(animal).any():
                continue
            same = [
                place
                for place, other in enumerate(left)
                if np.allclose(other, animal, rtol=0, atol=TOLERANCE_PX, equal_nan=True)
            ]
            assert same, f"frame {frame}: an animal is missing, or its keypoints are others"
            left.pop(same[0])
        assert not left, f"frame {frame}: {len(left)} animals too many"


def in_batches(predict: Callable[[np.ndarray], Poses], images: np.ndarray, batch: int) -> Poses:
    return joined([predict(images[i : i + batch]) for i in range(0, len(images), batch)])


def with_blank(images: np.ndarray) -> np.ndarray:
    """Return the images and one without any animal, at an odd size."""
    blank = np.full_like(images[:1], round(float(images[0].mean())))
    return np.concatenate([images, blank])[:, :-3, :-17]


def test_predict_finds_the_animals_that_evaluate_measures(trained: Trained, tmp_path: Path) -> None:
    expected = trained.run.predictor(trained.images)
    hgtrain(
        "predict", trained.run.folder, trained.data, "-o", tmp_path / "found.h5", *trained.centroids
    )
    with h5py.File(tmp_path / "found.h5") as file:
        parts = [file[name][:] for name in ("points", "confidence", "instance_score")]
    found = Poses(*(part[trained.frames] for part in parts))
    assert_same_animals(found, expected)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


@pytest.mark.parametrize("format_name", ["savedmodel", "onnx"])
def test_exports_find_the_same_animals(trained: Trained, tmp_path: Path, format_name: str) -> None:
    if format_name == "onnx":
        pytest.importorskip("tf2onnx", reason="needs the extra onnx")
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    predictor = trained.run.predictor
    served = Served(predictor, 1, None, {})
    (file,) = FORMATS[format_name].write(served, tmp_path, trained.images[:1])
    predict = file.load(tmp_path / file.name)
    expected = predictor(trained.images)
    for batch in (1, 7):
        assert_same_animals(in_batches(predict, trained.images, batch), expected)
    odd = with_blank(trained.images)
    expected = predictor(odd)
    assert np.isnan(expected.scores[-1]).all()
    assert_same_animals(in_batches(predict, odd, 7), expected)


def test_tensorflow_lite_finds_the_same_animals_at_a_fixed_size(
    trained: Trained, tmp_path: Path
) -> None:
    predictor, images = trained.run.predictor, with_blank(trained.images)
    served = Served(predictor, 1, images.shape[1:3], {})
    file, *_ = FORMATS["tflite"].write(served, tmp_path, images[:3])
    assert file.name == "model_float32.tflite"
    predict = file.load(tmp_path / file.name)
    for batch in (1, 7):
        assert_same_animals(in_batches(predict, images, batch), predictor(images))


def test_an_export_is_checked_and_predicts_into_every_file(
    trained: Trained, tmp_path: Path
) -> None:
    sleap_io = pytest.importorskip("sleap_io", reason="needs sleap-io")
    line = hgtrain("export", trained.run.folder, "-o", tmp_path / "export", *trained.centroids)
    assert line.startswith("SavedModel: positions differ by at most")
    metadata = json.loads((tmp_path / "export" / "metadata.json").read_text())
    (check,), finder = metadata["check"], metadata["centroids"]
    assert trained.centroids[1:] == (() if finder is None else (Path(finder["run"]),))
    evaluation = json.loads(hgtrain("evaluate", trained.run.folder, "--json", *trained.centroids))
    assert check["error_px"] == pytest.approx(evaluation["error_px"]["mean"], abs=TOLERANCE_PX)
    assert check["animals"] == evaluation["instances"]["predicted"]
    files = {kind: tmp_path / f"found{kind}" for kind in (".h5", ".csv", ".slp")}
    for file in files.values():
        hgtrain("predict", tmp_path / "export", trained.data, "-o", file)
    with h5py.File(files[".h5"]) as file:
        points, scores = file["points"][:], file["instance_score"][:]
    assert np.isfinite(scores[trained.frames]).sum() == check["animals"]
    found = int(np.isfinite(scores).sum())
    assert len(files[".csv"].read_text().splitlines()) == 1 + found
    labels = sleap_io.load_slp(str(files[".slp"]))
    animals = [instance.numpy() for frame in labels for instance in frame.instances]
    assert len(animals) == found
    np.testing.assert_allclose(np.stack(animals), points[np.isfinite(scores)], atol=1e-4)
