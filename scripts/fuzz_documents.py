"""What `fuzz.py` does to configs, and to any text or document."""

import random
from copy import deepcopy
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel

from hgtrain.config.choices import HEAD_TYPES
from hgtrain.config.schema import Config

ODD_TEXTS = (
    "",
    " ",
    "\0",
    "\u00e9\U0001f600",
    "../../../etc/hostname",
    "/dev/zero",
    "x" * 5000,
    "a,b",
    "\\",
    ".",
    "..",
)
ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, 10**30, 1e308, float("nan"), float("inf"), "", "1",
    "\ud800", "\0", [],
    {}, [[]], [None], [1, 2], [[0, 1]], {"a": 1}, [["nose", "nose"]], *ODD_TEXTS,
)  # fmt: skip


def odd_tree(tree: Any, chance: random.Random) -> Any:
    """Return a document with one of its values changed, deleted or repeated."""
    holder, key = None, None
    here = tree
    while isinstance(here, (dict, list)) and here and (holder is None or chance.random() < 0.85):
        holder = here
        key = chance.choice(list(here)) if isinstance(here, dict) else chance.randrange(len(here))
        here = here[key]
    if holder is None:
        return deepcopy(chance.choice(ODD))
    match chance.randrange(6):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, list):
            holder[key:key] = [here] * chance.choice((1, 2, 300))  # type: ignore[misc]
        case 2 if isinstance(here, (int, float)):
            holder[key] = str(here)
        case 3 if isinstance(here, (int, float)):
            holder[key] = [here]
        case _:
            holder[key] = deepcopy(chance.choice(ODD))
    return tree


TOKENS = (
    "&a ", "*a", "<<: *a", "!!python/object/apply:os.system ['true']", "!!binary ", "[" * 200,
    "{" * 30, "a: &b [*b]",
    "\t", "\0", "\x85", "---\n", "...\n", "? ", "- ", ": ", "|\n", ">-\n", '"', "'", "%YAML 9.9\n",
    "1e999", "9" * 5000,
    "0x7f", ".nan", "null", "on", "\U0001f600", "\\UFFFFFFFF", '"\\ud800"', "key: value\n" * 50,
    "x" * 5000,
    "model: {backbone: {stacks: 99999999}}\n", "data: {train: /etc/passwd}\n", "training: []\n",
    "augmentation: {scale: [2, 1]}\n",
)  # fmt: skip


def mutated_text(text: str, chance: random.Random) -> str:
    """Return a text with a part changed, cut out, repeated or put in."""
    at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
    lines = text.splitlines(keepends=True) or [""]
    line = chance.randrange(len(lines))
    before, after = lines[:line], lines[line:]
    odd = (0, 9, 10, 32, 58, 91, 123, 0xFEFF, 0x1F600, chance.randrange(0xD7FF))
    return chance.choice(
        (
            lambda: text[:at] + chance.choice(TOKENS) + text[at:],
            lambda: text[:at] + chr(chance.choice(odd)) + text[at + 1 :],
            lambda: text[:at] + text[min(to, at + 40) :],
            lambda: "".join((*before, lines[line] * chance.randint(2, 20), *after[1:])),
            lambda: "".join((*before, "  " * chance.randint(0, 4) + chance.choice(lines), *after)),
            lambda: text[:to],
        )
    )()


LIKELY: tuple[Any, ...] = (
    *HEAD_TYPES, "exact", "greedy", "nose", 0, 1, 2, 4, 16, 256, 0.05, 0.5, 1.5, [0.5, 2],
    [1, 8, 8], None, True, False,
)  # fmt: skip
"""Values that some key takes."""


Keys = dict[tuple[str, ...], tuple[Any, ...]]


def _keys(section: type[BaseModel] = Config, above: tuple[str, ...] = ()) -> Keys:
    """Return the path of every key of a config, with values that it takes."""
    found: Keys = {}
    for name, field in section.model_fields.items():
        kind, default = field.annotation, field.default
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found |= _keys(kind, (*above, name))
            continue
        choices = [choice for part in (kind, *get_args(kind)) for choice in get_args(part)]
        values = [choice for choice in choices if isinstance(choice, (str, bool, int))]
        if type(default) in (int, float):
            values += [default, default * 2, type(default)(default / 2)]
        if type(default) is bool:
            values += [True, False]
        if isinstance(default, tuple):
            values += [list(default), None]
        found[(*above, name)] = tuple(values) or LIKELY
    return found


KEYS = _keys()
HEAD_KEYS = [key for key in KEYS if key[:2] == ("model", "head")]


def _with_keys(text: str, chance: random.Random) -> str:
    """Return a config with some keys set, often those of a head, to what they take or not."""
    tree = yaml.safe_load(text)
    tree.setdefault("model", {}).setdefault("head", {})["type"] = chance.choice(HEAD_TYPES)
    for _ in range(chance.randint(1, 5)):
        key = chance.choice((*KEYS, *HEAD_KEYS * 3, ("data", "complete")))
        *above, name = key
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        values = chance.choices((KEYS[key], LIKELY, ODD), weights=(80, 12, 8))[0]
        place[name] = deepcopy(chance.choice(values))
    if chance.random() < 0.2:
        tree = odd_tree(tree, chance)
    return yaml.safe_dump(tree)


def make_config(base: str, path: Path, chance: random.Random) -> None:
    """Write a mutated config."""
    has_keys = chance.random() < 0.5
    text = _with_keys(base, chance) if has_keys else base
    for _ in range(chance.choice((0, 0, 1)) if has_keys else chance.randint(1, 6)):
        text = mutated_text(text, chance)
    data = text.encode("utf-8", "surrogatepass")
    if chance.random() < 0.2 and data:
        mutable = bytearray(data)
        for _ in range(chance.randint(1, 16)):
            mutable[chance.randrange(len(mutable))] ^= 1 << chance.randrange(8)
        data = bytes(mutable)
    path.write_bytes(data)
