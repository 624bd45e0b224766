"""What several keys of a config must fulfil together."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hgtrain.config.choices import BACKBONE_TYPES
from hgtrain.config.yaml import shown

_Files = float | str | list[str]

_BACKBONE = "model.backbone."


class Rule(NamedTuple):
    """A check over the values of some keys.

    Attributes:
        keys: The dotted keys whose values are checked.
        check: Gives None, or what is wrong as a sentence about the first of the keys.
    """

    keys: tuple[str, ...]
    check: Callable[..., str | None]


def _max_above_stem(max_stride: int, stem_stride: int) -> str | None:
    if max_stride > stem_stride:
        return None
    return (
        f"must be greater than stem_stride ({stem_stride}), got {max_stride} "
        f"(nearest: {2 * stem_stride})"
    )


def _output_not_below_stem(output_stride: int, stem_stride: int) -> str | None:
    if output_stride >= stem_stride:
        return None
    return (
        f"must be at least stem_stride ({stem_stride}), got {output_stride} "
        f"(set output_stride to {stem_stride}, or stem_stride to {output_stride})"
    )


def _output_not_above_max(output_stride: int, max_stride: int) -> str | None:
    if output_stride <= max_stride:
        return None
    return f"must be at most max_stride ({max_stride}), got {output_stride} (nearest: {max_stride})"


def _stacks_start_where_they_end(output_stride: int, stem_stride: int, stacks: int) -> str | None:
    if stacks == 1 or output_stride <= stem_stride:
        return None
    return (
        f"must equal stem_stride ({stem_stride}) when stacks is {stacks}, got {output_stride} "
        f"(set output_stride to {stem_stride}, or stacks to 1)"
    )


def _ends_at_its_stem(output_stride: int, stem_stride: int, kind: str, stacks: int) -> str | None:
    # Of several stacks the other rule speaks.
    if kind == BACKBONE_TYPES[0] or output_stride <= stem_stride or stacks > 1:
        return None
    return (
        f"must equal stem_stride ({stem_stride}) where type is {kind}, got {output_stride} "
        f"(set output_stride to {stem_stride})"
    )


def _stem_halves_filters_twice(filters: int, kind: str) -> str | None:
    if kind == BACKBONE_TYPES[0] or filters % 4 == 0:
        return None
    below = filters - filters % 4
    nearest = f"{below}, {below + 4}" if below else f"{below + 4}"
    return f"must be a multiple of 4 where type is {kind}, got {filters} (nearest: {nearest})"


def _ends_below_start(min_learning_rate: float, learning_rate: float) -> str | None:
    if min_learning_rate <= learning_rate:
        return None
    return f"must be at most learning_rate ({shown(learning_rate)}), got {shown(min_learning_rate)}"


def _groups_divide_one_set(group_by: str | None, validation: _Files) -> str | None:
    if group_by is None or isinstance(validation, float):
        return None
    return (
        f"must be null where data.validation names files, got {shown(group_by)} "
        "(nothing is split; set it to null, or data.validation to a fraction)"
    )


def _sides_share_no_file(validation: _Files, train: _Files) -> str | None:
    if isinstance(validation, float):
        return None
    both = [name for name in _listed(validation) if name in _listed(train)]
    return (
        f"must not hold a file of data.train, got {shown(both[0])} (use a fraction to split a file)"
        if both
        else None
    )


def _listed(files: _Files) -> list[str]:
    return files if isinstance(files, list) else [str(files)]


def _xla_is_not_deterministic(xla: str, deterministic: bool) -> str | None:
    # Its gradient of max pooling has no deterministic form.
    if xla == "on" and deterministic:
        return "must be off or auto with training.deterministic: true, got on"
    return None


def _recomputed_alone(recompute: bool, synchronize_batch_norm: bool) -> str | None:
    # The statistics would have to be exchanged a second time.
    if recompute and synchronize_batch_norm:
        return (
            "must be false where training.synchronize_batch_norm is true, got true "
            "(set one of them to false)"
        )
    return None


RULES = (
    Rule((_BACKBONE + "max_stride", _BACKBONE + "stem_stride"), _max_above_stem),
    Rule((_BACKBONE + "output_stride", _BACKBONE + "stem_stride"), _output_not_below_stem),
    Rule((_BACKBONE + "output_stride", _BACKBONE + "max_stride"), _output_not_above_max),
    Rule(
        (_BACKBONE + "output_stride", _BACKBONE + "stem_stride", _BACKBONE + "stacks"),
        _stacks_start_where_they_end,
    ),
    Rule(
        tuple(_BACKBONE + key for key in ("output_stride", "stem_stride", "type", "stacks")),
        _ends_at_its_stem,
    ),
    Rule((_BACKBONE + "filters", _BACKBONE + "type"), _stem_halves_filters_twice),
    Rule(("training.min_learning_rate", "training.learning_rate"), _ends_below_start),
    Rule(("training.xla", "training.deterministic"), _xla_is_not_deterministic),
    Rule(("training.recompute", "training.synchronize_batch_norm"), _recomputed_alone),
    Rule(("data.group_by", "data.validation"), _groups_divide_one_set),
    Rule(("data.validation", "data.train"), _sides_share_no_file),
)


def broken_rules(valid: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Return the keys and the sentence of each broken rule.

    A rule that needs a key not in `valid` is left out.

    Args:
        valid: Dotted keys with the values, defaults included, that are right on their own.
    """
    for keys, check in RULES:
        if all(key in valid for key in keys) and (text := check(*(valid[key] for key in keys))):
            yield keys, f"{keys[0]} {text}"
