"""One offline page about a finished run, `report.html`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain import files
from hgtrain.config.load import dump_values
from hgtrain.data.dataset import PoseDataset
from hgtrain.data.split import Split, Subset
from hgtrain.evaluate.keypoint_errors import Errors, keypoint_errors
from hgtrain.log import format_seconds
from hgtrain.poses import Poses
from hgtrain.report import plots
from hgtrain.report.tiles import Tile, compared_tile, whole_tile
from hgtrain.rundir import layout
from hgtrain.rundir.records import read_provenance

REPORT = "report.html"
NOTHING = "-"
GRID_FRAMES, WORST_FRAMES = 12, 20
SPARKLINE_BINS = 16


class RunResults(NamedTuple):
    """What a page shows of a run.

    Attributes:
        folder: The run directory.
        config: The sections of its config, with their keys and values.
        split: The frames of each side.
        found: What the model finds in the validation frames.
        evaluation: As evaluation.json has it.
        augmented: Images of the first training step, and their points, as `augmented_batch` gives
            them.
    """

    folder: Path
    config: dict[str, Any]
    split: Split
    found: Poses
    evaluation: dict[str, Any]
    augmented: tuple[np.ndarray, np.ndarray]

    @property
    def errors(self) -> Errors:
        """Return the errors of the validation frames."""
        truth, visibility = self.side.labels()
        return keypoint_errors(truth[:, 0], visibility[:, 0], self.found.points[:, 0])

    @property
    def side(self) -> Subset:
        """Return the validation side."""
        return self.split.validation

    @property
    def history(self) -> list[dict[str, Any]]:
        """Return the rows of metrics.jsonl; none where it is missing."""
        path = self.folder / layout.METRICS
        return (
            [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
            if path.is_file()
            else []
        )


def write_report(results: RunResults) -> Path:
    """Return the path of the run's report.html, written whole or not at all."""
    path = results.folder / REPORT
    files.write_text(path, render("report.html.j2", run_page(results)))
    return path


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a template of this package filled with a page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("hgtrain.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(page)


def number(value: float | None, form: str = ".2f") -> str:
    """Return a number as text, a dash where there is none."""
    return NOTHING if value is None else format(value, form)


def run_page(results: RunResults) -> dict[str, Any]:
    """Return what the template of a run's page needs."""
    errors, dataset = results.errors, results.side.dataset
    history = results.history
    truth = results.side.labels()[0][:, 0]
    order = _worst_first(errors)
    grid = np.unique(
        np.linspace(0, len(truth) - 1, min(GRID_FRAMES, len(truth))).round().astype(int)
    )
    shown = {
        int(i): _frame_tile(results, errors, truth, int(i))
        for i in sorted({*grid, *order[:WORST_FRAMES]})
    }
    return {
        "title": results.folder.resolve().name,
        "result": result_line(results, history),
        "evaluation": results.evaluation,
        "curves": training_figures(history),
        "error_figures": error_figures(results, errors),
        "keypoints": keypoint_rows(results.evaluation, errors),
        "edges": dataset.edges,
        "tiles": shown,
        "grid": grid.tolist(),
        "worst": order[:WORST_FRAMES].tolist(),
        "augmented": augmented_tiles(*results.augmented),
        "config": dump_values(results.config),
        "provenance": flat_rows(read_provenance(results.folder)),
    }


def result_line(results: RunResults, history: Sequence[Mapping[str, Any]]) -> str:
    """Return the run in one sentence."""
    evaluation = results.evaluation
    error, pck = evaluation["error_px"], evaluation["pck"]["5"]
    if error["median"] is None:
        found = f"No keypoint could be measured on {evaluation['frames']} validation frames"
    else:
        found = (
            f"Median error {error['median']:.2f} px (mean {error['mean']:.2f}) over "
            f"{evaluation['keypoints']} "
            f"keypoints on {evaluation['frames']} validation frames; {pck:.0%} within 5 px"
        )
    if not history:
        return f"{found}."
    last = history[-1]
    return f"{found}; {last['step']} steps in {format_seconds(last['elapsed_s'])}."


def training_figures(history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the curves of loss, error, learning rate and speed.

    There are none for a run without a finished epoch.
    """
    if not history:
        return []
    steps = [row["step"] for row in history]

    def of(key: str, factor: float = 1.0) -> plots.Curve:
        return steps, [None if row[key] is None else factor * row[key] for row in history]

    stacks = len(history[0]["loss_per_stack"])
    losses = {
        "training" if stacks == 1 else f"training, stack {i + 1}": (
            steps,
            [row["loss_per_stack"][i] for row in history],
        )
        for i in range(stacks)
    }
    return [
        plots.lines(
            "Loss",
            losses | {"validation, all stacks" if stacks > 1 else "validation": of("val_loss")},
            "loss",
        ),
        plots.lines("Validation error", {"mean": of("val_error_px")}, "mean error in px"),
        plots.lines("Learning rate", {"learning rate": of("learning_rate")}, "learning rate"),
        plots.lines("Throughput", {"images": of("images_per_s")}, "images per second"),
        plots.lines("Waiting for data", {"wait": of("data_wait_fraction", 100)}, "% of the time"),
    ]


def error_figures(results: RunResults, errors: Errors) -> list[str]:
    """Return distribution, PCK curve and calibration; none when nothing could be measured."""
    values = errors.distance[errors.located]
    if not len(values):
        return []
    return [
        plots.error_histogram(values),
        plots.pck_curves({"": (values, int(errors.labelled.sum()))}),
        plots.calibration_plot(results.evaluation["calibration"]["bins"]),
    ]


def keypoint_rows(evaluation: Mapping[str, Any], errors: Errors) -> list[dict[str, Any]]:
    """Return the rows of the table of keypoints.

    Each has name, count, mean, median, part within 5 px, and bars 0..1 of the distribution. All
    bars have the same bins, so that rows can be compared.
    """
    values = errors.distance[errors.located]
    if len(values):
        edges = np.geomspace(0.25, max(float(np.percentile(values, 99)), 4.0), SPARKLINE_BINS)
    rows = []
    for k, row in enumerate(evaluation["per_keypoint"]):
        own = errors.distance[errors.located[:, k], k]
        bars: list[float] = []
        if len(own):
            counts = np.bincount(np.searchsorted(edges, own), minlength=SPARKLINE_BINS + 1)
            bars = (counts / counts.max()).round(3).tolist()
        labelled = int(errors.labelled[:, k].sum())
        rows.append(
            {
                **row,
                "within": float((own <= 5).sum() / labelled) if labelled else None,
                "bars": bars,
            }
        )
    return rows


def _worst_first(errors: Errors) -> np.ndarray:
    """Return the frames with an error by falling mean error."""
    counts = errors.located.sum(-1)
    mean = np.where(counts, np.nansum(errors.distance, -1) / np.maximum(counts, 1), -1.0)
    order = np.argsort(-mean, kind="stable")
    return order[mean[order] >= 0]


def _frame_tile(results: RunResults, errors: Errors, truth: np.ndarray, row: int) -> Tile:
    dataset: PoseDataset = results.side.dataset
    frame = int(results.side.frames[row])
    image = dataset.read_images([frame])[0]
    distance, names = errors.distance[row], dataset.keypoint_names
    caption: dict[str, Any] = {
        "frame": frame,
        "where": _short_location(dataset.location(frame)),
        "mean": None,
    }
    if errors.located[row].any():
        worst = int(np.nanargmax(distance))
        caption |= {
            "mean": float(np.nanmean(distance)),
            "worst_px": float(distance[worst]),
            "worst_name": names[worst],
        }
        caption["confidence"] = float(results.found.confidence[row].mean())
    labelled = np.where(errors.labelled[row][:, None], truth[row], np.nan)
    return compared_tile(image, labelled, results.found.points[row, 0], caption)


def _short_location(location: str) -> str:
    """Return a location without the folders of its file: `flies.h5:/images[5]`."""
    file, colon, inside = location.partition(":")
    return Path(file).name + colon + inside


def augmented_tiles(images: np.ndarray, points: np.ndarray) -> list[Tile]:
    """Return images of the first training step as the network saw them, with their keypoints."""
    return [whole_tile(image, at[0]) for image, at in zip(images, points, strict=True)]


def flat_rows(document: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Return the values of a nested document as text, by dotted key."""
    rows: list[tuple[str, str]] = []
    for key, value in document.items():
        if isinstance(value, dict):
            rows += flat_rows(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, _as_text(value)))
    return rows


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)
