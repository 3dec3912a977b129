"""What Velero accepts and then never does is refused first: kinds that match nothing, schedules that never fire."""

from __future__ import annotations

import calendar
import re
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ConfigError, ResourceNotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.velero.options import BackupOptions

__all__ = ["require_firing", "require_kinds"]

_CRON_FIELDS: Final = 5
_ANY: Final = ("*", "?")
_MONTHS: Final = [name.lower() for name in calendar.month_abbr]
_LEAP_YEAR: Final = 2028


def require_kinds(api: KubeClient, options: BackupOptions) -> None:
    """Return when the cluster has each kind that is asked for, in the scope that it is asked for in.

    Raises:
        ConfigError: It does not: Velero would leave it out without a word.
    """
    for name, kind, namespaced in _kinds(options):
        try:
            found = api.resource(kind)
        except ResourceNotFoundError as error:
            if name.startswith("excluded") or api.discovery_gaps():
                continue  # what is not there is left out, and what does not answer may be there
            raise ConfigError(f"{name}: {error.message}", code="unknown-kind", hint=error.hint) from error
        except ConfigError:
            continue  # several groups have one: Velero takes its pick
        if namespaced is not None and found.namespaced != namespaced:
            scope = "namespaced" if found.namespaced else "cluster-scoped"
            raise ConfigError(f"{name}: {found} is {scope}", code="wrong-scope", hint="it belongs into the other list")


def _kinds(options: BackupOptions) -> Iterator[tuple[str, str, bool | None]]:
    """Yield field, kind, and whether the field is about namespaced kinds (None: about any)."""
    fields: dict[str, tuple[Sequence[str], bool | None]] = {
        "included_resources": (options.included_resources, None),
        "ordered_resources": (tuple(options.ordered_resources or ()), None),
        "included_cluster_scoped_resources": (options.included_cluster_scoped_resources, False),
        "excluded_cluster_scoped_resources": (options.excluded_cluster_scoped_resources, False),
        "included_namespace_scoped_resources": (options.included_namespace_scoped_resources, True),
        "excluded_namespace_scoped_resources": (options.excluded_namespace_scoped_resources, True),
    }
    for name, (kinds, namespaced) in fields.items():
        yield from ((name, kind, namespaced) for kind in kinds if "*" not in kind)


def require_firing(cron: str) -> None:
    """Return when it is clear when a schedule fires; whether it is valid at all is for the server to say.

    Raises:
        ConfigError: It names a day that no month has. Velero 1.18.3 takes its next time to be past, and makes a backup
            every minute. Or it names days of the month and of the week: up to Velero 1.18.2 either is enough, since
            1.18.3 both must hold.
    """
    fields = re.sub(r"^(CRON_)?TZ=\S+\s+", "", cron.strip()).split()
    if len(fields) != _CRON_FIELDS:
        return
    if fields[4] not in _ANY:
        if fields[2] not in _ANY:
            raise ConfigError(
                f"schedule {cron!r} names days of the month and of the week, which Velero's releases read differently",
                code="ambiguous-days",
                hint="name one of the two, or create two schedules",
            )
        return
    try:
        days, months = _values(fields[2], 31), _values(fields[3], 12)
    except ValueError:
        return
    longest = max((calendar.monthrange(_LEAP_YEAR, month)[1] for month in months), default=0)
    if days and months and min(days) > longest:
        raise ConfigError(
            f"schedule {cron!r} never fires: day {min(days)} is in none of its months",
            code="never-fires",
            hint="Velero would make a backup every minute",
        )


def _values(field: str, highest: int) -> set[int]:
    """Return the numbers of a field of days or months.

    Raises:
        ValueError: It is not valid.
    """
    found: set[int] = set()
    for part in field.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        low = 1 if first in {"*", "?"} else _number(first)
        high = highest if first in {"*", "?"} or (step and not last) else _number(last or first)
        found |= set(range(low, high + 1, int(step or 1)))
    return {number for number in found if 1 <= number <= highest}


def _number(word: str) -> int:
    return _MONTHS.index(word.lower()) if word.isalpha() else int(word)
