"""What the models of all documents share: their base, and the types of single values.

A document is a YAML file in Kubernetes' envelope (apiVersion, kind, metadata, spec). Keys are camelCase in the file and
snake_case here; the docstring under each field is its description in the published JSON Schema.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, WithJsonSchema
from pydantic.alias_generators import to_camel
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import PydanticCustomError

from clusterguard.documents.values import (
    check_cron,
    check_label,
    check_name,
    check_selector,
    duration_text,
    read_duration,
)
from clusterguard.velero.findings import Rule

__all__ = [
    "API_VERSION",
    "REFERENCE_PATTERN",
    "Cron",
    "Duration",
    "FindingName",
    "Label",
    "Model",
    "Name",
    "Omitted",
    "Port",
    "Selector",
    "Text",
    "ZeroableDuration",
    "listed",
    "wrong",
]

API_VERSION: Final = "clusterguard.dev/v1alpha1"

REFERENCE_PATTERN: Final = r"|.*\$\{.*"
"""What an editor must let pass in the place of anything: it becomes a value when the document is loaded."""

_DURATION_PATTERN: Final = rf"^(([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+{REFERENCE_PATTERN})$"


def _serial(duration: timedelta) -> str:
    return duration_text(duration)


Duration: TypeAlias = Annotated[
    timedelta,
    PlainValidator(read_duration),
    PlainSerializer(_serial),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["90s", "15m", "1h30m", "7d"]}),
]
ZeroableDuration: TypeAlias = Annotated[
    timedelta,
    PlainValidator(lambda written: read_duration(written, zero=True)),
    PlainSerializer(_serial),
    WithJsonSchema({"type": "string", "pattern": _DURATION_PATTERN, "examples": ["0s", "30s"]}),
]


def _printable(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError("text on one line is expected here")
    return text


Omitted: TypeAlias = SkipJsonSchema[None]
"""That a key may be left out, which is not null: ``Label | Omitted = None``."""

Label: TypeAlias = Annotated[str, AfterValidator(check_label)]
Name: TypeAlias = Annotated[str, AfterValidator(check_name)]
Selector: TypeAlias = Annotated[str, AfterValidator(check_selector), Field(examples=["app=web,tier!=cache"])]
Text: TypeAlias = Annotated[str, AfterValidator(_printable)]
Cron: TypeAlias = Annotated[str, AfterValidator(check_cron), Field(examples=["0 4 * * 1"])]
FindingName: TypeAlias = Annotated[Rule, WithJsonSchema({"type": "string", "enum": [str(rule) for rule in Rule]})]
Port: TypeAlias = Annotated[int, Field(ge=1, le=65535)]


def wrong(message: str, *, key: str | None = None) -> PydanticCustomError:
    """Return an error about a mapping, or about one of its keys (as it is written in the file)."""
    return PydanticCustomError("clusterguard", "{message}", {"message": message, "key": key})


class Model(BaseModel):
    """What every mapping of a document shares: no unknown keys, no coercion, nothing changes afterwards."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        defer_build=True,  # of a policy or a drill, what it holds is built with it
        validate_by_alias=True,
        serialize_by_alias=True,
    )

    @classmethod
    def keys(cls) -> list[str]:
        """Return all keys as the file has them."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    def given(self, *names: str) -> list[str]:
        """Return those of the named fields that hold something."""
        return [name for name in names if getattr(self, name) not in (None, (), False, "")]

    def written(self, name: str) -> str:
        """Return a field's key as the file has it."""
        return type(self).model_fields[name].alias or name

    def need_one(self, *names: str, optional: bool = False) -> None:
        """Refuse two of the named fields together, and, unless that is fine, none of them.

        Raises:
            PydanticCustomError: It is so.
        """
        found = self.given(*names)
        keys = [self.written(name) for name in names]
        if len(found) > 1:
            raise wrong(f"`{'` and `'.join(self.written(name) for name in found)}` exclude each other")
        if not found and not optional:
            raise wrong(f"one of {listed(keys)} is needed")


def listed(words: list[str]) -> str:
    """Write keys as a sentence has them: ```a`, `b` or `c```."""
    quoted = [f"`{word}`" for word in words]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} or {quoted[-1]}"
