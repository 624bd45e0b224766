import json
import re
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from networks import spec_of
from tiny_run import NAMES, fit, make_frames

from hgtrain.cli import commands
from hgtrain.commands import init
from hgtrain.config.head import SINGLE_INSTANCE
from hgtrain.config.load import load_config
from hgtrain.data.dataset import NOT_LABELLED
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.open import open_dataset
from hgtrain.errors import DatasetError, RunError
from hgtrain.planning import suggest
from hgtrain.planning.config_text import config_text
from hgtrain.planning.dataset_stats import Crowd, DatasetStats, dataset_stats
from hgtrain.planning.memory import Device, training_memory
from hgtrain.planning.suggest import (
    LARGE,
    MEDIUM,
    SMALL,
    choose,
    data_name,
    field_after_first_stack,
    head_section,
)
from hgtrain.planning.summary import demand_of
from hgtrain.skeleton import Skeleton, unnamed_skeleton

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

GIB = 2**30
CPU, GPU = Device("CPU", 16 * GIB), Device("NVIDIA H200", 140 * GIB)
FLIES = DatasetStats(
    frames=500, image_shape=(128, 128, 1), skeleton=unnamed_skeleton(19), animal_px=97.0,
    spread=0.1,
    faces_one_way=False, has_partners=True, flip="horizontal", annotated_only=True,
    head=SINGLE_INSTANCE, crowd=Crowd(frames=0, most=1, anchor=None, crop_px=110),
)  # fmt: skip


@pytest.mark.parametrize(
    ("strides", "field"),
    [((4, 8), 57), ((4, 16), 129), ((4, 32), 273), ((4, 64), 561), ((2, 16), 140)],
)
def test_the_field_of_a_stack_follows_the_recurrence(strides: tuple[int, int], field: int) -> None:
    assert field_after_first_stack(*strides) == field


def test_flies_get_a_network_that_sees_the_whole_animal() -> None:
    # 97 px: half of 8 per cent is 3.9, and 273 px is the first field of 1.5 animals.
    assert choose(FLIES, "CPU") == (1.0, 4, 32, 4.0, 273)


def test_large_images_are_made_smaller_on_a_cpu_and_small_animals_are_not() -> None:
    mouse = FLIES._replace(image_shape=(480, 640, 1), animal_px=126.0)
    assert choose(mouse, "CPU").input_scale == 0.5
    assert choose(mouse, "GPU").input_scale == 1.0
    assert choose(mouse._replace(animal_px=60.0), "CPU").input_scale == 1.0


def test_a_narrow_gaussian_has_fine_maps() -> None:
    small = choose(FLIES._replace(animal_px=50.0), "CPU")
    assert (small.sigma_px, small.stride, small.max_stride) == (2.5, 2, 16)


def test_padding_does_not_outgrow_the_image() -> None:
    # 561 px would see it all, but 100 rows would be padded to 128 and with stride 128 no less.
    assert choose(FLIES._replace(image_shape=(70, 300, 1), animal_px=290.0), "GPU").max_stride == 32


def written(stats: DatasetStats = FLIES, kind: str = "CPU", **changes: object) -> str:
    device = CPU if kind == "CPU" else GPU
    size = SMALL if kind == "CPU" else LARGE
    choice = choose(stats, kind)
    head = head_section(stats, choice)
    duration = suggest.Duration(30.0, 0.25, 12, False)
    proposal = suggest.Proposal("a.h5", stats, choice, head, size, 8, device, kind, duration)
    return config_text(proposal._replace(**changes))


@pytest.mark.parametrize(
    ("duration", "epochs", "minutes"),
    [
        # 2,400 steps of a quarter of a second are 600 s, and 85% of the time.
        (
            suggest.Duration(30.0, 0.25, 12, False),
            "epochs: 12 # about 12 minutes on this CPU (250 ms a step, an estimate, which "
            "--minutes measures); more is better",
            "max_minutes: 30 # where steps take longer, fewer of them are done",
        ),
        # No longer than it may take.
        (
            suggest.Duration(0.5, 1.0, 1, True),
            "epochs: 1 # about 30 seconds on this CPU (1000 ms a step, measured); more is better",
            "max_minutes: 0.5 # where steps take longer, fewer of them are done",
        ),
    ],
)
def test_how_long_it_will_take_is_said(
    duration: suggest.Duration, epochs: str, minutes: str
) -> None:
    lines = [" ".join(line.split()) for line in written(duration=duration).splitlines()]
    assert epochs in lines
    assert minutes in lines


@pytest.mark.parametrize(
    ("kind", "step_s", "minutes", "epochs"),
    [
        # 85% of 30 minutes are 1,530 s, and an epoch has 200 steps.
        ("CPU", 0.1, None, 16),
        ("CPU", 1.0, None, 7),
        ("CPU", 1.0, 10, 2),
        ("CPU", 1.0, 60, 15),
        ("CPU", 60.0, None, 1),
        ("GPU", 0.1, None, 50),
        ("GPU", 0.5, None, 30),
        ("GPU", 0.1, 60, 100),
    ],
)
def test_as_many_epochs_as_fit_into_the_time(
    kind: str, step_s: float, minutes: float | None, epochs: int
) -> None:
    found = suggest.duration(kind, step_s, minutes, False)
    assert (found.epochs, found.minutes) == (epochs, minutes or {"CPU": 30, "GPU": 60}[kind])


def test_a_step_is_estimated_from_what_is_computed() -> None:
    # Three passes over 8 images of 1e9 operations, on two cores of 4e10 a second.
    assert suggest.estimated_step_s(1e9, 8, "CPU", 2) == pytest.approx(0.3)
    assert suggest.estimated_step_s(1e9, 8, "GPU", 2) == 0.015


def test_the_size_of_a_cell_is_said_in_the_images_own_pixels() -> None:
    mouse = FLIES._replace(image_shape=(480, 640, 1), animal_px=126.0)
    lines = [" ".join(line.split()) for line in written(mouse).splitlines()]
    assert "input_scale: 0.5" in " ".join(lines)
    assert "output_stride: 2 # a cell is 4 px of your images" in lines


def test_choices_say_their_reasons() -> None:
    lines = [" ".join(line.split()) for line in written().splitlines()]
    assert lines[0] == "# For 500 frames of 128x128x1 with 19 keypoints."
    assert "max_stride: 32 # a stack sees 273 px, an animal is 97 px" in lines
    assert "validation: 0.1 # 50 frames" in lines
    assert "flip: horizontal # left and right keypoints know their partners" in lines
    assert "rotation_deg: [-180, 180] # the animals face all ways" in lines
    assert "batch_size: 8 # fits the memory of this CPU (16 GiB)" in lines


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"has_partners": False, "flip": "none"},
            "flip: none # the file names no left/right partners, or not all; hgtrain convert",
        ),
        ({"flip": "none"}, "flip: none # a mirrored animal would face another way"),
        ({"flip": "vertical"}, "flip: vertical # left and right keypoints know their partners"),
        ({"faces_one_way": True}, "rotation_deg: [-30, 30] # the animals all face one way"),
        ({"spread": 0.4}, "scale: [0.9, 1.1] # they differ in size"),
        ({"frames": 100}, "validation: 0.2 # 20 frames"),
        (
            {"annotated_only": False},
            "annotated_only: false # the file marks every keypoint as not annotated: look at",
        ),
    ],
)
def test_choices_follow_the_dataset(changes: dict, line: str) -> None:
    assert line in " ".join(written(FLIES._replace(**changes)).split())


@pytest.mark.parametrize("kind", ["CPU", "GPU"])
@pytest.mark.parametrize(
    "image_shape", [(128, 128, 1), (480, 640, 3), (1080, 1920, 3), (50, 40, 1)]
)
def test_what_is_written_is_a_config(
    tmp_path: Path, kind: str, image_shape: tuple[int, int, int]
) -> None:
    (tmp_path / "a.yaml").write_text(written(FLIES._replace(image_shape=image_shape), kind))
    assert load_config(tmp_path / "a.yaml").data.train_files == (str(tmp_path / "a.h5"),)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("builtin:flies", "builtin:flies"),
        ("{folder}/flies.h5", "flies.h5"),
        ("{folder}/sub/flies-2.pkg.slp", "sub/flies-2.pkg.slp"),
        ("{folder}/a: b.h5", '"a: b.h5"'),
        ("{folder}/1.5", '"1.5"'),
        ("{folder}/null", '"null"'),
        ("{folder}/True", '"True"'),
        ("{folder}/~", '"./~"'),
        ("/elsewhere/flies.h5", "/elsewhere/flies.h5"),
    ],
)
def test_a_dataset_is_named_as_seen_from_the_config(tmp_path: Path, data: str, name: str) -> None:
    assert data_name(data.format(folder=tmp_path), tmp_path / "a.yaml") == name


# Looking at a dataset


def dataset(
    tmp_path: Path, points: np.ndarray, visibility: np.ndarray | None = None, symmetries=()
) -> Path:
    names = tuple("abcdefgh"[: points.shape[1]])
    frames = [
        (np.zeros((64, 64, 1), np.uint8), at, None if visibility is None else visibility, None)
        for at in points.astype(np.float32)
    ]
    write_dataset(tmp_path / "a.h5", Skeleton(names, (), symmetries), frames)
    return tmp_path / "a.h5"


def stats_of(path: Path, annotated_only: bool = True) -> DatasetStats:
    with closing(open_dataset(path, annotated_only)) as opened:
        return dataset_stats(opened, annotated_only)


def turned(angles_deg: np.ndarray, length: float = 20.0) -> np.ndarray:
    """Return animals of two keypoints at these angles, `(n, 2, 2)` px."""
    along = (
        np.stack([np.cos(np.deg2rad(angles_deg)), np.sin(np.deg2rad(angles_deg))], -1) * length / 2
    )
    return np.stack([32 - along, 32 + along], axis=1)


def test_animals_that_face_all_ways_are_seen(tmp_path: Path) -> None:
    assert not stats_of(dataset(tmp_path, turned(np.arange(0, 360, 30)))).faces_one_way


def test_animals_that_face_one_way_are_seen(tmp_path: Path) -> None:
    stats = stats_of(dataset(tmp_path, turned(np.linspace(-20, 20, 10)), symmetries=((0, 1),)))
    assert (
        stats.faces_one_way,
        stats.has_partners,
        stats.frames,
        len(stats.skeleton.keypoint_names),
    ) == (
        True,
        True,
        10,
        2,
    )


def mice(angles_deg: np.ndarray, height: float = 1.0, gait: float = 0.0) -> np.ndarray:
    """Return animals of nose, left ear, right ear and tail that head for these angles, in px.

    height: of the left ear over the right one, from the side; gait: how far the ears swing to and
    fro along the animal, from frame to frame.
    """
    swing = gait * np.where(np.arange(len(angles_deg)) % 2, 1, -1)[:, None] * np.array([1, -1])
    along = np.tile([20.0, 10.0, 10.0, -20.0], (len(angles_deg), 1))
    along[:, 1:3] += swing
    # y points down: the left side of an animal that heads for +x is at smaller y.
    beside = np.array([0.0, -5.0, 5.0, 0.0]) * height
    turns = np.deg2rad(angles_deg)[:, None]
    x = along * np.cos(turns) - beside * np.sin(turns)
    y = along * np.sin(turns) + beside * np.cos(turns)
    return np.stack([x, y], -1) + 32


@pytest.mark.parametrize(
    ("points", "flip"),
    [
        (mice(np.arange(0, 360, 30)), "horizontal"),
        (mice(np.linspace(-15, 15, 12)), "vertical"),
        (mice(np.linspace(75, 105, 12)), "horizontal"),
        (mice(np.linspace(-15, 15, 12), height=0.1, gait=6.0), "none"),
    ],
    ids=["all ways", "to the right", "downwards", "from the side"],
)
def test_animals_are_flipped_so_that_they_look_like_themselves(
    tmp_path: Path, points: np.ndarray, flip: str
) -> None:
    stats = stats_of(dataset(tmp_path, points, symmetries=((1, 2),)))
    assert stats.flip == flip
    assert stats_of(dataset(tmp_path, points)).flip == "none"


def test_animals_are_not_flipped_where_names_tell_partners_that_the_file_lacks(
    tmp_path: Path,
) -> None:
    skeleton = Skeleton(("nose", "earL", "earR", "eyeL", "eyeR"), (), ((1, 2),))
    points = np.concatenate([mice(np.arange(0, 360, 30)), mice(np.arange(0, 360, 30))[:, :1]], 1)
    frames = [(np.zeros((64, 64, 1), np.uint8), at, None, None) for at in points]
    write_dataset(tmp_path / "a.h5", skeleton, frames)
    stats = stats_of(tmp_path / "a.h5")
    assert (stats.has_partners, stats.flip) == (False, "none")


def test_single_keypoints_say_nothing_of_size_and_direction(tmp_path: Path) -> None:
    stats = stats_of(dataset(tmp_path, np.full((3, 1, 2), 5.0)))
    # A quarter of the image.
    assert (stats.animal_px, stats.spread, stats.faces_one_way) == (16.0, 1.0, False)


def test_animals_that_differ_in_size_have_a_spread(tmp_path: Path) -> None:
    points = np.concatenate(
        [turned(np.zeros(5), 10.0), turned(np.zeros(5), 20.0), turned(np.zeros(5), 30.0)]
    )
    # The tenth part is 10 px, the middle 20 px, nine tenths 30 px.
    assert stats_of(dataset(tmp_path, points)).spread == pytest.approx(1.0)


# The command


@pytest.fixture
def flies(tmp_path: Path) -> Path:
    write_dataset(
        tmp_path / "flies.h5", Skeleton(NAMES, ((0, 1), (0, 2)), ((1, 2),)), make_frames()
    )
    return tmp_path / "flies.h5"


@pytest.mark.slow
def test_the_written_config_trains_a_step(flies: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(commands, ["init", str(flies), "-o", str(tmp_path / "a.yaml")])
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'a.yaml'}\n")
    _, evaluation = fit(
        tmp_path / "a.yaml", tmp_path / "run", "training.epochs=1", "training.steps_per_epoch=1"
    )
    # A fifth of twelve frames.
    assert evaluation["frames"] == 2


@pytest.mark.slow
def test_with_minutes_a_step_is_measured(flies: Path, tmp_path: Path) -> None:
    line = ["init", str(flies), "-o", str(tmp_path / "a.yaml"), "--minutes", "1"]
    done = CliRunner().invoke(commands, line)
    assert (done.exit_code, done.stdout) == (0, f"{tmp_path / 'a.yaml'}\n")
    assert "measuring how long a training step takes" in done.stderr
    text = (tmp_path / "a.yaml").read_text()
    ((epochs, step_ms),) = re.findall(
        r"epochs: (\d+) +# about .* \((\S+) ms a step, measured", text
    )
    # 85% of a minute, in epochs of 200 steps, by a figure that is rounded to two digits.
    fitting = 51 / (200 * float(step_ms) / 1000)
    assert max(1, 0.9 * fitting - 1) <= int(epochs) <= max(1, min(100, 1.1 * fitting))
    assert load_config(tmp_path / "a.yaml").training.max_minutes == 1


def test_no_time_at_all_is_a_wrong_command_line() -> None:
    done = CliRunner().invoke(commands, ["init", "a.h5", "-o", "a.yaml", "--minutes", "0"])
    assert done.exit_code == 2
    assert "Invalid value for '--minutes': 0.0 is not in the range" in done.output


def test_a_file_whose_keypoints_are_all_marked_is_used_with_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = dataset(tmp_path, turned(np.arange(4.0)), np.full(2, NOT_LABELLED, np.uint8))
    init.init(str(path), tmp_path / "a.yaml")
    assert not load_config(tmp_path / "a.yaml").data.annotated_only
    assert "marks every keypoint as not annotated" in capsys.readouterr().err


def test_a_file_without_any_keypoint_is_refused(tmp_path: Path) -> None:
    path = dataset(tmp_path, np.full((3, 2, 2), np.nan))
    with pytest.raises(DatasetError, match=r"has no frame to use"):
        init.init(str(path), tmp_path / "a.yaml")


def test_what_is_there_is_not_overwritten(flies: Path) -> None:
    with pytest.raises(RunError, match=r"flies.h5 is there already: choose another name"):
        init.init(str(flies), flies)


def test_a_folder_that_is_not_there_is_refused(flies: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"a.yaml cannot be written: there is no such folder"):
        init.init(str(flies), tmp_path / "gone" / "a.yaml")


def bytes_for(stats: DatasetStats, size: suggest.Size, batch_size: int) -> int:
    config = suggest.as_config(choose(stats, "GPU"), size)
    return training_memory(demand_of(spec_of(config, stats.image_shape, 19)), batch_size)["total"]


@pytest.mark.parametrize("memory_bytes", [3 * GIB, GIB, GIB // 2, GIB // 3])
def test_network_and_batch_are_the_largest_that_fit_into_half_of_the_memory(
    memory_bytes: int,
) -> None:
    stats = FLIES._replace(image_shape=(256, 256, 1))
    device = Device("NVIDIA A", memory_bytes)
    size, batch_size = init._fitting(stats, choose(stats, "GPU"), SINGLE_INSTANCE, "GPU", device)
    assert bytes_for(stats, size, batch_size) <= memory_bytes / 2
    assert batch_size == 8 or bytes_for(stats, size, 2 * batch_size) > memory_bytes / 2
    larger = {MEDIUM: LARGE, SMALL: MEDIUM}.get(size)
    assert larger is None or bytes_for(stats, larger, 1) > memory_bytes / 2


def test_the_smallest_is_proposed_where_nothing_fits() -> None:
    stats = FLIES._replace(image_shape=(256, 256, 1))
    nothing = Device("NVIDIA A", 1)
    fitting = init._fitting(stats, choose(stats, "GPU"), SINGLE_INSTANCE, "GPU", nothing)
    assert fitting == (SMALL, 1)


def test_the_schema_needs_no_dataset() -> None:
    done = CliRunner().invoke(commands, ["init", "--schema"])
    assert "training" in json.loads(done.stdout)["properties"]
