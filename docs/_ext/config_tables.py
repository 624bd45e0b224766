"""The config reference as Markdown, from the schema; needs no Sphinx."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hgtrain.config.choices import BACKBONES_OF_KEY, HEADS_OF_KEY
from hgtrain.config.load import config_json_schema

Schema = Mapping[str, Any]

TYPES = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}

OWNERS = {"model.backbone": ("backbones", BACKBONES_OF_KEY), "model.head": ("heads", HEADS_OF_KEY)}
"""Sections of several types: what those are called, and which of them a key belongs to."""


def reference() -> str:
    """Return a heading and a table of its keys for each section of a config, in its order."""
    schema = config_json_schema()
    return "\n".join(_sections(schema, schema, ""))


def _sections(schema: Schema, section: Schema, path: str) -> Iterator[str]:
    keys = {key: _resolved(schema, value) for key, value in section["properties"].items()}
    own = {key: value for key, value in keys.items() if "properties" not in value}
    if path:
        yield f"## {path}\n"
        yield from _paragraphs(section)
    if own:
        yield from _table(path, own, set(section.get("required", ())))
    for key, value in keys.items():
        if "properties" in value:
            yield from _sections(schema, value, f"{path}.{key}" if path else key)


def _paragraphs(section: Schema) -> Iterator[str]:
    for paragraph in section.get("description", "").split("\n\n"):
        yield " ".join(paragraph.split()) + "\n"


def _table(path: str, keys: Mapping[str, Schema], required: set[str]) -> Iterator[str]:
    title, owners_of_key = OWNERS.get(path, ("", None))
    titles = ["key", "values", "default", "meaning", *([title] if title else ())]
    yield _row(titles)
    yield _row(["---"] * len(titles))
    for key, value in keys.items():
        default = "required" if key in required else f"`{_yaml(value.get('default'))}`"
        cells = [f"`{key}`", values_of(value), default, value["description"]]
        if owners_of_key is not None:
            owners = owners_of_key.get(key)
            cells.append("all" if owners is None else ", ".join(f"`{name}`" for name in owners))
        yield _row(cells)
    yield ""


def _row(cells: list[str]) -> str:
    # What looks like HTML would not be shown.
    return f"| {' | '.join(cell.replace('<', '&lt;').replace('|', '&#124;') for cell in cells)} |"


def values_of(value: Schema) -> str:
    """Return in words what a key of a JSON Schema takes.

    Raises:
        ValueError: For a kind of value that this does not know.
    """
    if "anyOf" in value:
        return ", or ".join(values_of(choice) for choice in value["anyOf"])
    if "enum" in value:
        return ", ".join(f"`{_yaml(choice)}`" for choice in value["enum"])
    if "const" in value:
        return f"`{_yaml(value['const'])}`"
    kind = value.get("type")
    if kind == "null":
        return "`null`"
    if kind == "array":
        return _list_of(value)
    if kind not in TYPES:
        raise ValueError(f"no words for {value}")
    return TYPES[kind] + _limits(value)


def _list_of(value: Schema) -> str:
    if "prefixItems" not in value:
        return f"a list of {values_of(value['items'])}"
    items = [values_of(item) for item in value["prefixItems"]]
    if len(set(items)) > 1:
        raise ValueError(f"no words for a list of different values: {value}")
    return f"a list of {len(items)}, each {items[0]}"


def _limits(value: Schema) -> str:
    if "minimum" not in value:
        return ""
    return f" from {_number(value['minimum'])} to {_number(value['maximum'])}"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f"{value:.10g}"


def _yaml(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _resolved(schema: Schema, value: Schema) -> Schema:
    reference = value.get("$ref")
    return value if reference is None else schema["$defs"][reference.rpartition("/")[2]]
