"""What makes the most accurate network of few frames: variants over folds and seeds, in one table.

    python scripts/recipe.py --list
    python scripts/recipe.py [QUESTION_OR_VARIANT ...] [--data openfield,flies]
        [--folds 0,1,2,3,4] [--seeds 0] [--steps 1200]
    python scripts/recipe.py [QUESTION_OR_VARIANT ...] --table

Each variant is the base recipe with a few keys changed, and is trained and measured by the console
command in processes of its own. Of each dataset a fold is a fifth of the frames, which nothing is
chosen on: the network that is kept is the best on frames of the other four fifths. All variants
have the same number of steps, but those that ask for more. Variants "at equal FLOPs" have filters
such that an image costs what it costs the base.

What was run is a line of --results and is not run again; another variant, data, fold, seed, number
of steps, version of hgtrain or other keys are another run. The table shows the mean error in px of
the dataset's images, the median over folds of the mean over seeds, the range in brackets, then the
median over folds of the ratio to the base on the same folds, seeds and steps.

openfield, fly100 and fly_pair are looked for in --shared; builtin:flies is drawn.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain import __version__

FOLDS = 5
STEPS_PER_EPOCH = 200
BASE = "base"
SAME_FLOPS = 0.03
"""By how much an image may cost more or less than it costs the base."""

KEY = ("variant", "data", "fold", "seed", "steps", "version", "sets")


class Data(NamedTuple):
    """Frames to train and measure on.

    source: of the labels, below --shared, or built in. sets: of the base recipe.
    """

    source: str
    sets: tuple[str, ...]


class Variant(NamedTuple):
    """What of the base recipe is changed.

    sets: changed keys. steps: factor. equal_flops: filters follow the base's FLOPs. patch: Python
    that runs before hgtrain. pretrained: starts from a network of the same size that was trained
    on builtin:flies.
    """

    sets: tuple[str, ...] = ()
    steps: int = 1
    equal_flops: bool = False
    patch: str = ""
    pretrained: bool = False


COMMON = (
    "data.validation=0.2",
    "augmentation.brightness=null",
    "augmentation.contrast=null",
    "augmentation.scale=null",
    "model.backbone.stem_filters=16",
    "model.backbone.filters=32",
    "model.backbone.filter_increase=32",
    "model.backbone.stacks=1",
    "training.learning_rate=8e-3",
    f"training.steps_per_epoch={STEPS_PER_EPOCH}",
    "training.device=cpu",
    "output.tensorboard=false",
)
"""Of the base recipe: one small stack, as `hgtrain init` writes it for a CPU."""

DATA = {
    "openfield": Data(
        "openfield",
        (
            "data.input_scale=0.5",
            "model.backbone.stem_stride=2",
            "model.backbone.output_stride=2",
            "model.backbone.max_stride=16",
            "model.head.sigma_px=2.5",
            "augmentation.translation_px=[-32, 32]",
        ),
    ),
    "fly100": Data("fly100.h5", ("augmentation.translation_px=[-10, 10]",)),
    "fly_pair": Data(
        "centered_pair/centered_pair.slp",
        (
            "model.head.type=centered_instance",
            "model.head.anchor=thorax",
            "model.head.crop_size_px=192",
            "model.backbone.max_stride=32",
            "augmentation.translation_px=null",
        ),
    ),
    "flies": Data(
        "builtin:flies",
        (
            "model.backbone.max_stride=32",
            "model.head.sigma_px=4",
            "augmentation.translation_px=[-6, 6]",
        ),
    ),
}


def one_key(key: str, **values: object) -> dict[str, Variant]:
    """Return a variant for each value of a key, by name."""
    return {name.replace("_", "-"): Variant((f"{key}={value}",)) for name, value in values.items()}


def momentum(value: float) -> Variant:
    """Return the variant with another momentum of the normalisations' statistics."""
    patch = f"from hgtrain.model import blocks; blocks.BATCH_NORM_MOMENTUM = {value}"
    return Variant(patch=patch)


def map_scale(value: float) -> Variant:
    """Return the variant whose maps are compared at another height."""
    return Variant(patch=f"from hgtrain.heads import losses; losses.MAP_SCALE = {value}")


def strides(stride: int, *sets: str) -> Variant:
    """Return the variant with another stride of stem and output, at equal FLOPs."""
    own = (f"model.backbone.stem_stride={stride}", f"model.backbone.output_stride={stride}")
    return Variant((*own, *sets), equal_flops=True)


QUESTIONS: dict[str, dict[str, Variant]] = {
    "normalisation": {f"momentum-{value}": momentum(value) for value in (0.8, 0.9, 0.95, 0.99)},
    "height": {f"height-{value:g}": map_scale(value) for value in (3.0, 10.0, 100.0)},
    "rate": one_key(
        "training.learning_rate", rate_1e_3="1e-3", rate_2e_3="2e-3", rate_4e_3="4e-3",
        rate_16e_3="16e-3",
    ),
    "schedule": {
        **one_key("training.schedule", constant="constant", plateau="plateau"),
        **one_key("training.warmup_steps", warmup_0=0, warmup_20=20, warmup_200=200),
        **one_key("training.min_learning_rate", end_1e_4="1e-4"),
    },
    "ema": one_key("training.ema", ema_0_9=0.9, ema_0_99=0.99, ema_0_999=0.999),
    "decay": one_key(
        "training.weight_decay", decay_1e_3="1e-3", decay_1e_2="1e-2", decay_1e_1="1e-1"
    ),
    "batch": one_key("training.batch_size", batch_4=4, batch_16=16),
    "precision": one_key("training.precision", bfloat16="mixed_bfloat16"),
    "rotation": one_key(
        "augmentation.rotation_deg",
        rotation_0="null",
        rotation_30="[-30, 30]",
        rotation_90="[-90, 90]",
    ),
    "scale": one_key(
        "augmentation.scale",
        scale_10="[0.9, 1.1]",
        scale_25="[0.75, 1.25]",
        scale_40="[0.6, 1.4]",
    ),
    "translation": one_key(
        "augmentation.translation_px",
        shift_0="null",
        shift_5="[-5, 5]",
        shift_20="[-20, 20]",
        shift_50="[-50, 50]",
    ),
    "flip": one_key("augmentation.flip", flip_horizontal="horizontal", flip_both="both"),
    "intensity": {
        **one_key("augmentation.brightness", brightness="[-0.1, 0.1]"),
        **one_key("augmentation.contrast", contrast="[0.8, 1.2]"),
        **one_key("augmentation.gamma", gamma="[0.7, 1.4]"),
        **one_key("augmentation.noise_std", noise=0.03),
    },
    "blur": one_key("augmentation.blur_sigma_px", blur_1="[0, 1]", blur_2="[0, 2]"),
    "sigma": one_key("model.head.sigma_px", sigma_2=2, sigma_3=3, sigma_4=4, sigma_6=6, sigma_8=8),
    "stride": {f"stride-{stride}": strides(stride) for stride in (2, 4)}
    | {f"stem-2-output-{stride}": Variant(
        ("model.backbone.stem_stride=2", f"model.backbone.output_stride={stride}"), equal_flops=True
    ) for stride in (4,)},
    "resolution": {
        f"scale-{scale}": Variant((f"data.input_scale={scale}",), equal_flops=True)
        for scale in (0.25, 0.5, 1.0)
    },
    "field": one_key("model.backbone.max_stride", field_16=16, field_32=32, field_64=64),
    "stacks": {
        f"stacks-{count}": Variant((f"model.backbone.stacks={count}",), equal_flops=True)
        for count in (2, 3)
    },
    "interpolation": one_key("model.backbone.interp_method", bilinear="bilinear"),
    "offsets": one_key("model.head.offsets", offsets="true"),
    "mining": one_key("training.hard_keypoint_mining", mining="true"),
    "length": {"twice-as-long": Variant(steps=2), "four-times-as-long": Variant(steps=4)},
    "start": {"from-drawn-flies": Variant(pretrained=True)},
}  # fmt: skip
"""By what they ask, the variants by name."""

VARIANTS = {BASE: Variant()} | {
    name: variant for asked in QUESTIONS.values() for name, variant in asked.items()
}


class Run(NamedTuple):
    """One training: its variant, data, fold and seed, and the steps of the base."""

    variant: str
    data: str
    fold: int
    seed: int
    steps: int

    @property
    def row(self) -> dict[str, Any]:
        """Return what a line of the results is found by."""
        variant = VARIANTS[self.variant]
        changed = [
            *variant.sets,
            variant.patch,
            variant.equal_flops,
            variant.pretrained,
            variant.steps,
        ]
        sets = [*COMMON, *DATA[self.data].sets, *changed]
        return self._asdict() | {"version": __version__, "sets": sets}


def key_of(row: dict[str, Any]) -> str:
    """Return what makes two runs the same."""
    return json.dumps([row.get(name) for name in KEY])


def chosen_variants(names: Sequence[str]) -> list[str]:
    """Return the names of variants, the base first, that questions and variants name; all for none.

    Raises:
        SystemExit: One is neither.
    """
    chosen = [BASE]
    for name in names or QUESTIONS:
        if name not in QUESTIONS and name not in VARIANTS:
            raise SystemExit(
                f"{name!r} is no question and no variant; --list shows them: {', '.join(QUESTIONS)}"
            )
        chosen += QUESTIONS.get(name, {name: None})
    return list(dict.fromkeys(chosen))


def folds_of(name: str, frames: int) -> list[np.ndarray]:
    """Return the rows of each fold.

    Of openfield and drawn flies the fifths of a permutation, in order; of fly100 fifths in a row,
    the last of which are the frames that others validate on; of fly_pair every fifth frame, which
    follow one another in a film.
    """
    if name == "fly100":
        return np.array_split(np.arange(frames), FOLDS)
    if name == "fly_pair":
        return [np.arange(fold, frames, FOLDS) for fold in range(FOLDS)]
    return np.array_split(np.random.RandomState(0).permutation(frames), FOLDS)


def write_fold(source: Path, rows: np.ndarray, path: Path) -> None:
    """Write some of the frames of a dataset as one of their own."""
    from hgtrain.data.dataset import skeleton_of
    from hgtrain.data.formats.hgtrain_writer import write_dataset
    from hgtrain.data.sandbox.open import open_dataset

    dataset = open_dataset(str(source), annotated_only=False)
    frames = (
        (dataset.read_images([row])[0], dataset.points[row], dataset.visibility[row], None)
        for row in map(int, rows)
    )
    write_dataset(path, skeleton_of(dataset), frames)
    dataset.close()


class Recipe:
    """Trains variants in a folder. results: the file of what was run."""

    def __init__(self, folder: Path, shared: Path, results: Path) -> None:
        self._folder, self._shared, self._results = folder, shared, results
        folder.mkdir(parents=True, exist_ok=True)
        self.rows = read_results(results)

    def run(self, run: Run) -> None:
        """Train and measure, unless that was done before."""
        row = run.row
        if any(key_of(row) == key_of(done) for done in self.rows):
            return
        variant = VARIANTS[run.variant]
        train, test = self._fold(run.data, run.fold)
        sets = [*COMMON, *DATA[run.data].sets, *variant.sets, f"training.seed={run.seed}"]
        if variant.equal_flops:
            base = self._flops([*COMMON, *DATA[run.data].sets], train)
            sets += self._equal_flops(sets, train, base)
        if variant.pretrained:
            sets.append(f"training.initial_weights={self._pretrained(run, sets)}")
        folder = self._folder / "-".join(map(str, (*run, time.time_ns())))
        started = time.monotonic()
        self._fit(folder, train, [*sets, self._epochs(run.steps * variant.steps)], variant.patch)
        seconds = time.monotonic() - started
        found = json.loads(
            self._hgtrain(["evaluate", str(folder), str(test), "--json"], variant.patch)
        )
        row |= {key: found[key] for key in ("error_px", "rmse_px", "frames")}
        row |= {
            "seconds": round(seconds),
            "filters": [each for each in sets if "filter" in each][-3:],
        }
        with self._results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)

    def _fit(self, folder: Path, train: Path | str, sets: Iterable[str], patch: str = "") -> None:
        config = folder.with_suffix(".yaml")
        config.write_text(f"data: {{train: '{train}'}}\n")
        overrides = [part for each in sets for part in ("--set", each)]
        self._hgtrain(["fit", str(config), "--run-dir", str(folder), *overrides], patch)

    def _epochs(self, steps: int) -> str:
        return f"training.epochs={max(1, steps // STEPS_PER_EPOCH)}"

    def _fold(self, name: str, fold: int) -> tuple[Path, Path]:
        from hgtrain.data.sandbox.open import open_dataset

        source = self._source(name)
        paths = [self._folder / f"{name}-{fold}-{side}.h5" for side in ("train", "test")]
        if not all(path.exists() for path in paths):
            dataset = open_dataset(str(source), annotated_only=False)
            frames = len(dataset)
            dataset.close()
            test = folds_of(name, frames)[fold]
            for rows, path in zip(
                (np.setdiff1d(np.arange(frames), test), test), paths, strict=True
            ):
                write_fold(source, rows, path)
        return paths[0], paths[1]

    def _source(self, name: str) -> Path:
        from hgtrain.data.builtin_datasets import BUILTIN, builtin_file

        source = DATA[name].source
        if source.startswith(BUILTIN):
            return builtin_file(source)
        if source.endswith(".h5"):
            return self._shared / source
        converted = self._folder / f"{name}.h5"
        if not converted.exists():
            self._hgtrain(
                ["convert", str(self._shared / source), str(converted), "--symmetry", "auto"]
            )
        return converted

    def _flops(self, sets: Iterable[str], train: Path) -> int:
        config = self._folder / "flops.yaml"
        config.write_text(f"data: {{train: '{train}'}}\n")
        overrides = [part for each in sets for part in ("--set", each)]
        return int(
            json.loads(self._hgtrain(["summarize", str(config), "--json", *overrides]))[
                "flops_per_image"
            ]
        )

    def _equal_flops(self, sets: Sequence[str], train: Path, wanted: int) -> list[str]:
        """Return the filters with which an image costs as much as `wanted`, or nearly."""

        def filters(width: int) -> list[str]:
            return [
                f"model.backbone.stem_filters={max(1, width // 2)}",
                f"model.backbone.filters={width}",
                f"model.backbone.filter_increase={width}",
            ]

        low, high, best = 2, 512, (float("inf"), 32)
        while low <= high and best[0] > SAME_FLOPS:
            width = (low + high) // 2
            ratio = self._flops([*sets, *filters(width)], train) / wanted
            best = min(best, (abs(ratio - 1), width))
            low, high = (width + 1, high) if ratio < 1 else (low, width - 1)
        return filters(best[1])

    def _pretrained(self, run: Run, sets: Sequence[str]) -> Path:
        """Return a run on drawn flies with the network of the given keys."""
        folder = self._folder / f"drawn-for-{run.data}-{run.seed}-{run.steps}-{__version__}"
        if not (folder / "evaluation.json").exists():
            backbone = [
                each
                for each in sets
                if each.startswith(("model.backbone.", "training.", "output."))
            ]
            own = [
                "augmentation.translation_px=[-6, 6]",
                "model.head.sigma_px=4",
                self._epochs(run.steps),
            ]
            self._fit(folder, "builtin:flies", [*backbone, *own])
        return folder.absolute()

    def _hgtrain(self, arguments: Sequence[str], patch: str = "") -> str:
        program = f"{patch}\nfrom hgtrain.cli import main\nmain()"
        environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [sys.executable, "-c", program, *arguments],
            capture_output=True,
            text=True,
            env=environment,
            check=False,
        )
        if done.returncode:
            raise SystemExit(f"hgtrain {' '.join(arguments)} failed:\n{done.stderr}")
        return done.stdout


def read_results(path: Path) -> list[dict[str, Any]]:
    """Return the runs that were made."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: Iterable[dict[str, Any]], variants: Sequence[str], steps: int) -> str:
    """Return the Markdown table of what was run, of this version, with so many steps."""
    current = [row for row in rows if row["version"] == __version__ and row["steps"] == steps]
    names = [name for name in DATA if any(row["data"] == name for row in current)]
    lines = [
        f"Mean error in px after {steps:,} steps: median over folds (range), ratio to {BASE}.",
        "",
        "| question | variant | " + " | ".join(names) + " | runs |",
        "|---" * (len(names) + 3) + "|",
    ]
    asked = {name: question for question, own in QUESTIONS.items() for name in own}
    for variant in variants:
        own = [row for row in current if row["variant"] == variant]
        if own:
            cells = [_cell(current, variant, name) for name in names]
            lines.append(
                f"| {asked.get(variant, '')} | {variant} | {' | '.join(cells)} | {len(own)} |"
            )
    return "\n".join(lines)


def _cell(rows: Sequence[dict[str, Any]], variant: str, data: str) -> str:
    errors, base = (dict(_by_fold(rows, name, data)) for name in (variant, BASE))
    if not errors:
        return "-"
    means = [statistics.mean(of_seeds.values()) for of_seeds in errors.values()]
    text = f"{statistics.median(means):.2f} ({min(means):.2f} to {max(means):.2f})"
    ratios = [
        statistics.mean(of_seeds[seed] for seed in both)
        / statistics.mean(base[fold][seed] for seed in both)
        for fold, of_seeds in errors.items()
        if (both := of_seeds.keys() & base.get(fold, {}).keys())
    ]
    return text if variant == BASE or not ratios else f"{text}, x{statistics.median(ratios):.3f}"


def _by_fold(
    rows: Iterable[dict[str, Any]], variant: str, data: str
) -> Iterator[tuple[int, dict[int, float]]]:
    """Give each fold and its errors by seed; of a run made with several keys the newest counts."""
    own = [row for row in rows if (row["variant"], row["data"]) == (variant, data)]
    for fold in sorted({row["fold"] for row in own}):
        yield fold, {row["seed"]: row["error_px"]["mean"] for row in own if row["fold"] == fold}


def numbers(text: str) -> list[int]:
    """Return the whole numbers of a list such as 0,1,2."""
    return [int(part) for part in text.split(",")]


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "names", nargs="*", metavar="QUESTION_OR_VARIANT", help="all by default; the base always"
    )
    parser.add_argument("--list", action="store_true", help="show questions and variants")
    parser.add_argument("--table", action="store_true", help="run nothing")
    parser.add_argument("--data", default=",".join(DATA))
    parser.add_argument("--folds", type=numbers, default=list(range(FOLDS)))
    parser.add_argument("--seeds", type=numbers, default=[0])
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--results", type=Path, default=Path("recipe.jsonl"))
    parser.add_argument("--folder", type=Path, default=Path("recipe"), help="of datasets and runs")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args()
    variants, names = chosen_variants(arguments.names), arguments.data.split(",")
    if unknown := set(names) - set(DATA):
        raise SystemExit(
            f"--data {', '.join(sorted(unknown))} is not known, expected of {', '.join(DATA)}"
        )
    if arguments.steps < 1 or arguments.steps % STEPS_PER_EPOCH:
        raise SystemExit(f"--steps must be a multiple of {STEPS_PER_EPOCH}, got {arguments.steps}")
    if unknown := set(arguments.folds) - set(range(FOLDS)):
        raise SystemExit(f"--folds has {min(unknown)}, expected of 0 to {FOLDS - 1}")
    if arguments.list:
        for question, own in QUESTIONS.items():
            print(f"{question}: {', '.join(own)}")
        return
    if not arguments.table:
        recipe = Recipe(arguments.folder, arguments.shared, arguments.results)
        runs = [
            Run(variant, name, fold, seed, arguments.steps)
            # Folds first: what is stopped early has compared all variants on some of them.
            for fold in arguments.folds
            for seed in arguments.seeds
            for variant in variants
            for name in names
        ]
        for number, run in enumerate(runs):
            print(f"{number}/{len(runs)}: {run}", file=sys.stderr, flush=True)
            recipe.run(run)
    print(table(read_results(arguments.results), variants, arguments.steps))


if __name__ == "__main__":
    main()
