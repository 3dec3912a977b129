"""What became of a fleet: one result for each cluster in a store, and a report over all of them.

    FLEET/RUN/CLUSTER.json      what the drills of the cluster came to, as data
    FLEET/RUN/CLUSTER.xml       the same for programs that read JUnit

Who reads the results knows from the fleet file which there must be. One that is missing is a cluster of which nothing
is known, and that is never a pass.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from xml.etree import ElementTree as ET

import orjson

from clusterguard.documents.values import check_name
from clusterguard.errors import ConfigError, ObjectCorruptError, ObjectNotFoundError
from clusterguard.stores.transfer import read_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from clusterguard.policies.deploy.pods import Json
    from clusterguard.policies.fleet.files import Fleet, FleetCluster
    from clusterguard.stores.base import ObjectStore

__all__ = [
    "ClusterReport",
    "ClusterResult",
    "Fate",
    "FleetReport",
    "check_run",
    "latest_run",
    "read_report",
    "save_result",
]

RESULT_FORMAT: Final = 1
_LARGEST_RESULT: Final = 16 << 20


class Fate(StrEnum):
    """What became of one cluster in a run of the fleet."""

    PROVEN = "PROVEN"
    NOT_PROVEN = "NOT PROVEN"
    COULD_NOT_TELL = "COULD NOT TELL"
    DID_NOT_RUN = "DID NOT RUN"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterResult:
    """What the drills of one cluster came to.

    Attributes:
        fleet: Its name.
        run: The run.
        cluster: The cluster's name.
        started: UTC.
        finished: UTC.
        drills: The results of the drills that ran, as their own reports have them.
        not_run: Drills that this cluster can show nothing about, with the reason.
        error: Why nothing, or not all, could be run; empty for no reason.
    """

    fleet: str
    run: str
    cluster: str
    started: datetime
    finished: datetime
    drills: tuple[Mapping[str, Any], ...] = ()
    not_run: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    error: str = ""

    @property
    def fate(self) -> Fate:
        """The outcome: what could not be looked at weighs more than what was red; no drill at all proves nothing."""
        verdicts = {str(drill.get("verdict", "")) for drill in self.drills}
        if self.error or self.not_run or not verdicts <= {"PASS", "FAIL"} or not verdicts:
            return Fate.COULD_NOT_TELL
        return Fate.NOT_PROVEN if "FAIL" in verdicts else Fate.PROVEN

    def to_json(self) -> bytes:
        """Return it as it is stored."""
        document = {
            "format": RESULT_FORMAT,
            "fleet": self.fleet,
            "run": self.run,
            "cluster": self.cluster,
            "fate": str(self.fate),
            "started": self.started,
            "finished": self.finished,
            "drills": [dict(each) for each in self.drills],
            "notRun": dict(self.not_run),
            "error": self.error,
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z)

    @classmethod
    def from_json(cls, text: bytes) -> ClusterResult:
        """Read one.

        Raises:
            ConfigError: It is none, or a later release's.
        """
        try:
            document = orjson.loads(text)
            if document["format"] != RESULT_FORMAT:
                raise ConfigError(
                    f"the result has format {document['format']!r}, and this release reads {RESULT_FORMAT}"
                )
            return cls(
                fleet=document["fleet"],
                run=document["run"],
                cluster=document["cluster"],
                started=datetime.fromisoformat(document["started"]),
                finished=datetime.fromisoformat(document["finished"]),
                drills=tuple(dict(each) for each in document["drills"]),
                not_run=dict(document["notRun"]),
                error=document["error"],
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise ConfigError(
                f"the result cannot be read: {error}", hint="it was damaged; run the fleet again"
            ) from error

    def to_junit(self) -> bytes:
        """Return it as JUnit has it; a drill that was not run is an error there: many readers count skipped as fine."""
        suite = ET.Element("testsuite", name=f"{self.fleet}/{self.cluster}", timestamp=self.started.isoformat())
        for drill in self.drills:
            _junit_case(suite, drill)
        for name, reason in self.not_run.items():
            ET.SubElement(_case(suite, name, 0), "error", message=f"not run: {reason}")
        if self.error:
            ET.SubElement(_case(suite, self.cluster, 0), "error", message=self.error)
        suite.set("tests", str(len(suite)))
        suite.set("failures", str(len(suite.findall("testcase/failure"))))
        suite.set("errors", str(len(suite.findall("testcase/error"))))
        return bytes(ET.tostring(suite, encoding="utf-8", xml_declaration=True))


def _junit_case(suite: ET.Element, drill: Mapping[str, Any]) -> None:
    case = _case(suite, str(drill.get("drill", "")), float(drill.get("seconds") or 0))
    kind = {"PASS": "", "FAIL": "failure"}.get(str(drill.get("verdict")), "error")
    if kind:
        ET.SubElement(case, kind, message=_printable(str(drill.get("reason", "")))).text = _printable(
            str(drill.get("diff", ""))
        )


def _case(suite: ET.Element, name: str, seconds: float) -> ET.Element:
    return ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=name, time=f"{seconds:.3f}")


def _printable(text: str) -> str:
    """Return text without what XML cannot hold."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def save_result(store: ObjectStore, result: ClusterResult) -> None:
    """Keep a result; that of an earlier attempt of the same run is replaced.

    Raises:
        StoreError: The store does not take it.
    """
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
    """A line of the fleet's report.

    Attributes:
        cluster: The cluster's name.
        labels: Those of the fleet file.
        fate: What became of it.
        detail: Why, for whatever is not proven.
        result: All of it; None where there is none.
    """

    cluster: str
    labels: Mapping[str, str]
    fate: Fate
    detail: str = ""
    result: ClusterResult | None = None

    def _longest(self, measure: Callable[[Mapping[str, Any]], float | None]) -> float | None:
        measured = [
            value for drill in (self.result.drills if self.result else ()) if (value := measure(drill)) is not None
        ]
        return max(measured, default=None)

    @property
    def rto(self) -> float | None:
        """The longest recovery time that was measured, in seconds."""
        return self._longest(lambda drill: (drill.get("rtoSeconds") or {}).get("total"))

    @property
    def rpo(self) -> float | None:
        """The most data that was lost, in seconds."""
        return self._longest(lambda drill: drill.get("rpoSeconds"))

    def to_dict(self) -> Json:
        """Return it as plain data for JSON."""
        return {
            "cluster": self.cluster,
            "labels": dict(self.labels),
            "fate": str(self.fate),
            "detail": self.detail,
            "started": self.result.started.isoformat() if self.result else None,
            "seconds": (self.result.finished - self.result.started).total_seconds() if self.result else None,
            "rtoSeconds": self.rto,
            "rpoSeconds": self.rpo,
            "drills": [dict(each) for each in self.result.drills] if self.result else [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetReport:
    """What became of a fleet in one run: each cluster of its file, in that order."""

    fleet: str
    run: str
    clusters: tuple[ClusterReport, ...]

    @property
    def proven(self) -> bool:
        """Whether every cluster is."""
        return all(each.fate is Fate.PROVEN for each in self.clusters)

    @property
    def exit_code(self) -> int:
        """0: all are proven; 1: one is not; 2: of one nothing is known."""
        fates = {each.fate for each in self.clusters}
        if fates & {Fate.COULD_NOT_TELL, Fate.DID_NOT_RUN}:
            return 2
        return 0 if fates == {Fate.PROVEN} else 1

    def to_dict(self) -> Json:
        """Return it as plain data for JSON."""
        return {
            "fleet": self.fleet,
            "run": self.run,
            "proven": self.proven,
            "clusters": [each.to_dict() for each in self.clusters],
        }


def read_report(store: ObjectStore, fleet: Fleet, *, run: str) -> FleetReport:
    """Return what became of every cluster of a fleet in a run.

    Raises:
        StoreError: A result could not be read; that there is none is no error.
        ConfigError: The run's name is none.
    """
    check_run(run)
    return FleetReport(
        fleet=fleet.name, run=run, clusters=tuple(_report_of(store, fleet, each, run) for each in fleet.clusters)
    )


def _report_of(store: ObjectStore, fleet: Fleet, cluster: FleetCluster, run: str) -> ClusterReport:
    try:
        key = f"{fleet.name}/{run}/{cluster.name}.json"
        result = ClusterResult.from_json(read_object(store, key, most_bytes=_LARGEST_RESULT))
    except ObjectNotFoundError:
        return ClusterReport(
            cluster=cluster.name, labels=cluster.labels, fate=Fate.DID_NOT_RUN, detail="there is no result of it"
        )
    except (ConfigError, ObjectCorruptError) as error:
        return ClusterReport(
            cluster=cluster.name, labels=cluster.labels, fate=Fate.COULD_NOT_TELL, detail=error.message
        )
    if (result.fleet, result.run, result.cluster) != (fleet.name, run, cluster.name):
        detail = f"the result is that of {result.fleet}/{result.run}/{result.cluster}"
        return ClusterReport(cluster=cluster.name, labels=cluster.labels, fate=Fate.COULD_NOT_TELL, detail=detail)
    return ClusterReport(
        cluster=cluster.name, labels=cluster.labels, fate=result.fate, detail=_why(result), result=result
    )


def _why(result: ClusterResult) -> str:
    red = [f"{each['drill']}: {each['reason']}" for each in result.drills if each.get("verdict") != "PASS"]
    not_run = [f"{name}: not run: {reason}" for name, reason in result.not_run.items()]
    reasons = [*([result.error] if result.error else []), *red, *not_run]
    return "; ".join(reasons) or ("" if result.drills else "no drill ran")


def check_run(run: str) -> None:
    """Refuse what cannot be the name of a run.

    Raises:
        ConfigError: It cannot.
    """
    try:
        check_name(run)
    except ValueError as error:
        raise ConfigError(
            f"a run cannot be called {run!r}: {error}", hint="letters, digits, dots and dashes"
        ) from error
