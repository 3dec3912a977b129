"""The audit trail: lines that each name the one before, so that none can be changed, taken out or put in unseen.

A trail is a row of segments, one for each run, numbered from 1. A segment is a JSON Lines file that is written once.
Each line has what happened and its place:

- ``seq``: its number in the trail, from 1.
- ``segment``, ``line``, ``of``: its segment, its number there, and how many lines that segment has.
- ``prev``: the ``hash`` of the line before it; empty in the first.
- ``hash``: SHA-256, in hexadecimal, of the line without ``hash``.

A line is canonical JSON: keys in order, no spaces, UTF-8. The bytes that lie there are the bytes that were hashed, so
any program can check them.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import orjson
from pydantic import TypeAdapter, ValidationError

from clusterguard.documents.json_output import json_data

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "AuditEvent",
    "AuditFinding",
    "AuditProblem",
    "AuditReport",
    "ChainLink",
    "Segment",
    "as_json_line",
    "chained",
    "check_trail",
    "events_in",
    "last_link",
]

AuditProblem: TypeAlias = Literal[
    "changed",  # the line is not what its hash says
    "removed",  # lines are missing before it
    "inserted or reordered",  # its number was there already, or belongs elsewhere
    "not the line before it",  # the line before it was replaced, hash and all
    "missing segment",  # a whole file
    "cut segment",  # a file ends too early
    "foreign object",  # a file that is not a segment, by its name or by its size
    "head not found",  # a line that is known to have been there is not
]
"""What is wrong with a place in a trail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One thing that was done, by whom; empty texts where it is about none in particular."""

    time: datetime  # when it ended, UTC
    actor: str  # the user, service account or program that did it
    host: str
    run: str
    policy: str
    verb: str  # as in `StepReport`, and so are the outcome and all from the source on
    outcome: str
    policy_digest: str = ""  # SHA-256 of the policy file
    source: str = ""
    location: str = ""
    backup: str = ""
    digest: str = ""
    size: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        about = "/".join(part for part in (self.source, self.backup) if part)
        words = (self.verb, about, f"in {self.location}" if self.location else "", self.outcome)
        return " ".join(filter(None, words)) + (f": {self.detail}" if self.detail else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainLink:
    """A line that the next one can name; all of it empty before the first."""

    seq: int = 0
    hash: str = ""
    segment: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A segment as it lies there."""

    key: str
    number: int | None  # by its name; None for what is not a segment, which has no data
    data: bytes
    foreign: str = ""  # why it is not a segment


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditFinding:
    """One thing that is wrong with a trail."""

    problem: AuditProblem
    detail: str
    key: str = ""  # of the segment; empty where it is about one that is not there
    line: int | None = None  # in that segment, from 1; None where it is about the whole of it
    seq: int | None = None  # number in the trail that should be there; None where unknown

    def __str__(self) -> str:
        where = f"{self.key}{f':{self.line}' if self.line else ''}: " if self.key else ""
        return f"{where}{self.problem}: {self.detail}"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditReport:
    """What a look at a whole trail found."""

    lines: int
    segments: int
    head: str  # hash of the last line; empty for an empty trail
    first: datetime | None = None  # of the first event that can be read
    last: datetime | None = None
    findings: tuple[AuditFinding, ...] = ()  # in the order of the trail
    since_head: int | None = None  # lines after the expected head; None where none was expected, or it was not found

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {"ok": self.ok, **json_data(self)}


_EVENT: Final = TypeAdapter(AuditEvent)
_PLACE_FIELDS: Final = ("seq", "segment", "line", "of")


def chained(events: Sequence[AuditEvent], *, after: ChainLink) -> tuple[bytes, ChainLink]:
    """Return the segment that holds these events and follows a line, and the link of its own last line.

    Raises:
        ValueError: There are no events; a segment is never empty, so that an empty one is a sign.
    """
    if not events:
        raise ValueError("a segment without events says nothing")
    lines, link = [], after
    for number, event in enumerate(events, start=1):
        place = {"seq": link.seq + 1, "segment": after.segment + 1, "line": number, "of": len(events)}
        body = {**_as_document(event), **place, "prev": link.hash}
        digest = _digest(body)
        lines.append(_canonical({**body, "hash": digest}) + b"\n")
        link = ChainLink(seq=link.seq + 1, hash=digest, segment=after.segment + 1)
    return b"".join(lines), link


def last_link(segment: Segment) -> ChainLink | None:
    """Return the link of a segment's last line, or None where the segment is not whole."""
    document = None
    for document in map(_intact, _lines(segment.data)):
        if document is None:
            return None
    if document is None or document["line"] != document["of"] or document["segment"] != segment.number:
        return None
    return ChainLink(seq=document["seq"], hash=document["hash"], segment=document["segment"])


def events_in(segment: Segment) -> Iterator[AuditEvent]:
    """Yield the events of a segment that can be read; whether they are true is for `check_trail` to say."""
    yield from filter(None, map(_event, map(_parsed, _lines(segment.data))))


def as_json_line(event: AuditEvent) -> str:
    """Return an event as one line of JSON, without its place in a trail."""
    return _canonical(_as_document(event)).decode()


def check_trail(segments: Iterable[Segment], *, expected_head: str = "") -> AuditReport:
    """Check every line of a trail, and that they are all there.

    What was cut off the end of a trail, whole segments of it, can only be told by a hash that somebody kept elsewhere.

    Args:
        segments: All of them, in the order of their numbers.
        expected_head: The hash of a line that is known to have been there: the last one of some earlier look. Lines
            after it are fine.
    """
    check = _Check(expected_head)
    for segment in segments:
        check.read(segment)
    return check.report()


class _Check:
    """Walks a trail once, and remembers what the next line must be."""

    def __init__(self, expected_head: str) -> None:
        self._expected_head = expected_head
        self._link = ChainLink()
        self._findings: list[AuditFinding] = []
        self._lines = self._segments = 0
        self._broken = 0  # lines since the last intact one; each may have replaced one, or come on top
        self._times: list[datetime] = []  # of the first and the last event
        self._head_at: int | None = None

    def read(self, segment: Segment) -> None:
        if segment.number is None:
            self._find("foreign object", segment.foreign or "no segment bears such a name", segment)
            return
        self._segments += 1
        self._check_number(segment.number)
        lines = list(_lines(segment.data))
        documents = [self._read_line(segment, number, line) for number, line in enumerate(lines, start=1)]
        promised = next((each["of"] for each in reversed(documents) if each is not None), None)
        self._link = ChainLink(seq=self._link.seq, hash=self._link.hash, segment=segment.number)
        if not lines:
            self._find("cut segment", "it is empty", segment)
        elif promised is not None and len(lines) < promised:
            self._find("cut segment", f"{len(lines)} of its {promised} lines are left", segment, seq=self._link.seq + 1)

    def report(self) -> AuditReport:
        if self._expected_head and self._head_at is None:
            self._find(
                "head not found",
                f"a line with the hash {self._expected_head} was there once and is not any more, "
                f"so the trail was cut off or replaced; it ends with line {self._link.seq}",
            )
        return AuditReport(
            lines=self._lines,
            segments=self._segments,
            head=self._link.hash,
            first=self._times[0] if self._times else None,
            last=self._times[-1] if self._times else None,
            findings=tuple(self._findings),
            since_head=None if self._head_at is None else self._lines - self._head_at,
        )

    def _check_number(self, number: int) -> None:
        expected = self._link.segment + 1
        if number > expected:
            which = f"segment {expected} is" if number == expected + 1 else f"segments {expected} to {number - 1} are"
            self._find("missing segment", f"{which} not there", seq=self._link.seq + 1)

    def _read_line(self, segment: Segment, number: int, line: bytes) -> dict[str, Any] | None:
        """Check one line against itself and the one before; return it where it is what was written."""
        self._lines += 1
        expected = self._link.seq + 1
        document = _intact(line)
        if document is None:
            problem, detail = _broken(line)
            self._find(problem, detail, segment, line=number, seq=expected + self._broken)
            self._broken += 1
            return None
        seq = document["seq"]
        place = f"it is line {document['line']} of segment {document['segment']}, number {seq} of the trail"
        if seq < expected:
            self._find("inserted or reordered", place, segment, line=number, seq=expected)
            return None  # the next line still follows the one before this
        if seq > expected + self._broken:
            which = f"line {expected} is" if seq == expected + 1 else f"lines {expected} to {seq - 1} are"
            self._find("removed", f"{which} not there before it", segment, line=number, seq=expected)
        elif seq == expected and document["prev"] != self._link.hash:
            other = f"it follows {document['prev'] or 'nothing'}, and what is there is {self._link.hash or 'nothing'}"
            self._find("not the line before it", other, segment, line=number, seq=seq)
        elif document["segment"] != segment.number:
            self._find("inserted or reordered", place, segment, line=number, seq=seq)
        self._note(document)
        return document

    def _note(self, document: dict[str, Any]) -> None:
        self._broken = 0
        self._link = ChainLink(seq=document["seq"], hash=document["hash"], segment=self._link.segment)
        if document["hash"] == self._expected_head:
            self._head_at = self._lines
        if (event := _event(document)) is not None:
            self._times[1:] = [event.time]

    def _find(
        self,
        problem: AuditProblem,
        detail: str,
        segment: Segment | None = None,
        *,
        line: int | None = None,
        seq: int | None = None,
    ) -> None:
        key = segment.key if segment else ""
        self._findings.append(AuditFinding(problem=problem, key=key, line=line, seq=seq, detail=detail))


def _as_document(event: AuditEvent) -> dict[str, Any]:
    # Half a letter (from a file name that is not text, say) has no UTF-8, and must not cost us the event.
    document = {
        name: each.encode("utf-8", errors="replace").decode() if isinstance(each, str) else each
        for name, each in asdict(event).items()
    }
    return {**document, "time": event.time.astimezone(UTC).isoformat().replace("+00:00", "Z")}


def _canonical(document: dict[str, Any]) -> bytes:
    return orjson.dumps(document, option=orjson.OPT_SORT_KEYS)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(_canonical(body)).hexdigest()


def _lines(data: bytes) -> Iterator[bytes]:
    """Yield the lines with their ends: a last one without an end was cut."""
    *whole, rest = data.split(b"\n")  # and not splitlines(), to which a carriage return is an end as well
    yield from (line + b"\n" for line in whole)
    if rest:
        yield rest


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        document = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def _intact(line: bytes) -> dict[str, Any] | None:
    """Return a line's content where it is, to the byte, what was written."""
    document = _parsed(line)
    if document is None or not all(type(document.get(name)) is int for name in _PLACE_FIELDS):
        return None
    body = {name: value for name, value in document.items() if name != "hash"}
    if document.get("hash") != _digest(body) or _canonical(document) + b"\n" != line:
        return None
    return document


def _broken(line: bytes) -> tuple[AuditProblem, str]:
    if not line.endswith(b"\n"):
        return "cut segment", "the line has no end"
    if _parsed(line) is None:
        return "changed", "it is not a JSON object"
    return "changed", "its content does not have the hash that it bears"


def _event(document: dict[str, Any] | None) -> AuditEvent | None:
    try:
        return _EVENT.validate_python(document)
    except ValidationError:
        return None
