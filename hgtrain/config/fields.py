"""The kinds of values that config keys take, each with its check."""

import difflib
import math
from types import NoneType
from typing import Annotated, TypeGuard

from pydantic import AfterValidator, BeforeValidator, Field

from hgtrain.config.yaml import shown

BUILTIN_PREFIX = "builtin:"
BUILTIN_NAMES = ("flies", "fly-groups")
"""Datasets that need no file: `builtin:flies`; `data.builtin_datasets` draws each."""


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def one_of(*choices: int | None) -> BeforeValidator:
    """Return the check of a whole number among `choices`.

    Pydantic's Literal alone takes True and 1.0 for 1.
    """
    expected = f"{', '.join(map(shown, choices[:-1]))} or {shown(choices[-1])}"

    def check(value: object) -> object:
        if type(value) not in (int, NoneType) or value not in choices:
            raise ValueError(f"must be {expected}, got {shown(value)}")
        return value

    return BeforeValidator(check)


def _power_of_two(value: int) -> int:
    if value & (value - 1):
        below = 1 << (value.bit_length() - 1)
        raise ValueError(f"must be a power of two, got {value} (nearest: {below}, {2 * below})")
    return value


def is_path(value: object) -> TypeGuard[str]:
    """Return whether a file can have this name, and a config in UTF-8 can hold it."""
    try:
        return isinstance(value, str) and b"\0" not in value.encode() and bool(value)
    except UnicodeEncodeError:
        return False


def _path(value: object) -> object:
    if not is_path(value):
        raise ValueError(f"must be a path, got {shown(value)}")
    return value


def _name(value: object) -> object:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a keypoint's name, got {shown(value)}")
    return value


def _files(value: object, expected: str = "a file or a list of files") -> object:
    names = [value] if isinstance(value, str) else value
    if (
        not isinstance(names, list | tuple)
        or not names
        or not all(isinstance(name, str) for name in names)
    ):
        raise ValueError(f"must be {expected}, got {shown(value)}")
    for position, name in enumerate(names):
        _path(name)
        builtin = name.removeprefix(BUILTIN_PREFIX)
        if builtin != name and builtin not in BUILTIN_NAMES:
            nearest = difflib.get_close_matches(builtin, BUILTIN_NAMES, cutoff=0.0)[0]
            raise ValueError(
                f"names an unknown dataset, got {shown(name)} (did you mean "
                f"{BUILTIN_PREFIX}{nearest}?)"
            )
        if name in names[:position]:
            raise ValueError(f"names {shown(name)} twice (remove one)")
    return value if isinstance(value, str) else tuple(names)


def _validation(value: object) -> object:
    if not _is_number(value):
        return _files(value, "a fraction greater than 0 and less than 1, a file or a list of files")
    if not 0 < value < 1:
        raise ValueError(f"must be greater than 0 and less than 1, got {shown(value)}")
    if not _MIN_FRACTION <= value <= _MAX_FRACTION:
        raise ValueError(f"must be from {_MIN_FRACTION} to {_MAX_FRACTION}, got {shown(value)}")
    return float(value)


def _off_or_at_least(least: float) -> AfterValidator:
    """Return the check of a number that is 0, which is off, or at least so large."""

    def check(value: float) -> float:
        if 0 < value < least:
            raise ValueError(f"must be 0 or at least {least}, got {shown(value)}")
        return value

    return AfterValidator(check)


def _range(least: float, most: float, smallest: float = 0.0) -> BeforeValidator:
    """Return the check of `[low, high]`; `[0, 0]` becomes None, which is off.

    Args:
        least: That either end may be.
        most: The same.
        smallest: How far from 0 an end must be that is not 0.
    """

    def check(value: object) -> tuple[float, float] | None:
        if value is None:
            return None
        if (
            not isinstance(value, list | tuple)
            or len(value) != 2
            or not all(map(_is_number, value))
        ):
            raise ValueError(f"must be [low, high] or null, two finite numbers, got {shown(value)}")
        low, high = map(float, value)
        if low == high == 0:
            return None
        if low > high:
            raise ValueError(
                f"must have low <= high, got {shown(value)} (write {shown([value[1], value[0]])})"
            )
        if low < least:
            raise ValueError(
                f"must have both ends at least {least}, got {shown(value)} (null turns it off)"
            )
        if high > most:
            raise ValueError(
                f"must have both ends at most {most}, got {shown(value)} (null turns it off)"
            )
        if any(0 < abs(end) < smallest for end in (low, high)):
            raise ValueError(
                f"must have both ends 0 or at least {smallest} away from it, got {shown(value)} "
                "(null turns it off)"
            )
        return low, high

    return BeforeValidator(check)


def _shape(value: object) -> object:
    if value is None:
        return None
    sides = tuple(value) if isinstance(value, list | tuple) else ()
    if (
        len(sides) != 3
        or any(type(side) is not int or side < 1 for side in sides)
        or sides[2] not in (1, 3)
    ):
        raise ValueError(
            f"must be [height, width, channels] with 1 or 3 channels, or null, got {shown(value)}"
        )
    if max(sides) > _MAX_SIZE:
        raise ValueError(f"must have sides of at most {_MAX_SIZE} pixels, got {shown(value)}")
    return sides


# No honest config meets these. Beyond them a graph takes for ever to build, numbers are not finite
# in float32, or what they are to do is lost in its roundings.
_MAX_INT = 2**31 - 1
_MAX_SIZE = 2**16
_MAX_SHIFT, _MAX_FACTOR, _MAX_FROM_ZERO = 10_000, 100, 50
_MIN_SHIFT, _MIN_FACTOR, _MIN_FROM_ZERO = 1e-4, 0.01, 0.001
_MIN_FRACTION, _MAX_FRACTION = 1e-6, 1 - 1e-6
_FileName = Annotated[str, Field(min_length=1)]
_FileNames = Annotated[tuple[_FileName, ...], Field(min_length=1)]

Count = Annotated[int, Field(ge=1, le=_MAX_INT)]
CountOrZero = Annotated[int, Field(ge=0, le=_MAX_INT)]
Size = Annotated[int, Field(ge=1, le=_MAX_SIZE)]
Filters = Annotated[int, Field(ge=1, le=4096)]
PowerOfTwo = Annotated[int, Field(ge=1, le=1024), AfterValidator(_power_of_two)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
Positive = Annotated[float, Field(ge=1e-6, le=1e6)]
Rate = Annotated[float, Field(ge=1e-10, le=1e6)]
RateOrZero = Annotated[float, Field(ge=0, le=1e6), _off_or_at_least(1e-12)]
NoiseOrZero = Annotated[float, Field(ge=0, le=1e6), _off_or_at_least(1e-4)]
Minutes = Annotated[float, Field(ge=0.01, le=1e6)]
Fraction = Annotated[float, Field(ge=_MIN_FRACTION, le=_MAX_FRACTION)]

Name = Annotated[_FileName, BeforeValidator(_name)]
Folder = Annotated[_FileName, BeforeValidator(_path)]
Files = Annotated[_FileName | _FileNames, BeforeValidator(_files)]
FractionOrFiles = Annotated[Fraction | _FileName | _FileNames, BeforeValidator(_validation)]

_Shift = Annotated[float, Field(ge=-_MAX_SHIFT, le=_MAX_SHIFT)]
_Factor = Annotated[float, Field(ge=_MIN_FACTOR, le=_MAX_FACTOR)]
_FromZero = Annotated[float, Field(ge=0, le=_MAX_FROM_ZERO)]

Range = Annotated[tuple[_Shift, _Shift] | None, _range(-_MAX_SHIFT, _MAX_SHIFT, _MIN_SHIFT)]
PositiveRange = Annotated[tuple[_Factor, _Factor] | None, _range(_MIN_FACTOR, _MAX_FACTOR)]
RangeFromZero = Annotated[
    tuple[_FromZero, _FromZero] | None, _range(0, _MAX_FROM_ZERO, _MIN_FROM_ZERO)
]
Shape = Annotated[tuple[Size, Size, Size] | None, BeforeValidator(_shape)]
