"""What a report of drills says: the last run of each drill out of bundles, beside those before it.

All of it is read from files that somebody else may have written, so each is read into what it should be; a bundle that
is not one is told, and shown nowhere else.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping  # noqa: TC003 - pydantic evaluates annotations
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import orjson
from pydantic import AwareDatetime, Field, TypeAdapter, ValidationError

from clusterguard.errors import ConfigError, ObjectCorruptError, ObjectNotFoundError
from clusterguard.evidence.bundle import COMPARISON, EVENTS, MATERIALS, RESULT, bundles_in, evidence_store
from clusterguard.evidence.history import EarlierRun, Trend, trend_of
from clusterguard.evidence.limits import Limit, limits_of
from clusterguard.evidence.verification import verify_evidence
from clusterguard.stores.transfer import read_object

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from clusterguard.evidence.keys import VerifyingKey
    from clusterguard.evidence.verification import BundleReport
    from clusterguard.stores.base import ObjectStore

__all__ = ["DrillReport", "Report", "RunDetails", "read_drills"]

OUTCOMES: Final = {"PASS": "PROVEN", "FAIL": "NOT PROVEN", "ERROR": "COULD NOT TELL"}
_LARGEST: Final = 64 << 20
_RUNS_SHOWN: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class _Timed:
    """A phase, or a step of one."""

    verdict: str
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    name: str = ""
    phase: str = ""
    title: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _TriedDefect:
    defect: str
    target: str
    outcome: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Mutation:
    found: int
    counted: int
    score: float | None = None
    stopped: str = ""
    tried: tuple[_TriedDefect, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Red:
    red: int
    checks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Text:
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunDetails:
    """What the result of a run says; see docs/reference/formats.md."""

    drill: str
    run_id: Annotated[str, Field(alias="runId")]
    verdict: str
    started: AwareDatetime
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    reason: str = ""
    hint: str = ""
    code: str = ""
    phases: tuple[_Timed, ...] = ()
    steps: tuple[_Timed, ...] = ()
    red: Annotated[_Red | None, Field(alias="redAfterFault")] = None
    diff: str = ""
    suppressed: Mapping[str, int] = field(default_factory=dict)
    tolerated: Mapping[str, int] = field(default_factory=dict)
    clusters: Mapping[str, str] = field(default_factory=dict)
    controls: tuple[str, ...] = ()
    objectives: Mapping[str, float] = field(default_factory=dict)
    diagnostics: tuple[_Text, ...] = ()
    mutation: _Mutation | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ref:
    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Suppressed:
    rule: str
    object: _Ref
    path: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comparison:
    check: str
    seen: str
    rules: str
    compared: int
    summary: str
    suppressed: tuple[_Suppressed, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Used:
    name: str
    version: str | None = None
    sha256: str = ""
    kind: str = ""
    objects: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lacking:
    what: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Materials:
    clusterguard: str = ""
    drill: Mapping[str, Any] = field(default_factory=dict)
    programs: tuple[_Used, ...] = ()
    backups: tuple[_Used, ...] = ()
    lacking: Annotated[tuple[_Lacking, ...], Field(alias="notCollected")] = ()


_T = TypeVar("_T")
_RUN: Final = TypeAdapter(EarlierRun)
_DETAILS: Final = TypeAdapter(RunDetails)
_COMPARISONS: Final = TypeAdapter(tuple[_Comparison, ...])
_MATERIALS: Final = TypeAdapter(_Materials)


@dataclass(frozen=True, slots=True, kw_only=True)
class DrillReport:
    """The last run of a drill, and its earlier ones.

    Attributes:
        where: The folder or bucket that its evidence is in, as it was named.
        runs: The last thirty of it, the newest last.
        comparisons: What the comparisons with the baseline saw, or None where nothing tells.
        signature: What is known of the signature: a report where a key was given.
    """

    where: str
    run: RunDetails
    runs: tuple[EarlierRun, ...]
    trend: Trend
    comparisons: tuple[_Comparison, ...] | None
    materials: _Materials
    signature: BundleReport | None

    @property
    def outcome(self) -> str:
        """PROVEN, NOT PROVEN or COULD NOT TELL; evidence that is not what was signed shows nothing."""
        if self.signature is not None and not self.signature.ok:
            return OUTCOMES["ERROR"]
        return OUTCOMES.get(self.run.verdict, OUTCOMES["ERROR"])

    @property
    def last(self) -> EarlierRun:
        """The run itself, as one among its runs."""
        return self.runs[-1]

    @property
    def rules(self) -> tuple[tuple[str, int, tuple[str, ...]], ...]:
        """Each rule that explained differences, how many, and where, the first few of them."""
        found = [each for comparison in self.comparisons or () for each in comparison.suppressed]
        counts = Counter(each.rule for each in found) if self.comparisons is not None else Counter(self.run.suppressed)
        places = {rule: [f"{each.object}: {each.path}" for each in found if each.rule == rule] for rule in counts}
        return tuple((rule, number, tuple(places[rule][:3])) for rule, number in counts.most_common())

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What the run does not prove."""
        return tuple(limits_of(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What all drills came to, and what could not be read: folder and reason."""

    drills: tuple[DrillReport, ...]
    unreadable: tuple[tuple[str, str], ...] = ()

    @property
    def outcome(self) -> str:
        """The worst of all; what could not be looked at weighs more than what was red."""
        outcomes = {drill.outcome for drill in self.drills}
        worst = next((each for each in ("COULD NOT TELL", "NOT PROVEN") if each in outcomes), "PROVEN")
        return OUTCOMES["ERROR"] if self.unreadable else worst


def read_drills(locations: Sequence[Path | str], *, key: VerifyingKey | None = None) -> Report:
    """Read the bundles of some folders and buckets; of each drill in each of them the last run is the one that counts.

    Raises:
        ConfigError: None of them is of a run that can be told.
        ObjectNotFoundError: One of them has none.
        StoreError: One of them cannot be read.
    """
    drills: list[DrillReport] = []
    unreadable: list[tuple[str, str]] = []
    for location in locations:
        store = evidence_store(location)
        where = PurePath(str(location).rstrip("/")).name or str(location)
        found, broken = _details_in(store)
        checked = {} if key is None else {report.folder: report for report in verify_evidence(location, key)}
        unreadable += [(f"{where}/{prefix}".rstrip("/"), reason) for prefix, reason in broken]
        for runs in _by_drill(found):
            drills.append(_drill(store, where, runs, checked))  # noqa: PERF401 - it is read
    if not drills and not unreadable:
        raise ConfigError("none of the bundles has a result", hint="wait for the drills that write them to end")
    return Report(drills=tuple(sorted(drills, key=_worst_first)), unreadable=tuple(unreadable))


def _worst_first(report: DrillReport) -> tuple[int, str, str]:
    return ("NOT PROVEN", "COULD NOT TELL", "PROVEN").index(report.outcome), report.run.drill, report.where


_Found = tuple[str, RunDetails, EarlierRun]


def _details_in(store: ObjectStore) -> tuple[list[_Found], list[tuple[str, str]]]:
    found: list[_Found] = []
    broken: list[tuple[str, str]] = []
    for prefix, names in bundles_in(store):
        document = _document(store, prefix + RESULT) or _of_a_run_without_result(store, prefix, names)
        details, run = _shaped(_DETAILS, document), _shaped(_RUN, document)
        if details is None or run is None:
            broken.append((prefix, "neither its result nor its events say what the run was: they are cut, or changed"))
        else:
            found.append((prefix, details, run))
    return found, broken


def _of_a_run_without_result(store: ObjectStore, prefix: str, names: frozenset[str]) -> dict[str, Any] | None:
    """Return what the events say of a run: one that was killed must not leave the one before it as the last word."""
    try:
        begun = orjson.loads(read_object(store, prefix + EVENTS, most_bytes=_LARGEST).partition(b"\n")[0])
        told = {"drill": begun["drill"], "runId": begun["run_id"], "started": begun["at"], "verdict": "ERROR"}
    except (ObjectNotFoundError, ObjectCorruptError, orjson.JSONDecodeError, KeyError, TypeError):
        return None
    what = "its result cannot be read" if RESULT in names else "the run was killed, or goes on"
    return {**told, "reason": f"there is no result: {what}"}


def _by_drill(found: Iterable[_Found]) -> Iterator[list[_Found]]:
    drills: dict[str, list[_Found]] = {}
    for each in sorted(found, key=lambda each: each[1].started):
        drills.setdefault(each[1].drill, []).append(each)
    yield from drills.values()


def _drill(store: ObjectStore, where: str, found: list[_Found], checked: Mapping[str, BundleReport]) -> DrillReport:
    prefix, details, last = found[-1]
    runs = tuple(run for _, _, run in found)[-_RUNS_SHOWN:]
    before = [run for run in runs[:-1] if run.verdict == "PASS" and run.providers == last.providers]
    promised = details.objectives.get("slowerThan")
    comparisons = _shaped(_COMPARISONS, _document(store, prefix + COMPARISON))
    materials = _shaped(_MATERIALS, _document(store, prefix + MATERIALS))
    return DrillReport(
        where=where,
        run=details,
        runs=runs,
        trend=trend_of(last.rto, before, slower_than=promised) if last.rto is not None else Trend(runs=len(before)),
        comparisons=comparisons,
        materials=materials or _Materials(),
        signature=checked.get(prefix.rstrip("/")),
    )


def _document(store: ObjectStore, key: str) -> Any:  # noqa: ANN401 - JSON
    try:
        return orjson.loads(read_object(store, key, most_bytes=_LARGEST))
    except (ObjectNotFoundError, ObjectCorruptError, orjson.JSONDecodeError):
        return None


def _shaped(adapter: TypeAdapter[_T], document: object) -> _T | None:
    """Return a document as what it should be; None where it is something else."""
    try:
        return adapter.validate_python(document)
    except ValidationError:
        return None
