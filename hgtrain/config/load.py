"""Reads a config from a file and the command line, writes one, and gives its JSON Schema."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from hgtrain.config import fields
from hgtrain.config.messages import describe
from hgtrain.config.rules import broken_rules
from hgtrain.config.schema import Config, ModelConfig, Section
from hgtrain.config.section import TypedSection
from hgtrain.config.source import ConfigSource, Problem
from hgtrain.config.yaml import KeyPath, Value, dotted, plain_scalar
from hgtrain.errors import ConfigError


def _flat_defaults(section: type[BaseModel], path: KeyPath = ()) -> Iterator[tuple[KeyPath, Any]]:
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from _flat_defaults(field.annotation, (*path, name))
        else:
            yield (*path, name), field.get_default()


_DEFAULTS = dict(_flat_defaults(Config))
_PATH_KEYS = (
    ("data", "train"),
    ("data", "validation"),
    ("training", "initial_weights"),
    ("output", "run_dir"),
)


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """Return the config of a YAML file with its overrides.

    Relative paths, those in overrides too, become absolute from the file's folder. A section that
    is empty or null has its defaults; a range of augmentation that is [0, 0] becomes None.

    Args:
        path: The YAML file.
        overrides: `KEY=VALUE` with the value in YAML, later ones stronger.

    Raises:
        ConfigError: The config has mistakes; the message holds every one, one a line.
    """
    source = ConfigSource(path, overrides)
    _make_paths_absolute(source.values, Path(path).parent.absolute())
    problems = list(source.problems)
    wrong: list[KeyPath] = []
    try:
        config = Config.model_validate(source.values)
    except ValidationError as error:
        findings = error.errors(include_url=False)
        wrong = [finding["loc"] for finding in findings]
        problems += [
            Problem(source.origin(finding["loc"]), describe(finding, _DEFAULTS))
            for finding in findings
        ]
    for keys, text in broken_rules(_valid_values(source.values, wrong)):
        given = next(
            (place for key in keys if (place := tuple(key.split("."))) in source.origins), ()
        )
        problems.append(Problem(source.origin(given), text))
    problems += _keys_of_other_types(source)
    if problems:
        problems.sort(key=lambda problem: problem.origin.order)
        raise ConfigError(
            "\n".join(f"{problem.origin.text}: {problem.text}" for problem in problems)
        )
    config._path = source.name
    config._places = {key: origin.text for key, origin in source.origins.items()}
    return config


def _keys_of_other_types(source: ConfigSource) -> Iterator[Problem]:
    """Yield a problem for each key of a section of `model` that belongs to another type of it."""
    model = source.values.get("model")
    for name, field in ModelConfig.model_fields.items():
        kind, section = field.annotation, model.get(name) if isinstance(model, dict) else None
        if isinstance(kind, type) and issubclass(kind, TypedSection) and isinstance(section, dict):
            yield from _keys_of_others(source, ("model", name), kind, section)


def _keys_of_others(
    source: ConfigSource, path: KeyPath, kind: type[TypedSection], section: Mapping[Any, Any]
) -> Iterator[Problem]:
    chosen = section.get("type", kind.TYPES[0])
    if chosen not in kind.TYPES:
        return
    for key in section:
        owners = kind.TYPES_OF_KEY.get(str(key), (chosen,))
        if chosen not in owners:
            yield Problem(
                source.origin((*path, key)),
                f"{dotted((*path, key))} belongs to {' and '.join(owners)}, and "
                f"{dotted(path)}.type is {chosen} (remove {key}, or set type to {owners[0]})",
            )


def _make_paths_absolute(values: dict[str, Value], folder: Path) -> None:
    for section, key in _PATH_KEYS:
        inner = values.get(section)
        if isinstance(inner, dict) and key in inner:
            inner[key] = _absolute(inner[key], folder)


def _absolute(value: Value, folder: Path) -> Value:
    # What is wrong stays as it is, for the message.
    if isinstance(value, list) and all(map(fields.is_path, value)):
        return [_absolute(item, folder) for item in value]
    if not fields.is_path(value) or value.startswith(fields.BUILTIN_PREFIX):
        return value
    try:
        expanded = Path(value).expanduser()
    except RuntimeError:  # no such user: a file of that name may still be there
        expanded = Path(value)
    return os.path.normpath(folder / expanded)


def _valid_values(values: Mapping[Any, Any], wrong: list[KeyPath]) -> dict[str, Any]:
    """Return dotted keys and their values, or defaults.

    Those that are wrong or in a wrong section are left out.
    """
    result = {}
    for path, default in _DEFAULTS.items():
        if not any(path[:length] in wrong for length in range(1, len(path) + 1)):
            section = values
            for part in path[:-1]:
                section = section.get(part) or {}
            result[dotted(path)] = section.get(path[-1], default)
    return result


class _Dumper(yaml.SafeDumper):
    pass


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # SafeDumper quotes what YAML 1.1 would misread, such as on; quoted too is what only our reader
    # takes for a number.
    style = None if isinstance(plain_scalar(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(
    tuple,
    lambda dumper, items: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", items, flow_style=True
    ),
)


def dump_config(config: Config) -> str:
    """Return YAML with every key, in the order of the documentation, that loads to an equal config.

    `output.run_dir` is always null, so that a run repeated from its own config gets a directory of
    its own.
    """
    return dump_values(config.model_dump())


def dump_values(values: Mapping[str, Any]) -> str:
    """Return what `dump_config` gives of a config, from its sections with their keys and values."""
    output = values["output"] | {"run_dir": None}
    return yaml.dump(
        {**values, "output": output},
        Dumper=_Dumper,
        sort_keys=False,
        allow_unicode=True,
        width=1000,
    )


def config_json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a config, for editors.

    It does not contain the rules that only several keys together can break.
    """
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Config.model_json_schema()}
