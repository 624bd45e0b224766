"""The figures of a report as inline SVG.

Their colours are the page's, so that they follow its light and dark mode.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from hgtrain.evaluate.matching import RECALL_LEVELS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCHES = (4.4, 2.9)
"""One size for a phone's width and a column of a wide screen, so that text is never scaled far."""

_INK, _GRID = "#010203", "#010204"
_SERIES = tuple(f"#01030{i}" for i in range(6))
_PAGE_COLOURS = {_INK: "var(--ink)", _GRID: "var(--line)"} | {
    c: f"var(--s{i})" for i, c in enumerate(_SERIES)
}
"""Colours matplotlib draws with, and what the page puts in their place."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.6,
    "figure.constrained_layout.use": True,
}

Curve = tuple[Sequence[float], Sequence[float | None]]
"""x and y of a line; None is a gap."""

BINS = 40
FEW_POINTS = 30


def figure(title: str, draw: Callable[["Axes"], None]) -> str:
    """Return what `draw` draws as an SVG element.

    It has no size, so that it fills the width it is given.
    """
    # Takes half a second; only a report needs it.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({**_STYLE, "svg.hashsalt": title}):
        canvas = Figure(figsize=SIZE_INCHES)
        axes = canvas.add_subplot()
        axes.set_title(title)
        draw(axes)
        text = StringIO()
        canvas.savefig(
            text,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")),
        )
    return _for_page(text.getvalue(), title)


def _for_page(svg: str, title: str) -> str:
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    # Numbered ids repeat from figure to figure; those that are referred to are hashes.
    svg = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(
        r'(<svg[^>]*?) height="[^"]*"', rf'\1 role="img" aria-label="{title}"', svg, count=1
    )
    for drawn, shown in _PAGE_COLOURS.items():
        svg = svg.replace(drawn, shown)
    return re.sub(r"'DejaVu Sans'[^;\"]*", "var(--font)", svg)


def lines(title: str, curves: Mapping[str, Curve], y_label: str, x_label: str = "step") -> str:
    """Return a figure with one line for each name.

    The axis is logarithmic where positive values span a decade.
    """
    known = [value for _, y in curves.values() for value in y if value is not None]
    is_wide = bool(known) and min(known) > 0 and max(known) > 10 * min(known)

    def draw(axes: "Axes") -> None:
        for i, (name, (x, y)) in enumerate(curves.items()):
            values = [np.nan if value is None else value for value in y]
            marker = "o" if len(values) <= FEW_POINTS else None
            axes.plot(
                x, values, color=_SERIES[i % len(_SERIES)], label=name, marker=marker, markersize=3
            )
        if is_wide:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
            shown = "25" if max(known) < 100 * min(known) else ""
            axes.yaxis.set_minor_formatter(
                lambda value, _: f"{value:g}" if f"{value:e}"[0] in shown else ""
            )
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        if len(curves) > 1:
            _add_legend(axes)

    return figure(title, draw)


def error_histogram(errors: np.ndarray) -> str:
    """Return the distribution of errors `(n,)` px over logarithmic bins.

    The median and the 95th percentile are marked.
    """

    def draw(axes: "Axes") -> None:
        edges = _log_edges(errors)
        axes.hist(
            np.clip(errors, edges[0], edges[-1]), bins=edges.tolist(), color=_SERIES[0], alpha=0.75
        )
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        for value, name, style in (
            (np.median(errors), "median", "-"),
            (np.percentile(errors, 95), "95 % below", "--"),
        ):
            axes.axvline(value, color=_SERIES[1], linestyle=style, label=f"{name}: {value:.2f} px")
        axes.set_xlabel("error in px")
        axes.set_ylabel("keypoints")
        _add_legend(axes)

    return figure("Error distribution", draw)


def _add_legend(axes: "Axes") -> None:
    # Below the axes: nothing that is drawn can lie under it.
    axes.figure.legend(loc="outside lower center", ncol=2)


def _log_edges(errors: np.ndarray) -> np.ndarray:
    largest = max(float(errors.max()), 1.0)
    return np.geomspace(min(0.1, largest / 10), largest, BINS + 1)


def pck_curves(
    runs: Mapping[str, tuple[np.ndarray, int]], title: str = "Keypoints within a distance"
) -> str:
    """Return the part of labelled keypoints within a distance.

    Args:
        runs: By name, the errors `(n,)` px and the number labelled.
        title: Of the figure.
    """
    reach = max(
        [10.0, *(float(np.percentile(errors, 90)) for errors, _ in runs.values() if len(errors))]
    )
    radii = np.linspace(0, min(reach, 50.0), 101)
    curves = {
        name: [100 * float((errors <= radius).sum()) / max(count, 1) for radius in radii]
        for name, (errors, count) in runs.items()
    }

    def draw(axes: "Axes") -> None:
        for i, (name, y) in enumerate(curves.items()):
            axes.plot(radii, y, color=_SERIES[i % len(_SERIES)], label=name)
        axes.set_ylim(0, 100)
        axes.set_xlim(0, radii[-1])
        axes.set_xlabel("distance in px")
        axes.set_ylabel("% of labelled keypoints")
        if len(curves) > 1:
            _add_legend(axes)

    return figure(title, draw)


def precision_recall(curves: Mapping[str, np.ndarray], title: str) -> str:
    """Return precision over recall.

    Args:
        curves: By name, the precision at `RECALL_LEVELS`, as `precision_at_recall` gives it.
        title: Of the figure.
    """

    def draw(axes: "Axes") -> None:
        for i, (name, precision) in enumerate(curves.items()):
            axes.plot(RECALL_LEVELS, precision, color=_SERIES[i % len(_SERIES)], label=name)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("recall: part of the labelled animals that is found")
        axes.set_ylabel("precision: part that is right")
        _add_legend(axes)

    return figure(title, draw)


def calibration_plot(bins: Sequence[Mapping[str, Any]]) -> str:
    """Return mean and median error over confidence, one point for each tenth of the keypoints."""
    confidence = [part["confidence"] for part in bins]
    curves: dict[str, Curve] = {
        "mean error": (confidence, [part["mean"] for part in bins]),
        "median error": (confidence, [part["median"] for part in bins]),
    }
    return lines("Does confidence order the errors?", curves, "error in px", "confidence")
