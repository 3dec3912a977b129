"""Label selectors, as kubectl takes them and as specs have them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field

from clusterguard.errors import ConfigError

__all__ = ["LabelRequirement", "LabelSelector"]

_Operator: TypeAlias = Literal["In", "NotIn", "Exists", "DoesNotExist"]
_SETS = re.compile(r"^(?P<key>[^\s=!,()]+)\s+(?P<word>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALS = re.compile(r"^(?P<key>[^\s=!,()]+)\s*(?P<sign>==|=|!=)\s*(?P<value>[^\s=!,()]*)$")
_EXISTS = re.compile(r"^(?P<no>!\s*)?(?P<key>[^\s=!,()]+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelRequirement:
    """One condition on one label."""

    key: str
    operator: _Operator
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels meets it."""
        present = self.key in labels
        match self.operator:
            case "Exists":
                return present
            case "DoesNotExist":
                return not present
            case "In":
                return present and labels[self.key] in self.values
            case _:
                return not present or labels[self.key] not in self.values

    def __str__(self) -> str:
        match self.operator:
            case "Exists":
                return self.key
            case "DoesNotExist":
                return f"!{self.key}"
            case _:
                return f"{self.key} {self.operator.lower()} ({','.join(self.values)})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSelector:
    """Conditions on labels, all of which must hold.

    Attributes:
        labels: Labels with exactly these values.
        requirements: Further conditions.
    """

    labels: Annotated[Mapping[str, str], Field(alias="matchLabels")] = field(default_factory=dict)
    requirements: Annotated[tuple[LabelRequirement, ...], Field(alias="matchExpressions")] = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a selector as kubectl's ``-l`` takes it: ``app=web,tier!=db,env in (a,b),!legacy``.

        Raises:
            ConfigError: It is not valid.
        """
        labels: dict[str, str] = {}
        requirements: list[LabelRequirement] = []
        for part in _parts(text):
            if (match := _EQUALS.match(part)) and match["sign"] != "!=" and match["key"] not in labels:
                labels[match["key"]] = match["value"]
            else:
                requirements.append(_requirement(part))
        return cls(labels=labels, requirements=tuple(requirements))

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Return whether an object with these labels meets all of it."""
        return all(labels.get(key) == value for key, value in self.labels.items()) and all(
            requirement.matches(labels) for requirement in self.requirements
        )

    def __str__(self) -> str:
        return ",".join([*(f"{key}={value}" for key, value in self.labels.items()), *map(str, self.requirements)])


def _requirement(part: str) -> LabelRequirement:
    if match := _EQUALS.match(part):
        operator: _Operator = "NotIn" if match["sign"] == "!=" else "In"
        return LabelRequirement(key=match["key"], operator=operator, values=(match["value"],))
    if match := _SETS.match(part):
        values = tuple(value.strip() for value in match["values"].split(","))
        return LabelRequirement(key=match["key"], operator="In" if match["word"] == "in" else "NotIn", values=values)
    if match := _EXISTS.match(part):
        return LabelRequirement(key=match["key"], operator="DoesNotExist" if match["no"] else "Exists")
    raise ConfigError(
        f"invalid label selector {part!r}", code="invalid-selector", hint="write it like app=web,tier!=db,!legacy"
    )


def _parts(text: str) -> Iterator[str]:
    """Yield the parts between commas, except those inside parentheses."""
    for part in re.split(r",(?![^()]*\))", text):
        if not part.strip():
            raise ConfigError(f"invalid label selector {text!r}: a part of it is empty", code="invalid-selector")
        yield part.strip()
