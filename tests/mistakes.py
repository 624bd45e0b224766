"""Wrong configs and wrong datasets, and what each is answered with; `test_mistakes` runs them."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

GOOD_DATA = "data: {train: a.h5}\n"


class Mistake(NamedTuple):
    """A wrong config or dataset.

    message: parts of it, in their order; `{dir}` is the folder of the config a.yaml, which is the
    working directory.
    prepare: makes the files beside the config. arguments: after `fit a.yaml`.
    """

    name: str
    message: tuple[str, ...]
    config: str | bytes | None = GOOD_DATA
    prepare: Callable[[Path], object] = lambda folder: native(folder / "a.h5")
    arguments: tuple[str, ...] = ()


def native(
    path, attributes=None, count=4, size=(32, 32), channels=1, names=("head", "tail"), **changes
):
    """Write a dataset in the hgtrain format; `changes` replace datasets, None leaves one out."""
    keypoints = np.tile(
        np.array([[5.0, 6.0], [20.0, 25.0]], np.float32)[: len(names)], (count, 1, 1)
    )
    good = {"images": np.zeros((count, *size, channels), np.uint8), "keypoints": keypoints}
    attributes = {"format": "hgtrain", "keypoint_names": list(names), "version": 1} | (
        attributes or {}
    )
    with h5py.File(path, "w") as file:
        for name, value in (good | changes).items():
            if value is not None:
                file[name] = value
        file.attrs.update(attributes)
    return path


def deepposekit(path, annotated):
    with h5py.File(path, "w") as file:
        file["images"] = np.zeros((4, 32, 32, 1), np.uint8)
        file["annotations"] = np.full((4, 2, 2), 5.0)
        file["annotated"] = np.full((4, 2), annotated)
        file["skeleton"] = np.full((2, 2), -1)


def leap(path, **changes):
    good = {"box": np.zeros((4, 1, 32, 32), np.float32), "joints": np.full((4, 2, 2), 5.0)}
    with h5py.File(path, "w") as file:
        for name, value in (good | changes).items():
            file[name] = value


def truncated(path):
    content = native(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])


def never_written(path):
    with h5py.File(native(path, images=None), "r+") as file:
        file.create_dataset("images", (4, 1024, 1024, 1), np.uint8, chunks=(1, 1024, 1024, 1))


def linked(path):
    native(path.with_name("b.h5"))
    with h5py.File(native(path, images=None), "r+") as file:
        file["images"] = h5py.ExternalLink("b.h5", "/images")


def two(first=None, second=None):
    def prepare(folder):
        native(folder / "a.h5", **(first or {}))
        native(folder / "b.h5", **(second or {}))

    return prepare


def run_of(config):
    """Prepare a run directory `run` with a config, as if a run had been started, beside good
    data."""

    def prepare(folder):
        native(folder / "a.h5")
        (folder / "run").mkdir()
        (folder / "run" / "config.yaml").write_text(config.replace("{dir}", str(folder)))

    return prepare


def animals(path, attributes=None):
    """Write two animals of 28 px in each frame, without edges."""
    body = np.array([[2.0, 2.0], [30.0, 30.0]], np.float32)
    return native(path, attributes, keypoints=np.tile(body, (4, 2, 1, 1)))


def head(text):
    return f"{GOOD_DATA}model:\n  backbone: {{max_stride: 8}}\n  head: {{{text}}}\n"


def data(prepare):
    return lambda folder: prepare(folder / "a.h5")


def backbone(text):
    return f"{GOOD_DATA}model:\n  backbone: {{{text}}}\n"


def training(text):
    return f"{GOOD_DATA}training:\n  {text}\n"


CONFIGS = [
    Mistake(
        "unknown key",
        ("a.yaml:3: unknown key training.epoch", "training.epochs?"),
        training("epoch: 3"),
    ),
    Mistake(
        "unknown section", ("a.yaml:2: unknown key modell", "model?"), GOOD_DATA + "modell: {}\n"
    ),
    Mistake(
        "key twice", ("a.yaml:4: ", "training.epochs", "line 3"), training("epochs: 3\n  epochs: 4")
    ),
    Mistake(
        "quoted number",
        ('a.yaml:3: training.epochs must be a whole number, got "3"', "quotes"),
        training("epochs: '3'"),
    ),
    Mistake(
        "zero",
        ("a.yaml:3: training.batch_size must be at least 1, got 0",),
        training("batch_size: 0"),
    ),
    Mistake(
        "unknown choice",
        ("a.yaml:3: training.optimizer", '"adm"', "did you mean adam?"),
        training("optimizer: adm"),
    ),
    Mistake(
        "boolean for a choice",
        ("a.yaml:3: training.xla", "got true", "write on"),
        training("xla: true"),
    ),
    Mistake(
        "no power of two",
        ("a.yaml:3: model.backbone.max_stride must be a power of two, got 48 (nearest: 32, 64)",),
        backbone("max_stride: 48"),
    ),
    Mistake(
        "stem stride",
        ("a.yaml:3: model.backbone.stem_stride must be 1, 2 or 4, got 8",),
        backbone("stem_stride: 8"),
    ),
    Mistake(
        "output below stem",
        (
            "a.yaml:3: model.backbone.output_stride must be at least stem_stride (4), got 2",
            "set output_stride to 4",
        ),
        backbone("output_stride: 2"),
    ),
    Mistake(
        "stacks of another stride",
        (
            "a.yaml:3: model.backbone.output_stride must equal stem_stride (4) when stacks is 2, "
            "got 8",
            "stacks to 1",
        ),
        backbone("output_stride: 8, stacks: 2"),
    ),
    Mistake(
        "key of another backbone",
        (
            "a.yaml:3: model.backbone.reinject belongs to hourglass, and model.backbone.type is "
            "residual_hourglass",
            "remove reinject",
        ),
        backbone("type: residual_hourglass, reinject: true"),
    ),
    Mistake(
        "key of another head",
        ("a.yaml:2: model.head.crop_size_px belongs to centered_instance", "remove crop_size_px"),
        GOOD_DATA + "model: {head: {type: centroid, crop_size_px: 96}}\n",
    ),
    Mistake(
        "keys of other heads",
        (
            "a.yaml:3: model.head.paf_width_px belongs to multi_instance, and model.head.type is "
            "single_instance (remove paf_width_px, or set type to multi_instance)\n",
            "a.yaml:4: model.head.anchor belongs to centroid and centered_instance",
        ),
        GOOD_DATA + "model:\n  head: {paf_width_px: 3,\n         anchor: head}\n",
    ),
    Mistake(
        "unknown head",
        ("a.yaml:2: model.head.type must be single_instance, multi_instance", '"centroids"'),
        GOOD_DATA + "model: {head: {type: centroids}}\n",
    ),
    Mistake(
        "range upside down",
        ("a.yaml:2: augmentation.scale", "[1.1, 0.9]", "write [0.9, 1.1]"),
        GOOD_DATA + "augmentation: {scale: [1.1, 0.9]}\n",
    ),
    Mistake(
        "rates upside down",
        ("a.yaml:3: training.min_learning_rate must be at most learning_rate (0.001), got 0.1",),
        training("min_learning_rate: 0.1"),
    ),
    Mistake(
        "no training data",
        ("a.yaml:1: data.train is required", "builtin:flies"),
        "data: {validation: 0.1}\n",
    ),
    Mistake(
        "fraction of all",
        ("a.yaml:1: data.validation", "less than 1, got 1.5"),
        "data: {train: a.h5, validation: 1.5}\n",
    ),
    Mistake(
        "same file on both sides",
        ("a.yaml:1: data.validation must not hold a file of data.train", "{dir}/a.h5", "fraction"),
        "data: {train: a.h5, validation: a.h5}\n",
    ),
    Mistake(
        "unknown builtin",
        ("a.yaml:1: data.train", "builtin:fly", "builtin:flies?"),
        "data: {train: builtin:fly}\n",
    ),
    Mistake("empty config", ("a.yaml: data.train is required", "builtin:flies"), ""),
    Mistake("no sections", ("a.yaml:1: a config must be sections", '"hello"'), "hello\n"),
    Mistake("no YAML", ("a.yaml:2:1: not YAML: expected ',' or ']'",), "data: [a.h5\n"),
    Mistake("no UTF-8", ("a.yaml:1: not UTF-8, got byte 0xff", "UTF-8"), b"\xff"),
    Mistake("no config", ("a.yaml: no such file, expected a config in YAML",), None),
    Mistake(
        "override without value",
        ("--set training.epochs", "expected KEY=VALUE"),
        arguments=("--set", "training.epochs"),
    ),
    Mistake(
        "wrong override",
        ("--set training.epochs=x: training.epochs must be a whole number", 'got "x"'),
        arguments=("--set", "training.epochs=x"),
    ),
    Mistake(
        "two mistakes",
        (
            "a.yaml:3: training.epochs must be at least 1, got 0\n",
            "a.yaml:4: unknown key training.optimiser",
        ),
        training("epochs: 0\n  optimiser: adam"),
    ),
    Mistake(
        "run directory in use",
        ("{dir}/run holds a run already", "--resume", "--run-dir"),
        "data: {train: nowhere.h5}\noutput: {run_dir: run}\n",
        run_of(GOOD_DATA),
    ),
    Mistake(
        "nothing to resume",
        ("--resume needs the run to continue", "give --run-dir"),
        arguments=("--resume",),
    ),
    Mistake(
        "resumed with another config",
        (
            "run cannot be resumed with another config: training.batch_size was 8, is 4;",
            "run/config.yaml",
        ),
        training("batch_size: 4"),
        run_of("data: {train: {dir}/a.h5}\n"),
        ("--resume", "--run-dir", "run"),
    ),
    Mistake(
        "run directory below a file",
        ("a.h5/run cannot be used as a run directory: Not a directory",),
        arguments=("--run-dir", "a.h5/run"),
    ),
]

DATASETS = [
    Mistake(
        "missing file",
        ("a.yaml:1: data.train: there is no file {dir}/flies.h5", "nearest: fliess.h5"),
        "data: {train: flies.h5}\n",
        lambda folder: native(folder / "fliess.h5"),
    ),
    Mistake(
        "missing folder",
        ("a.yaml:1: data.train: there is no file {dir}/sub/a.h5", "{dir}/sub: No such file"),
        "data: {train: sub/a.h5}\n",
    ),
    Mistake(
        "missing validation file",
        ("a.yaml:1: data.validation: there is no file {dir}/b.h5", "nearest: a.h5"),
        "data: {train: a.h5, validation: b.h5}\n",
    ),
    Mistake(
        "name too long",
        ("a.yaml:1: data.train: File name too long: {dir}/aaaa",),
        f"data: {{train: {'a' * 300}}}\n",
    ),
    Mistake(
        "folder",
        ("a.yaml:1: data.train: {dir}/a.h5 is a directory, expected an HDF5 file",),
        prepare=data(Path.mkdir),
    ),
    Mistake(
        "no HDF5",
        ("{dir}/a.h5 is not an HDF5 file",),
        prepare=data(lambda path: path.write_text("x" * 4096)),
    ),
    Mistake("empty file", ("{dir}/a.h5 is not an HDF5 file",), prepare=data(Path.touch)),
    Mistake(
        "truncated", ("{dir}/a.h5 is truncated", "copy or write it again"), prepare=data(truncated)
    ),
    Mistake(
        "never written",
        ("{dir}/a.h5:/images declares 4,194,304 bytes", "stores 0"),
        prepare=data(never_written),
    ),
    Mistake(
        "external link",
        ("{dir}/a.h5:/images is an external link", "in the file itself"),
        prepare=data(linked),
    ),
    Mistake(
        "unknown format",
        (
            "{dir}/a.h5 is of no known format: it holds /frames",
            "/images and /keypoints",
            "hgtrain convert",
        ),
        prepare=data(
            lambda path: native(
                path, {"format": "x"}, images=None, keypoints=None, frames=np.zeros(3)
            )
        ),
    ),
    Mistake(
        "no keypoints",
        ("{dir}/a.h5 has no /keypoints: the file holds /images",),
        prepare=data(lambda path: native(path, keypoints=None)),
    ),
    Mistake(
        "images are float",
        ("{dir}/a.h5:/images is float64, expected uint8: scale the images to 0..255",),
        prepare=data(lambda path: native(path, images=np.zeros((4, 32, 32, 1)))),
    ),
    Mistake(
        "images have no channels",
        (
            "{dir}/a.h5:/images has shape (4, 32, 32), expected (frames, height, width, 1 or 3) "
            "uint8",
        ),
        prepare=data(lambda path: native(path, images=np.zeros((4, 32, 32), np.uint8))),
    ),
    Mistake(
        "channels first",
        ("{dir}/a.h5:/images has shape (4, 3, 32, 32)", "move that axis to the end"),
        prepare=data(lambda path: native(path, images=np.zeros((4, 3, 32, 32), np.uint8))),
    ),
    Mistake(
        "points in space",
        ("{dir}/a.h5:/keypoints has shape (4, 2, 3), expected 2 (x, y) on the last axis",),
        prepare=data(lambda path: native(path, keypoints=np.zeros((4, 2, 3)))),
    ),
    Mistake(
        "points are text",
        ("{dir}/a.h5:/keypoints is |S1, expected (frames, [instances,] keypoints, 2) float",),
        prepare=data(lambda path: native(path, keypoints=np.full((4, 2, 2), b"x"))),
    ),
    Mistake(
        "fewer points than images",
        (
            "{dir}/a.h5:/images has 4 frames",
            "{dir}/a.h5:/keypoints has 3",
            "one entry for each image",
        ),
        prepare=data(lambda path: native(path, keypoints=np.zeros((3, 2, 2)))),
    ),
    Mistake(
        "infinite point",
        ("{dir}/a.h5:/keypoints[0, 0, 0] is inf, expected a finite coordinate: use NaN",),
        prepare=data(lambda path: native(path, keypoints=np.full((4, 2, 2), np.inf))),
    ),
    Mistake(
        "visibility of 7",
        ("{dir}/a.h5:/visibility[0, 0] is 7, expected one of [0, 1, 2]",),
        prepare=data(lambda path: native(path, visibility=np.full((4, 2), 7))),
    ),
    Mistake(
        "too few names",
        (
            "{dir}/a.h5: attribute keypoint_names of / has 1 names",
            "{dir}/a.h5:/keypoints has 2 keypoints",
        ),
        prepare=data(lambda path: native(path, {"keypoint_names": ["head"]})),
    ),
    Mistake(
        "one name twice",
        ("{dir}/a.h5: attributes of /: the name 'head' of keypoint 1 is also keypoint 0",),
        prepare=data(lambda path: native(path, names=("head", "head"))),
    ),
    Mistake(
        "partner that is not there",
        (
            "{dir}/a.h5: attributes of /: symmetry (0, 9) must join two different keypoints out "
            "of 0 to 1",
        ),
        prepare=data(lambda path: native(path, {"symmetries": np.array([[0, 9]])})),
    ),
    Mistake(
        "format of tomorrow",
        ("{dir}/a.h5 has version 99 of the hgtrain format, this hgtrain reads up to 1: upgrade",),
        prepare=data(lambda path: native(path, {"version": 99})),
    ),
    Mistake(
        "no labels",
        ("{dir}/a.h5 has no frame to use", "4 no labelled keypoint"),
        prepare=data(lambda path: native(path, keypoints=np.full((4, 2, 2), np.nan))),
    ),
    Mistake(
        "several animals",
        (
            "a.yaml:4: model.head.type: {dir}/a.h5 has no frame to use: 4 of 4 have several "
            "animals",
            "a single_instance head needs frames with exactly one animal",
            "set model.head.type to multi_instance, or let `hgtrain init {dir}/a.h5 -o CONFIG`",
        ),
        head("type: single_instance"),
        data(animals),
    ),
    Mistake(
        "several animals and no word of a head",
        ("a.yaml: model.head.type: {dir}/a.h5 has no frame to use: 4 of 4 have several animals",),
        prepare=data(animals),
    ),
    Mistake(
        "several animals to validate on",
        ("a.yaml: model.head.type: {dir}/b.h5 has no frame to use: 4 of 4 have several animals",),
        "data: {train: a.h5, validation: b.h5}\n",
        lambda folder: (native(folder / "a.h5"), animals(folder / "b.h5")),
    ),
    Mistake(
        "no edges",
        (
            "a.yaml:4: model.head.type: multi_instance tells animals apart along the skeleton's "
            "edges, and {dir}/a.h5 has none",
            "`hgtrain convert {dir}/a.h5 NEW.h5 --edge A,B ...`",
        ),
        head("type: multi_instance"),
        data(animals),
    ),
    Mistake(
        "anchor that is no keypoint",
        (
            "a.yaml:4: model.head.anchor must be a keypoint of {dir}/a.h5, got 'tails' (nearest: "
            "tail; they are head, tail)",
        ),
        head("type: centroid, anchor: tails"),
        data(animals),
    ),
    Mistake(
        "crop that is no multiple of the stride",
        (
            "a.yaml:4: model.head.crop_size_px must be a multiple of model.backbone.max_stride 8, "
            "got 42 (nearest: 40, 48)",
        ),
        head("type: centered_instance, crop_size_px: 42"),
        data(animals),
    ),
    Mistake(
        "crop that cuts animals",
        (
            # The tail is 28 px away on both axes: 2 * 28 * sqrt(2) + 1 = 80.2 px hold it.
            "--set model.head.crop_size_px=40: model.head.crop_size_px: crops of 40 px cut off "
            "50.0% of the labelled keypoints, at most 1% may be: set it to 88, or to null",
        ),
        head("type: centered_instance, anchor: head"),
        data(animals),
        ("--set", "model.head.crop_size_px=40"),
    ),
    Mistake(
        "nothing annotated",
        (
            "{dir}/a.h5:/annotated marks every keypoint as not annotated, although 8 of",
            "data.annotated_only: false",
        ),
        prepare=data(lambda path: deepposekit(path, annotated=False)),
    ),
    Mistake(
        "axes that cannot be told",
        ("{dir}/a.h5:/box has shape (4, 5, 32, 32)", "no axis can be the channels"),
        prepare=data(lambda path: leap(path, box=np.zeros((4, 5, 32, 32), np.float32))),
    ),
    Mistake(
        "float images beyond 1",
        ("{dir}/a.h5:/box", "255"),
        prepare=data(lambda path: leap(path, box=np.full((4, 1, 32, 32), 255, np.float32))),
    ),
    Mistake(
        "frames of two sizes",
        (
            "a.yaml:1: data.train: images of {dir}/a.h5 have shape (32, 32, 1) but those of "
            "{dir}/b.h5 (32, 48, 1)",
        ),
        "data: {train: [a.h5, b.h5]}\n",
        two(second={"size": (32, 48)}),
    ),
    Mistake(
        "grey and colour",
        (
            "images of {dir}/a.h5 have shape (32, 32, 1) but those of {dir}/b.h5 (32, 32, 3)",
            "(height, width, channels)",
        ),
        "data: {train: a.h5, validation: b.h5}\n",
        two(second={"channels": 3}),
    ),
    Mistake(
        "other keypoints to validate on",
        ("keypoint 1 of {dir}/a.h5 is 'tail' but that of {dir}/b.h5 is 'tip'", "in the same order"),
        "data: {train: a.h5, validation: b.h5}\n",
        two(second={"names": ("head", "tip")}),
    ),
    Mistake(
        "fewer keypoints to validate on",
        (
            "{dir}/a.h5 has 2 keypoints (head, tail) but {dir}/b.h5 has 1 (head)",
            "in the same order",
        ),
        "data: {train: a.h5, validation: b.h5}\n",
        two(second={"names": ("head",)}),
    ),
    Mistake(
        "no groups",
        (
            "data.group_by needs the group of each frame, and {dir}/a.h5 (hgtrain) has none: add "
            "/group",
            "null",
        ),
        "data: {train: a.h5, group_by: group}\n",
    ),
    Mistake(
        "one group",
        (
            "data.group_by needs two or more groups, but all 4 frames of {dir}/a.h5 are of '7'",
            "group_by: null",
        ),
        "data: {train: a.h5, group_by: group}\n",
        data(lambda path: native(path, group=np.full(4, 7))),
    ),
    Mistake(
        "one frame",
        ("{dir}/a.h5 has 1 frame to use, a fraction needs two or more: label more",),
        prepare=data(lambda path: native(path, count=1)),
    ),
    Mistake(
        "nobody to train with",
        (
            "training.strategy is multi_worker, but nothing says which",
            "srun (SLURM_STEP_NODELIST",
            "TF_CONFIG='",
        ),
        arguments=("--set", "training.strategy=multi_worker"),
    ),
]

MISTAKES = CONFIGS + DATASETS
