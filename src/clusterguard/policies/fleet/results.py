"""What became of a fleet: one result for each cluster in a store, and a report over all of them.

    FLEET/RUN/CLUSTER.json      what the drills of the cluster came to, as data
    FLEET/RUN/CLUSTER.xml       the same for programs that read JUnit

Who reads the results knows from the fleet file which there must be. One that is missing is a cluster of which nothing
is known, and that is never a pass.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - pydantic evaluates annotations
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Final
from xml.etree import ElementTree as ET

from pydantic import AwareDatetime, Field, TypeAdapter

from clusterguard.documents.json_output import json_data
from clusterguard.documents.stored import StoredFormat
from clusterguard.documents.values import check_name
from clusterguard.errors import ConfigError, ObjectCorruptError, ObjectNotFoundError
from clusterguard.stores.transfer import read_object

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from clusterguard.policies.deploy.pods import Json
    from clusterguard.policies.fleet.files import Fleet
    from clusterguard.stores.base import ObjectStore

__all__ = [
    "ClusterReport",
    "ClusterResult",
    "FleetReport",
    "Outcome",
    "check_run",
    "latest_run",
    "read_report",
    "save_result",
]

_LARGEST_RESULT: Final = 16 << 20


class Outcome(StrEnum):
    """What became of one cluster in a run of the fleet."""

    PROVEN = "PROVEN"
    NOT_PROVEN = "NOT PROVEN"
    COULD_NOT_TELL = "COULD NOT TELL"
    DID_NOT_RUN = "DID NOT RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterResult:
    """What the drills of one cluster came to."""

    fleet: str
    run: str
    cluster: str
    started: AwareDatetime
    finished: AwareDatetime
    drills: tuple[Mapping[str, Any], ...] = ()  # the results of those that ran, as their own reports have them
    not_run: Annotated[Mapping[str, str], Field(alias="notRun")] = field(default_factory=dict)
    error: str = ""  # why nothing, or not all, could be run

    @property
    def outcome(self) -> Outcome:
        """What could not be looked at weighs more than what was red; no drill at all proves nothing."""
        verdicts = {str(drill.get("verdict", "")) for drill in self.drills}
        if self.error or self.not_run or not verdicts <= {"PASS", "FAIL"} or not verdicts:
            return Outcome.COULD_NOT_TELL
        return Outcome.NOT_PROVEN if "FAIL" in verdicts else Outcome.PROVEN

    @property
    def reason(self) -> str:
        """Why it is not proven; empty where it is."""
        red = [f"{each['drill']}: {each['reason']}" for each in self.drills if each.get("verdict") != "PASS"]
        not_run = [f"{name}: not run: {reason}" for name, reason in self.not_run.items()]
        reasons = [*([self.error] if self.error else []), *red, *not_run]
        return "; ".join(reasons) or ("" if self.drills else "no drill ran")

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        return _FORMAT.dump(self, fate=str(self.outcome))

    @classmethod
    def from_json(cls, text: bytes) -> ClusterResult:
        """Read one.

        Raises:
            ConfigError: It is not one, or a later release's.
        """
        return _FORMAT.parse(text)

    def to_junit(self) -> bytes:
        """Return it as JUnit has it; a drill that was not run is an error there: many readers count skipped as fine."""
        suite = ET.Element("testsuite", name=f"{self.fleet}/{self.cluster}", timestamp=self.started.isoformat())
        for drill in self.drills:
            kind = {"PASS": "", "FAIL": "failure"}.get(str(drill.get("verdict")), "error")
            name, seconds = str(drill.get("drill", "")), float(drill.get("seconds") or 0)
            _add_case(suite, name, kind, drill.get("reason", ""), text=drill.get("diff", ""), seconds=seconds)
        for name, reason in self.not_run.items():
            _add_case(suite, name, "error", f"not run: {reason}")
        if self.error:
            _add_case(suite, self.cluster, "error", self.error)
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("errors", str(len(suite.findall("testcase/error"))))
        return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


_FORMAT: Final = StoredFormat(
    adapter=TypeAdapter(ClusterResult),
    number=1,
    noun="the result",
    damaged=ConfigError,
    hint="it was damaged; run the fleet again",
)


def _add_case(
    suite: ET.Element, name: str, kind: str, reason: object, *, text: object = "", seconds: float = 0
) -> None:
    case = ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=name, time=f"{seconds:.3f}")
    if kind:
        ET.SubElement(case, kind, message=_printable(reason)).text = _printable(text)


def _printable(text: object) -> str:
    """Return text without what XML cannot hold."""
    return "".join(letter for letter in str(text) if letter.isprintable() or letter in "\n\t")


def save_result(store: ObjectStore, result: ClusterResult) -> None:
    """Keep a result; that of an earlier attempt of the same run is replaced."""
    # The one that is looked for comes last: where it is, the other is, too.
    for suffix, data in ((".xml", result.to_junit()), (".json", result.to_json())):
        with store.put(f"{result.fleet}/{result.run}/{result.cluster}{suffix}", overwrite=True) as writer:
            writer.write(data)


def latest_run(store: ObjectStore, fleet: Fleet) -> str:
    """Return the run whose first result is the newest.

    Raises:
        ConfigError: The store has no run of the fleet.
        StoreError: It cannot be read.
    """
    began: dict[str, datetime] = {}
    results = {f"{cluster.name}.json" for cluster in fleet.clusters}
    for info in store.list(f"{fleet.name}/"):
        run, _, file = info.key.removeprefix(f"{fleet.name}/").partition("/")
        if file in results:
            began[run] = min(info.modified, began.get(run, info.modified))
    if not began:
        raise ConfigError(
            f"{store.url} has no result of fleet {fleet.name}", hint="clusterguard fleet run, or fleet job"
        )
    return max(began, key=lambda run: (began[run], run))


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterReport:
    """A line of the fleet's report."""

    cluster: str
    labels: Mapping[str, str]  # those of the fleet file
    outcome: Outcome
    detail: str = ""  # why, for whatever is not proven
    result: ClusterResult | None = None

    @property
    def rto(self) -> float | None:
        """The longest recovery time that was measured, in seconds."""
        return self._longest(lambda drill: (drill.get("rtoSeconds") or {}).get("total"))

    @property
    def rpo(self) -> float | None:
        """The most data that was lost, in seconds."""
        return self._longest(lambda drill: drill.get("rpoSeconds"))

    def _longest(self, measure: Callable[[Mapping[str, Any]], float | None]) -> float | None:
        drills = self.result.drills if self.result else ()
        return max((value for drill in drills if (value := measure(drill)) is not None), default=None)

    def to_dict(self) -> Json:
        """Return it as plain data for JSON."""
        result = self.result
        data: Json = json_data(
            {
                "cluster": self.cluster,
                "labels": self.labels,
                "outcome": str(self.outcome),
                "detail": self.detail,
                "started": result and result.started,
                "seconds": result and result.finished - result.started,
                "rtoSeconds": self.rto,
                "rpoSeconds": self.rpo,
                "drills": result.drills if result else (),
            }
        )
        return data


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """What became of a fleet in one run: each cluster of its file, in that order."""

    fleet: str
    run: str
    clusters: tuple[ClusterReport, ...]

    @property
    def proven(self) -> bool:
        """Whether every cluster is."""
        return all(each.outcome is Outcome.PROVEN for each in self.clusters)

    @property
    def exit_code(self) -> int:
        """0: all are proven; 1: one is not; 2: of one nothing is known."""
        outcomes = {each.outcome for each in self.clusters}
        if outcomes & {Outcome.COULD_NOT_TELL, Outcome.DID_NOT_RUN}:
            return 2
        return 0 if outcomes == {Outcome.PROVEN} else 1

    def to_dict(self) -> Json:
        """Return it as plain data for JSON."""
        clusters = [each.to_dict() for each in self.clusters]
        return {"fleet": self.fleet, "run": self.run, "proven": self.proven, "clusters": clusters}


def read_report(store: ObjectStore, fleet: Fleet, *, run: str) -> FleetReport:
    """Return what became of every cluster of a fleet in a run.

    Raises:
        StoreError: A result could not be read; that there is none is no error.
        ConfigError: It is not a valid name of a run.
    """
    check_run(run)
    reports = []
    for cluster in fleet.clusters:
        outcome, detail, result = _read_result(store, fleet.name, run, cluster.name)
        reports.append(
            ClusterReport(cluster=cluster.name, labels=cluster.labels, outcome=outcome, detail=detail, result=result)
        )
    return FleetReport(fleet=fleet.name, run=run, clusters=tuple(reports))


def _read_result(store: ObjectStore, fleet: str, run: str, cluster: str) -> tuple[Outcome, str, ClusterResult | None]:
    try:
        key = f"{fleet}/{run}/{cluster}.json"
        result = ClusterResult.from_json(read_object(store, key, most_bytes=_LARGEST_RESULT))
    except ObjectNotFoundError:
        return Outcome.DID_NOT_RUN, "there is no result of it", None
    except (ConfigError, ObjectCorruptError) as error:
        return Outcome.COULD_NOT_TELL, error.message, None
    if (result.fleet, result.run, result.cluster) != (fleet, run, cluster):
        where = f"{result.fleet}/{result.run}/{result.cluster}"
        return Outcome.COULD_NOT_TELL, f"the result is that of {where}", None
    return result.outcome, result.reason, result


def check_run(run: str) -> None:
    """Refuse what cannot be the name of a run."""
    try:
        check_name(run)
    except ValueError as error:
        raise ConfigError(f"invalid name of a run {run!r}: {error}", hint="letters, digits, dots and dashes") from error
