"""The commands on a finished run, on one run of eight steps."""

import csv
import json
import re

import h5py
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tiny_run import NAMES, fit, make_frames, write_data
from videos import write_video

from hgtrain import files
from hgtrain.commands import convert, evaluate, predict, report
from hgtrain.commands import export as export_command
from hgtrain.commands.predict import PredictOptions
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.errors import DatasetError, RunError
from hgtrain.predict.saved_model import SavedModelPredictor
from hgtrain.rundir.load import load_run
from hgtrain.skeleton import Skeleton

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SKELETON = Skeleton(NAMES, ((0, 1), (0, 2)), ((1, 2),))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    fit(write_data(folder), folder / "run")
    return folder


@pytest.fixture
def run_dir(folder):
    return folder / "run"


@pytest.fixture(scope="module")
def export(tmp_path_factory):
    """A SavedModel by the contract, whose keypoints are the image's size and brightness."""
    folder = tmp_path_factory.mktemp("export")

    class Model(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.uint8, name="image")])
        def serve(self, image):
            shape = tf.shape(image)
            size = tf.cast(tf.stack([shape[2], shape[1]]), tf.float32)
            points = tf.tile(size[None, None], (shape[0], len(NAMES), 1))
            bright = tf.reduce_mean(tf.cast(image, tf.float32) / 255, (1, 2, 3))
            return {
                "keypoints": points,
                "confidence": tf.repeat(bright[:, None], len(NAMES), axis=1),
            }

    model = Model()
    tf.saved_model.save(model, str(folder), signatures={"serving_default": model.serve})
    (folder / "metadata.json").write_text(json.dumps({"keypoint_names": NAMES, "edges": [[0, 1]]}))
    return folder


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_evaluate_repeats_what_fit_wrote(run_dir):
    written = json.loads((run_dir / "evaluation.json").read_text())
    evaluation = evaluate.evaluate(run_dir, [], "unbiased")
    assert evaluation.keys() == written.keys()
    for key in ("error_px", "pck", "frames", "keypoints", "rmse_px"):
        assert evaluation[key] == pytest.approx(written[key])


def test_a_run_that_names_no_frames_wants_data(run_dir, tmp_path):
    for name in ("config.yaml", "best.keras"):
        (tmp_path / name).write_bytes((run_dir / name).read_bytes())
    split = json.loads((run_dir / "split.json").read_text())
    (tmp_path / "split.json").write_text(
        json.dumps({k: v for k, v in split.items() if k not in ("train", "validation")})
    )
    with pytest.raises(RunError, match=r"split\.json names no frames, .* give the data itself"):
        evaluate.evaluate(tmp_path, [], "unbiased")


def test_evaluate_equals_numpy_on_the_csv_of_predict(run_dir, folder, tmp_path):
    predict.predict(run_dir, [str(folder / "flies.h5")], tmp_path / "a.csv", PredictOptions())
    predicted = np.array(
        [
            [[row[f"{name}.{axis}"] for axis in "xy"] for name in NAMES]
            for row in rows_of(tmp_path / "a.csv")
        ],
        float,
    )
    with h5py.File(folder / "flies.h5") as file:
        truth = file["keypoints"][:, 0]
    distance = np.sqrt(((predicted - truth) ** 2).sum(-1))
    evaluation = evaluate.evaluate(run_dir, [str(folder / "flies.h5")], "unbiased")
    assert (evaluation["frames"], evaluation["keypoints"]) == (12, 36)
    assert evaluation["error_px"]["mean"] == pytest.approx(distance.mean(), abs=1e-3)
    assert evaluation["error_px"]["p95"] == pytest.approx(np.percentile(distance, 95), abs=1e-3)
    assert evaluation["rmse_px"] == pytest.approx(np.sqrt((distance**2).mean()), abs=1e-3)


def test_the_refinement_is_that_of_the_option(run_dir, folder, tmp_path):
    predict.predict(
        run_dir, [str(folder / "flies.h5")], tmp_path / "a.csv", PredictOptions(refinement="none")
    )
    # Without refinement a point is a multiple of the stride of 2.
    assert all(
        float(row[f"{name}.x"]) % 2 == 0 for row in rows_of(tmp_path / "a.csv") for name in NAMES
    )


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ("nose", "ear_right", "ear_left"),
            r"keypoint 1 of .*b\.h5 is 'ear_right' but that of the run .* is 'ear_left'",
        ),
        (
            ("nose", "ear_left"),
            r"b\.h5 has 2 keypoints \(nose, ear_left\) but the run .* has 3 \(nose, ear_left, ",
        ),
    ],
)
def test_evaluate_refuses_other_keypoints(run_dir, tmp_path, names, message):
    frames = ((image, points[: len(names)], None, None) for image, points, _, _ in make_frames(2))
    write_dataset(tmp_path / "b.h5", Skeleton(names), frames)
    with pytest.raises(DatasetError, match=message):
        evaluate.evaluate(run_dir, [str(tmp_path / "b.h5")], "unbiased")


def test_predict_takes_datasets_folders_and_videos_together(run_dir, folder, tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(3):
        Image.new("RGB", (40, 32)).save(tmp_path / "pictures" / f"{i}.png")
    write_video(tmp_path / "film.mp4", 5)
    inputs = [folder / "flies.h5", tmp_path / "pictures", tmp_path / "film.mp4"]
    count = predict.predict(
        run_dir, list(map(str, inputs)), tmp_path / "a.h5", PredictOptions(batch_size=4)
    )
    assert count == 20
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["points"].shape == (20, 1, 3, 2)
        assert np.isfinite(file["points"]).all()
        assert np.bincount(file["source"]).tolist() == [12, 1, 1, 1, 5]
        assert file.attrs["complete"]


@pytest.mark.parametrize("suffix", [".csv", ".h5", ".slp"])
def test_predict_skips_a_broken_image_and_frames_keep_their_numbers(
    run_dir, tmp_path, capsys, suffix
):
    if suffix == ".slp":
        pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")
    (tmp_path / "pictures").mkdir()
    for i in range(4):
        Image.new("L", (32, 32), 20 * i).save(tmp_path / "pictures" / f"{i}.png")
    (tmp_path / "pictures" / "1.png").write_bytes(b"")
    out = tmp_path / f"a{suffix}"
    options = PredictOptions(overlay=tmp_path / "look.mp4")
    assert predict.predict(run_dir, [str(tmp_path / "pictures")], out, options) == 4
    told = capsys.readouterr().err
    assert f"skipped: {tmp_path}/pictures/1.png: is no image that can be read (0 bytes)" in told
    assert "pictures: 1 of 4 frames cannot be read" in told
    if suffix == ".csv":
        rows = rows_of(out)
        assert [row["source"].rsplit("/")[-1] for row in rows] == [f"{i}.png" for i in range(4)]
        assert [row["nose.x"] == "" for row in rows] == [False, True, False, False]
    elif suffix == ".h5":
        with h5py.File(out) as file:
            found = np.isfinite(file["points"]).all((1, 2, 3))
            assert np.isnan(file["confidence"][1]).all()
            assert np.isnan(file["instance_score"][1]).all()
            assert file["source"][:].tolist() == [0, 1, 2, 3]
            assert file.attrs["complete"]
        assert found.tolist() == [True, False, True, True]
    else:
        import sleap_io

        frames = sleap_io.load_slp(str(out), open_videos=False).labeled_frames
        assert [(f.frame_idx, len(f.instances)) for f in frames] == [(0, 1), (1, 0), (2, 1), (3, 1)]
    import av

    with av.open(str(tmp_path / "look.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 4


def test_predict_of_broken_images_alone_is_an_error_and_leaves_no_file(run_dir, tmp_path):
    (tmp_path / "pictures").mkdir()
    for i in range(2):
        (tmp_path / "pictures" / f"{i}.png").write_bytes(b"")
    with pytest.raises(
        DatasetError, match=r"none of 2 frames can be read, the first: .*0\.png: is no image"
    ):
        predict.predict(run_dir, [str(tmp_path / "pictures")], tmp_path / "a.csv", PredictOptions())
    assert not (tmp_path / "a.csv").exists()


def test_predict_keeps_what_it_has_when_a_film_is_cut_off(run_dir, tmp_path):
    film = write_video(tmp_path / "film.avi", 30, codec="mjpeg")
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(
        DatasetError,
        match=r"film\.avi: ends after .*; the predictions of \d+ frames are in .*a\.csv",
    ):
        predict.predict(run_dir, [str(film)], tmp_path / "a.csv", PredictOptions())
    assert 5 < len(rows_of(tmp_path / "a.csv")) < 20


def test_predict_draws_an_overlay(run_dir, tmp_path):
    import av

    film = write_video(tmp_path / "film.mp4", 5)
    predict.predict(
        run_dir, [str(film)], tmp_path / "a.csv", PredictOptions(overlay=tmp_path / "look.mp4")
    )
    with av.open(str(tmp_path / "look.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 5


def test_predict_uses_an_export_alike(export, tmp_path):
    film = write_video(tmp_path / "film.mp4", 10)
    assert predict.predict(export, [str(film)], tmp_path / "a.csv", PredictOptions()) == 10
    last = rows_of(tmp_path / "a.csv")[-1]
    assert (float(last["nose.x"]), float(last["nose.y"])) == (48.0, 32.0)
    assert float(last["score"]) == pytest.approx(180 / 255, abs=0.02)


def test_an_export_refuses_a_dataset_with_other_channels(export, tmp_path):
    frames = (
        (np.repeat(image, 3, axis=2), points, None, None) for image, points, _, _ in make_frames(2)
    )
    write_dataset(tmp_path / "rgb.h5", SKELETON, frames)
    with pytest.raises(
        RunError, match=r"rgb\.h5 has images of 3 channels but the export .* takes 1"
    ):
        predict.predict(export, [str(tmp_path / "rgb.h5")], tmp_path / "a.csv", PredictOptions())


def test_an_export_decodes_as_it_was_written(export, folder, tmp_path):
    with pytest.raises(RunError, match=r"--decode local needs a run"):
        predict.predict(
            export, [str(folder)], tmp_path / "a.csv", PredictOptions(refinement="local")
        )


def test_an_export_averages_as_it_was_written(export, folder, tmp_path):
    with pytest.raises(RunError, match=r"--average flips needs a run: .* `hgtrain export --avera"):
        predict.predict(
            export, [str(folder)], tmp_path / "a.csv", PredictOptions(average=("flips",))
        )


def test_an_export_that_averages_finds_what_the_run_finds_so(run_dir, tmp_path, capsys):
    average = ("flips", "rotations")
    export_command.export(run_dir, tmp_path / "model", "savedmodel", None, (), None, average)
    said = capsys.readouterr().err
    assert "was trained without mirrored images (augmentation.flip: none): averaging" in said
    assert "was not trained with images turned all ways (augmentation.rotation_deg: [-20, " in said
    assert json.loads((tmp_path / "model/metadata.json").read_text())["average"] == list(average)
    images = np.stack([image for image, *_ in make_frames(4)])
    plain, averaged = (load_run(run_dir, average=each).predict(images)[0] for each in ((), average))
    found = SavedModelPredictor(tmp_path / "model")(images).points[:, 0]
    np.testing.assert_allclose(found, averaged, atol=0.005)
    assert np.abs(plain - averaged).max() > 0.05


def test_a_run_refuses_to_average_over_what_is_not_known(run_dir):
    with pytest.raises(ValueError, match="average must be of flips, rotations, got 'scales'"):
        load_run(run_dir, average=("scales",))


def test_a_folder_that_is_neither_run_nor_export_is_named(folder, tmp_path):
    with pytest.raises(
        RunError, match=r"is neither a run directory \(no config\.yaml\) nor an export"
    ):
        predict.predict(tmp_path, [str(folder / "flies.h5")], tmp_path / "a.csv", PredictOptions())


@pytest.mark.parametrize("name", ["model.onnx", "model_float32.tflite"])
def test_an_export_for_another_runtime_says_how_it_is_run(folder, tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(
        RunError, match=rf"is an export as {name}: .* its README\.md shows how to run this one"
    ):
        predict.predict(tmp_path, [str(folder / "flies.h5")], tmp_path / "a.csv", PredictOptions())


def test_a_slp_says_whose_images_sleap_will_not_find(run_dir, folder, tmp_path, capsys):
    pytest.importorskip("sleap_io", reason="needs sleap-io: pip install hgtrain[convert]")
    images = np.stack([image for image, *_ in make_frames(2)])
    with h5py.File(tmp_path / "leap.h5", "w") as file:
        file["box"] = images.transpose(0, 3, 2, 1)
        file["joints"] = np.full((2, 2, 3), 9.0)
    pages = [Image.fromarray(image[..., 0]) for image in images]
    pages[0].save(tmp_path / "stack.tif", save_all=True, append_images=pages[1:])
    inputs = [folder / "flies.h5", tmp_path / "leap.h5", tmp_path / "stack.tif"]
    assert (
        predict.predict(run_dir, list(map(str, inputs)), tmp_path / "a.slp", PredictOptions()) == 16
    )
    said = capsys.readouterr().err
    assert re.findall(r"(\S+): the \.slp has the points", said) == [
        str(path) for path in inputs[1:]
    ]


def test_an_input_is_never_overwritten(run_dir, folder):
    with pytest.raises(RunError, match=r"flies\.h5 is an input"):
        predict.predict(run_dir, [str(folder / "flies.h5")], folder / "flies.h5", PredictOptions())


def test_a_missing_folder_for_the_output_is_named(run_dir, folder, tmp_path):
    with pytest.raises(RunError, match=r"none/a\.csv cannot be written: there is no such folder"):
        predict.predict(
            run_dir, [str(folder / "flies.h5")], tmp_path / "none" / "a.csv", PredictOptions()
        )


def test_a_folder_is_no_output(run_dir, folder, tmp_path):
    with pytest.raises(RunError, match=r"cannot be written: it is a folder"):
        predict.predict(run_dir, [str(folder / "flies.h5")], tmp_path, PredictOptions())


def test_fit_writes_a_page_that_asks_for_nothing_else(run_dir):
    page = (run_dir / "report.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', page)
    assert not re.findall(r"url\((?!#)", page)
    assert "<script" not in page
    assert len(page) < 3_000_000


def test_the_page_has_the_result_and_every_part(run_dir):
    page = (run_dir / "report.html").read_text()
    assert "px (mean " in page
    for part in (
        "Training",
        "Keypoints",
        "Validation frames",
        "worst frames",
        "What the network saw",
        "config.yaml",
    ):
        assert part in page


def test_report_is_written_again(run_dir):
    (run_dir / "report.html").unlink()
    assert report.report([run_dir], run_dir / "unused.html") == [run_dir / "report.html"]
    assert (run_dir / "report.html").is_file()
    assert not (run_dir / "unused.html").exists()


def test_several_runs_are_compared_on_one_page(run_dir, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("config.yaml", "split.json", "provenance.json", "metrics.jsonl", "best.keras"):
        (tmp_path / "other" / name).write_bytes((run_dir / name).read_bytes())
    config = tmp_path / "other" / "config.yaml"
    config.write_text(config.read_text().replace("learning_rate: 0.002", "learning_rate: 0.004"))
    written = report.report([run_dir, tmp_path / "other"], tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert written[-1] == tmp_path / "both.html"
    assert "All were measured on the same validation frames." in page
    assert "training.learning_rate" in page
    assert "0.004" in page


def test_runs_measured_on_other_frames_have_no_best(run_dir, tmp_path):
    (tmp_path / "other").mkdir()
    for name in ("config.yaml", "split.json", "provenance.json", "metrics.jsonl", "best.keras"):
        (tmp_path / "other" / name).write_bytes((run_dir / name).read_bytes())
    split = json.loads((run_dir / "split.json").read_text())
    split["validation"]["frames"] = [0, 1]
    (tmp_path / "other" / "split.json").write_text(json.dumps(split))
    report.report([run_dir, tmp_path / "other"], tmp_path / "both.html")
    page = (tmp_path / "both.html").read_text()
    assert "different validation frames" in page
    assert 'class="best"' not in page


def test_a_comparison_that_cannot_be_written_is_named(run_dir, tmp_path):
    with pytest.raises(RunError, match=r"none/both\.html cannot be written: there is no such"):
        report.report([run_dir, run_dir], tmp_path / "none" / "both.html")


def test_a_comparison_on_a_full_disk_is_named(run_dir, tmp_path, monkeypatch):
    write_text = files.write_text

    def full(path, text):
        if path.name == "both.html":
            raise OSError(28, "No space left on device")
        write_text(path, text)

    monkeypatch.setattr(files, "write_text", full)
    with pytest.raises(RunError, match=r"both\.html cannot be written: No space left on device"):
        report.report([run_dir, run_dir], tmp_path / "both.html")


def test_convert_refuses_to_overwrite_its_source(folder):
    with pytest.raises(RunError, match=r"flies\.h5 is an input"):
        convert.convert_dataset(str(folder / "flies.h5"), folder / "flies.h5", predictions=False)


def test_convert_says_what_it_left_out(folder, tmp_path, capsys):
    frames = ((image, points, None, None) for image, points, _, _ in make_frames(2))
    write_dataset(tmp_path / "a.h5", Skeleton(NAMES), frames)
    converted = convert.convert_dataset(
        str(tmp_path / "a.h5"), tmp_path / "b.h5", predictions=False
    )
    assert converted.frames == 2
    assert capsys.readouterr().err == ""
