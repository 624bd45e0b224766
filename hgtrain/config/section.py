"""What every section of a config is."""

from pydantic import BaseModel, ConfigDict, model_validator


class Section(BaseModel):
    """A section: unknown keys are errors, an empty one has its defaults, nothing writes into it."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: object) -> object:
        return {} if value is None else value
