import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from click.testing import CliRunner
from keras import layers
from networks import predictor_with, whole_network
from tiny_run import NAMES, make_frames, write_data

import hgtrain.export.export
import hgtrain.export.formats
import hgtrain.export.served
import hgtrain.export.tflite
from hgtrain.cli import commands
from hgtrain.commands import export as export_module
from hgtrain.config.schema import BackboneConfig, ModelConfig
from hgtrain.errors import RunError
from hgtrain.export.check import Sample, fitted
from hgtrain.export.export import export
from hgtrain.export.readme import check_lines
from hgtrain.export.served import ExportedFile, Tolerance
from hgtrain.pipeline.preprocess import Preprocessing
from hgtrain.poses import Poses
from hgtrain.predict.predictor import Predictor
from hgtrain.predict.saved_model import SavedModelPredictor

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

TINY = BackboneConfig(stem_filters=4, filters=4, filter_increase=2, stacks=2, max_stride=8)
METADATA = {
    "keypoint_names": NAMES,
    "edges": [(0, 1)],
    "symmetries": [],
    "image_shape": (32, 32, 1),
}


def spot_finder() -> keras.Model:
    """Return a network at stride 2 whose three maps are the image smoothed, with rising
    contrast."""
    image = keras.Input((None, None, 1), name="input")
    x = layers.Rescaling(1 / 255)(image)
    x = layers.Conv2D(2, 3, strides=2, padding="same", activation="relu", use_bias=False)(x)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(3, 1, use_bias=False, name="SingleInstanceConfmapsHead")(x)
    model = keras.Model(image, x)
    smooth = np.outer([1, 2, 1], [1, 2, 1]) / 16
    model.layers[2].set_weights([np.stack([smooth, smooth / 2], -1)[:, :, None]])
    model.layers[-1].set_weights([np.array([[[[0.5, 0.7, 0.9], [0.1, 0.2, 0.2]]]])])
    return model


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return predictor_with(spot_finder(), Preprocessing(1, 1.0, multiple=8), 2)


@pytest.fixture(scope="module")
def sample() -> Sample:
    images, points = (np.stack(parts) for parts in list(zip(*make_frames(20), strict=True))[:2])
    return Sample(images, points[:, None], images[:5])


@pytest.fixture(scope="module")
def savedmodel(
    predictor: Predictor, sample: Sample, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    folder = tmp_path_factory.mktemp("export") / "flies-model"
    export(predictor, sample, folder, "savedmodel", None, METADATA)
    return folder


def test_what_is_written_was_compared_with_the_runs_predictions(savedmodel: Path) -> None:
    (check,) = json.loads((savedmodel / "metadata.json").read_text())["check"]
    assert check["keypoints_px"] <= 0.01
    assert check["confidence"] <= 1e-4
    assert (check["frames"], check["ties"]) == (20, 0)


@pytest.mark.parametrize("batch", [1, 7, 20])
@pytest.mark.parametrize("size", [(32, 32), (40, 24), (33, 45)])
def test_a_savedmodel_predicts_the_same_at_any_batch_and_size(
    predictor: Predictor, sample: Sample, savedmodel: Path, batch: int, size: tuple[int, int]
) -> None:
    images = fitted(sample.images[:batch], size)
    found, expected = SavedModelPredictor(savedmodel)(images), predictor(images)
    np.testing.assert_allclose(found.points, expected.points, atol=0.01)
    np.testing.assert_allclose(found.confidence, expected.confidence, atol=1e-4)
    np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)


def test_the_maps_have_a_signature(predictor: Predictor, sample: Sample, savedmodel: Path) -> None:
    images = tf.constant(sample.images[:2])
    maps = tf.saved_model.load(str(savedmodel)).signatures["confmaps"](image=images)["confmaps"]
    np.testing.assert_allclose(maps, predictor.confmaps(images), atol=1e-6)


def code_in(readme: Path) -> str:
    return re.search(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)[1]


def run_alone(code: str, folder: Path) -> dict:
    """Return the shape of the keypoints that the code finds beside an export, and the modules it
    imported."""
    code = "import warnings\nwarnings.simplefilter('ignore')\n" + code
    code += "\nimport sys, json\nmodules = {name.split('.')[0] for name in sys.modules}\n"
    code += (
        "print(json.dumps({'shape': list(np.shape(found['keypoints'] if 'found' in dir() else "
        "keypoints)),"
    )
    code += " 'modules': sorted(modules)}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
def test_its_readme_loads_it_with_tensorflow_alone(savedmodel: Path) -> None:
    code = code_in(savedmodel / "README.md")
    assert len(code.splitlines()) <= 10
    left = run_alone(code, savedmodel)
    assert left["shape"] == [2, 3, 2]
    assert {"hgtrain", "h5py"} & set(left["modules"]) <= {"h5py"}


def test_the_readme_says_what_goes_in_and_out(savedmodel: Path) -> None:
    text = (savedmodel / "README.md").read_text()
    assert "- `image`: uint8 `(frames, any height, any width, 1)`." in text
    assert "Keypoints, in this order: nose, ear_left, ear_right." in text
    assert "SavedModel: positions differ by at most" in text


def test_metadata_says_what_the_run_was(savedmodel: Path) -> None:
    document = json.loads((savedmodel / "metadata.json").read_text())
    assert document["input"] == {"name": "image", "dtype": "uint8", "shape": [None, None, None, 1]}
    assert (document["format"], document["keypoint_names"], document["edges"]) == (
        "savedmodel",
        list(NAMES),
        [[0, 1]],
    )


@pytest.fixture(scope="module")
def tflite(predictor: Predictor, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tflite") / "lite"
    export(predictor, sample, folder, "tflite", (40, 24), METADATA)
    return folder


def test_tflite_has_three_precisions_each_checked(tflite: Path) -> None:
    checks = {
        check["file"]: check
        for check in json.loads((tflite / "metadata.json").read_text())["check"]
    }
    assert set(checks) == {f"model_{kind}.tflite" for kind in ("float32", "float16", "int8")}
    assert checks["model_float32.tflite"]["keypoints_px"] <= 0.02
    assert checks["model_float16.tflite"]["keypoints_px"] <= 0.1
    assert {"error_px", "run_error_px"} <= set(checks["model_int8.tflite"])


def test_the_network_of_int8_computes_in_int8(tflite: Path) -> None:
    with hgtrain.export.tflite._quiet():
        interpreter = tf.lite.Interpreter(str(tflite / "model_int8.tflite"))
    kinds = {tensor["dtype"] for tensor in interpreter.get_tensor_details()}
    assert np.int8 in kinds


def test_int8_is_about_as_good_as_the_run(tflite: Path) -> None:
    check = json.loads((tflite / "metadata.json").read_text())["check"][2]
    assert check["error_px"] == pytest.approx(check["run_error_px"], abs=0.5)


def test_tflite_predicts_at_the_size_it_was_given(
    predictor: Predictor, sample: Sample, tflite: Path
) -> None:
    images = fitted(sample.images[:3], (40, 24))
    found = hgtrain.export.tflite._load_tflite(tflite / "model_float32.tflite")(images)
    np.testing.assert_allclose(found.points, predictor(images).points, atol=0.02)


def test_the_readme_of_tflite_says_that_its_runtime_needs_a_frame(tflite: Path) -> None:
    assert (
        "- `image`: uint8 `(frames, 40, 24, 1)`, of at least one frame."
        in (tflite / "README.md").read_text()
    )


@pytest.mark.slow
def test_the_readme_of_tflite_loads_it(tflite: Path) -> None:
    assert run_alone(code_in(tflite / "README.md"), tflite)["shape"] == [2, 3, 2]


@pytest.mark.parametrize(
    ("channels", "of_images", "input_scale"), [(3, 1, 1.0), (1, 3, 1.0), (1, 1, 0.5), (3, 1, 1.5)]
)
def test_tflite_holds_what_comes_before_the_network_too(
    sample: Sample, tmp_path: Path, channels: int, of_images: int, input_scale: float
) -> None:
    keras.utils.set_random_seed(0)
    model = whole_network(ModelConfig(backbone=TINY), channels, len(NAMES), all_stacks=False)
    images = np.repeat(sample.images, of_images, axis=-1)
    predictor = predictor_with(model, Preprocessing(channels, input_scale, multiple=8), 4)
    checks = export(
        predictor,
        Sample(images, sample.points, images[:5]),
        tmp_path / "e",
        "tflite",
        None,
        METADATA,
    )
    assert checks[0]["keypoints_px"] <= 0.02


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format_name", ["savedmodel", "onnx"])
def test_bilinear_upsampling_is_exported_for_any_size(
    sample: Sample, tmp_path: Path, format_name: str
) -> None:
    if format_name == "onnx":
        pytest.importorskip("tf2onnx", reason="needs the extra onnx")
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    keras.utils.set_random_seed(0)
    backbone = TINY.model_copy(update={"interp_method": "bilinear"})
    model = whole_network(ModelConfig(backbone=backbone), 1, len(NAMES), all_stacks=False)
    predictor = predictor_with(model, Preprocessing(1, 1.0, multiple=8), 4)
    (check,) = export(predictor, sample, tmp_path / "e", format_name, None, METADATA)
    assert check["keypoints_px"] <= check["tolerance_px"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format_name", ["savedmodel", "onnx"])
@pytest.mark.parametrize(("input_scale", "interp_method"), [(1.0, "nearest"), (0.5, "bilinear")])
def test_no_images_give_no_points(
    sample: Sample, tmp_path: Path, format_name: str, input_scale: float, interp_method: str
) -> None:
    if format_name == "onnx":
        pytest.importorskip("tf2onnx", reason="needs the extra onnx")
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    backbone = TINY.model_copy(update={"interp_method": interp_method})
    model = whole_network(ModelConfig(backbone=backbone), 1, len(NAMES), all_stacks=False)
    predictor = predictor_with(model, Preprocessing(1, input_scale, multiple=8), 4)
    served = hgtrain.export.served.Served(predictor, 1, None, METADATA)
    for file in hgtrain.export.formats.FORMATS[format_name].write(
        served, tmp_path, fitted(sample.images[:2], (32, 40))
    ):
        found = file.load(tmp_path / file.name)(np.zeros((0, 32, 40, 1), np.uint8))
        keypoints = len(NAMES)
        shapes = [(0, 1, keypoints, 2), (0, 1, keypoints), (0, 1)]
        assert [values.shape for values in found] == shapes


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("format_name", ["savedmodel", "onnx", "tflite"])
@pytest.mark.parametrize("input_scale", [1.0, 0.5])
def test_no_export_finds_a_point_in_the_padding(
    tmp_path: Path, format_name: str, input_scale: float
) -> None:
    if format_name == "onnx":
        pytest.importorskip("tf2onnx", reason="needs the extra onnx")
        pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    image = keras.Input((None, None, 1))
    # How dark the image is, of which the padding is darkest.
    same = layers.Conv2D(1, 1)(layers.Rescaling(1 / 255)(image))
    model = keras.Model(image, layers.Conv2D(1, 1, strides=2)(same))
    model.layers[-2].set_weights([np.full((1, 1, 1, 1), 1.0), np.zeros(1)])
    model.layers[-1].set_weights([np.full((1, 1, 1, 1), -1.0), np.ones(1)])
    predictor = predictor_with(model, Preprocessing(1, input_scale, multiple=64), 2)
    size = (41, 50)
    fixed = size if format_name == "tflite" else None
    served = hgtrain.export.served.Served(predictor, 1, fixed, METADATA)
    at = np.array([[12.0, 30.0], [40.0, 9.0]])
    y, x = np.mgrid[: size[0], : size[1]]
    squared = (x - at[:, :1, None]) ** 2 + (y - at[:, 1:, None]) ** 2
    images = (255 - 250 * np.exp(-squared / 32)).astype(np.uint8)[..., None]
    for file in hgtrain.export.formats.FORMATS[format_name].write(served, tmp_path, images):
        points, confidence, _ = file.load(tmp_path / file.name)(images)
        np.testing.assert_allclose(points[:, 0, 0], at, atol=1.0)
        assert 0.75 < confidence.min() <= confidence.max() < 0.99


@pytest.fixture(scope="module")
def onnx(predictor: Predictor, sample: Sample, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tf2onnx", reason="needs the extra onnx")
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    folder = tmp_path_factory.mktemp("onnx") / "open"
    scaled = Predictor(
        predictor.model, predictor.head, predictor.preprocessing._replace(input_scale=0.5)
    )
    export(scaled, sample, folder, "onnx", None, METADATA)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_onnx_predicts_the_same_at_any_size(onnx: Path) -> None:
    (check,) = json.loads((onnx / "metadata.json").read_text())["check"]
    assert check["keypoints_px"] <= 0.02


@pytest.mark.filterwarnings("ignore")
def test_onnx_names_its_dimensions_and_its_keypoints(onnx: Path) -> None:
    model = pytest.importorskip("onnx").load(onnx / "model.onnx")

    def dimensions(values: Any) -> dict[str, list[str | int]]:
        return {
            value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in values
        }

    assert dimensions(model.graph.input) == {"image": ["batch", "height", "width", 1]}
    outputs = dimensions(model.graph.output)
    assert list(outputs.items()) == [("keypoints", ["batch", 3, 2]), ("confidence", ["batch", 3])]
    described = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert described == {"keypoint_names": list(NAMES), "edges": [[0, 1]], "symmetries": []}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_readme_of_onnx_loads_it_without_tensorflow(onnx: Path) -> None:
    left = run_alone(code_in(onnx / "README.md"), onnx)
    assert left["shape"] == [2, 3, 2]
    assert "tensorflow" not in left["modules"]


def test_onnx_without_its_packages_says_what_to_install(
    predictor: Predictor, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        RunError, match=r"--format onnx needs onnxruntime: pip install 'hgtrain\[onnx\]'"
    ):
        export(predictor, sample, tmp_path / "out", "onnx", None, METADATA)
    assert list(tmp_path.iterdir()) == []


# The check


class Elsewhere(Predictor):
    """Says another place than its graph."""

    def __call__(self, images: np.ndarray) -> Poses:
        found = super().__call__(images)
        return found._replace(points=found.points + np.float32(0.3))


def test_a_model_that_predicts_something_else_is_not_exported(
    predictor: Predictor, sample: Sample, tmp_path: Path
) -> None:
    other = Elsewhere(predictor.model, predictor.head, predictor.preprocessing)
    with pytest.raises(
        RunError,
        match=r"SavedModel does not predict what the run predicts: positions differ by up to 0.3",
    ):
        export(other, sample, tmp_path / "out", "savedmodel", None, METADATA)
    assert list(tmp_path.iterdir()) == []


def loaded_as(monkeypatch: pytest.MonkeyPatch, predict) -> None:
    """Let the format savedmodel write nothing and be opened as `predict`."""
    file = ExportedFile("", lambda path: predict, Tolerance(0.01, 1e-4))
    written = hgtrain.export.formats.Format(
        lambda served, folder, calibration: [file], needs_size=False
    )
    monkeypatch.setitem(hgtrain.export.formats.FORMATS, "savedmodel", written)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda found: found._replace(confidence=found.confidence + 0.01),
            r"confidence by 0.01 \(at most 0.0001\) on 20 frames",
        ),
        (
            lambda found: found._replace(points=found.points[:, :, :2]),
            r"positions differ by up to inf px",
        ),
        (
            lambda found: found._replace(points=found.points * np.nan),
            r"positions differ by up to inf px",
        ),
    ],
)
def test_confidence_shapes_and_numbers_count_too(
    predictor: Predictor,
    sample: Sample,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    change,
    message: str,
) -> None:
    loaded_as(monkeypatch, lambda images: change(predictor(images)))
    with pytest.raises(RunError, match=message):
        export(predictor, sample, tmp_path / "out", "savedmodel", None, METADATA)
    assert list(tmp_path.iterdir()) == []


def test_two_equally_high_peaks_may_be_told_apart_by_rounding(
    predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.zeros((32, 32, 1), np.uint8)
    # Cell i of the maps is at the middle of pixels 2i to 2i + 2.
    image[9, 9] = image[25, 25] = 200
    monkeypatch.setattr("hgtrain.export.check.OTHER_SIZE_PX", (0, 0))
    sample = Sample(image[None], np.full((1, 1, 3, 2), 8, np.float32), image[None])

    def mirrored(images: np.ndarray) -> Poses:
        found = predictor(images)
        return found._replace(points=np.float32(32) - found.points)

    np.testing.assert_allclose(predictor(sample.images).points, 8, atol=0.01)
    loaded_as(monkeypatch, mirrored)
    (check,) = export(predictor, sample, tmp_path / "out", "savedmodel", None, METADATA)
    # Three keypoints, compared twice.
    assert check["ties"] == 6
    assert "6 keypoints with two equally high peaks are left out" in check_lines([check])[0]


def test_a_loss_that_was_asked_for_must_still_be_numbers(
    predictor: Predictor, sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = ExportedFile(
        "a.int8",
        lambda path: lambda images: Poses(predictor(images).points * np.nan, images, images),
        None,
    )
    written = hgtrain.export.formats.Format(
        lambda served, folder, calibration: [file], needs_size=False
    )
    monkeypatch.setitem(hgtrain.export.formats.FORMATS, "savedmodel", written)
    with pytest.raises(RunError, match=r"a.int8 predicts positions that are not numbers"):
        export(predictor, sample, tmp_path / "out", "savedmodel", None, METADATA)


def test_what_is_there_is_not_overwritten(
    predictor: Predictor, sample: Sample, tmp_path: Path
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunError, match=r"is there already: choose another folder"):
        export(predictor, sample, tmp_path, "savedmodel", None, METADATA)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_frames_are_cut_or_continued_to_a_size() -> None:
    images = np.arange(6, dtype=np.uint8).reshape(1, 2, 3, 1)
    assert fitted(images, (3, 2))[0, :, :, 0].tolist() == [[0, 1], [3, 4], [3, 4]]


# From a run


@pytest.fixture(scope="module")
def run_folder(predictor: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best network is the spot finder."""
    from contextlib import closing

    from hgtrain import files
    from hgtrain.config.load import dump_config, load_config
    from hgtrain.data import open as open_module
    from hgtrain.data import split as split_module

    folder = tmp_path_factory.mktemp("run")
    config = load_config(write_data(folder))
    with closing(open_module.open_all(config.data.train_files)) as dataset:
        split = split_module.split_to_json(split_module.make_split(dataset, None, 0.25, None, 0))
    skeleton = {
        "keypoint_names": NAMES,
        "edges": [],
        "symmetries": [[1, 2]],
        "image_shape": [32, 32, 1],
    }
    run = folder / "run"
    run.mkdir()
    files.write_text(run / "config.yaml", dump_config(config))
    files.write_json(run / "split.json", split | skeleton)
    predictor.model.save(run / "best.keras")
    return run


def test_a_run_is_exported_with_what_it_was_trained_on(run_folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["export", str(run_folder), "-o", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("SavedModel: positions differ by at most")
    document = json.loads((tmp_path / "out" / "metadata.json").read_text())
    assert document["config"]["model"]["head"]["sigma_px"] == 3
    assert len(document["dataset_fingerprint"]["train"]) == 64
    assert {"hgtrain", "tensorflow"} <= set(document["versions"])
    assert SavedModelPredictor(tmp_path / "out").skeleton.symmetries == ((1, 2),)


def test_a_run_without_frames_of_its_own_needs_data(run_folder: Path, tmp_path: Path) -> None:
    import shutil

    lonely = shutil.copytree(run_folder, tmp_path / "lonely")
    split = json.loads((lonely / "split.json").read_text())
    (lonely / "split.json").write_text(
        json.dumps({key: split[key] for key in split if key not in ("train", "validation")})
    )
    with pytest.raises(
        RunError,
        match=r"has no frames of its own to check an export on: name a dataset with --data",
    ):
        export_module.export(lonely, tmp_path / "out", "savedmodel", None, ())
    flies = str(run_folder.parent / "flies.h5")
    assert export_module.export(lonely, tmp_path / "out", "savedmodel", None, [flies])[0].endswith(
        "(12 frames)"
    )
