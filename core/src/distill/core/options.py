"""The base of everything that a user can configure."""

from pydantic import BaseModel, ConfigDict


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
