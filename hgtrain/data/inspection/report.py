"""The report on datasets as text, for people."""

from collections.abc import Iterator
from typing import Any


def report_text(report: dict[str, Any]) -> str:
    """Return the report of `checks.inspect_datasets` as lines to read."""
    height, width, channels = report["image_shape"]
    of_frame = report["keypoints_per_frame"]
    facts = [
        ("files", ", ".join(report["files"])),
        ("format", report["format"]),
        (
            "frames",
            f"{report['frames']:,} of {height}x{width}x{channels}, "
            f"{report['image_bytes'] / 2**20:,.1f} MiB",
        ),
        ("groups", str(report["groups"] or "-")),
        (
            "animals",
            ", ".join(f"{count} in {frames} frames" for count, frames in report["animals"].items()),
        ),
        *_several_facts(report),
        (
            "keypoints",
            f"{of_frame['min']} to {of_frame['max']} a frame, {of_frame['mean']:.1f} on average",
        ),
    ]
    counts = ("labelled", "hidden", "absent", "missing", "outside")
    rows = [
        ("keypoint", *counts),
        *((row["name"], *(str(row[key]) for key in counts)) for row in report["per_keypoint"]),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    table = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    missing = [
        f"missing together: {', '.join(row['keypoints'])} in {row['animals']} animals"
        for row in report["missing_together"]
    ]
    problems = [f"{problem['level']}: {problem['text']}" for problem in report["problems"]]
    ending = [] if problems else ["nothing looks wrong"]
    lines = [f"{name:<9}  {value}" for name, value in facts]
    return "\n".join([*lines, "", *table, "", *missing, *report["notes"], *problems, *ending])


def _several_facts(report: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what matters where a frame has several animals, name and sentence."""
    of_frame, overlaps, crop = (report[key] for key in ("animals_per_frame", "overlaps", "crop"))
    if of_frame["max"] < 2:
        return
    empty = report["empty_frames"]
    yield (
        "a frame",
        f"{of_frame['min']} to {of_frame['max']} animals, {of_frame['mean']:.1f} on average"
        + (f"; {empty} frames without any" if empty else ""),
    )
    near = overlaps["near_px"]
    yield (
        "overlaps",
        f"animals' bounding boxes in {overlaps['boxes']} frames"
        + (f"; keypoints nearer than {near:.1f} px in {overlaps['near']}" if near else ""),
    )
    yield (
        "crops",
        f"of {crop['size_px']} px around {crop['anchor'] or 'the middle of the bounding box'} cut "
        f"off {crop['cut_off']} of {crop['keypoints']:,} labelled keypoints",
    )
