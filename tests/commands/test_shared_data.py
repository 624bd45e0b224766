"""Every file of ../shared/data through the commands; values by h5py, PyAV, Pillow and sleap-io."""

import csv
import io
import json
from pathlib import Path
from typing import NamedTuple

import av
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hgtrain.cli import commands
from hgtrain.config.load import load_config
from hgtrain.errors import HgtrainError

sleap_io = pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")

pytestmark = [
    pytest.mark.slow,
    # Keras's saving and NumPy 2.
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

OPENFIELD = "openfield/labeled-data/m4s1"
FLIES2 = ("train", "val", "test", "tiny")
SMALL = (
    "training.epochs=1",
    "training.steps_per_epoch=2",
    "training.batch_size=2",
    "training.device=cpu",
    "data.input_scale=0.25",
    "model.backbone.max_stride=16",
    "model.backbone.stem_filters=4",
    "model.backbone.filters=4",
    "model.backbone.filter_increase=0",
    "output.tensorboard=false",
)


class Truth(NamedTuple):
    """What a file holds: names, points `(N, I, K, 2)` with NaN, images `(N, H, W, C)`."""

    names: list[str]
    points: np.ndarray
    images: np.ndarray


def run(*arguments) -> str:
    """Return what a command prints; it must succeed."""
    done = CliRunner().invoke(commands, list(map(str, arguments)))
    if done.exception is not None:
        raise done.exception
    return done.stdout


def refusal(*arguments) -> str:
    """Return the message of a command that must refuse what it is given, in one line."""
    done = CliRunner().invoke(commands, list(map(str, arguments)))
    assert isinstance(done.exception, HgtrainError)
    assert "\n" not in str(done.exception)
    return str(done.exception)


def inspected(path) -> dict:
    """Return the report, whether or not the data can be trained on."""
    return json.loads(CliRunner().invoke(commands, ["inspect", str(path), "--json"]).stdout)


# What is in the files, read without hgtrain


def deepposekit_truth(data: Path) -> Truth:
    with (data / "fly100.skeleton.csv").open(newline="") as file:
        names = [row["name"] for row in csv.DictReader(file)]
    with h5py.File(data / "fly100.h5") as file:
        return Truth(names, file["annotations"][:][:, None], file["images"][:])


def deeplabcut_truth(data: Path) -> Truth:
    with (data / OPENFIELD / "CollectedData_Pranav.csv").open(newline="") as file:
        _, parts, _, *rows = csv.reader(file)
    first = len(rows[0]) - 8
    names = parts[first::2]
    order = [names.index(name) for name in sorted(names)]
    rows.sort(key=lambda row: Path("/".join(row[:first])).name)
    points = np.array([[float(cell or "nan") for cell in row[first:]] for row in rows])
    images = [
        np.asarray(Image.open(data / OPENFIELD / Path("/".join(row[:first])).name).convert("RGB"))
        for row in rows
    ]
    # All three channels are equal: the film is grey.
    return Truth(
        sorted(names),
        points.reshape(-1, 1, 4, 2)[:, :, order],
        np.stack(images)[..., :1],
    )


def slp_truth(path: Path, images: dict[int, np.ndarray], kind: str) -> Truth:
    labels = sleap_io.load_slp(str(path), open_videos=False)
    frames = sorted(labels.labeled_frames, key=lambda frame: frame.frame_idx)
    animals = [[animal.numpy()[:, :2] for animal in getattr(frame, kind)] for frame in frames]
    points = np.full((len(frames), max(map(len, animals)), len(labels.skeleton), 2), np.nan)
    for row, found in zip(points, animals, strict=True):
        row[: len(found)] = found
    return Truth(
        labels.skeleton.node_names,
        points,
        np.stack([images[int(frame.frame_idx)] for frame in frames]),
    )


def package_truth(path: Path) -> Truth:
    with h5py.File(path) as file:
        pictures = [
            np.asarray(Image.open(io.BytesIO(np.asarray(row, np.int8).tobytes())))
            for row in file["video0/video"]
        ]
        numbers = file["video0/frame_numbers"][:].tolist()
    images = {
        number: picture.reshape(*picture.shape[:2], -1)
        for number, picture in zip(numbers, pictures, strict=True)
    }
    return slp_truth(path, images, "user_instances")


@pytest.fixture(scope="module")
def film(real_data: Path) -> dict[int, np.ndarray]:
    with av.open(str(real_data / "centered_pair" / "centered_pair_low_quality.mp4")) as container:
        return {
            i: frame.to_ndarray(format="gray")[..., None]
            for i, frame in enumerate(container.decode(video=0))
        }


PACKAGES = (
    "fly100.train.pkg.slp",
    "fly100.val.pkg.slp",
    "minimal_instance.pkg.slp",
    *(f"flies2/flies2.{part}.pkg.slp" for part in FLIES2),
)


# inspect


def check_report(report: dict, truth: Truth) -> None:
    labelled = np.isfinite(truth.points).all(-1)
    animals = labelled.any(-1).sum(1)
    assert (report["frames"], report["image_shape"]) == (
        len(truth.points),
        list(truth.images.shape[1:]),
    )
    assert report["keypoint_names"] == truth.names
    assert report["animals"] == {str(n): int((animals == n).sum()) for n in np.unique(animals)}
    assert [row["labelled"] for row in report["per_keypoint"]] == labelled.sum((0, 1)).tolist()


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_are_inspected(real_data: Path, name: str) -> None:
    check_report(inspected(real_data / name), package_truth(real_data / name))


def test_flies_without_marks_are_inspected(real_data: Path) -> None:
    report = inspected(real_data / "fly100.h5")
    check_report(report, deepposekit_truth(real_data))
    assert len(report["symmetries"]) == 14
    assert any("marks no keypoint as annotated" in note for note in report["notes"])


@pytest.mark.parametrize(
    "name",
    [
        "openfield",
        "centered_pair/centered_pair.slp",
        "centered_pair/centered_pair_predictions.slp",
        f"{OPENFIELD}/CollectedData_Pranav.csv",
    ],
)
def test_what_is_no_dataset_yet_is_refused_with_the_command_that_makes_one(
    real_data: Path, name: str
) -> None:
    assert f"`hgtrain convert {real_data / name} NEW.h5`" in refusal("inspect", real_data / name)


@pytest.mark.parametrize("command", [("inspect",), ("convert", "{new}")])
def test_a_table_without_images_is_refused_with_the_csv_beside_it(
    real_data: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    path = real_data / OPENFIELD / "CollectedData_Pranav.h5"
    rest = [part.format(new=tmp_path / "a.h5") for part in command[1:]]
    message = refusal(command[0], path, *rest)
    assert f"`hgtrain convert {path.with_suffix('.csv')} NEW.h5`" in message


@pytest.mark.parametrize(
    "name",
    [
        "centered_pair/centered_pair_low_quality.mp4",
        "fly100.skeleton.csv",
        "flies2/flies2.test.truth.npz",
        "flies2/protocol.json",
        "sleap_run",
        "sleap_run/best_model.h5",
        "sleap_run/training_config.json",
        "sleap_run_multi/bottomup/best_model.h5",
    ],
)
def test_what_holds_no_labels_is_refused(real_data: Path, tmp_path: Path, name: str) -> None:
    for command in (("inspect",), ("convert", tmp_path / "a.h5")):
        assert name in refusal(command[0], real_data / name, *command[1:])
    assert not (tmp_path / "a.h5").exists()


# convert


def check_converted(path: Path, truth: Truth) -> None:
    with h5py.File(path) as file:
        assert file.attrs["keypoint_names"].tolist() == truth.names
        np.testing.assert_allclose(file["keypoints"][:], truth.points, rtol=0, atol=1e-4)
        np.testing.assert_array_equal(file["images"][:], truth.images)


@pytest.mark.parametrize("name", PACKAGES)
def test_packages_are_converted(real_data: Path, tmp_path: Path, name: str) -> None:
    run("convert", real_data / name, tmp_path / "a.h5")
    check_converted(tmp_path / "a.h5", package_truth(real_data / name))


def test_flies_without_marks_are_converted(real_data: Path, tmp_path: Path) -> None:
    run("convert", real_data / "fly100.h5", tmp_path / "a.h5")
    check_converted(tmp_path / "a.h5", deepposekit_truth(real_data))
    with h5py.File(tmp_path / "a.h5") as file:
        # Not annotated, as in the source.
        assert not file["visibility"][:].any()


@pytest.mark.parametrize("name", ["openfield", f"{OPENFIELD}/CollectedData_Pranav.csv"])
def test_a_project_of_deeplabcut_is_converted(real_data: Path, tmp_path: Path, name: str) -> None:
    run("convert", real_data / name, tmp_path / "a.h5", "--symmetry", "auto")
    check_converted(tmp_path / "a.h5", deeplabcut_truth(real_data))
    assert inspected(tmp_path / "a.h5")["symmetries"] == [[0, 1]]


@pytest.mark.parametrize(
    ("name", "options", "kind"),
    [
        ("centered_pair.slp", (), "user_instances"),
        ("centered_pair_predictions.slp", ("--predictions",), "predicted_instances"),
    ],
)
def test_labels_on_a_film_are_converted(
    real_data: Path,
    tmp_path: Path,
    film: dict[int, np.ndarray],
    name: str,
    options: tuple[str, ...],
    kind: str,
) -> None:
    path = real_data / "centered_pair" / name
    run("convert", path, tmp_path / "a.h5", *options)
    truth = slp_truth(path, film, kind)
    check_converted(tmp_path / "a.h5", truth)
    check_report(inspected(tmp_path / "a.h5"), truth)


def test_points_marked_as_not_visible_are_counted(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "centered_pair" / "centered_pair.slp"
    done = CliRunner().invoke(commands, ["convert", str(path), str(tmp_path / "a.h5")])
    assert "Left out: 147 points marked as not visible." in done.stderr
    assert "nothing is labelled in its 1100 frames" in refusal(
        "convert", path.with_stem("centered_pair_predictions"), tmp_path / "b.h5"
    )


# init, fit, evaluate, predict


def validation_frames(run_dir: Path) -> list[int]:
    return json.loads((run_dir / "split.json").read_text())["validation"]["frames"]


def check_evaluation(evaluation: dict, predictions: Path, points: np.ndarray, frames) -> None:
    """Check errors against those of the points that `predict` wrote for all frames."""
    with h5py.File(predictions) as file:
        assert file["frame"][:].tolist() == list(range(len(points)))
        found = file["points"][:, 0]
    errors = np.linalg.norm(found - points[:, 0], axis=-1)[frames]
    assert (evaluation["frames"], evaluation["keypoints"]) == (
        len(frames),
        np.isfinite(points[frames, 0]).all(-1).sum(),
    )
    for name, value in (("mean", np.nanmean(errors)), ("median", np.nanmedian(errors))):
        assert evaluation["error_px"][name] == pytest.approx(value, rel=1e-3)


def fitted(data: Path, folder: Path, *overrides: str) -> Path:
    """Return the run of a config of `init`, made smaller."""
    run("init", data, "-o", folder / "a.yaml")
    options = [word for override in (*SMALL, *overrides) for word in ("--set", override)]
    run("fit", folder / "a.yaml", "--run-dir", folder / "run", *options)
    return folder / "run"


def test_flies_without_marks_are_trained_on(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "fly100.h5"
    run_dir = fitted(data, tmp_path)
    config = load_config(tmp_path / "a.yaml")
    assert (config.data.annotated_only, config.augmentation.flip) == (False, "horizontal")
    evaluation = json.loads(run("evaluate", run_dir, "--json"))
    run("predict", run_dir, data, "-o", tmp_path / "points.h5")
    frames = validation_frames(run_dir)
    truth = deepposekit_truth(real_data)
    check_evaluation(evaluation, tmp_path / "points.h5", truth.points, frames)


def test_packages_are_trained_and_validated_on(real_data: Path, tmp_path: Path) -> None:
    data, held_out = (real_data / f"fly100.{part}.pkg.slp" for part in ("train", "val"))
    run_dir = fitted(data, tmp_path, f"data.validation={held_out}")
    # Its names tell left and right, and SLEAP's skeleton has no partners.
    assert load_config(tmp_path / "a.yaml").augmentation.flip == "none"
    evaluation = json.loads(run("evaluate", run_dir, held_out, "--json"))
    run("predict", run_dir, held_out, "-o", tmp_path / "points.h5")
    truth = package_truth(held_out)
    check_evaluation(evaluation, tmp_path / "points.h5", truth.points, range(len(truth.points)))
    assert json.loads((run_dir / "evaluation.json").read_text())["error_px"] == pytest.approx(
        evaluation["error_px"], rel=1e-3
    )


def test_a_converted_project_is_trained_on(real_data: Path, tmp_path: Path) -> None:
    data = tmp_path / "mice.h5"
    run("convert", real_data / "openfield", data, "--symmetry", "leftear,rightear")
    run_dir = fitted(data, tmp_path)
    assert load_config(tmp_path / "a.yaml").augmentation.flip == "horizontal"
    evaluation = json.loads(run("evaluate", run_dir, "--json"))
    run("predict", run_dir, data, "-o", tmp_path / "points.h5")
    frames = validation_frames(run_dir)
    truth = deeplabcut_truth(real_data)
    check_evaluation(evaluation, tmp_path / "points.h5", truth.points, frames)
    # The images themselves, and a film of other animals and another size.
    run("predict", run_dir, real_data / OPENFIELD, "-o", tmp_path / "images.h5")
    with h5py.File(tmp_path / "points.h5") as one, h5py.File(tmp_path / "images.h5") as other:
        np.testing.assert_allclose(other["points"][:], one["points"][:], rtol=0, atol=1e-3)
    film = real_data / "centered_pair" / "centered_pair_low_quality.mp4"
    assert run("predict", run_dir, film, "-o", tmp_path / "film.csv").endswith("1100 frames\n")


def test_a_training_of_sleap_is_evaluated(real_data: Path, tmp_path: Path) -> None:
    held_out = real_data / "fly100.val.pkg.slp"
    run_dir = tmp_path / "run"
    run("import-sleap", real_data / "sleap_run", "-o", run_dir, "--data", held_out)
    evaluation = json.loads(run("evaluate", run_dir, held_out, "--json"))
    run("predict", run_dir, held_out, "-o", tmp_path / "points.h5")
    truth = package_truth(held_out)
    check_evaluation(evaluation, tmp_path / "points.h5", truth.points, range(len(truth.points)))


@pytest.mark.parametrize("name", [name for name in PACKAGES if "fly100" not in name])
def test_frames_of_several_animals_are_nothing_for_a_head_for_one(
    real_data: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "a.yaml").write_text(
        f"data: {{train: {real_data / name}}}\nmodel: {{head: {{type: single_instance}}}}\n"
    )
    assert name in refusal("fit", tmp_path / "a.yaml", "--run-dir", tmp_path / "run")
    assert not (tmp_path / "run").exists()
