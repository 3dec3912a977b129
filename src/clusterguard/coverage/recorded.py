"""What ``coverage --json`` wrote some time ago, for those who show it later: never without its age."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic evaluates annotations
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Final, Literal

from pydantic import AwareDatetime, Field, NonNegativeInt, TypeAdapter, ValidationError

from clusterguard.coverage.found import Unread  # noqa: TC001 - likewise
from clusterguard.coverage.sources import NotCounted  # noqa: TC001 - likewise
from clusterguard.coverage.table import State  # noqa: TC001 - likewise
from clusterguard.errors import ConfigError
from clusterguard.policies.watching.status import CLOCK_TOLERANCE

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["RecordedCoverage", "RecordedRow", "RecordedVolume", "read_coverage"]

STALE_AFTER: Final = timedelta(hours=24)
"""How old it may be before that is said as something that is wrong."""

_BAD: Final = frozenset({"partly", "unprotected", "unknown"})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    name: str
    backup: str
    taken: AwareDatetime


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedRow:
    """A namespace, a kind, or one definition, as `clusterguard.coverage.table.Row` had it."""

    name: str
    state: State
    objects: NonNegativeInt
    protected: NonNegativeInt
    newer: NonNegativeInt = 0
    excused: NonNegativeInt = 0
    proven: NonNegativeInt = 0
    proven_at: Annotated[AwareDatetime | None, Field(alias="provenAt")] = None
    reasons: Mapping[str, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedVolume:
    """A volume, as `clusterguard.coverage.volumes.VolumeRow` had it."""

    name: str
    state: Literal["protected", "unprotected", "excused"]
    source: str = ""
    reason: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordedCoverage:
    """What was covered of one cluster when somebody looked."""

    format: Literal[1]
    cluster: str
    at: AwareDatetime
    verdict: Literal["covered", "uncovered", "unknown"]
    sources: tuple[_Source, ...]
    not_counted: Annotated[tuple[NotCounted, ...], Field(alias="notCounted")]
    namespaces: tuple[RecordedRow, ...]
    kinds: tuple[RecordedRow, ...]
    definitions: tuple[RecordedRow, ...]
    volumes: tuple[RecordedVolume, ...]
    unread: tuple[Unread, ...]

    def age(self, now: datetime) -> timedelta:
        """Return how long ago that was."""
        return max(now - self.at, timedelta())

    def is_current(self, now: datetime) -> bool:
        """Return whether it may stand for what is there now."""
        return -CLOCK_TOLERANCE <= now - self.at <= STALE_AFTER

    def uncovered(self) -> Mapping[str, int]:
        """Return what is not covered as a whole, and how many of it: ``{"namespaces": 2, "volumes": 1}``."""
        counts = {
            "namespaces": sum(each.state in _BAD for each in self.namespaces),
            "kinds": sum(each.state in _BAD for each in self.kinds),
            "definitions": sum(each.state in _BAD for each in self.definitions),
            "volumes": sum(each.state == "unprotected" for each in self.volumes),
        }
        return {what: count for what, count in counts.items() if count}


_DOCUMENT: Final = TypeAdapter(RecordedCoverage)


def read_coverage(path: Path) -> RecordedCoverage:
    """Read what ``coverage --json`` wrote.

    Raises:
        ConfigError: It cannot be read, or is something else.
    """
    hint = f"write it anew: clusterguard coverage --cluster CLUSTER --json > {path}"
    try:
        return _DOCUMENT.validate_json(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror or error}", hint=hint) from error
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ConfigError(
            f"{path} is not what `coverage --json` prints: {f'{where}: ' if where else ''}{first['msg']}",
            hint=hint,
        ) from error
