"""One offline page about a finished run, `report.html`."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hgtrain import files
from hgtrain.config.load import dump_values
from hgtrain.data.split import Split, Subset
from hgtrain.evaluate.keypoint_errors import Errors
from hgtrain.evaluate.matching import FrameMatch, frame_matches, precision_at_recall
from hgtrain.log import format_seconds
from hgtrain.poses import Poses
from hgtrain.report import plots
from hgtrain.report.frames import Compared, compare, frame_tile, worst_first
from hgtrain.report.tiles import Tile, whole_tile
from hgtrain.rundir import layout
from hgtrain.rundir.records import read_provenance

REPORT = "report.html"
MISSING = "-"
GRID_FRAMES, WORST_FRAMES = 12, 20
SPARKLINE_BINS = 16
CURVES_AT_OKS = (0.5, 0.75, 0.95)
OF_SEVERAL = {"val_oks_map": "OKS mAP", "val_f1": "F1"}
"""What metrics.jsonl may have of heads for several animals, and its name on the page."""


class RunResults(NamedTuple):
    """What a page shows of a run.

    Attributes:
        folder: The run directory.
        config: The sections of its config, with their keys and values.
        split: The frames of each side.
        labels: What it should find in the validation frames, as `labels_of` gives it.
        found: What it finds there.
        evaluation: As evaluation.json has it.
        augmented: Images of the first training step, and their points, as `augmented_batch` gives
            them.
    """

    folder: Path
    config: dict[str, Any]
    split: Split
    labels: tuple[np.ndarray, np.ndarray]
    found: Poses
    evaluation: dict[str, Any]
    augmented: tuple[np.ndarray, np.ndarray]

    @property
    def several(self) -> bool:
        """Return whether a frame may hold several animals."""
        return "instances" in self.evaluation

    @property
    def compared(self) -> Compared:
        """Return what is labelled in the validation frames with what was found there."""
        return compare(*self.labels, self.found, self.several)

    @property
    def matches(self) -> list[FrameMatch]:
        """Return how alike found and labelled animals are, as average precision has it."""
        return frame_matches(*self.labels, self.found.points, self.found.scores)

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
    return MISSING if value is None else format(value, form)


def run_page(results: RunResults) -> dict[str, Any]:
    """Return what the template of a run's page needs."""
    side, compared, history = results.side, results.compared, results.history
    errors, order = compared.errors, worst_first(compared)[:WORST_FRAMES]
    count = len(side.frames)
    names = [row["name"] for row in results.evaluation["per_keypoint"]]
    grid = np.unique(np.linspace(0, count - 1, min(GRID_FRAMES, count)).round().astype(int))
    return {
        "title": results.folder.resolve().name,
        "result": result_line(results, history),
        "evaluation": results.evaluation,
        "curves": training_figures(history),
        "error_figures": error_figures(results, errors),
        "keypoints": keypoint_rows(results.evaluation, errors),
        "several": results.several,
        "animal_figures": animal_figures(results) if results.several else [],
        "edges": side.dataset.edges if len(names) == len(side.dataset.keypoint_names) else (),
        "tiles": {
            int(i): frame_tile(compared, int(i), side, names) for i in sorted({*grid, *order})
        },
        "grid": grid.tolist(),
        "worst": order.tolist(),
        "augmented": augmented_tiles(*results.augmented),
        "config": dump_values(results.config),
        "provenance": flat_rows(read_provenance(results.folder)),
    }


def result_line(results: RunResults, history: Sequence[Mapping[str, Any]]) -> str:
    """Return the run in one sentence."""
    evaluation = results.evaluation
    error, pck = evaluation["error_px"], evaluation["pck"]["5"]
    if results.several:
        found = _animals_found(evaluation)
    elif error["median"] is None:
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


def _animals_found(evaluation: Mapping[str, Any]) -> str:
    animals, error = evaluation["instances"], evaluation["error_px"]
    found = (
        f"{animals['matched']} of {animals['labelled']} animals found on {evaluation['frames']} "
        f"validation frames, {animals['missed']} missed, {animals['extra']} extra"
    )
    if error["median"] is None:
        return found
    return (
        f"{found}; median error {error['median']:.2f} px (mean {error['mean']:.2f}) of the "
        f"animals found, OKS mAP {number(evaluation['oks_map'], '.3f')}"
    )


def training_figures(history: Sequence[Mapping[str, Any]], only_results: bool = False) -> list[str]:
    """Return the curves of loss, what is validated, learning rate and speed.

    There are none for a run without a finished epoch, and none of what no epoch has.

    Args:
        history: The rows of metrics.jsonl.
        only_results: Whether learning rate and speed are left out.
    """
    if not history:
        return []
    steps = [row["step"] for row in history]

    def of(key: str, factor: float = 1.0) -> plots.Curve:
        values = [row.get(key) for row in history]
        return steps, [None if value is None else factor * value for value in values]

    stacks = len(history[0]["loss_per_stack"])
    losses = {
        "training" if stacks == 1 else f"training, stack {i + 1}": (
            steps,
            [row["loss_per_stack"][i] for row in history],
        )
        for i in range(stacks)
    }
    results = [
        plots.lines(
            "Loss",
            losses | {"validation, all stacks" if stacks > 1 else "validation": of("val_loss")},
            "loss",
        ),
        *(
            plots.lines(f"Validation {title}", {name: of(key)}, y_label)
            for key, title, name, y_label in (
                ("val_error_px", "error", "mean", "mean error in px"),
                *((key, name, name, name) for key, name in OF_SEVERAL.items()),
            )
            if any(row.get(key) is not None for row in history)
        ),
    ]
    if only_results:
        return results
    return [
        *results,
        plots.lines("Learning rate", {"learning rate": of("learning_rate")}, "learning rate"),
        plots.lines("Throughput", {"images": of("images_per_s")}, "images per second"),
        plots.lines("Waiting for data", {"wait": of("data_wait_fraction", 100)}, "% of the time"),
    ]


def animal_figures(results: RunResults) -> list[str]:
    """Return the curves of precision over recall; none without labelled animals."""
    matches = results.matches
    curves = {at: precision_at_recall(matches, at) for at in CURVES_AT_OKS}
    known = {
        f"from OKS {at:.2f} on: AP {precision.mean():.3f}": precision
        for at, precision in curves.items()
        if precision is not None
    }
    return [plots.precision_recall(known, "Precision and recall of animals")] if known else []


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

    Each has name, count, mean, median, part within 5 px, part found, and bars 0..1 of the
    distribution. All bars have the same bins, so that rows can be compared.
    """
    values = errors.distance[errors.located]
    if len(values):
        edges = np.geomspace(0.25, max(float(np.percentile(values, 99)), 4.0), SPARKLINE_BINS)
    rows = []
    for k, row in enumerate(evaluation["per_keypoint"]):
        own = errors.distance[..., k][errors.located[..., k]]
        bars: list[float] = []
        if len(own):
            counts = np.bincount(np.searchsorted(edges, own), minlength=SPARKLINE_BINS + 1)
            bars = (counts / counts.max()).round(3).tolist()
        labelled = int(errors.labelled[..., k].sum())
        rows.append(
            {
                **row,
                "found": len(own) / labelled if labelled else None,
                "within": float((own <= 5).sum() / labelled) if labelled else None,
                "bars": bars,
            }
        )
    return rows


def augmented_tiles(images: np.ndarray, points: np.ndarray) -> list[Tile]:
    """Return images of the first training step as the network saw them, with their keypoints."""
    return [whole_tile(image, at) for image, at in zip(images, points, strict=True)]


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
