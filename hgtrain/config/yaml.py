"""YAML as plain values, each key with the line it was written on.

Scalars are read by the JSON-like core rules of YAML 1.2, not by PyYAML's 1.1: there `xla: on` is a
boolean, `1e-4` is text, `1:30` is 90 and `010` is 8. Here a number looks like a number and
everything else is text.
"""

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol, TypeAlias

import yaml

MAX_DEPTH = 20
MAX_VALUES = 10_000

KeyPath = tuple[str | int, ...]
Value: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"


class Document(NamedTuple):
    """What came of a YAML text.

    Attributes:
        value: The value of the text.
        lines: The line of every key and list item.
        problems: Mistakes that left the text readable, each with its line.
    """

    value: Value
    lines: dict[KeyPath, int]
    problems: list[tuple[int, str]]


class YamlError(Exception):
    """A text that cannot be read as YAML; line and column from 1."""

    def __init__(self, line: int, column: int, text: str) -> None:
        super().__init__(text)
        self.line, self.column = line, column


def dotted(path: KeyPath) -> str:
    """Return `model.backbone.stacks` for a key path, unprintable characters escaped."""
    return printable(".".join(str(part) for part in path))


def printable(text: str) -> str:
    """Return the text on one line, unprintable characters escaped."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text
    )


def shown(value: object, longest: int = 160) -> str:
    """Return a value as a config would hold it, on one line, shortened to `longest` characters."""
    text = printable(json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= longest else text[: longest - 3] + "..."


class _Mark(Protocol):
    @property
    def line(self) -> int: ...
    @property
    def column(self) -> int: ...


def _position(mark: _Mark | None) -> tuple[int, int]:
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _integer(text: str) -> int | float:
    # Python refuses to read an int of thousands of digits; as a float it is merely out of range.
    return int(text) if len(text) <= 20 else float(text)


_PLAIN: tuple[tuple[re.Pattern[str], Callable[[str], Value]], ...] = (
    (re.compile(r"(?:~|null|Null|NULL)?"), lambda _: None),
    (re.compile(r"true|True|TRUE"), lambda _: True),
    (re.compile(r"false|False|FALSE"), lambda _: False),
    (re.compile(r"[-+]?(?:0|[1-9][0-9]*)"), _integer),
    (re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"), float),
    (re.compile(r"[-+]?\.(?:inf|Inf|INF)"), lambda text: float(text.replace(".", ""))),
    (re.compile(r"\.(?:nan|NaN|NAN)"), lambda _: float("nan")),
)


def plain_scalar(text: str) -> Value:
    """Return what an unquoted YAML scalar means.

    It is None, a boolean, an int, a float or the text itself.
    """
    return next((read(text) for pattern, read in _PLAIN if pattern.fullmatch(text)), text)


class _Builder:
    """Builds the value from PyYAML's events.

    PyYAML's own constructors recurse without bound and forget the lines.
    """

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events
        self.lines: dict[KeyPath, int] = {}
        self.problems: list[tuple[int, str]] = []
        self.line = 1
        self._anchors: dict[str, Value] = {}
        self._count = 0
        self._build: dict[type, Callable[[Any, KeyPath], Value]] = {
            yaml.ScalarEvent: lambda event, _: self._scalar(event),
            yaml.SequenceStartEvent: self._sequence,
            yaml.MappingStartEvent: self._mapping,
            yaml.AliasEvent: self._alias,
        }

    def document(self) -> Document:
        """Return the only document; None for an empty one."""
        value: Value = None
        is_first = True
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                if not is_first:
                    raise self._error(event, "a second document begins (remove the --- line)")
                value, is_first = self._value(self._next(), (), self.line), False
        return Document(value, self.lines, self.problems)

    def _next(self) -> yaml.Event:
        event = next(self._events)
        self.line, _ = _position(event.start_mark)
        return event

    def _error(self, event: yaml.Event, text: str) -> YamlError:
        return YamlError(*_position(event.start_mark), text)

    def _place(self, event: yaml.Event, path: KeyPath, line: int) -> None:
        self.lines[path] = line
        self._count += 1
        if len(path) > MAX_DEPTH:
            raise self._error(event, f"lists and sections are nested more than {MAX_DEPTH} deep")
        if self._count > MAX_VALUES:
            raise self._error(event, f"more than {MAX_VALUES} values, counting what aliases repeat")

    def _value(self, event: yaml.Event, path: KeyPath, line: int) -> Value:
        self._place(event, path, line)
        tag, anchor = getattr(event, "tag", None), getattr(event, "anchor", None)
        if tag is not None:
            raise self._error(event, f"tags are not read, got {printable(tag)} (remove it)")
        value = self._build[type(event)](event, path)
        if anchor is not None and not isinstance(event, yaml.AliasEvent):
            self._anchors[anchor] = value
        return value

    def _scalar(self, event: yaml.ScalarEvent) -> Value:
        if event.style is None:
            return plain_scalar(event.value)
        # JSON escapes a character beyond U+FFFF as two surrogates; PyYAML leaves them apart.
        return event.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")

    def _sequence(self, _: yaml.Event, path: KeyPath) -> list[Value]:
        items: list[Value] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(event, (*path, len(items)), self.line))
        return items

    def _mapping(self, _: yaml.Event, path: KeyPath) -> dict[str, Value]:
        result: dict[str, Value] = {}
        first: dict[str, int] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent):
                raise self._error(event, "a key must be text, got a list, a section or an alias")
            key, line = event.value, self.line
            value = self._value(self._next(), (*path, key), line)
            if self._is_readable(event, path, line):
                if key in first:
                    name, before = dotted((*path, key)), first[key]
                    again = f"{name} is given twice, first on line {before} (remove one)"
                    self.problems.append((line, again))
                first.setdefault(key, line)
                result[key] = value
        return result

    def _is_readable(self, key: yaml.ScalarEvent, path: KeyPath, line: int) -> bool:
        place = f" in {dotted(path)}" if path else ""
        if key.value == "<<":
            self.problems.append(
                (line, f"merge keys (<<) are not read{place} (write the keys out)")
            )
        elif not isinstance(self._scalar(key), str):
            self.problems.append(
                (line, f"a key must be text, got {shown(self._scalar(key))}{place}")
            )
        else:
            return True
        return False

    def _alias(self, event: yaml.AliasEvent, path: KeyPath) -> Value:
        # An anchor is known only when its value is complete, so that a value cannot hold itself.
        if event.anchor not in self._anchors:
            raise self._error(event, f"alias *{event.anchor} names nothing complete before it")
        value = copy.deepcopy(self._anchors[event.anchor])
        for inner in paths_of(value, path):
            self._place(event, inner, self.line)
        return value


def paths_of(value: Value, path: KeyPath) -> Iterator[KeyPath]:
    """Return the paths of all keys and list items below a value at `path`."""
    items: Iterable[tuple[str | int, Value]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield (*path, key)
        yield from paths_of(inner, (*path, key))


def parse_yaml(text: str) -> Document:
    """Return the value of one YAML document with the line of each key; None for an empty text.

    An alias is replaced by what it names.

    Raises:
        YamlError: The text has anything else than mappings, lists and scalars: tags, several
            documents, values that hold themselves, more than `MAX_DEPTH` levels or `MAX_VALUES`
            values.
    """
    builder = _Builder(yaml.parse(text, Loader=yaml.SafeLoader))
    try:
        return builder.document()
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        column = error.position - before.rfind("\n")
        raise YamlError(
            before.count("\n") + 1, column, f"unreadable character #x{error.character:04x}"
        ) from error
    except yaml.MarkedYAMLError as error:
        position = _position(error.problem_mark or error.context_mark)
        raise YamlError(*position, printable(f"not YAML: {error.problem}")) from error
    except (ValueError, OverflowError) as error:
        # PyYAML lets these through, e.g. for "\UFFFFFFFF".
        raise YamlError(builder.line, 1, f"not YAML: {printable(str(error))}") from error
