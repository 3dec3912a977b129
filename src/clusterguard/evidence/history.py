"""Earlier runs of drills, as their bundles tell of them: how long recovery took, and whether it takes longer now.

A folder or bucket of evidence is the history. What lies there besides, what is cut, and what a later release wrote is
passed over: a gap makes a history shorter, not wrong.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Mapping  # noqa: TC003 - pydantic evaluates annotations
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

import orjson
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from clusterguard.documents.json_output import json_data
from clusterguard.errors import ObjectCorruptError, ObjectNotFoundError
from clusterguard.evidence.bundle import RESULT, folder_name
from clusterguard.evidence.verification import signed_statement
from clusterguard.stores.transfer import digest_object, read_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from clusterguard.evidence.keys import VerifyingKey
    from clusterguard.stores.base import ObjectInfo, ObjectStore

__all__ = [
    "LEAST_RUNS",
    "MOST_RUNS",
    "EarlierRun",
    "LatestRun",
    "Trend",
    "as_run",
    "earlier_runs",
    "latest_runs",
    "results_in",
    "trend_of",
]

MOST_RUNS: Final = 10
"""How many runs a median is made of, the last ones that passed."""
LEAST_RUNS: Final = 5
"""With fewer of them nothing is judged: the median of two or three runs is chance."""

_MOST_READ: Final = 100  # of the newest results of one drill; those that do not count are among them
_LARGEST_RESULT: Final = 64 << 20
_RESULT_KEY: Final = re.compile(rf"(?P<folder>[^/]+-[0-9a-f]{{8}})/{re.escape(RESULT)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Recovery:
    total: Annotated[float, Field(ge=0, allow_inf_nan=False)]


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRun:
    """What is known of one run of a drill."""

    drill: str
    run_id: Annotated[str, Field(alias="runId")]
    verdict: str
    started: AwareDatetime
    recovery: Annotated[_Recovery | None, Field(alias="rtoSeconds")] = None
    lost: Annotated[float | None, Field(alias="rpoSeconds")] = None  # seconds of changes
    providers: Mapping[str, str] = field(default_factory=dict)

    @property
    def rto(self) -> float | None:
        """Recovery time in seconds, or None where recovery was not reached."""
        return self.recovery.total if self.recovery else None


_RUN: Final = TypeAdapter(EarlierRun)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trend:
    """A recovery time beside those of earlier runs.

    Attributes:
        runs: How many of them there are, the last ten that passed.
        median_seconds: Of their recovery times, or None where there are too few.
        ratio: How many times the median recovery took, likewise.
        slower_than: The ratio that it must not be above, or None where none was promised.
    """

    runs: int
    median_seconds: float | None = None
    ratio: float | None = None
    slower_than: float | None = None

    @property
    def slower(self) -> bool:
        """Whether recovery took longer than was promised."""
        return self.ratio is not None and self.slower_than is not None and self.ratio > self.slower_than

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {**json_data(self), "slower": self.slower}


def trend_of(rto: float, earlier: Sequence[EarlierRun], *, slower_than: float | None = None) -> Trend:
    """Return a recovery time, in seconds, beside those of earlier runs, the newest last; at most ten of them count."""
    times = [each.rto for each in earlier if each.rto is not None][-MOST_RUNS:]
    if len(times) < LEAST_RUNS:
        return Trend(runs=len(times), slower_than=slower_than)
    median = statistics.median(times)
    ratio = rto / median if median else math.inf
    return Trend(runs=len(times), median_seconds=median, ratio=ratio, slower_than=slower_than)


def earlier_runs(
    store: ObjectStore, drill: str, *, providers: Mapping[str, str], key: VerifyingKey | None = None
) -> tuple[EarlierRun, ...]:
    """Return the last ten runs of a drill that passed, the oldest first.

    Runs on clusters of another provider are left out: a drill on kind takes longer than the same one on an embedded
    control plane.

    Args:
        store: Where the evidence is kept.
        drill: Its id.
        providers: What runs its clusters, by the name in the drill.
        key: Only runs whose result it has signed count; None for all.

    Raises:
        StoreError: The store cannot be read.
    """
    prefix = folder_name(drill, "")
    found = [info for info in store.list(prefix) if _folder(info).startswith(prefix)]
    same = [run for run in _newest(store, found, key) if _counts(run, drill, providers)]
    return tuple(sorted(same, key=lambda run: run.started))[-MOST_RUNS:]


@dataclass(frozen=True, slots=True, kw_only=True)
class LatestRun:
    """The last run of a drill, beside those before it; times in seconds."""

    drill: str
    started: datetime
    verdict: str
    rto: float | None
    lost: float | None
    median: float | None
    ratio: float | None


def latest_runs(store: ObjectStore) -> tuple[LatestRun, ...]:
    """Return the last run of every drill of which a store has evidence, by the names of the drills.

    Raises:
        StoreError: The store cannot be read.
    """
    by_folder: dict[str, list[ObjectInfo]] = {}
    for info in store.list():
        if folder := _folder(info):
            by_folder.setdefault(folder.rpartition("-")[0], []).append(info)
    latest = []
    for _, found in sorted(by_folder.items()):
        runs = sorted(_newest(store, found, None), key=lambda run: run.started)
        # Two drills whose names differ by what no file is called share the beginning of their folders.
        names = sorted({run.drill for run in runs})
        latest += [_latest([run for run in runs if run.drill == name]) for name in names]
    return tuple(latest)


def _latest(runs: Sequence[EarlierRun]) -> LatestRun:
    *before, last = runs
    counted = [run for run in before if _counts(run, last.drill, last.providers)]
    trend = trend_of(last.rto, counted) if last.rto is not None else Trend(runs=0)
    return LatestRun(
        drill=last.drill,
        started=last.started,
        verdict=last.verdict,
        rto=last.rto,
        lost=last.lost,
        median=trend.median_seconds,
        ratio=trend.ratio,
    )


def _counts(run: EarlierRun, drill: str, providers: Mapping[str, str]) -> bool:
    return run.drill == drill and run.verdict == "PASS" and run.rto is not None and run.providers == providers


def results_in(store: ObjectStore) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the folder and the result of each bundle of a store that has one which can be read.

    Raises:
        StoreError: The store cannot be read.
    """
    for info in store.list():
        if info.key == RESULT or _folder(info):
            document = _parsed(store, info)
            if document is not None and as_run(document):
                yield info.key.removesuffix(RESULT), document


def as_run(document: Mapping[str, Any]) -> EarlierRun | None:
    """Return what a result says of its run, or None where it is not one."""
    try:
        return _RUN.validate_python(document)
    except ValidationError:
        return None


def _folder(info: ObjectInfo) -> str:
    found = _RESULT_KEY.fullmatch(info.key)
    return found["folder"] if found else ""


def _newest(store: ObjectStore, found: Sequence[ObjectInfo], key: VerifyingKey | None) -> Iterator[EarlierRun]:
    newest = sorted(found, key=lambda info: (info.modified, info.key), reverse=True)[:_MOST_READ]
    return (run for info in newest if (run := _read(store, info, key)) is not None)


def _read(store: ObjectStore, info: ObjectInfo, key: VerifyingKey | None) -> EarlierRun | None:
    if key is not None:
        try:
            statement = signed_statement(store, info.key.removesuffix(RESULT), key)
            if statement is None or statement.files.get(RESULT) != digest_object(store, info.key)[0]:
                return None
        except (ObjectNotFoundError, ObjectCorruptError):
            return None
    document = _parsed(store, info)
    return None if document is None else as_run(document)


def _parsed(store: ObjectStore, info: ObjectInfo) -> Mapping[str, Any] | None:
    try:
        document = orjson.loads(read_object(store, info.key, most_bytes=_LARGEST_RESULT))
    except (ObjectNotFoundError, ObjectCorruptError, orjson.JSONDecodeError):
        return None  # gone meanwhile, cut, or somebody else's
    return document if isinstance(document, dict) else None
