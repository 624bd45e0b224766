"""Measure whether frames that `hgtrain suggest` chooses teach more than random ones.

    python scripts/suggest_benchmark.py openfield.h5 results.jsonl

For each seed a network is trained on 12 frames. Four times 8 frames are added, once those that
`suggest` chooses with the network of the round before, once random ones, and a new network is
trained on all. The error is that on a fixed fifth of the frames, which nobody trains on. Prints a
table in Markdown.

Each training is a line in results.jsonl; what is there is not trained again, so the script may be
stopped at any time.
"""

import argparse
import csv
import json
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import yaml

import hgtrain
from hgtrain.commands.suggest import suggest
from hgtrain.data.dataset import PoseDataset, skeleton_of
from hgtrain.data.formats.hgtrain_writer import write_dataset

START, ADDED, FOLDS = 12, 8, 5
CONFIG: dict[str, Any] = {
    "data": {"train": "train.h5", "validation": "test.h5", "input_scale": 0.25},
    "augmentation": {"flip": "horizontal"},
    "model": {
        "backbone": {
            "stem_stride": 2,
            "max_stride": 16,
            "output_stride": 2,
            "stem_filters": 16,
            "filters": 24,
            "filter_increase": 8,
            "stacks": 1,
        },
        "head": {"sigma_px": 2.5},
    },
    "training": {
        "batch_size": 4,
        "learning_rate": 3e-3,
        "epochs": 1,
        "precision": "mixed_bfloat16",
        "device": "cpu",
    },
    "output": {"tensorboard": False},
}
"""One epoch, so that the only validation, on the test frames, chooses nothing."""

ARMS = {"random": "random", "suggested": "suggested"}
MEASURES = {"mean": "mean error", "median": "median error"}


class Results:
    """The lines of a file, one for each training, by what it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text().splitlines() if path.exists() else []
        self._by_key = {json.dumps(row["key"]): row for row in map(json.loads, lines)}

    def get(self, key: list[Any]) -> dict[str, Any] | None:
        """Return the line of a training, None where it has not been made."""
        return self._by_key.get(json.dumps(key))

    def add(self, row: dict[str, Any]) -> None:
        """Add a line."""
        self._by_key[json.dumps(row["key"])] = row
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dataset", help="with one animal in each frame")
    parser.add_argument("results", type=Path, help="a file of JSON lines")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--fold", type=int, default=0, help="which fifth is measured on")
    given = parser.parse_args(arguments)
    results = Results(given.results)
    rows = []
    with closing(hgtrain.open_dataset(given.dataset)) as dataset:
        test, pool = split(len(dataset), given.fold)
        for seed in range(given.seeds):
            start = np.random.default_rng(seed).permutation(pool)[:START].tolist()
            for arm in ARMS:
                frames = list(start)
                for number in range(given.rounds + 1):
                    # Of the first round both have the same.
                    key = [
                        given.steps,
                        given.fold,
                        seed,
                        arm if number else "start",
                        sorted(frames),
                    ]
                    row = results.get(key)
                    if row is None:
                        row = trained(dataset, test, pool, frames, key)
                        results.add(row)
                    rows.append(
                        {"arm": arm, "seed": seed, "frames": len(frames), **row["error_px"]}
                    )
                    frames += (
                        row["next"] if arm == "suggested" else at_random(seed, number, pool, frames)
                    )
    print(table(rows))


def split(count: int, fold: int) -> tuple[list[int], list[int]]:
    """Return the frames to measure on, and those to choose from."""
    order = np.random.RandomState(0).permutation(count)
    test = np.array_split(order, FOLDS)[fold]
    return sorted(test.tolist()), sorted(set(order.tolist()) - set(test.tolist()))


def at_random(seed: int, number: int, pool: Sequence[int], taken: Sequence[int]) -> list[int]:
    """Return frames that nothing but chance chose."""
    left = sorted(set(pool) - set(taken))
    return np.random.default_rng((seed, number)).permutation(left)[:ADDED].tolist()


def trained(
    dataset: PoseDataset,
    test: Sequence[int],
    pool: Sequence[int],
    frames: Sequence[int],
    key: list[Any],
) -> dict[str, Any]:
    """Return the error of a network trained on some frames, and what it suggests next."""
    import keras

    folder = Path(tempfile.mkdtemp())
    steps, _, seed = key[:3]
    try:
        left = sorted(set(pool) - set(frames))
        for name, rows in (("train", frames), ("test", test), ("left", left)):
            write_frames(dataset, rows, folder / f"{name}.h5")
        config = {
            **CONFIG,
            "training": {**CONFIG["training"], "steps_per_epoch": steps, "seed": seed},
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        run = hgtrain.fit(folder / "config.yaml", folder / "run")
        evaluation = json.loads((run.folder / "evaluation.json").read_text())
        row = {"key": key, "error_px": evaluation["error_px"]}
        if key[3] != "random":
            suggest(run.folder, [str(folder / "left.h5")], folder / "next.csv", ADDED)
            with (folder / "next.csv").open(newline="") as file:
                row["next"] = [left[int(line["frame"])] for line in csv.DictReader(file)]
        return row
    finally:
        keras.backend.clear_session()
        shutil.rmtree(folder)


def write_frames(dataset: PoseDataset, rows: Sequence[int], path: Path) -> None:
    """Write some frames of a dataset as one of their own."""
    write_dataset(
        path,
        skeleton_of(dataset),
        ((dataset[row].image, dataset.points[row], dataset.visibility[row], None) for row in rows),
    )


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return means over the seeds, with the lowest and the highest, in Markdown."""
    seeds = len({row["seed"] for row in rows})
    columns = [(key, arm) for key in MEASURES for arm in ARMS]
    titles = [f"{ARMS[arm]}, {MEASURES[key]}" for key, arm in columns]
    lines = [f"| labelled frames | {' | '.join(titles)} |", "|---" * (1 + len(columns)) + "|"]
    for count in sorted({row["frames"] for row in rows}):
        cells = [str(count)]
        for key, arm in columns:
            values = [row[key] for row in rows if (row["arm"], row["frames"]) == (arm, count)]
            spread = f" ({min(values):.1f} to {max(values):.1f})" if values else ""
            cells.append(f"{np.mean(values):.1f} px{spread}" if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(
        [*lines, "", f"Means over {seeds} seeds, in brackets the lowest and the highest."]
    )


if __name__ == "__main__":
    main()
