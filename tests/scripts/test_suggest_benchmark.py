"""The benchmark of `suggest`: which frames are trained on, and what is kept."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
from tiny_run import write_data

ROOT = Path(__file__).parents[2]


@pytest.fixture
def benchmark():
    path = ROOT / "scripts" / "suggest_benchmark.py"
    spec = importlib.util.spec_from_file_location("suggest_benchmark", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def trainings(benchmark, monkeypatch):
    """Record the frames of each training instead of it; the first left are suggested."""
    made = []

    def trained(dataset, test, pool, frames, key):
        made.append((key, list(frames)))
        left = sorted(set(pool) - set(frames))
        error = {"mean": 100.0 / len(frames), "median": 1.0}
        return {"key": key, "error_px": error, "next": left[: benchmark.ADDED]}

    monkeypatch.setattr(benchmark, "trained", trained)
    monkeypatch.setattr(benchmark, "START", 3)
    monkeypatch.setattr(benchmark, "ADDED", 2)
    return made


def test_the_frames_to_measure_on_are_a_fifth_of_a_fixed_order(benchmark):
    order = np.random.RandomState(0).permutation(116).tolist()
    test, pool = benchmark.split(116, 0)
    # Of 116 the first fifth has 24.
    assert test == sorted(order[:24])
    assert pool == sorted(order[24:])
    assert benchmark.split(116, 4)[0] == sorted(order[-23:])


def test_both_ways_start_alike_and_add_as_many_frames(benchmark, trainings, tmp_path, capsys):
    write_data(tmp_path)
    arguments = [str(tmp_path / "flies.h5"), str(tmp_path / "results.jsonl"), "--rounds", "2"]
    benchmark.main([*arguments, "--seeds", "2"])
    test, pool = benchmark.split(12, 0)
    # Of each seed one start, and two rounds of both.
    assert [key[3] for key, _ in trainings] == [
        *["start", "random", "random", "suggested", "suggested"] * 2
    ]
    assert [len(frames) for _, frames in trainings] == [3, 5, 7, 5, 7] * 2
    for _, frames in trainings:
        assert len(set(frames)) == len(frames)
        assert set(frames) <= set(pool)
        assert not set(frames) & set(test)
    start, suggested = trainings[0][1], trainings[3][1]
    assert suggested == [*start, *sorted(set(pool) - set(start))[:2]]
    out = capsys.readouterr().out
    assert "| 3 | 33.3 px (33.3 to 33.3) | 33.3 px (33.3 to 33.3) | 1.0 px" in out


def test_what_was_trained_is_not_trained_again(benchmark, trainings, tmp_path, capsys):
    write_data(tmp_path)
    results = tmp_path / "results.jsonl"
    arguments = [str(tmp_path / "flies.h5"), str(results), "--rounds", "1"]
    benchmark.main(arguments)
    first = capsys.readouterr().out
    lines = results.read_text().splitlines()
    assert [json.loads(line)["key"] for line in lines] == [key for key, _ in trainings]
    trainings.clear()
    benchmark.main(arguments)
    assert trainings == []
    assert capsys.readouterr().out == first
    results.write_text("\n".join(lines[:-1]) + "\n")
    benchmark.main(arguments)
    assert [key for key, _ in trainings] == [json.loads(lines[-1])["key"]]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_training_gives_an_error_and_frames_that_are_left(benchmark, monkeypatch, tmp_path):
    import hgtrain

    write_data(tmp_path)
    small = {"backbone": {**benchmark.CONFIG["model"]["backbone"], "stem_filters": 4, "filters": 4}}
    data = {**benchmark.CONFIG["data"], "input_scale": 1.0}
    monkeypatch.setattr(benchmark, "CONFIG", {**benchmark.CONFIG, "model": small, "data": data})
    monkeypatch.setattr(benchmark, "ADDED", 2)
    dataset = hgtrain.open_dataset(tmp_path / "flies.h5")
    row = benchmark.trained(
        dataset, [0, 1], list(range(2, 12)), [3, 5, 7], [2, 0, 0, "start", [3, 5, 7]]
    )
    dataset.close()
    assert row["error_px"]["mean"] > 0
    assert set(row["next"]) <= {2, 4, 6, 8, 9, 10, 11}
    assert len(row["next"]) == 2
