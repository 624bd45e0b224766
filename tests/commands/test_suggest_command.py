"""`hgtrain suggest` on runs of a few steps."""

import csv
import json
import subprocess
import sys

import av
import numpy as np
import pytest
import tiny_groups
import yaml
from PIL import Image
from tiny_run import NAMES, SMALL, fit, write_data
from videos import damage_frame, write_video

from hgtrain.commands import suggest as suggest_module
from hgtrain.commands.suggest import suggest
from hgtrain.config.load import load_config
from hgtrain.data.flies.draw import FLIES, draw_fly
from hgtrain.errors import DatasetError, RunError

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

COPIES = range(12, 32)
"""Frames of the film that show one scene."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lab")
    fit(write_data(folder), folder / "run", *SMALL, "training.epochs=1")
    return folder / "run"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """44 frames of flies on one floor, 20 of them one fly with the noise of a camera."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width = stream.height = FLIES.size
        stream.pix_fmt = "yuv420p"
        for frame in range(44):
            # Every fifth is of the same arena.
            drawn = draw_fly(FLIES, 5 * (0 if frame in COPIES else 1 + frame))[0]
            noisy = drawn[..., 0] + random.normal(0, 3, drawn.shape[:2])
            image = np.clip(noisy, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="gray")))
        container.mux(stream.encode())
    return path


def rows_of(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_of_20_copies_of_a_scene_at_most_3_are_suggested_and_all_others_are(run, film, tmp_path):
    count = suggest(run, [str(film)], tmp_path / "next.csv", 40)
    frames = [int(row["frame"]) for row in rows_of(tmp_path / "next.csv")]
    assert len(frames) == len(set(frames)) == count
    assert 1 <= len(set(frames) & set(COPIES)) <= 3
    assert len(set(frames) - set(COPIES)) == 24


def test_the_table_says_where_each_frame_is_and_why(run, film, tmp_path):
    assert suggest(run, [str(film)], tmp_path / "next.csv", 6) == 6
    rows = rows_of(tmp_path / "next.csv")
    assert [row["rank"] for row in rows] == list("123456")
    assert {row["video"] for row in rows} == {str(film)}
    for row in rows:
        assert float(row["time_s"]) == pytest.approx(int(row["frame"]) / 25)
        assert 0 <= float(row["score"]) <= 1
        assert 0 <= float(row["confidence"]) <= 1
        assert float(row["flip_px"]) >= 0
        assert any(part in row["reason"] for part in ("confidence", "jumps", "mirror image"))
    assert not (tmp_path / "next.slp").exists()


def test_a_slp_has_the_predictions_as_a_start_and_the_frames_as_suggestions(run, film, tmp_path):
    sleap_io = pytest.importorskip(
        "sleap_io", reason="needs sleap-io: pip install hgtrain[convert]"
    )
    import hgtrain

    assert suggest(run, [str(film)], tmp_path / "next.slp", 6) == 6
    keypoints, confidence = hgtrain.load_run(run).predict(film)
    labels = sleap_io.load_slp(str(tmp_path / "next.slp"))
    frames = [int(row["frame"]) for row in rows_of(tmp_path / "next.csv")]
    assert sorted(frame.frame_idx for frame in labels.labeled_frames) == sorted(frames)
    assert [one.frame_idx for one in labels.suggestions] == frames
    assert labels.skeletons[0].node_names == list(NAMES)
    assert len(labels.videos) == 1
    for frame in labels.labeled_frames:
        (instance,) = frame.instances
        assert isinstance(instance, sleap_io.PredictedInstance)
        found = instance.numpy()
        np.testing.assert_allclose(found, keypoints[frame.frame_idx], atol=0.01)
        scores = instance.points["score"]
        np.testing.assert_allclose(scores, confidence[frame.frame_idx], atol=1e-4)
    # SLEAP finds the images.
    assert labels.videos[0][frames[0]].shape[:2] == (FLIES.size, FLIES.size)


def test_more_frames_than_there_are_give_all_that_differ_and_say_so(run, tmp_path, capsys):
    film = write_video(tmp_path / "film.mp4", 5)
    assert suggest(run, [str(film)], tmp_path / "next.csv", 50) == 5
    assert "5 of 5 frames are worth labelling, --count is 50" in capsys.readouterr().err


def test_folders_of_images_and_films_are_taken_together(run, tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        picture = random.integers(0, 256, (4, 5), np.uint8)
        Image.fromarray(picture).resize((40, 32)).save(tmp_path / "pictures" / f"{number}.png")
    film = write_video(tmp_path / "film.mp4", 1)
    inputs = [str(tmp_path / "pictures"), str(film)]
    assert suggest(run, inputs, tmp_path / "next.csv", 7) == 5
    rows = rows_of(tmp_path / "next.csv")
    places = sorted((row["video"].rsplit("/", 1)[-1], row["frame"]) for row in rows)
    assert places == sorted([("film.mp4", "0"), *((f"{number}.png", "0") for number in range(4))])
    of_pictures = [row for row in rows if row["video"].endswith(".png")]
    assert {(row["time_s"], row["jump_px"]) for row in of_pictures} == {("", "")}


def test_images_in_a_slp_are_found_by_their_places(run, tmp_path):
    sleap_io = pytest.importorskip(
        "sleap_io", reason="needs sleap-io: pip install hgtrain[convert]"
    )
    (tmp_path / "pictures").mkdir()
    for number in range(3):
        Image.new("L", (40, 32), 80 * number).save(tmp_path / "pictures" / f"{number}.png")
    assert suggest(run, [str(tmp_path / "pictures")], tmp_path / "next.slp", 3) == 3
    labels = sleap_io.load_slp(str(tmp_path / "next.slp"))
    for frame in labels.labeled_frames:
        assert frame.image.mean() == 80 * frame.frame_idx


def test_a_damaged_frame_is_not_suggested(run, tmp_path):
    film = damage_frame(write_video(tmp_path / "film.avi", 4, codec="mjpeg"), 2)
    suggest(run, [str(film)], tmp_path / "next.csv", 4)
    assert {int(row["frame"]) for row in rows_of(tmp_path / "next.csv")} == {0, 1, 3}


def test_a_film_that_is_cut_off_gives_what_came_before(run, tmp_path):
    film = write_video(tmp_path / "film.avi", 30, codec="mjpeg")
    film.write_bytes(film.read_bytes()[: film.stat().st_size // 2])
    with pytest.raises(
        DatasetError, match=r"film\.avi: ends after .*; \d frames of the rest are in .*next\.csv"
    ):
        suggest(run, [str(film)], tmp_path / "next.csv", 4)
    assert 1 <= len(rows_of(tmp_path / "next.csv")) <= 4


BACKBONE = {"stem_filters": 4, "filters": 4, "filter_increase": 2, "max_stride": 8, "stacks": 1}
FINDS = {"max_instances": 3, "peak_threshold": 1e-6}
"""What a network that was never trained finds something with."""

SEVERAL = {
    "multi_instance": {"min_line_score": -1.0, **FINDS},
    "centroid": FINDS,
    "centered_instance": {"crop_size_px": 16},
}


def write_run(folder, head):
    """Write what is needed of a run, with a network that was never trained."""
    import keras

    from hgtrain.heads import make_head
    from hgtrain.model.network import build_network

    folder.mkdir()
    document = {
        "data": {"train": "groups.h5"},
        "model": {"backbone": BACKBONE, "head": {"type": head, **SEVERAL[head]}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(document))
    size = tiny_groups.SIZE
    skeleton = tiny_groups.SKELETON
    split = {**skeleton._asdict(), "image_shape": [size, size, 1]}
    (folder / "split.json").write_text(json.dumps(split))
    model = load_config(folder / "config.yaml").model
    keras.utils.set_random_seed(0)
    made = make_head(model.head, skeleton, model.backbone.output_stride)
    network = build_network(model.backbone, made.layers, 1, all_stacks=False)
    network.save(folder / "best.keras")
    return folder


@pytest.mark.parametrize("head", SEVERAL)
def test_several_animals_are_a_start_for_correction_too(tmp_path, head):
    sleap_io = pytest.importorskip(
        "sleap_io", reason="needs sleap-io: pip install hgtrain[convert]"
    )
    import hgtrain

    tiny_groups.write_groups(tmp_path)
    run = write_run(tmp_path / "run", head)
    finder = write_run(tmp_path / "finder", "centroid") if head == "centered_instance" else None
    groups = str(tmp_path / "groups.h5")
    count = suggest(run, [groups], tmp_path / "next.slp", 5, finder)
    assert 1 <= count <= 5
    labels = sleap_io.load_slp(str(tmp_path / "next.slp"), open_videos=False)
    assert len(labels.suggestions) == count
    keypoints, _ = hgtrain.load_run(run, centroids=finder).predict(groups)
    for frame in labels.labeled_frames:
        expected = keypoints[frame.frame_idx]
        expected = expected[np.isfinite(expected).any((1, 2))]
        assert len(expected) > 0
        np.testing.assert_allclose([one.numpy() for one in frame.instances], expected, atol=0.01)
    names = ["centroid"] if head == "centroid" else list(NAMES)
    assert labels.skeletons[0].node_names == names


# What cannot be used

WITHOUT_TENSORFLOW = """
import json, sys

class NoTensorFlow:
    def find_spec(self, name, path=None, target=None):
        if name in ("tensorflow", "keras"):
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, NoTensorFlow())
from hgtrain.cli import main
sys.argv = ["hgtrain", "suggest", *json.loads(sys.argv[1])]
main()
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{run}", "gone.mp4", "-o", "next.csv"], "Error: gone.mp4: cannot be read: No such file"),
        (["gone", "{run}/config.yaml", "-o", "next.csv"], "Error: gone is no run directory: it"),
        (["{run}", "{run}/config.yaml", "-o", "next.csv"], "is no video that can be read"),
        (["{run}", "a.mp4", "-o", "next.h5"], "frames to label are written as .slp, with a table"),
        (["{run}", "a.mp4", "-o", "none/next.csv"], "cannot be written: there is no such folder"),
        (["{run}", "next.csv", "-o", "next.slp"], "next.csv is an input: choose another name"),
    ],
)
def test_mistakes_are_answered_without_tensorflow(run, tmp_path, arguments, message):
    given = json.dumps([argument.format(run=run) for argument in arguments])
    program = [sys.executable, "-c", WITHOUT_TENSORFLOW, given]
    done = subprocess.run(program, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_sleap_io_a_slp_is_refused_with_the_fix(run, film, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "sleap_io", None)
    with pytest.raises(
        RunError, match=r"sleap-io is needed to write .*: pip install 'hgtrain\[con"
    ):
        suggest(run, [str(film)], tmp_path / "next.slp", 4)
    assert suggest(run, [str(film)], tmp_path / "next.csv", 4) == 4


@pytest.mark.parametrize("count", ["0", "-1", "many"])
def test_a_count_that_is_none_is_a_wrong_command_line(count):
    from click.testing import CliRunner

    arguments = ["run", "film.mp4", "-o", "next.slp", "--count", count]
    done = CliRunner().invoke(suggest_module.command, arguments)
    assert done.exit_code == 2
    assert "--count" in done.output
