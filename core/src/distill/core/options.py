"""The base of everything that a user can configure."""

from inspect import isabstract
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, model_validator


class Options(BaseModel):
    """Frozen, keyword-only settings; unknown keys are refused.

    A component's options are its fields: the string under a field is its description, and `distill show`,
    validation messages and the JSON schema for editors all come from here.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
        ser_json_inf_nan="constants",
    )

    example: ClassVar[dict[str, Any]] = {}
    """Options with which the conformance kit makes the component, where defaults will not do."""
    conformance: ClassVar[dict[str, str]] = {}
    """Checks of the kit that do not apply to the component, and why."""
    known_failures: ClassVar[dict[str, str]] = {}
    """Checks of the kit that the component does not pass as yet, and why; one that it passes is a failure."""

    def but_for(self, given: Self | None) -> Self:
        """These options, but for those that were said of others: options inside of them count as said where they differ
        from their defaults."""
        if given is None:
            return self
        said = {name: getattr(given, name) for name in given.model_fields_set}
        return self.model_copy(update={name: _within(getattr(self, name), value) for name, value in said.items()})

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, values: Any) -> Any:
        """Options given as a mapping keep what it leaves out from the field's default, not from their class."""
        if not isinstance(values, dict):
            return values
        filled = dict(values)
        for name, field in cls.model_fields.items():
            given, default = values.get(name), field.default
            if isinstance(given, dict) and isinstance(default, Options) and _same_name(given, default):
                merged = {**dict(default), **given}
                filled[name] = type(default).model_validate(merged) if isabstract(field.annotation) else merged
        return filled


def _within(mine: Any, given: Any) -> Any:
    """What becomes of an option that may hold options itself."""
    if not isinstance(given, Options) or type(given) is not type(mine):
        return given
    differing = {name: value for name, value in given if value != type(given).model_fields[name].default}
    return mine.model_copy(update=differing)


def _same_name(given: dict[str, Any], default: Options) -> bool:
    """Whether a mapping means the default's own kind, where kinds are told apart by a name."""
    return "name" not in type(default).model_fields or given.get("name", dict(default)["name"]) == dict(default)["name"]
