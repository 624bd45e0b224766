"""Pydantic's findings about a config in the words of its keys."""

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic_core import ErrorDetails

from hgtrain.config.yaml import KeyPath, dotted, plain_scalar, shown

REQUIRED = "data.train is required: a file, a list of files, or builtin:flies"

_Expected = Callable[[Mapping[str, Any]], str]


def _limit(value: float) -> str:
    return shown(int(value) if value == int(value) else value)


_EXPECTED: dict[str, _Expected] = {
    "int_type": lambda _: "a whole number",
    "float_type": lambda _: "a number",
    "finite_number": lambda _: "a finite number",
    "bool_type": lambda _: "true or false",
    "greater_than": lambda context: f"greater than {_limit(context['gt'])}",
    "greater_than_equal": lambda context: f"at least {_limit(context['ge'])}",
    "less_than": lambda context: f"less than {_limit(context['lt'])}",
    "less_than_equal": lambda context: f"at most {_limit(context['le'])}",
    # Half of a character beyond U+FFFF, which only an escape can write.
    "string_unicode": lambda _: "text of whole characters",
    "literal_error": lambda context: context["expected"].replace("'", ""),
}


def describe(error: ErrorDetails, defaults: Mapping[KeyPath, Any]) -> str:
    """Return one sentence for one finding of pydantic.

    It names the key, what was expected, the value and the fix.

    Args:
        error: The finding.
        defaults: The path of every key of a config, sections left out, with its default.
    """
    path: KeyPath = tuple(error["loc"])
    kind, value, context = error["type"], error["input"], error.get("ctx", {})
    if kind == "missing":
        return REQUIRED
    if kind == "extra_forbidden":
        return _unknown_key(path, defaults)
    if kind == "value_error":
        return f"{dotted(path)} {context['error']}"
    if kind == "model_type":
        keys = ", ".join(
            dict.fromkeys(str(key[len(path)]) for key in defaults if key[: len(path)] == path)
        )
        return f"{dotted(path)} must be a section with the keys {keys}, got {shown(value)}"
    or_null = " or null" if defaults[path] is None else ""
    expected = _EXPECTED[kind](context)
    fix = next(_FIXES[kind](value, expected), None) if kind in _FIXES else None
    hint = f" ({fix})" if fix else ""
    return f"{dotted(path)} must be {expected}{or_null}, got {shown(value)}{hint}"


def _number_fixes(value: object, _: str) -> Iterator[str]:
    if isinstance(value, str) and type(plain_scalar(value)) in (int, float):
        yield "without the quotes"
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**31:
        yield f"write {int(value)}"


def _boolean_fixes(value: object, _: str) -> Iterator[str]:
    for word, names in (
        ("true", ("yes", "on", "y", "true", "1")),
        ("false", ("no", "off", "n", "false", "0")),
    ):
        if str(value).lower() in names:
            yield f"write {word}"


def _choice_fixes(value: object, expected: str) -> Iterator[str]:
    choices = re.findall(r"\w+", expected)
    # What PyYAML and editors make of on, off and none.
    for odd, name in ((True, "on"), (False, "off"), (None, "none")):
        if value is odd and name in choices:
            yield f"write {name}"
    if isinstance(value, str):
        # By letters alone float16 is nearer to float32 than to mixed_float16.
        parts = [choice for choice in choices if value.lower() in choice.split("_")]
        near = [*parts, *difflib.get_close_matches(value.lower(), choices, n=1)]
        yield from (f"did you mean {choice}?" for choice in near)


_FIXES: dict[str, Callable[[object, str], Iterator[str]]] = {
    "int_type": _number_fixes,
    "float_type": _number_fixes,
    "bool_type": _boolean_fixes,
    "literal_error": _choice_fixes,
}


def _unknown_key(path: KeyPath, defaults: Mapping[KeyPath, Any]) -> str:
    section, name = path[:-1], str(path[-1]).lower().replace("-", "_")
    known = {key[:length]: None for key in defaults for length in range(1, len(key) + 1)}
    here = {str(key[-1]): key for key in known if key[:-1] == section}
    anywhere = {str(key[-1]): key for key in known}
    near = _nearest(name, here) or anywhere.get(name) or _nearest(name, anywhere)
    fix = f"did you mean {dotted(near)}?" if near else f"known here: {', '.join(here)}"
    return f"unknown key {dotted(path)} ({fix})"


def _nearest(name: str, keys: Mapping[str, KeyPath]) -> KeyPath | None:
    return next((keys[near] for near in difflib.get_close_matches(name, keys, n=1)), None)
