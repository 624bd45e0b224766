"""An evaluation as a text table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def evaluation_text(folder: Path, evaluation: Mapping[str, Any]) -> str:
    """Return the main metrics of a run, one a line.

    Args:
        folder: The run directory.
        evaluation: As `evaluate_side` gives it.
    """
    error = evaluation["error_px"]
    rows = [
        ("run", str(folder)),
        ("frames", str(evaluation["frames"])),
        ("keypoints", str(evaluation["keypoints"])),
        *(_rows_of_animals(evaluation) if "instances" in evaluation else ()),
        ("error, mean", _number(error["mean"], ".2f", " px")),
        ("error, median", _number(error["median"], ".2f", " px")),
        ("error, 95% below", _number(error["p95"], ".2f", " px")),
        ("OKS", _number(evaluation["oks"], ".3f")),
        *((f"within {px} px", _number(part, ".1%")) for px, part in evaluation["pck"].items()),
    ]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def _rows_of_animals(evaluation: Mapping[str, Any]) -> list[tuple[str, str]]:
    animals = evaluation["instances"]
    return [
        ("animals found", f"{animals['matched']} of {animals['labelled']}"),
        ("animals missed", str(animals["missed"])),
        ("animals extra", str(animals["extra"])),
        ("OKS mAP", _number(evaluation["oks_map"], ".3f")),
        ("group purity", _number(evaluation["group_purity"], ".3f")),
    ]


def _number(value: float | None, form: str, unit: str = "") -> str:
    return "-" if value is None else format(value, form) + unit
