"""One offline page that compares several finished runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hgtrain import files
from hgtrain.errors import RunError
from hgtrain.evaluate.matching import precision_at_recall
from hgtrain.log import format_seconds
from hgtrain.report import plots
from hgtrain.report.page import MISSING, OF_SEVERAL, RunResults, flat_rows, number, render
from hgtrain.rundir.records import read_split

CURVE_AT_OKS = 0.75

Row = tuple[str, list[str], int | None]
"""A row of a table.

What it is of, one value a run as text, and which run is the best, None where none is.
"""


def write_comparison(path: Path, runs: Sequence[RunResults]) -> Path:
    """Return `path`, written as a page that compares two or more runs.

    Raises:
        RunError: It cannot be written.
    """
    try:
        files.write_text(path, render("comparison.html.j2", comparison_page(runs)))
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror}") from error
    return path


def comparison_page(runs: Sequence[RunResults]) -> dict[str, Any]:
    """Return what the template of the comparison needs."""
    names = _distinct_names([run.folder for run in runs])
    errors = [run.compared.errors for run in runs]
    histories = {name: run.history for name, run in zip(names, runs, strict=True)}
    measured = {
        name: (e.distance[e.located], int(e.labelled.sum()))
        for name, e in zip(names, errors, strict=True)
    }
    sides = {read_split(run.folder)["validation"]["fingerprint"] for run in runs}
    frames = {tuple(run.side.frames.tolist()) for run in runs}
    return {
        "title": f"{len(runs)} runs",
        "names": names,
        "same_frames": len(sides) == 1 and len(frames) == 1,
        "table": comparison_rows(runs, list(histories.values())),
        "figures": [
            *_curves(histories, "val_error_px", "error", "mean error in px"),
            *(
                figure
                for key, name in OF_SEVERAL.items()
                for figure in _curves(histories, key, name, name)
            ),
            plots.pck_curves(measured),
            *_precision_recall(dict(zip(names, runs, strict=True))),
        ],
        "keypoints": comparison_keypoints(runs),
        "differences": config_differences([run.config for run in runs]),
    }


def _curves(
    histories: Mapping[str, Sequence[Mapping[str, Any]]], key: str, name: str, y_label: str
) -> list[str]:
    """Return the figure of a value of metrics.jsonl; none where no run has it."""
    curves: dict[str, plots.Curve] = {
        run: ([row["step"] for row in history], [row.get(key) for row in history])
        for run, history in histories.items()
        if any(row.get(key) is not None for row in history)
    }
    return [plots.lines(f"Validation {name}", curves, y_label)] if curves else []


def _precision_recall(runs: Mapping[str, RunResults]) -> list[str]:
    """Return the figure of precision over recall of the runs for several animals."""
    curves = {
        name: precision_at_recall(run.matches, CURVE_AT_OKS)
        for name, run in runs.items()
        if run.several
    }
    known = {name: precision for name, precision in curves.items() if precision is not None}
    title = f"Precision and recall of animals from OKS {CURVE_AT_OKS} on"
    return [plots.precision_recall(known, title)] if known else []


def comparison_rows(
    runs: Sequence[RunResults], histories: Sequence[Sequence[Mapping[str, Any]]]
) -> list[Row]:
    """Return rows of the table.

    Each has what is compared, one value a run as text, and which run is the best, None where none
    is.
    """
    evaluations = [run.evaluation for run in runs]
    lower = {
        "error, mean (px)": "mean",
        "error, median (px)": "median",
        "error, 95 % below (px)": "p95",
    }
    rows: list[Row] = [("frames", [str(e["frames"]) for e in evaluations], None)]
    rows += [
        _row(name, [e["error_px"][key] for e in evaluations], min) for name, key in lower.items()
    ]
    rows += [
        _row(f"within {px} px", [e["pck"][px] for e in evaluations], max, ".1%")
        for px in evaluations[0]["pck"]
    ]
    rows += [_row("OKS", [e["oks"] for e in evaluations], max, ".3f")]
    rows += [_row("OKS mAP", [e["oks_map"] for e in evaluations], max, ".3f")]
    rows += _animal_rows(evaluations)
    rows += [("steps", [str(h[-1]["step"]) if h else MISSING for h in histories], None)]
    rows += [
        ("time", [format_seconds(h[-1]["elapsed_s"]) if h else MISSING for h in histories], None)
    ]
    return rows


def _animal_rows(evaluations: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of several animals a frame; none where no run is for them."""
    if not any("instances" in evaluation for evaluation in evaluations):
        return []
    counts = [evaluation.get("instances", {}) for evaluation in evaluations]
    rows: list[Row] = [("animals labelled", [number(c.get("labelled"), "d") for c in counts], None)]
    rows += [
        _row(f"animals {name}", [c.get(key) for c in counts], better, "d")
        for name, key, better in (
            ("found", "matched", max),
            ("missed", "missed", min),
            ("extra", "extra", min),
        )
    ]
    return [*rows, _row("group purity", [e.get("group_purity") for e in evaluations], max, ".3f")]


def _row(
    name: str, values: list[float | None], better: Callable[..., float], form: str = ".2f"
) -> Row:
    known = [value for value in values if value is not None]
    best = values.index(better(known)) if len(known) > 1 else None
    return name, [number(value, form) for value in values], best


def comparison_keypoints(runs: Sequence[RunResults]) -> list[Row]:
    """Return the median error of each keypoint in each run, by name, in the order of the runs."""
    tables = [
        {row["name"]: row["median"] for row in run.evaluation["per_keypoint"]} for run in runs
    ]
    names = dict.fromkeys(name for table in tables for name in table)
    return [_row(name, [table.get(name) for table in tables], min) for name in names]


def config_differences(configs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """Return the keys that are not the same in all configs, with their values."""
    flat = [dict(flat_rows(config)) for config in configs]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [one.get(key, MISSING) for one in flat]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def _distinct_names(folders: Sequence[Path]) -> list[str]:
    names = [folder.resolve().name for folder in folders]
    return names if len(set(names)) == len(names) else [str(folder) for folder in folders]
