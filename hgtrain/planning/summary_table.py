"""The summary of a network as text, for people."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

HEADER = ("layer", "type", "output", "parameters", "field px", "MACs")


def summary_text(summary: dict[str, Any]) -> str:
    """Return the table of layers by group, with totals.

    What else `summary.summarize` found follows, a line each.
    """
    rows: list[Sequence[str]] = [HEADER]
    for group, layers in _groups(summary["layers"]):
        members = list(layers)
        rows.append((f"{group}:", "", "", "", "", ""))
        rows += [_row(layer) for layer in members]
        params, macs = (sum(layer[key] for layer in members) for key in ("params", "macs"))
        rows.append((f"  {group} in total", "", "", f"{params:,}", "", _short(macs)))
    rows.append(
        ("total", "", "", f"{summary['params']:,}", "", _short(summary["flops_per_image"] // 2))
    )
    return "\n".join([*_aligned(rows), "", *_aligned(_facts(summary))])


def _groups(layers: list[dict[str, Any]]) -> Iterator[tuple[str, Iterator[dict[str, Any]]]]:
    return groupby(layers, key=lambda layer: _group(layer["name"]))


def _group(name: str) -> str:
    if name.endswith("Head"):
        return "head"
    return "stem" if name == "input" or name.startswith("stem") else name.split("_")[0]


def _row(layer: dict[str, Any]) -> tuple[str, ...]:
    shape = " x ".join(map(str, layer["output_shape"]))
    field = f"{layer['receptive_field_px']:g}"
    macs = _short(layer["macs"]) if layer["macs"] else ""
    return (
        f"  {layer['name']}",
        layer["type"],
        shape,
        f"{layer['params']:,}" if layer["params"] else "",
        field,
        macs,
    )


def _facts(summary: dict[str, Any]) -> Iterator[tuple[str, str]]:
    height, width, channels = summary["input_shape"]
    yield "images", " x ".join(map(str, summary["image_shape"]))
    yield "network's input", f"{height} x {width} x {channels}"
    yield "head", _head(summary["head"])
    named = summary["outputs_by_name"]
    stacks = len(summary["outputs"]) // len(named)
    shapes = {name: " x ".join(map(str, shape)) for name, shape in named.items()}
    yield "outputs", ", ".join(f"{stacks} of {shape} ({name})" for name, shape in shapes.items())
    yield (
        "strides",
        "stem {stem_stride}, max {max_stride}, output {output_stride}".format(**summary),
    )
    yield "parameters", f"{summary['params']:,}, {summary['trainable_params']:,} of them trained"
    fields = ", ".join(f"{px:g}" for px in summary["receptive_field_px"])
    yield "receptive field", f"{fields} px of the network's input, after each stack"
    yield "animals", _animals(summary)
    yield "FLOPs", f"{_short(summary['flops_per_image'])} an image, forward"
    yield "training memory", _memory(summary)
    device = summary["device"]
    batch = device["largest_batch"]
    fits = f"a batch of {batch} fits" if batch else "not even one image fits"
    yield "device", f"{device['name']}, {_gigabytes(device['memory'])}: {fits}"
    if "steps_per_s" in summary:
        yield (
            "measured",
            f"{summary['steps_per_s']:.2f} steps/s, {summary['images_per_s']:.1f} images/s",
        )


def _head(head: dict[str, Any]) -> str:
    facts = [str(head["type"])]
    if head.get("max_instances"):
        facts.append(f"at most {head['max_instances']} animals in an image")
    if "anchor" in head:
        facts.append(f"around {head['anchor'] or 'the middle of the bounding box'}")
    if head.get("crop_size_px"):
        facts.append(f"crops of {head['crop_size_px']} px of the network's input")
    return ", ".join(facts)


def _animals(summary: dict[str, Any]) -> str:
    animal = summary["animal_px"]
    if animal is None:
        return "not known without the dataset"
    field = summary["receptive_field_px"][-1]
    verdict = "the receptive field covers them"
    if field < animal:
        stride = summary["max_stride"]
        verdict = (
            f"larger than the receptive field: raise model.backbone.max_stride (now {stride}) or "
            "stacks"
        )
    return f"{animal:.0f} px long, 95% are at most that: {verdict}"


def _memory(summary: dict[str, Any]) -> str:
    memory = summary["memory"]
    parts = ", ".join(
        f"{name} {_gigabytes(size)}" for name, size in memory.items() if name != "total"
    )
    total, precision = _gigabytes(memory["total"]), summary["precision"]
    return f"about {total} at batch {summary['batch_size']} in {precision} ({parts})"


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    table = list(rows)
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    first, *others = range(len(widths))
    # Numbers line up at their end; a table of two columns is a name and a sentence.
    right = {"parameters", "field px", "MACs"} & set(table[0])
    aligned = []
    for row in table:
        cells = [row[first].ljust(widths[first])]
        for column in others:
            justify = str.rjust if table[0][column] in right else str.ljust
            cells.append(justify(row[column], widths[column]))
        aligned.append("  ".join(cells).rstrip())
    return aligned


def _short(count: int) -> str:
    for factor, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return str(count)


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**28 else f"{size / 2**20:.3g} MiB"
