"""How fast hgtrain is, as ratios of two things measured in turn, on drawn flies of 192x192.

    python scripts/bench.py [--rows a,b,c,d,e,f,g,h,m,p,x] [--rounds 5] [--short] [--json]

a  training against the bare compiled step
b  training against the plain Keras way (bench_keras.py)
c  start to the end of the first step, against b's
d  frames streamed from the disk against cached
e  bfloat16 against float32
f  predicting against the bare network
g  cost of an image by frames, batch and image size
h  part of the device's rate that a step reaches
m  a step for several animals against one for one
p  several put together against the bare network
x  XLA against none

On a GPU also t (TF32) and r (the reference's default network). Each row is the median over the
rounds, of pairs measured one after the other. The network is that of configs/flies.yaml, in float32
with batches of 8, unless the row says otherwise. --short is for seeing that everything runs: its
figures mean nothing.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from bench_work import (
    CONFIG,
    KEYPOINTS,
    OF_GROUPS,
    SIZE,
    Training,
    bare_step,
    never_in_page_cache,
    plain_keras,
    predicting_groups,
    write_frames,
)

from hgtrain.skeleton import unnamed_skeleton

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
SCRIPTS = Path(__file__).parent
MATRIX = 4096
SMALL = ("model.backbone.stem_filters=4", "model.backbone.filters=4", "model.backbone.stacks=1")
Work = Callable[[], None]
"""Does a fixed amount of work."""


class Scale(NamedTuple):
    """How much is done. steps: of a measurement. few, many: frames. rounds: of pairs.

    options: of the config.
    """

    steps: int
    few: int
    many: int
    rounds: int
    options: tuple[str, ...] = ()


class Row(NamedTuple):
    """A line of the table. ratio: median of the pairs. spread: smallest and largest of them."""

    name: str
    what: str
    ratio: float
    spread: tuple[float, float]


def compared(ours: Work, other: Work, rounds: int) -> tuple[float, tuple[float, float]]:
    """Return the other's time over ours, above 1 where ours is faster.

    Median, smallest and largest of the pairs.
    """
    for work in (ours, other):
        work()
    ratios = []
    for i in range(rounds):
        # Who is first changes, so that a machine that becomes faster or slower favours none.
        pair = [ours, other] if i % 2 else [other, ours]
        times = {work: seconds(work) for work in pair}
        ratios.append(times[other] / times[ours])
    return statistics.median(ratios), (min(ratios), max(ratios))


def seconds(work: Work) -> float:
    """Return how long some work takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


# The rows


class Bench:
    """Everything a row needs; trainings are made once each and closed at the end."""

    def __init__(self, folder: Path, scale: Scale, stack: ExitStack) -> None:
        self.folder, self.scale, self._stack = folder, scale, stack
        write_frames(folder / "validation.h5", 8)
        self.few = write_frames(folder / "few.h5", scale.few)

    @cached_property
    def many(self) -> Path:
        """The file with many frames."""
        return write_frames(self.folder / "many.h5", self.scale.many)

    def training(self, *overrides: str, file: Path | None = None) -> Training:
        """Return what trains with these overrides, warmed up."""
        file = file or self.few
        made = Training(file.parent, file, *self.scale.options, *overrides)
        self._stack.callback(made.close)
        made.run(2)
        return made

    def steps(self, *overrides: str, file: Path | None = None) -> Work:
        """Return the work of a measurement's steps."""
        return self.measured(self.training(*overrides, file=file).run)

    def measured(self, run: Callable[[int], None]) -> Work:
        """Return a measurement's steps of what runs a number of them."""
        return lambda: run(self.scale.steps)

    def row(self, name: str, what: str, ours: Work, other: Work) -> Row:
        """Measure a pair."""
        return Row(name, what, *compared(ours, other, self.scale.rounds))


def row_a(bench: Bench) -> Iterator[Row]:
    """Training against the bare step."""
    training = bench.training()
    bare = bare_step(training)
    yield bench.row(
        "a",
        "training, cached, against the bare step on constant tensors",
        bench.measured(training.run),
        bench.measured(bare),
    )


def row_b(bench: Bench) -> Iterator[Row]:
    """Training against plain Keras."""
    training = bench.training()
    plain = plain_keras(training.config, bench.few)
    yield bench.row(
        "b",
        "training against the plain Keras way",
        bench.measured(training.run),
        bench.measured(plain),
    )


def row_c(bench: Bench) -> Iterator[Row]:
    """Start against plain Keras."""
    config = bench.folder / "start.yaml"
    config.write_text(CONFIG.read_text().replace("builtin:flies", str(bench.few)))
    runs = iter(range(1_000_000))

    def started(*command: str) -> float:
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, check=True
        )
        return float(done.stdout.split()[-1])

    def ours() -> float:
        return started(
            __file__, "--first-step", str(config), str(bench.folder / f"run{next(runs)}")
        )

    def other() -> float:
        return started(str(SCRIPTS / "bench_keras.py"), str(config))

    pairs = [(ours(), other()) for _ in range(bench.scale.rounds + 1)][1:]
    ratios = [mine / theirs for mine, theirs in pairs]
    what = (
        f"start ({statistics.median(mine for mine, _ in pairs):.1f} s) as a part of the plain "
        "Keras way's"
    )
    yield Row("c", what, statistics.median(ratios), (min(ratios), max(ratios)))


def first_step(config: str, run_dir: str) -> None:
    """Run `hgtrain fit` until the first step is done; print the seconds since the start."""
    from hgtrain import cli

    def told(steps: Callable[..., Any]) -> Callable[..., Any]:
        def run(*given: Any) -> Any:
            steps(*given)
            print(seconds_since_start(), flush=True)
            os._exit(0)

        return run

    from hgtrain.commands import fit

    made = fit._trainer

    def trainer(*given: Any) -> Any:
        built = made(*given)
        built.steps = told(built.steps)
        return built

    fit._trainer = trainer
    sys.argv = ["hgtrain", "fit", config, "--run-dir", run_dir]
    cli.main()


def seconds_since_start() -> float:
    """Return the age of this process."""
    ticks = int(Path("/proc/self/stat").read_text().rsplit(") ", 1)[1].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def row_d(bench: Bench) -> Iterator[Row]:
    """Streaming against cached."""
    streamed, cached = bench.steps("data.cache=none"), bench.steps("data.cache=device")
    yield bench.row("d", "streamed from a compressed file against cached", streamed, cached)
    size = f"{bench.scale.many:,} frames ({bench.many.stat().st_size / 1e9:.1f} GB)"
    what = f"the same from {size}, never in the page cache"
    with never_in_page_cache(bench.many):
        yield bench.row("d", what, bench.steps("data.cache=none", file=bench.many), cached)


def row_e(bench: Bench) -> Iterator[Row]:
    """Precision."""
    half = bench.steps("training.precision=mixed_bfloat16")
    yield bench.row("e", "mixed_bfloat16 against float32", half, bench.steps())


def row_f(bench: Bench) -> Iterator[Row]:
    """Predicting against the bare network."""
    import numpy as np
    import tensorflow as tf

    from hgtrain.heads import make_head
    from hgtrain.model.network import build_network
    from hgtrain.pipeline.preprocess import preprocessing_of
    from hgtrain.predict.predictor import Predictor

    config = bench.training().config
    backbone = config.model.backbone
    head = make_head(config.model.head, unnamed_skeleton(KEYPOINTS), backbone.output_stride)
    network = build_network(backbone, head.layers, 1, all_stacks=False)
    before = preprocessing_of(config.data, backbone.max_stride, (SIZE, SIZE, 1))
    predictor = Predictor(network, head, before)
    images = np.random.default_rng(0).integers(
        0, 256, (8 * bench.scale.steps, SIZE, SIZE, 1), np.uint8
    )
    bare = tf.function(lambda batch: network(batch, training=False))
    constant = tf.constant(images[:8], tf.float32)

    def other() -> None:
        for _ in range(bench.scale.steps):
            bare(constant)
        bare(constant)

    yield bench.row(
        "f",
        "predicting images in memory against the bare network",
        lambda: predictor(images),
        other,
    )


def row_g(bench: Bench) -> Iterator[Row]:
    """Cost of an image by frames, batch and size."""
    few = bench.steps("data.cache=none")
    what = f"an image of {bench.scale.many:,} frames against one of {bench.scale.few:,}, streamed"
    yield bench.row("g", what, bench.steps("data.cache=none", file=bench.many), few)
    base = bench.steps()
    for batch in (4, 16, 32):
        # Of as many images.
        made, steps = (
            bench.training(f"training.batch_size={batch}"),
            max(1, bench.scale.steps * 8 // batch),
        )
        yield bench.row(
            "g",
            f"an image in batches of {batch} against 8",
            lambda run=made.run, n=steps: run(n),
            base,
        )
    for size in (128, 256):
        file = write_frames(bench.folder / f"{size}.h5", 64, size)
        (bench.folder / "validation.h5").unlink()
        write_frames(bench.folder / "validation.h5", 8, size)
        work = bench.steps(file=file)
        row = bench.row("g", f"a pixel of {size}x{size} against {SIZE}x{SIZE}", work, base)
        factor = (size / SIZE) ** 2
        yield row._replace(
            ratio=row.ratio * factor, spread=tuple(factor * end for end in row.spread)
        )
    (bench.folder / "validation.h5").unlink()
    write_frames(bench.folder / "validation.h5", 8)


def row_h(bench: Bench) -> Iterator[Row]:
    """Model FLOPs utilisation."""
    import tensorflow as tf

    from hgtrain.planning.input_spec import InputSpec
    from hgtrain.planning.memory import Device
    from hgtrain.planning.summary import summarize

    training = bench.training()
    config = training.config
    spec = InputSpec(
        config.data, config.model, config.training, (SIZE, SIZE, 1), unnamed_skeleton(KEYPOINTS)
    )
    image = summarize(spec, Device("", 1))["flops_per_image"]
    # Forward once; backward twice as much, for the gradients of inputs and of weights.
    step_flops = 3 * image * config.training.images_per_step
    left, right = tf.random.normal((MATRIX, MATRIX)), tf.random.normal((MATRIX, MATRIX))
    product = tf.function(tf.matmul)
    repeats = max(1, round(step_flops * bench.scale.steps / (2 * MATRIX**3)))

    def multiply() -> None:
        for _ in range(repeats):
            result = product(left, right)
        result.numpy()

    row = bench.row("h", f"FLOPs of a step ({step_flops / 1e9:.1f} G) against a product of "
                    f"{MATRIX}x{MATRIX}",
                    lambda: training.run(bench.scale.steps), multiply)  # fmt: skip
    factor = step_flops * bench.scale.steps / (repeats * 2 * MATRIX**3)
    yield row._replace(ratio=row.ratio * factor, spread=tuple(factor * end for end in row.spread))


SEVERAL = ("model.head.type=multi_instance", "model.head.max_instances=4")


def row_m(bench: Bench) -> Iterator[Row]:
    """Steps of the head for several animals."""

    def steps(animals: int, *overrides: str) -> Work:
        folder = bench.folder / f"{animals}-animals"
        folder.mkdir()
        write_frames(folder / "validation.h5", 8, animals=animals)
        file = write_frames(folder / "train.h5", bench.scale.few, animals=animals)
        return bench.steps(*overrides, file=file)

    one, several = steps(1), steps(2, *SEVERAL)
    what = (
        f"time of a step of multi_instance, two animals of {len(OF_GROUPS)} keypoints, against "
        "single_instance"
    )
    yield bench.row("m", what, one, several)


def row_p(bench: Bench) -> Iterator[Row]:
    """Predicting several animals against the bare network."""
    from hgtrain.config.load import load_config

    size = 2 * SIZE
    for stride in (4, 2):
        strides = f"model.backbone.stem_stride={stride}", f"model.backbone.output_stride={stride}"
        config = load_config(CONFIG, (*bench.scale.options, *SEVERAL, *strides))
        pair = predicting_groups(config, size, 8 * max(1, bench.scale.steps * stride // 16))
        what = (
            f"predicting two animals of {len(OF_GROUPS)} keypoints at {size}x{size}, output stride "
            f"{stride}"
        )
        yield bench.row("p", what, *pair)


def row_x(bench: Bench) -> Iterator[Row]:
    """Compiling the step with XLA, as `training.xla: auto` decides it."""
    yield bench.row(
        "x", "XLA on against off", bench.steps("training.xla=on"), bench.steps("training.xla=off")
    )


def row_t(bench: Bench) -> Iterator[Row]:
    """TF32, where there is a GPU."""
    import tensorflow as tf

    training = bench.training("training.xla=off")

    def with_tf32(enabled: bool) -> None:
        tf.config.experimental.enable_tensor_float_32_execution(enabled)
        training.run(bench.scale.steps)

    yield bench.row("t", "TF32 against float32", lambda: with_tf32(True), lambda: with_tf32(False))
    tf.config.experimental.enable_tensor_float_32_execution(True)


def row_r(bench: Bench) -> Iterator[Row]:
    """Precision of the reference's default network, where there is a GPU."""
    network = ("stem_filters=128", "filters=256", "filter_increase=128", "stacks=3")
    reference = [f"model.backbone.{option}" for option in network]
    half = bench.steps(*reference, "training.precision=mixed_bfloat16")
    yield bench.row(
        "r",
        "the reference's network: mixed_bfloat16 against float32",
        half,
        bench.steps(*reference),
    )


ROWS = {
    "a": row_a,
    "b": row_b,
    "c": row_c,
    "d": row_d,
    "e": row_e,
    "f": row_f,
    "g": row_g,
    "h": row_h,
    "m": row_m,
    "p": row_p,
    "x": row_x,
}
GPU_ROWS = {"t": row_t, "r": row_r}


def machine() -> str:
    """Return the machine and the versions in one line."""
    from importlib import metadata

    import tensorflow as tf

    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(
        (line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine()
    )
    gpus = [
        tf.config.experimental.get_device_details(gpu)["device_name"]
        for gpu in tf.config.list_physical_devices("GPU")
    ]
    versions = ", ".join(
        f"{package} {metadata.version(package)}" for package in ("tensorflow", "keras")
    )
    return f"{', '.join(gpus) or name}, {len(os.sched_getaffinity(0))} cores, {versions}"


def main() -> None:
    """Measure and print the table."""
    if sys.argv[1:2] == ["--first-step"]:
        first_step(*sys.argv[2:])
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", help="letters, separated by commas; all by default")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    scale = Scale(1, 24, 32, 1, SMALL) if given.short else Scale(20, 1_000, 200_000, given.rounds)
    from hgtrain.tensorflow_setup import import_tensorflow

    import_tensorflow()
    import tensorflow as tf

    rows = ROWS | (GPU_ROWS if tf.config.list_physical_devices("GPU") else {})
    found: list[Row] = []
    if not given.json:
        print(f"{machine()}\n\n| | ratio | of the pairs |\n|---|---|---|", flush=True)
    for name in given.rows.split(",") if given.rows else rows:
        with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
            for row in rows[name](Bench(Path(folder), scale, stack)):
                found.append(row)
                if not given.json:
                    print(
                        f"| {row.name}: {row.what} | {row.ratio:.3f} | {row.spread[0]:.3f} to "
                        f"{row.spread[1]:.3f} |",
                        flush=True,
                    )
    if given.json:
        print(json.dumps({"machine": machine(), "rows": [row._asdict() for row in found]}))


if __name__ == "__main__":
    main()
