"""What `init` proposes where frames have several animals, on animals that are counted by hand."""

from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from crowds import EDGES, NAMES, write_crowd
from tiny_run import fit

from hgtrain.cli import commands
from hgtrain.commands import init
from hgtrain.config.head import HeadConfig
from hgtrain.config.load import load_config
from hgtrain.config.schema import Config
from hgtrain.data.crop_size import share_cut_off
from hgtrain.data.open import open_dataset
from hgtrain.errors import DatasetError, RunError
from hgtrain.planning import suggest
from hgtrain.planning.dataset_stats import Crowd, DatasetStats, dataset_stats
from hgtrain.planning.memory import Device
from hgtrain.skeleton import Skeleton

# Keras's saving and NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def stats_of(path: Path, head: str | None = None) -> DatasetStats:
    with closing(open_dataset(path)) as dataset:
        return dataset_stats(dataset, True, head and HeadConfig(type=head))


@pytest.fixture
def crowd(tmp_path: Path) -> Path:
    return write_crowd(tmp_path / "crowd.h5")


@pytest.fixture
def small_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out how much memory the network takes, for which TensorFlow builds it."""
    monkeypatch.setattr(init, "_fitting", lambda stats, *_: (suggest.sizes(stats, "CPU")[0], 8))
    monkeypatch.setenv("PATH", "")


def written(data: Path, out: Path, *options: str) -> list[str]:
    """Return the paths that `init` prints."""
    done = CliRunner().invoke(commands, ["init", str(data), "-o", str(out), *options])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines()


def reasons(path: Path) -> list[str]:
    """Return the lines of a config without the blanks that align them."""
    return [" ".join(line.split()) for line in path.read_text().splitlines()]


def backbone_of(config: Config) -> tuple[float, int, int, int]:
    backbone = config.model.backbone
    return (
        config.data.input_scale, backbone.stem_stride, backbone.max_stride, backbone.output_stride,
    )  # fmt: skip


# What is found in it


def test_all_animals_of_all_frames_are_looked_at(crowd: Path) -> None:
    stats = stats_of(crowd)
    assert stats.head.type == "multi_instance"
    # The empty frame teaches that.
    assert stats.frames == 12
    # Eleven of 60 px and ten of 120 px: the median is 60 px.
    assert (stats.animal_px, stats.spread) == (120, 1)
    # The first animals of the frames do.
    assert not stats.faces_one_way
    # The tail of the larger one is 80 px from its body.
    assert stats.crowd == Crowd(frames=10, most=2, anchor="body", crop_px=161, fewest_keypoints=5)


def test_there_are_as_many_features_as_outputs_and_no_piece_is_an_animal(crowd: Path) -> None:
    stats = stats_of(crowd)
    # A few keypoints need no more than the small network has.
    assert suggest.sizes(stats, "CPU")[0].filters == 32
    names = tuple(f"k{i}" for i in range(24))
    chain = Skeleton(names, tuple((i, i + 1) for i in range(23)))
    flies = stats._replace(skeleton=chain, crowd=stats.crowd._replace(fewest_keypoints=17))
    # 24 maps and 46 of fields are 70, up to a multiple of 16.
    assert suggest.sizes(flies, "CPU") == (suggest.Size(16, 80, 20, 1),)
    assert suggest.min_keypoints(flies) == 6
    hidden = flies._replace(crowd=stats.crowd._replace(fewest_keypoints=2))
    assert suggest.min_keypoints(hidden) == 2


def test_a_head_looks_at_the_frames_it_can_use(crowd: Path) -> None:
    alone = stats_of(crowd, "single_instance")
    assert (alone.frames, alone.spread, alone.faces_one_way) == (1, 0, False)
    assert stats_of(crowd, "centered_instance").frames == 11


# What is written


@pytest.mark.usefixtures("small_cpu")
def test_several_animals_get_one_network_bottom_up(crowd: Path, tmp_path: Path) -> None:
    out = tmp_path / "a.yaml"
    assert written(crowd, out) == [str(out)]
    config = load_config(out)
    # An animal is 120 px: half of 8% is 4.8, rounded 5 px, and 273 px see 1.5 animals.
    assert backbone_of(config) == (1, 4, 32, 4)
    assert config.model.head == HeadConfig(
        type="multi_instance",
        sigma_px=5,
        paf_width_px=5,
        paf_loss_weight=0.1,
        # A quarter of five.
        min_keypoints=1,
        max_instances=4,
    )
    assert {
        "# For 12 frames of 200x200x1 with 5 keypoints and 2 animals at most.",
        "type: multi_instance # 10 frames have several animals; bottom-up: the keypoints of all "
        "animals, joined along the edges",
        # 4% of 120 px is 4.8 px.
        "paf_width_px: 5 # half width of the fields: 4% of an animal's length, a cell at least",
        "max_instances: 4 # 2 in a labelled frame at most, and 2 more",
        "paf_loss_weight: 0.1 # fields are learnt sooner than maps, and need to be less exact",
        "min_keypoints: 1 # fewer are a piece of an animal",
    } <= set(reasons(out))


@pytest.mark.usefixtures("small_cpu")
def test_top_down_gets_two_configs_that_name_each_other(crowd: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a_centroid.yaml", tmp_path / "a_centered.yaml"
    assert written(crowd, tmp_path / "a.yaml", "--head", "top_down") == [str(first), str(second)]
    assert not (tmp_path / "a.yaml").exists()
    introduction = [
        "# Top-down, two networks: a_centroid.yaml finds the animals, a_centered.yaml the "
        "keypoints "
        "of each.",
        "# Train both, in any order, then predict with both:",
        f"# hgtrain fit {first} --run-dir runs/a_centroid",
        f"# hgtrain fit {second} --run-dir runs/a_centered",
        "# hgtrain predict runs/a_centered INPUT -o OUT.h5 --centroids runs/a_centroid",
    ]
    assert reasons(first)[:5] == introduction == reasons(second)[:5]
    centroid, centered = load_config(first), load_config(second)
    # 30 px of an animal are enough to find it.
    assert backbone_of(centroid) == (0.25, 2, 16, 2)
    assert centroid.model.head == HeadConfig(
        type="centroid", sigma_px=2.5, max_instances=4, anchor="body"
    )
    # 5% of 50 px.
    assert centroid.augmentation.translation_px == (-2, 2)
    assert backbone_of(centered) == (1, 4, 32, 4)
    # 2 * 80 px, 1.1 times as large, and 1 px: 177 px, up to a multiple of 32.
    assert centered.model.head == HeadConfig(
        type="centered_instance", sigma_px=5, anchor="body", crop_size_px=192
    )
    assert centered.augmentation.scale == (0.9, 1.1)
    assert centered.augmentation.translation_px is None
    assert "anchor: body # the root of the skeleton's edges, labelled in nearly all animals" in (
        reasons(second)
    )


@pytest.mark.usefixtures("small_cpu")
def test_frames_that_are_left_out_do_not_count(crowd: Path, tmp_path: Path) -> None:
    written(crowd, tmp_path / "a.yaml", "--head", "single_instance")
    first = reasons(tmp_path / "a.yaml")[0]
    assert first == "# For 1 frames of 200x200x1 with 5 keypoints."


@pytest.mark.parametrize(
    ("animal_px", "width"),
    [
        # Half of 8% of 60 px is 2.4: 2.5 px, which takes cells of 2 px; 4% is 2.4 px.
        (60, 2.5),
        # 4% of 90 px is 3.6 px, and a cell is 4 px.
        (90, 4),
    ],
)
def test_fields_are_as_wide_as_a_cell_at_least(crowd: Path, animal_px: int, width: float) -> None:
    stats = stats_of(crowd)._replace(animal_px=animal_px)
    choice = suggest.choose(stats, "CPU")
    assert suggest.head_section(stats, choice).paf_width_px == width


def test_without_edges_there_are_no_fields(crowd: Path) -> None:
    stats = stats_of(crowd)._replace(skeleton=Skeleton(("body",)))
    head = suggest.head_section(stats, suggest.choose(stats, "CPU"))
    assert "paf_width_px" not in head.model_fields_set


@pytest.mark.usefixtures("small_cpu")
@pytest.mark.parametrize(
    "head", ["single_instance", "multi_instance", "centroid", "centered_instance"]
)
def test_the_head_can_be_said(crowd: Path, tmp_path: Path, head: str) -> None:
    out = tmp_path / "a.yaml"
    assert written(crowd, out, "--head", head) == [str(out)]
    assert load_config(out).model.head.type == head


@pytest.mark.usefixtures("small_cpu")
def test_without_a_root_animals_are_where_the_middle_of_their_box_is(tmp_path: Path) -> None:
    circle = Skeleton(NAMES, (*EDGES, (1, 0)))
    path = write_crowd(tmp_path / "crowd.h5", circle)
    written(path, tmp_path / "a.yaml", "--head", "centered_instance")
    head = load_config(tmp_path / "a.yaml").model.head
    # From the middle to nose or tail there are 60 px, and to an ear less: 2 * 60 * 1.1 + 1 = 133.
    assert (head.anchor, head.crop_size_px) == (None, 160)
    assert any(
        line.startswith("anchor: null # the middle of") for line in reasons(tmp_path / "a.yaml")
    )


@pytest.mark.usefixtures("small_cpu")
@pytest.mark.parametrize("name", ["on", "a: b", "3"])
def test_an_anchor_of_any_name_is_that_keypoint(tmp_path: Path, name: str) -> None:
    path = write_crowd(tmp_path / "crowd.h5", Skeleton((name, *NAMES[1:]), EDGES))
    written(path, tmp_path / "a.yaml", "--head", "centroid")
    assert load_config(tmp_path / "a.yaml").model.head.anchor == name


@pytest.mark.parametrize("ending", ["_centroid", "_centered"])
def test_neither_config_of_top_down_is_overwritten(
    crowd: Path, tmp_path: Path, ending: str
) -> None:
    (tmp_path / f"a{ending}.yaml").touch()
    with pytest.raises(RunError, match=rf"a{ending}.yaml is there already"):
        init.init(str(crowd), tmp_path / "a.yaml", "top_down")


def test_several_animals_without_edges_are_told_both_ways_on(tmp_path: Path) -> None:
    path = write_crowd(tmp_path / "crowd.h5", Skeleton(NAMES))
    with pytest.raises(
        DatasetError,
        match=r"crowd.h5: 10 frames have several animals, and the skeleton has no edges .*"
        r"`hgtrain convert \S+crowd.h5 NEW.h5 --edge A,B ...`, or give --head top_down",
    ):
        init.init(str(path), tmp_path / "a.yaml")
    assert not (tmp_path / "a.yaml").exists()


@pytest.mark.usefixtures("small_cpu")
def test_real_flies_get_crops_that_hold_them(real_data: Path, tmp_path: Path) -> None:
    data = real_data / "flies2" / "flies2.train.pkg.slp"
    written(data, tmp_path / "a.yaml", "--head", "top_down")
    config = load_config(tmp_path / "a_centered.yaml")
    head = config.model.head
    assert (head.anchor, head.crop_size_px, config.data.input_scale) == ("thorax", 160, 1)
    assert load_config(tmp_path / "a_centroid.yaml").data.input_scale == 0.25
    with closing(open_dataset(data)) as dataset:
        assert share_cut_off(dataset.points, dataset.keypoint_names.index("thorax"), 160) == 0


@pytest.mark.parametrize(
    ("options", "types"),
    [((), ["multi_instance"]), (("--head", "top_down"), ["centroid", "centered_instance"])],
)
def test_networks_for_several_animals_are_proposed_for_the_memory_there_is(
    crowd: Path, tmp_path: Path, options: tuple[str, ...], types: list[str]
) -> None:
    # With TensorFlow, as users run it.
    configs = [load_config(path) for path in written(crowd, tmp_path / "a.yaml", *options)]
    assert [config.model.head.type for config in configs] == types
    assert {config.training.batch_size for config in configs} == {8}


def test_a_crop_takes_less_memory_than_the_image(crowd: Path) -> None:
    whole, crop = stats_of(crowd), stats_of(crowd, "centered_instance")
    large = (1024, 1024, 1)
    memory_bytes = 2 * 2**30
    fitting = []
    for small in (whole, crop):
        stats = small._replace(image_shape=large, frames=100)
        choice = suggest.choose(stats, "GPU")
        head = suggest.head_section(stats, choice)
        fitting.append(init._fitting(stats, choice, head, "GPU", Device("A", memory_bytes)))
    (whole_size, _), (crop_size, crop_batch) = fitting
    assert whole_size != suggest.LARGE
    assert (crop_size, crop_batch) == (suggest.LARGE, 8)


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("--head", "top_down")])
def test_the_written_configs_train_a_step(
    crowd: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    one_step = ("training.epochs=1", "training.steps_per_epoch=1")
    for path in written(crowd, tmp_path / "a.yaml", *options):
        _, evaluation = fit(path, tmp_path / Path(path).stem, *one_step)
        # A fifth of twelve frames, or of the eleven with animals.
        assert evaluation["frames"] == 2
