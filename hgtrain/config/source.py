"""The values of a config, from its file and its `--set`s, and the place each key was given at."""

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from hgtrain.config.yaml import (
    MAX_DEPTH,
    KeyPath,
    Value,
    YamlError,
    parse_yaml,
    paths_of,
    printable,
    shown,
)
from hgtrain.errors import ConfigError

MAX_BYTES = 2**20
HDF5 = b"\x89HDF\r\n\x1a\n"
"""What such a file begins with; its library is not loaded here."""


class Origin(NamedTuple):
    """Where a value was given: `a.yaml:14` or `--set KEY=VALUE`; sorts as the reader meets them."""

    order: tuple[int, int]
    text: str


class Problem(NamedTuple):
    """One mistake: where, and a sentence without the place."""

    origin: Origin
    text: str


def _read_text(path: str | PathLike[str]) -> str:
    name = printable(str(path))
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise ConfigError(f"{name}: no such file, expected a config in YAML") from error
    except IsADirectoryError as error:
        fix = " (its config is config.yaml inside)" if Path(path, "config.yaml").is_file() else ""
        raise ConfigError(f"{name}: is a folder, expected a config in YAML{fix}") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{name}: cannot be read: {reason}") from error
    if data.startswith(HDF5):
        raise ConfigError(
            f"{name}: is a dataset, expected a config in YAML (`hgtrain init {name} -o "
            "CONFIG.yaml` writes one for it)"
        )
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{name}: larger than 1 MiB, expected a config in YAML")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x}"
        raise ConfigError(
            f"{name}:{line}: not UTF-8, got {found} (save the file as UTF-8)"
        ) from error


class ConfigSource:
    """The values of a config file with its overrides, and where each key was given.

    Attributes:
        name: The file as the user named it.
        values: Nested dicts.
        problems: What was wrong with the text.
    """

    def __init__(self, path: str | PathLike[str], overrides: Sequence[str] = ()) -> None:
        """Read a file of YAML, then each `KEY=VALUE`, a later one over an earlier.

        An override replaces what stands at its key, whole sections and lists too, and adds sections
        that are missing.

        Raises:
            ConfigError: The file cannot be read.
        """
        self.name = printable(str(path))
        try:
            document = parse_yaml(_read_text(path))
        except YamlError as error:
            raise ConfigError(f"{self.name}:{error.line}:{error.column}: {error}") from error
        if document.value is None:
            document = document._replace(value={})
        if not isinstance(document.value, dict):
            found = shown(document.value)
            raise ConfigError(
                f"{self.name}:1: a config must be sections such as data: and model:, got {found}"
            )
        self.values: dict[str, Value] = document.value
        self.origins = {path: self._at_line(line) for path, line in document.lines.items() if path}
        self.problems = [Problem(self._at_line(line), text) for line, text in document.problems]
        for number, override in enumerate(overrides):
            self._set(override, Origin((1, number), f"--set {printable(override)}"))

    def origin(self, path: KeyPath) -> Origin:
        """Return where a key, or else the nearest section around it, was given.

        This is the file where none of them was.
        """
        around = (self.origins.get(path[:length]) for length in range(len(path), 0, -1))
        return next((origin for origin in around if origin), Origin((0, 0), self.name))

    def _at_line(self, line: int) -> Origin:
        return Origin((0, line), f"{self.name}:{line}")

    def _set(self, override: str, origin: Origin) -> None:
        key, equals, text = override.partition("=")
        path = tuple(key.strip().split("."))
        if not equals or not all(path) or len(path) > MAX_DEPTH:
            self.problems.append(
                Problem(origin, "expected KEY=VALUE such as training.batch_size=4")
            )
            return
        try:
            document = parse_yaml(text)
        except YamlError as error:
            self.problems.append(Problem(origin, f"the value cannot be read: {error}"))
            return
        self.problems += [Problem(origin, problem) for _, problem in document.problems]
        self._place(path, document.value, origin)

    def _place(self, path: tuple[str, ...], value: Value, origin: Origin) -> None:
        section = self.values
        for depth, part in enumerate(path[:-1], start=1):
            inner = section.get(part)
            if not isinstance(inner, dict):
                inner = section[part] = {}
                self.origins[path[:depth]] = origin
            section = inner
        section[path[-1]] = value
        self.origins = {
            known: where for known, where in self.origins.items() if known[: len(path)] != path
        }
        self.origins |= dict.fromkeys((path, *paths_of(value, path)), origin)
