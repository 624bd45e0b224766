import json
from contextlib import closing
from pathlib import Path

import h5py
import numpy as np
import pytest

from hgtrain.data import builtin_datasets
from hgtrain.data.builtin_datasets import builtin_file
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.fingerprint import fingerprint
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.open import open_all, open_dataset
from hgtrain.data.selection import labels_of_frames, select_frames
from hgtrain.data.split import make_split, split_from_json, split_to_json
from hgtrain.errors import DatasetError
from hgtrain.skeleton import Skeleton

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="../shared/data is not there")
SKELETON = Skeleton(("head", "tail"), ((0, 1),))


def make(path: Path, count: int = 10, shape=(4, 5, 1), first: int = 0, **options) -> Path:
    """Write `count` frames; frame i is grey of value first + i, its points are at first + i.

    `groups`, `visibility`.
    """
    groups, visibility = (
        options.get("groups", [None] * count),
        options.get("visibility", [None] * count),
    )
    skeleton = Skeleton(options.get("names", SKELETON.keypoint_names), SKELETON.edges)
    points = np.ones((len(skeleton.keypoint_names), 2), np.float32)
    write_dataset(
        path,
        skeleton,
        (
            (np.full(shape, first + i, np.uint8), points * (first + i), visibility[i], groups[i])
            for i in range(count)
        ),
    )
    return path


@pytest.fixture
def opened(tmp_path):
    """Return a function that makes and opens a file; all are closed at the end."""
    datasets = []

    def make_and_open(name: str = "flies.h5", **options) -> PoseDataset:
        datasets.append(open_dataset(make(tmp_path / name, **options)))
        return datasets[-1]

    yield make_and_open
    for dataset in datasets:
        dataset.close()


def deepposekit(file: h5py.File) -> None:
    file["images"], file["annotations"] = np.zeros((1, 4, 5, 1), "u1"), np.zeros((1, 2, 2))
    file["annotated"], file["skeleton"] = np.ones((1, 2), bool), np.full((2, 2), -1)


def leap(file: h5py.File) -> None:
    file["box"], file["joints"] = np.zeros((1, 1, 5, 4), "u1"), np.zeros((1, 2, 3))


def native(file: h5py.File) -> None:
    file["images"], file["keypoints"] = np.zeros((1, 4, 5, 1), "u1"), np.zeros((1, 2, 2))


@pytest.mark.parametrize(
    ("write", "name"),
    [(deepposekit, "DeepPoseKit"), (leap, "LEAP"), (native, "hgtrain")],
    ids=["deepposekit", "leap", "native"],
)
def test_a_file_is_recognised_by_content_whatever_its_name(tmp_path, write, name):
    path = tmp_path / "data.bin"
    with h5py.File(path, "w") as file:
        write(file)
    with closing(open_dataset(path)) as dataset:
        assert dataset.format == name


@pytest.mark.shared
@needs_shared
def test_a_sleap_package_is_recognised_by_content():
    with closing(open_dataset(SHARED / "fly100.val.pkg.slp")) as dataset:
        assert dataset.format == "SLEAP package"


def test_an_unknown_file_lists_what_it_holds_and_what_is_known(tmp_path):
    path = tmp_path / "other.h5"
    with h5py.File(path, "w") as file:
        file["frames_of_mine"] = [1]
    with pytest.raises(
        DatasetError,
        match=r"other\.h5 is of no known format: it holds /frames_of_mine, .*LEAP: /box",
    ):
        open_dataset(path)


@pytest.mark.shared
@needs_shared
def test_the_two_forms_of_fly100_agree():
    with (
        closing(open_dataset(SHARED / "fly100.h5", annotated_only=False)) as whole,
        closing(open_dataset(SHARED / "fly100.train.pkg.slp")) as train,
        closing(open_dataset(SHARED / "fly100.val.pkg.slp")) as validation,
    ):
        assert whole.keypoint_names == train.keypoint_names == validation.keypoint_names
        np.testing.assert_allclose(
            whole.points, np.concatenate([train.points, validation.points]), atol=1e-3
        )
        np.testing.assert_array_equal(
            whole.visibility, np.concatenate([train.visibility, validation.visibility])
        )
        np.testing.assert_array_equal(whole.read_images(range(80)), train.read_images(range(80)))
        np.testing.assert_array_equal(
            whole.read_images(range(80, 100)), validation.read_images(range(20))
        )


@pytest.fixture
def small_flies(tmp_path, monkeypatch):
    """Draw four small flies, and count how often."""
    drawn = []

    def draw(settings):
        drawn.append(settings)
        image, points = np.zeros((8, 8, 1), np.uint8), np.zeros((1, 2, 2), np.float32)
        return SKELETON, (
            (image + i, points, np.full((1, 2), 2, np.uint8), f"arena{i}") for i in range(4)
        )

    monkeypatch.setattr(builtin_datasets, "draw_flies", draw)
    monkeypatch.setenv("HGTRAIN_CACHE", str(tmp_path / "cache"))
    return drawn


def test_a_builtin_dataset_is_drawn_once_and_read_as_a_file(small_flies):
    for _ in range(2):
        with closing(open_dataset("builtin:flies")) as dataset:
            assert (len(dataset), dataset.format, dataset.groups[3]) == (4, "hgtrain", "arena3")
    assert len(small_flies) == 1


@pytest.mark.usefixtures("small_flies")
def test_the_file_of_a_builtin_dataset_is_named_by_what_was_drawn(tmp_path):
    assert builtin_file("builtin:flies").parent == tmp_path / "cache"
    flies = builtin_datasets.FLIES
    name = f"flies-v{flies.version}-seed{flies.seed}-{flies.size}px-{flies.frames}.h5"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [name]


@pytest.mark.usefixtures("small_flies")
def test_drawing_can_show_progress():
    seen = []

    def progress(frames, total):
        for frame in frames:
            seen.append(total)
            yield frame

    builtin_file("builtin:flies", progress)
    assert seen == [builtin_datasets.FLIES.frames] * 4


def test_two_processes_may_draw_at_once(small_flies, tmp_path):
    def meanwhile(frames, total):
        for frame in frames:
            if len(small_flies) == 1:
                builtin_file("builtin:flies")
            yield frame

    path = builtin_file("builtin:flies", meanwhile)
    assert len(small_flies) == 2
    with closing(open_dataset(path)) as dataset:
        assert len(dataset) == 4
    assert list((tmp_path / "cache").iterdir()) == [path]


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"HGTRAIN_CACHE": "a"}, "a"),
        ({"XDG_CACHE_HOME": "b"}, "b/hgtrain"),
        ({"HOME": "c"}, "c/.cache/hgtrain"),
    ],
)
def test_the_cache_folder_follows_the_environment(
    tmp_path, monkeypatch, small_flies, variables, folder
):
    for name in ("HGTRAIN_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, str(tmp_path / value))
    assert builtin_file("builtin:flies").parent == tmp_path / folder
    assert len(small_flies) == 1


def test_an_unknown_builtin_dataset_names_the_known():
    with pytest.raises(
        DatasetError, match="builtin:mice is not known, expected one of builtin:flies"
    ):
        open_dataset("builtin:mice")


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("HGTRAIN_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        DatasetError, match=r"builtin:flies cannot be drawn into .*: set HGTRAIN_CACHE to a folder"
    ):
        open_dataset("builtin:flies")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ("head", "foot")},
            r"keypoint 1 of .*a\.h5 is 'tail' but that of .*b\.h5 is 'foot'",
        ),
        (
            {"names": ("head", "tail", "x")},
            r"a\.h5 has 2 keypoints \(head, tail\) but .*b\.h5 has 3 \(head, tail, x\)",
        ),
        (
            {"shape": (4, 6, 1)},
            r"images of .*a\.h5 have shape \(4, 5, 1\) but those of .*b\.h5 \(4, 6, 1\)",
        ),
        (
            {"shape": (4, 5, 3)},
            r"images of .*a\.h5 have shape \(4, 5, 1\) but those of .*b\.h5 \(4, 5, 3\)",
        ),
    ],
)
def test_files_that_do_not_fit_together_are_named(tmp_path, options, message):
    paths = [make(tmp_path / "a.h5"), make(tmp_path / "b.h5", **options)]
    with pytest.raises(DatasetError, match=message):
        open_all(paths)


def test_no_files_at_all_is_an_error():
    with pytest.raises(DatasetError, match="no dataset was given"):
        open_all([])


NONE, SOME = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 2]], np.uint8)
TWO = np.array([[2, 0], [0, 1]], np.uint8)


@pytest.fixture
def animals(tmp_path):
    """Frames with no, one (in the second slot), and two labelled animals, then one again."""
    points = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    image = np.zeros((4, 5, 1), np.uint8)
    path = tmp_path / "animals.h5"
    write_dataset(
        path,
        SKELETON,
        ((image, points, visibility, None) for visibility in (NONE, SOME, TWO, SOME)),
    )
    with closing(open_dataset(path)) as dataset:
        yield dataset


def test_frames_with_exactly_one_labelled_animal_are_selected(animals):
    selection = select_frames(animals)
    assert selection.frames.tolist() == [1, 3]
    assert selection.frames.dtype == np.int64
    assert selection.notes == (
        f"{animals.path}: 1 frames with several animals are left out.",
        f"{animals.path}: 1 frames without a labelled keypoint are left out.",
    )


def test_the_labels_are_of_the_labelled_animal(animals):
    points, visibility = labels_of_frames(animals, np.array([3]))
    assert points.tolist() == [[[[4, 5], [6, 7]]]]
    assert visibility.tolist() == [[[0, 2]]]


def test_nothing_selected_says_what_the_frames_hold(tmp_path):
    path = tmp_path / "pairs.h5"
    write_dataset(path, SKELETON, [(np.zeros((4, 5, 1), np.uint8), np.zeros((2, 2, 2)), TWO, None)])
    message = (
        r"pairs\.h5 has no frame to use: 1 of 1 have several animals, 0 no labelled keypoint, .* "
        "exactly one animal"
    )
    with closing(open_dataset(path)) as dataset, pytest.raises(DatasetError, match=message):
        select_frames(dataset)


@pytest.mark.shared
@needs_shared
def test_fly100_names_the_flags_and_the_key_that_allows_it():
    message = (
        r"fly100\.h5:/annotated marks .* although 3200 .*coordinates: set data\.annotated_only: "
        r"false"
    )
    with (
        closing(open_dataset(SHARED / "fly100.h5")) as dataset,
        pytest.raises(DatasetError, match=message),
    ):
        select_frames(dataset)


def test_several_files_with_nothing_annotated_name_the_first_flags(tmp_path):
    unmarked = [np.zeros((1, 2), np.uint8)]
    paths = [make(tmp_path / f"{name}.h5", 1, visibility=unmarked) for name in "ab"]
    with (
        closing(open_all(paths)) as dataset,
        pytest.raises(DatasetError, match=r"a\.h5:/visibility marks every"),
    ):
        select_frames(dataset)


@pytest.mark.parametrize(
    ("count", "fraction", "held_out"), [(10, 0.25, 2), (10, 0.1, 1), (10, 0.01, 1), (3, 0.99, 2)]
)
def test_a_fraction_is_rounded_and_leaves_a_frame_on_each_side(opened, count, fraction, held_out):
    split = make_split(opened(count=count), None, fraction, None, seed=0)
    assert (len(split.validation.frames), len(split.train.frames)) == (held_out, count - held_out)


def test_the_sides_share_nothing_miss_nothing_and_rise(opened):
    split = make_split(opened(count=20), None, 0.3, None, seed=3)
    assert sorted([*split.train.frames, *split.validation.frames]) == list(range(20))
    assert (np.diff(split.train.frames) > 0).all()
    assert (np.diff(split.validation.frames) > 0).all()


def test_the_seed_alone_decides(opened):
    dataset = opened(count=30)
    first, same, other = (
        make_split(dataset, None, 0.3, None, seed).validation.frames.tolist() for seed in (1, 1, 2)
    )
    assert first == same
    assert first != other


def test_frames_that_cannot_be_used_are_on_neither_side(opened):
    visibility = [np.array([[2 * (i % 2)] * 2], np.uint8) for i in range(10)]
    split = make_split(opened(visibility=visibility), None, 0.2, None, seed=0)
    assert {int(i) % 2 for i in (*split.train.frames, *split.validation.frames)} == {1}
    assert "5 frames without a labelled keypoint" in split.notes[0]


def test_one_frame_cannot_be_split(opened):
    with pytest.raises(
        DatasetError, match=r"flies\.h5 has 1 frame to use, a fraction needs two or more"
    ):
        make_split(opened(count=1), None, 0.5, None, seed=0)


def test_a_group_stays_on_one_side(opened):
    groups = [f"video{i // 3}" for i in range(12)]
    split = make_split(opened(count=12, groups=groups), None, 0.3, "group", seed=0)
    held_out = {groups[i] for i in split.validation.frames}
    assert held_out.isdisjoint(groups[i] for i in split.train.frames)
    # Three frames are less than 30 % of twelve, six are enough.
    assert len(split.validation.frames) == 6


def test_a_group_is_left_for_training(opened):
    split = make_split(opened(count=4, groups=["a", "a", "a", "b"]), None, 0.9, "group", seed=0)
    assert len(split.train.frames) > 0


def test_groups_that_are_not_there_are_named(opened):
    with pytest.raises(
        DatasetError, match=r"data\.group_by needs .*flies\.h5 \(hgtrain\) has none: add /group"
    ):
        make_split(opened(), None, 0.5, "group", seed=0)


def test_a_single_group_cannot_be_split(opened):
    with pytest.raises(
        DatasetError, match=r"all 4 frames of .*flies\.h5 are of 'a': set data\.group_by: null"
    ):
        make_split(opened(count=4, groups=["a"] * 4), None, 0.5, "group", seed=0)


def test_a_validation_dataset_is_used_whole(opened):
    split = make_split(opened(), opened("val.h5", count=3), None, None, seed=0)
    assert (split.train.frames.tolist(), split.validation.frames.tolist()) == (
        list(range(10)),
        [0, 1, 2],
    )
    assert split.notes == ()


def test_a_file_on_both_sides_is_noted(opened, tmp_path):
    train = opened()
    (tmp_path / "link.h5").symlink_to(train.path)
    with closing(open_dataset(tmp_path / "link.h5")) as again:
        split = make_split(train, again, None, None, seed=0)
    assert split.notes == (f"{tmp_path / 'flies.h5'} is used for training and for validation.",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ("tail", "head")},
            r"keypoint 0 of .*flies\.h5 is 'head' but that of .*val\.h5 is 'tail'",
        ),
        (
            {"shape": (8, 5, 1)},
            r"flies\.h5 have shape \(4, 5, 1\) but those of .*val\.h5 \(8, 5, 1\)",
        ),
    ],
)
def test_sides_that_do_not_fit_are_refused(opened, options, message):
    train, validation = opened(), opened("val.h5", **options)
    with pytest.raises(DatasetError, match=message):
        make_split(train, validation, None, None, seed=0)


def test_a_split_of_nothing_is_a_defect(opened):
    with pytest.raises(ValueError, match="neither a validation dataset nor a fraction"):
        make_split(opened(), None, None, None, seed=0)


def test_equal_content_has_one_fingerprint_wherever_it_lies(opened):
    assert fingerprint(opened("a.h5")) == fingerprint(opened("b.h5"))


@pytest.mark.parametrize(
    "options", [{"first": 1}, {"names": ("head", "x")}, {"shape": (5, 4, 1)}, {"count": 9}]
)
def test_another_content_has_another_fingerprint(opened, options):
    assert fingerprint(opened("a.h5")) != fingerprint(opened("b.h5", **options))


def test_one_pixel_changes_the_fingerprint(opened, tmp_path):
    before = fingerprint(opened("a.h5"))
    with h5py.File(make(tmp_path / "b.h5"), "a") as file:
        file["images"][9, 3, 4, 0] += 1
    with closing(open_dataset(tmp_path / "b.h5")) as dataset:
        assert fingerprint(dataset) != before


def test_a_fingerprint_is_a_sha256_in_hex(opened):
    assert len(bytes.fromhex(fingerprint(opened()))) == 32


def test_a_split_goes_through_json_unchanged(opened):
    train, validation = opened(), opened("val.h5", count=3)
    split = make_split(train, validation, None, None, seed=0)
    document = json.loads(json.dumps(split_to_json(split)))
    assert document["validation"]["files"] == [validation.path]
    again = split_from_json(document, train, validation)
    assert again.train.frames.tolist() == split.train.frames.tolist()
    assert again.validation.dataset is validation


def test_a_split_by_fraction_keeps_one_dataset_for_both_sides(opened):
    dataset = opened()
    split = make_split(dataset, None, 0.2, None, seed=0)
    again = split_from_json(split_to_json(split), dataset, None)
    assert again.validation.dataset is dataset
    assert again.validation.frames.tolist() == split.validation.frames.tolist()


def test_a_split_of_a_file_that_has_changed_is_refused(opened):
    document = split_to_json(make_split(opened(), None, 0.2, None, seed=0))
    with pytest.raises(
        DatasetError, match=r"other\.h5 has changed since the split was made: .* train side has"
    ):
        split_from_json(document, opened("other.h5", first=1), None)
