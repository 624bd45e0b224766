"""What every section of a config is."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import (
    BaseModel,
    ConfigDict,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)


class Section(BaseModel):
    """A section: unknown keys are errors, an empty one has its defaults, nothing writes into it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: object) -> object:
        return {} if value is None else value


class TypedSection(Section):
    """A section of one of several types, some of whose keys belong to some of them.

    Keys that belong to other types than `type` are mistakes where they are given, and are left out
    where a config is written.
    """

    TYPES: ClassVar[tuple[str, ...]]
    """Of `type`, the default first."""

    TYPES_OF_KEY: ClassVar[Mapping[str, tuple[str, ...]]]
    """Which types a key belongs to; a key that is not here belongs to all."""

    type: str

    @property
    def own_keys(self) -> tuple[str, ...]:
        """Return the keys that belong to this type."""
        return self.keys_of_type(self.type)

    @classmethod
    def keys_of_type(cls, name: str) -> tuple[str, ...]:
        """Return the keys that belong to a type."""
        return tuple(key for key in cls.model_fields if name in cls.TYPES_OF_KEY.get(key, (name,)))

    @model_serializer(mode="wrap")
    def _without_other_types(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {key: value for key, value in handler(self).items() if key in self.own_keys}
