import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hgtrain import __version__
from hgtrain.config.load import load_config
from hgtrain.data.dataset import skeleton_of
from hgtrain.data.formats.hgtrain_writer import write_dataset
from hgtrain.data.sandbox.open import open_dataset
from hgtrain.skeleton import Skeleton

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import recipe  # noqa: E402
from recipe import Recipe, Run, chosen_variants, folds_of, table, write_fold  # noqa: E402


def line(variant, fold, mean, seed=0, data="flies", **others):
    row = Run(variant, data, fold, seed, 1200).row
    return row | {"error_px": {"mean": mean}, "rmse_px": 2 * mean, "frames": 9} | others


ROWS = [
    line("base", 0, 2.0),
    line("base", 1, 1.0),
    line("base", 2, 4.0),
    line("mining", 0, 1.0),
    line("mining", 1, 1.5),
    # Two seeds of this fold, one of which the base lacks.
    line("mining", 2, 3.0),
    line("mining", 2, 5.0, seed=1),
    line("mining", 0, 9.0, steps=200),
    line("mining", 0, 9.0, version="0.0.1"),
]


def test_the_table_has_median_and_range_over_folds_and_the_ratio_to_the_base():
    text = table(ROWS, ["base", "mining", "offsets"], 1200)
    assert text.splitlines()[2:] == [
        "| question | variant | flies | runs |",
        "|---|---|---|---|",
        "|  | base | 2.00 (1.00 to 4.00) | 3 |",
        # Folds of 1, 1.5 and 4; to the base, with its own seed alone, 1/2, 1.5 and 3/4.
        "| mining | mining | 1.50 (1.00 to 4.00), x0.750 | 4 |",
    ]


def test_the_table_is_printed_from_what_was_run(tmp_path):
    results = tmp_path / "results.jsonl"
    results.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    script = str(ROOT / "scripts" / "recipe.py")
    command = [sys.executable, script, "mining", "--table", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == table(ROWS, ["base", "mining"], 1200) + "\n"


def test_an_unknown_variant_is_refused():
    with pytest.raises(SystemExit, match=r"^'minning' is no question and no variant; --list shows"):
        chosen_variants(["minning"])


def test_a_question_stands_for_its_variants_and_the_base_comes_first():
    assert chosen_variants(["ema", "mining", "ema-0-9"]) == [
        "base", "ema-0-9", "ema-0-99", "ema-0-999", "mining",
    ]  # fmt: skip


def test_no_two_variants_have_one_name():
    assert len(recipe.VARIANTS) == 1 + sum(map(len, recipe.QUESTIONS.values()))


@pytest.mark.parametrize("data", recipe.DATA)
def test_every_variant_is_a_config(data, tmp_path):
    (tmp_path / "a.yaml").write_text("data: {train: a.h5}\n")
    base = (*recipe.COMMON, *recipe.DATA[data].sets)
    for variant in recipe.VARIANTS.values():
        load_config(tmp_path / "a.yaml", (*base, *variant.sets))


def test_folds_of_openfield_are_fifths_of_the_permutation():
    folds = folds_of("openfield", 116)
    expected = np.random.RandomState(0).permutation(116)
    assert np.concatenate(folds).tolist() == expected.tolist()
    assert [len(fold) for fold in folds] == [24, 23, 23, 23, 23]


def test_folds_of_a_film_are_every_fifth_frame_and_those_of_fly100_are_in_a_row():
    assert folds_of("fly_pair", 70)[0].tolist() == list(range(0, 70, 5))
    assert folds_of("fly100", 100)[4].tolist() == list(range(80, 100))


def test_a_fold_has_the_frames_and_labels_of_its_rows(tmp_path):
    random = np.random.default_rng(0)
    frames = [
        (random.integers(0, 255, (8, 8, 1), np.uint8), random.uniform(0, 8, (2, 2)), None, None)
        for _ in range(5)
    ]
    write_dataset(tmp_path / "a.h5", Skeleton(("left", "right"), (), ((0, 1),)), frames)
    write_fold(tmp_path / "a.h5", np.array([3, 1]), tmp_path / "b.h5")
    found = open_dataset(str(tmp_path / "b.h5"))
    for row, source in enumerate((3, 1)):
        assert np.array_equal(found.read_images([row])[0], frames[source][0])
        np.testing.assert_allclose(found.points[row, 0], frames[source][1], rtol=1e-6)
    assert skeleton_of(found).symmetries == ((0, 1),)
    found.close()


def test_a_run_that_was_made_is_not_made_again(tmp_path, monkeypatch):
    asked = []

    def hgtrain(self, arguments, patch=""):
        asked.append(arguments[0])
        return json.dumps({"error_px": {"mean": 1.0}, "rmse_px": 2.0, "frames": 3})

    monkeypatch.setattr(Recipe, "_hgtrain", hgtrain)
    monkeypatch.setattr(Recipe, "_fold", lambda self, name, fold: (Path("train"), Path("test")))
    results = tmp_path / "results.jsonl"
    for seed in (0, 0, 1):
        Recipe(tmp_path / "runs", tmp_path, results).run(Run("mining", "flies", 0, seed, 400))
    assert asked == ["fit", "evaluate"] * 2
    rows = recipe.read_results(results)
    assert [(row["seed"], row["version"]) for row in rows] == [(0, __version__), (1, __version__)]
    # With other keys it is another run.
    monkeypatch.setitem(recipe.VARIANTS, "mining", recipe.Variant(("training.batch_size=4",)))
    Recipe(tmp_path / "runs", tmp_path, results).run(Run("mining", "flies", 0, 0, 400))
    assert len(asked) == 6


def test_a_run_that_fails_says_why(tmp_path):
    with pytest.raises(SystemExit, match=r"(?s)hgtrain fit nothing\.yaml failed:.*nothing\.yaml"):
        Recipe(tmp_path, tmp_path, tmp_path / "a.jsonl")._hgtrain(["fit", "nothing.yaml"])
