"""The audit trail of a policy in one location: appended to, read and checked; see `policies.watching.chain`.

A segment is an object that is created once and never written again, so a location whose bucket lets the writer create
objects but neither replace nor remove them keeps a trail that the writer cannot change.
"""

from __future__ import annotations

import re
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from clusterguard.documents.json_output import json_data
from clusterguard.errors import ClusterGuardError, ObjectExistsError, ObjectNotFoundError, StoreError
from clusterguard.policies.watching.chain import (
    AuditEvent,
    AuditReport,
    ChainLink,
    Segment,
    chained,
    check_trail,
    events_in,
    last_link,
)
from clusterguard.stores.transfer import read_object

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.report import RunReport
    from clusterguard.stores.base import ObjectInfo, ObjectStore

__all__ = ["AUDIT_FOLDER", "AuditTrail", "TrailOfLocation", "compare_trails", "events_of", "read_events"]

AUDIT_FOLDER: Final = ".clusterguard/audit/"

_SEGMENT = re.compile(rf"{re.escape(AUDIT_FOLDER)}(\d{{12}})\.jsonl")
_ATTEMPTS: Final = 100  # as many writers at once as nobody has
_READERS: Final = 16
# What is larger than any segment of a run is named and not read: whoever can write there could have put anything there.
_MOST_EVENTS: Final = 2000
_LONGEST_DETAIL: Final = 4000
_LARGEST_SEGMENT: Final = 64 << 20
_OF_STEPS: Final = ("verb", "outcome", "source", "location", "backup", "digest", "size")


class AuditTrail:
    """The audit trail in one location."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def append(self, events: Sequence[AuditEvent], *, run: str) -> str:
        """Add events as a new segment, or several if they are many, and return the hash of the last line.

        Another writer may add one at the same time: whoever comes second follows the first. No events add nothing.

        Raises:
            StoreError: The location does not take it, or the last segment there is not whole: nothing can follow it.
        """
        if not events:
            return self.head()
        *before, last = (events[start : start + _MOST_EVENTS] for start in range(0, len(events), _MOST_EVENTS))
        for some in before:
            self._append(some, run=run)
        return self._append(last, run=run)

    def _append(self, events: Sequence[AuditEvent], *, run: str) -> str:
        for _ in range(_ATTEMPTS):
            data, new = chained(events, after=self._last())
            try:
                with self._store.put(f"{AUDIT_FOLDER}{new.segment:012d}.jsonl") as writer:
                    writer.write(data)
            except ObjectExistsError:
                continue
            return new.hash
        raise StoreError(
            f"{self._store.url}: run {run} could not add to the audit trail: others took its number {_ATTEMPTS} times",
            code="audit-contended",
            fields={"attempts": _ATTEMPTS},
            hint="find out what writes there all the time; no run does",
        )

    def head(self) -> str:
        """Return the hash of the last line, or an empty text where there is none.

        Raises:
            StoreError: The location cannot be read, or the last segment is not whole.
        """
        return self._last().hash

    def has(self, head: str) -> bool:
        """Return whether a line with this hash is there: a head that was once read here, and is not, was cut off.

        The end of the trail is looked at first, where a head that is remembered usually is.
        """
        wanted = head.encode()
        return any(
            wanted in segment.data and check_trail([segment], expected_head=head).since_head is not None
            for segment in map(self._read, reversed(self._listed()))
        )

    def segments(self) -> Iterator[Segment]:
        """Yield all segments in their order, and what else lies in their folder."""
        listed = self._listed()
        with ThreadPoolExecutor(max_workers=_READERS) as readers:
            yield from readers.map(self._read, listed)

    def verify(self, expected_head: str = "") -> AuditReport:
        """Read the whole trail and check it; see `check_trail`."""
        return check_trail(self.segments(), expected_head=expected_head)

    def _listed(self) -> list[ObjectInfo]:
        return list(self._store.list(AUDIT_FOLDER))

    def _last(self) -> ChainLink:
        segments = [info for info in self._listed() if _SEGMENT.fullmatch(info.key)]
        if not segments:
            return ChainLink()
        link = last_link(self._read(segments[-1]))
        if link is None:
            raise StoreError(
                f"{self._store.url}: the end of the audit trail, {segments[-1].key}, is not as it was written,"
                " so nothing can follow it",
                hint="`clusterguard audit verify` says what is wrong; keep the folder elsewhere as evidence and remove"
                " it here, and the next run begins a new trail",
            )
        return link

    def _read(self, info: ObjectInfo) -> Segment:
        match = _SEGMENT.fullmatch(info.key)
        if match is None:
            return Segment(key=info.key, number=None, data=b"", foreign="no segment bears such a name")
        if info.size > _LARGEST_SEGMENT:
            why = f"it has {info.size:,} bytes, and no segment has more than {_LARGEST_SEGMENT:,}"
            return Segment(key=info.key, number=None, data=b"", foreign=why)
        try:
            data = read_object(self._store, info.key, most_bytes=_LARGEST_SEGMENT)
        except ObjectNotFoundError:
            data = b""  # it was listed a moment ago: an empty segment is a finding
        return Segment(key=info.key, number=int(match[1]), data=data)


def events_of(
    report: RunReport, *, actor: str, policy_digest: str = "", host: str | None = None
) -> tuple[AuditEvent, ...]:
    """Return a run as events for the trail, in the order they happened; by default they happened on this machine."""
    run: dict[str, Any] = {"actor": actor, "run": report.run, "policy": report.policy, "policy_digest": policy_digest}
    run["host"] = socket.gethostname() if host is None else host
    return tuple(
        AuditEvent(
            time=step.at,
            **run,
            **{name: getattr(step, name) for name in _OF_STEPS},
            detail=step.detail if len(step.detail) <= _LONGEST_DETAIL else f"{step.detail[:_LONGEST_DETAIL]}…",
        )
        for step in report.steps
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailOfLocation:
    """The trail of one location, and how it compares with the others."""

    location: str
    report: AuditReport | None = None  # None where it could not be read
    error: str = ""  # why it could not be
    catalog_head: str = ""  # the head that the location's own catalog remembers
    catalog_head_missing: bool = False  # whether that line is not in the trail any more
    runs: frozenset[str] = frozenset()
    missing_runs: tuple[str, ...] = ()  # in another location's trail and not here: it was down then, or lost them

    @property
    def broken(self) -> bool:
        """Whether something of it was changed or removed."""
        return self.catalog_head_missing or (self.report is not None and not self.report.ok)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        data = {"broken": self.broken, **json_data(self), **(self.report.to_dict() if self.report else {})}
        return {key: value for key, value in data.items() if key not in ("report", "runs")}


def compare_trails(locations: Sequence[StorageLocation], *, expected_head: str = "") -> tuple[TrailOfLocation, ...]:
    """Check the trail of every location, each against itself, its own catalog's memory, and the others' runs.

    - ``expected_head``: the hash of a line that is known to have been in one of the trails, in whichever.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(locations))) as readers:
        found = list(readers.map(lambda location: _looked_at(location, expected_head), locations))
    if any(each.report is not None and each.report.since_head is not None for each in found):
        # Each location's trail has hashes of its own: a head is expected in the one that it came from alone.
        found = [_without_foreign_head(each) for each in found]
    everywhere = frozenset[str]().union(*(each.runs for each in found))
    return tuple(
        each if each.report is None else replace(each, missing_runs=tuple(sorted(everywhere - each.runs)))
        for each in found
    )


def read_events(locations: Sequence[StorageLocation]) -> Iterator[AuditEvent]:
    """Yield the events of the first of these locations that can be read and has any, the oldest first."""
    refused: ClusterGuardError | None = None
    for location in locations:
        try:
            segments = list(AuditTrail(location.root).segments())
        except ClusterGuardError as error:
            refused = error
            continue
        if segments:
            yield from (event for segment in segments for event in events_in(segment))
            return
    if refused is not None:
        raise refused


def _looked_at(location: StorageLocation, expected_head: str) -> TrailOfLocation:
    try:
        segments = list(AuditTrail(location.root).segments())
        remembered = location.catalog().audit_head
    except ClusterGuardError as error:
        return TrailOfLocation(location=location.name, error=error.message)
    return TrailOfLocation(
        location=location.name,
        report=check_trail(segments, expected_head=expected_head),
        catalog_head=remembered,
        catalog_head_missing=bool(remembered) and check_trail(segments, expected_head=remembered).since_head is None,
        runs=frozenset(event.run for segment in segments for event in events_in(segment)),
    )


def _without_foreign_head(trail: TrailOfLocation) -> TrailOfLocation:
    if trail.report is None:
        return trail
    findings = tuple(each for each in trail.report.findings if each.problem != "head not found")
    return replace(trail, report=replace(trail.report, findings=findings))
