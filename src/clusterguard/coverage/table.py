"""The table: every namespace, kind, definition and volume, with what protects it, what proves it, or why not. Pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

from clusterguard.coverage.found import stamp
from clusterguard.coverage.takes import EXCLUDED, Reason, Taking
from clusterguard.coverage.volumes import VolumeRow, volume_rows
from clusterguard.documents.json_output import json_data
from clusterguard.validate.system import SYSTEM_NAMESPACES

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from datetime import datetime

    from clusterguard.coverage.found import Found, Kind, Thing, Unread
    from clusterguard.coverage.proofs import Proof
    from clusterguard.coverage.sources import NotCounted, Source

__all__ = ["DEFAULT_IGNORED", "Coverage", "LeftOut", "Row", "State", "coverage_of"]

DEFAULT_IGNORED: Final = tuple(sorted(SYSTEM_NAMESPACES))
"""Namespaces that belong to whoever runs the cluster, and are made again with it."""

State: TypeAlias = Literal["proven", "protected", "partly", "unprotected", "unknown", "excused"]
"""``proven`` and ``protected``: a backup that counts has all of it. ``partly``: some of it is in none. ``unknown``: not
all of it could be looked at. ``excused``: it need not be in any."""

_BAD: Final = frozenset({"partly", "unprotected"})
_DEFINITION: Final = "CustomResourceDefinition.apiextensions.k8s.io"
_MOST_NAMED: Final = 3
_IGNORED: Final = "ignored namespaces"
_FORMAT: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A namespace, a kind, or one definition.

    Attributes:
        objects: How many there are of it.
        protected: How many of them are in a backup that counts, or will be in the next one like it.
        newer: How many of those came after every backup that takes them.
        excused: How many need not be in any.
        proven: How many of the protected ones some drill has proven.
        proven_at: When the oldest of these proofs was; None where not all are proven.
        by: The sources that have some of it.
        reasons: Why objects are in no backup, and how many.
        unread: What of it could not be looked at.
    """

    name: str
    state: State
    objects: int = 0
    protected: int = 0
    newer: int = 0
    excused: int = 0
    proven: int = 0
    proven_at: datetime | None = None
    by: tuple[str, ...] = ()
    reasons: Mapping[Reason, int] = field(default_factory=dict)
    unread: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """Objects of one kind that Velero's backups leave out for one reason.

    Attributes:
        elsewhere: How many of those that are not excused an etcd snapshot has.
        excused: How many need not be in any backup.
        examples: The first few, as ``namespace/name``, of those that are not excused, if any.
    """

    kind: str
    reason: Reason
    objects: int
    elsewhere: int
    excused: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """What is covered of one cluster."""

    cluster: str
    at: datetime
    sources: tuple[Source, ...]
    proofs: tuple[Proof, ...]
    not_counted: tuple[NotCounted, ...]
    namespaces: tuple[Row, ...]
    kinds: tuple[Row, ...]
    definitions: tuple[Row, ...]
    volumes: tuple[VolumeRow, ...]
    left_out: tuple[LeftOut, ...]
    excused: Mapping[str, int]
    not_listed: Mapping[str, str]
    unread: tuple[Unread, ...]

    @property
    def uncovered(self) -> bool:
        """Whether something is neither protected nor excused."""
        rows = (*self.namespaces, *self.kinds, *self.definitions)
        return any(each.state in _BAD for each in rows) or any(each.state == "unprotected" for each in self.volumes)

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {
            "format": _FORMAT,
            "cluster": self.cluster,
            "at": json_data(self.at),
            "verdict": "unknown" if self.unread else "uncovered" if self.uncovered else "covered",
            "sources": [
                {"name": each.name, "engine": each.engine, "backup": each.backup, "taken": json_data(each.taken)}
                for each in self.sources
            ],
            "proofs": [{"drill": each.drill, "at": json_data(each.at)} for each in self.proofs],
            "notCounted": [each._asdict() for each in self.not_counted],
            "namespaces": json_data(self.namespaces),
            "kinds": json_data(self.kinds),
            "definitions": json_data(self.definitions),
            "volumes": json_data(self.volumes),
            "leftOut": json_data(self.left_out),
            "excused": dict(self.excused),
            "notListed": dict(self.not_listed),
            "unread": [each._asdict() for each in self.unread],
        }


def coverage_of(
    found: Found,
    sources: Sequence[Source],
    proofs: Sequence[Proof] = (),
    *,
    ignore: Collection[str] = DEFAULT_IGNORED,
    not_counted: Sequence[NotCounted] = (),
    unread: Sequence[Unread] = (),
) -> Coverage:
    """Return the table.

    Args:
        found: The cluster.
        sources: The backups that count.
        proofs: What drills have shown.
        ignore: Namespaces that need not be in any backup.
        not_counted: What protects and proves nothing, and why.
        unread: What else than the cluster's objects could not be looked at.
    """
    takings = [Taking(each, found) for each in sources]
    judge = _Judge(found, takings, proofs, ignore)
    namespaces, kinds, definitions = (dict[str, _Tally]() for _ in range(3))
    left_out: dict[tuple[str, Reason], _LeftOutTally] = {}
    excused: Counter[str] = Counter()
    for kind, things in found.things.items():
        for thing in things:
            seen = judge.judged(kind, thing)
            excused[seen.rule] += bool(seen.rule)
            kinds.setdefault(kind.name, _Tally()).add(seen, thing)
            if where := _namespace_of(kind, thing):
                namespaces.setdefault(where, _Tally()).add(seen, thing)
            if kind.name == _DEFINITION:
                definitions.setdefault(thing.name, _Tally()).add(seen, thing)
            if seen.velero is not None:
                left_out.setdefault((kind.name, seen.velero), _LeftOutTally()).add(seen, thing)
    everywhere = [each.what for each in found.unread if not each.namespace]
    for each in found.unread:
        kinds.setdefault(each.what, _Tally()).unread.add(each.namespace or "all namespaces")
        if each.namespace:
            namespaces.setdefault(each.namespace, _Tally()).unread.add(each.what)
    for tally in namespaces.values():
        tally.unread.update(everywhere)
    return Coverage(
        cluster=found.cluster,
        at=found.at,
        sources=tuple(sources),
        proofs=tuple(proofs),
        not_counted=tuple(not_counted),
        namespaces=tuple(tally.row(name, ignored=name in ignore) for name, tally in sorted(namespaces.items())),
        kinds=tuple(tally.row(name) for name, tally in sorted(kinds.items())),
        definitions=tuple(tally.row(name) for name, tally in sorted(definitions.items())),
        volumes=volume_rows(found, takings, ignored=ignore),
        left_out=tuple(tally.row(*key) for key, tally in sorted(left_out.items())),
        excused={rule: count for rule, count in sorted(excused.items()) if count},
        not_listed=dict(sorted(found.not_listed.items())),
        unread=(*found.unread, *unread),
    )


# ---- one object ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Judged:
    """What is known of an object.

    Attributes:
        by: The sources that have it.
        reason: Why none has it; None where one does, or where a rule excuses it.
        rule: The rule that excuses it; empty for none.
        velero: Why no Velero backup has it; None where one has, or where there is none.
        newest: When the newest of its sources was taken, as objects have it.
        proven_at: When it was last proven.
    """

    by: tuple[str, ...] = ()
    reason: Reason | None = None
    rule: str = ""
    velero: Reason | None = None
    newest: str = ""
    proven_at: datetime | None = None


class _Judge:
    """Judges objects; those that nothing tells apart are judged once."""

    def __init__(
        self, found: Found, takings: Sequence[Taking], proofs: Sequence[Proof], ignore: Collection[str]
    ) -> None:
        self._namespaces = {each.name: each.created for each in found.of_kind("Namespace")}
        self._definitions = {each.name: each.created for each in found.of_kind(_DEFINITION)}
        self._takings = takings
        self._proofs = sorted(proofs, key=lambda each: each.at, reverse=True)
        self._ignore = frozenset(ignore)
        self._by_labels = any(each.selects_by_labels for each in takings) or any(each.scope.selector for each in proofs)
        self._known: dict[tuple[object, ...], _Judged] = {}
        self._order = list(Reason)

    def judged(self, kind: Kind, thing: Thing) -> _Judged:
        labels: object = thing.labels.get(EXCLUDED) == "true"
        if self._by_labels:
            labels = frozenset(thing.labels.items())
        # Cluster-scoped objects are told apart by their names, by what refers to them.
        where = thing.namespace if kind.namespaced else thing.name
        key = (kind, where, labels, thing.rule)
        if key not in self._known:
            self._known[key] = self._judge(kind, thing)
        return self._known[key]

    def _judge(self, kind: Kind, thing: Thing) -> _Judged:
        verdicts = [(each.source, each.left_out(kind, thing)) for each in self._takings]
        having = [source for source, reason in verdicts if reason is None]
        ignored = _IGNORED if _namespace_of(kind, thing) in self._ignore else ""
        rule = thing.rule or ignored
        velero = [reason for source, reason in verdicts if source.engine == "velero"]
        return _Judged(
            by=tuple(each.name for each in having),
            rule=rule,
            reason=None if having or rule else self._first(reason for _, reason in verdicts if reason),
            velero=self._first(each for each in velero if each) if velero and None not in velero else None,
            newest=max((taking.taken_at for taking in self._takings if taking.source in having), default=""),
            proven_at=next((each.at for each in self._proofs if self._proves(each, having, kind, thing)), None),
        )

    def _proves(self, proof: Proof, having: Sequence[Source], kind: Kind, thing: Thing) -> bool:
        """Return whether an object is in a proof's scope and in such backups, and was there when it was made."""
        at = stamp(proof.at)
        definition = thing.name if kind.name == _DEFINITION else kind.resource
        there = (
            self._namespaces.get(_namespace_of(kind, thing), "") <= at and self._definitions.get(definition, "") <= at
        )
        of_these = not proof.of or any(each.name in proof.of for each in having)
        return there and of_these and proof.covers(kind, thing)

    def _first(self, reasons: Iterator[Reason]) -> Reason:
        return min(reasons, key=self._order.index, default=Reason.NO_BACKUP)


def _namespace_of(kind: Kind, thing: Thing) -> str:
    return thing.name if kind.name == "Namespace" else thing.namespace


# ---- many objects --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    objects: int = 0
    protected: int = 0
    newer: int = 0
    excused: int = 0
    proven: int = 0
    proven_at: datetime | None = None
    by: set[str] = field(default_factory=set)
    reasons: Counter[Reason] = field(default_factory=Counter)
    unread: set[str] = field(default_factory=set)

    def add(self, seen: _Judged, thing: Thing) -> None:
        self.objects += 1
        self.by.update(seen.by)
        if seen.rule:
            self.excused += 1
        elif seen.reason is not None:
            self.reasons[seen.reason] += 1
        else:
            self.protected += 1
            self.newer += thing.created > seen.newest
            if seen.proven_at is not None:
                self.proven += 1
                self.proven_at = min(self.proven_at or seen.proven_at, seen.proven_at)

    def row(self, name: str, *, ignored: bool = False) -> Row:
        proven = bool(self.protected) and self.proven == self.protected
        return Row(
            name=name,
            state="excused" if ignored else self._state(proven=proven),
            objects=self.objects,
            protected=self.protected,
            newer=self.newer,
            excused=self.excused,
            proven=self.proven,
            proven_at=self.proven_at if proven else None,
            by=tuple(sorted(self.by)),
            reasons=dict(sorted(self.reasons.items())),
            unread=tuple(sorted(self.unread)),
        )

    def _state(self, *, proven: bool) -> State:
        if self.unread:
            return "unknown"
        if self.reasons:
            return "partly" if self.protected else "unprotected"
        if not self.protected:
            return "excused"
        return "proven" if proven else "protected"


@dataclass(slots=True)
class _LeftOutTally:
    objects: int = 0
    elsewhere: int = 0
    excused: int = 0
    examples: list[str] = field(default_factory=list)
    excused_examples: list[str] = field(default_factory=list)

    def add(self, seen: _Judged, thing: Thing) -> None:
        self.objects += 1
        self.elsewhere += bool(seen.by) and not seen.rule
        self.excused += bool(seen.rule)
        examples = self.excused_examples if seen.rule else self.examples
        if len(examples) < _MOST_NAMED:
            examples.append(f"{thing.namespace}/{thing.name}" if thing.namespace else thing.name)

    def row(self, kind: str, reason: Reason) -> LeftOut:
        return LeftOut(
            kind=kind,
            reason=reason,
            objects=self.objects,
            elsewhere=self.elsewhere,
            excused=self.excused,
            examples=tuple(self.examples or self.excused_examples),
        )
