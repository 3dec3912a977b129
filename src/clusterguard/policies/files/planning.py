"""What a run of a policy would do, and when: pure, nothing is connected to."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from clusterguard.documents.json_output import json_data
from clusterguard.documents.values import duration_text
from clusterguard.policies.policy import EtcdSource
from clusterguard.policies.schedule import due_times, read_time_zone

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from clusterguard.policies.policy import Encryption, Policy, RetentionPolicy, Source

__all__ = ["DueTime", "PlannedStep", "PolicyPlan", "plan_policy"]

_COMING: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DueTime:
    """A moment, by two clocks."""

    utc: datetime  # by everybody's
    local: datetime  # by the one of the policy's time zone


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedStep:
    """One thing that a run does."""

    part: str  # what ``clusterguard run --step`` calls it; empty for what every run does
    text: str  # what, in words
    where: tuple[str, ...] = ()  # the locations; empty where it is about none in particular


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPlan:
    """What a policy comes to."""

    policy: str
    time_zone: str  # the zone of the local times; empty without a schedule
    due: tuple[DueTime, ...]  # the next runs; none without a schedule
    steps: tuple[PlannedStep, ...]  # what one run does, in this order

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        data: dict[str, Any] = json_data(self)
        return data

    def to_text(self) -> str:
        """Return it as people read it."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        yield f"policy {self.policy}"
        yield ""
        if self.due:
            yield f"due ({self.time_zone}, and UTC):"
            yield from (f"  {each.local:%a %Y-%m-%d %H:%M %z}   {each.utc:%Y-%m-%d %H:%M}Z" for each in self.due)
        else:
            yield "due: whenever it is started; the policy has no schedule"
        yield ""
        yield "each run:"
        width = max(len(each.part) for each in self.steps)
        for number, each in enumerate(self.steps, start=1):
            where = f" → {', '.join(each.where)}" if each.where else ""
            yield f"  {number:>2}. {each.part:<{width}}  {each.text}{where}"


def plan_policy(policy: Policy, *, now: datetime) -> PolicyPlan:
    """Return what a run would do, and when the next ones are due."""
    schedule = policy.schedule
    due: tuple[DueTime, ...] = ()
    if schedule is not None:
        zone = read_time_zone(schedule.time_zone)
        coming = islice(due_times(schedule, after=now), _COMING)
        due = tuple(DueTime(utc=each, local=each.astimezone(zone)) for each in coming)
    return PolicyPlan(
        policy=policy.name, time_zone=schedule.time_zone if schedule else "", due=due, steps=tuple(_steps(policy))
    )


def _steps(policy: Policy) -> Iterator[PlannedStep]:
    places = tuple(each.name for each in policy.locations)
    for source in policy.sources:
        yield PlannedStep(part="backup", text=f"{_what(source)}, {_form(policy)}", where=places)
    enough = f"{policy.copies} of {len(places)}" if policy.copies < len(places) else "all"
    yield PlannedStep(part="backup", text=f"read the new copies back; {enough} must be whole")
    if len(places) > 1:
        yield PlannedStep(part="backup", text="copy what a location missed earlier to it", where=places)
    every = duration_text(policy.verification.every)
    yield PlannedStep(
        part="verify", text=f"read at most {policy.verification.per_run} copies again that were not for {every}"
    )
    yield PlannedStep(part="retain", text=_retention(policy.retention), where=places)
    for proof in policy.proofs:
        how = f"restore {proof.source} by {proof.drill}" if proof.drill else f"rehearse the restore of {proof.source}"
        yield PlannedStep(part="prove", text=f"{proof.name}: {how}, unless proven within {duration_text(proof.every)}")
    yield PlannedStep(part="", text="write the audit trail and the catalog", where=places)
    yield from (PlannedStep(part="", text=text) for text in _told(policy))


def _what(source: Source) -> str:
    match source.engine:
        case EtcdSource(cluster=cluster, endpoints=endpoints):
            return f"{source.name}: snapshot of the etcd of {cluster or ', '.join(endpoints)}"
        case velero:
            namespaces = ", ".join(velero.included_namespaces) or "all namespaces"
            left_out = f" but {', '.join(velero.excluded_namespaces)}" if velero.excluded_namespaces else ""
            return f"{source.name}: Velero backup of {namespaces}{left_out} of {velero.cluster}"


def _form(policy: Policy) -> str:
    compressed = "not compressed" if policy.compression_level is None else f"zstd level {policy.compression_level}"
    return f"{compressed}, {_readers(policy.encryption)}"


def _readers(encryption: Encryption | None) -> str:
    if encryption is None:
        return "not encrypted"
    if encryption.passphrase is not None:
        return "encrypted with a passphrase"
    number = len(encryption.recipients)
    named = [f"{number} recipient{'s' * (number != 1)}"] if number else []
    file = [f"those of {encryption.recipients_file}"] if encryption.recipients_file else []
    return f"encrypted for {' and '.join(named + file)}"


def _retention(retention: RetentionPolicy) -> str:
    kept = [f"{name} {count}" for name, count in retention.rules.items()]
    limits = []
    if retention.maximum_age is not None:
        limits.append(f"nothing older than {duration_text(retention.maximum_age)}")
    if retention.maximum_bytes is not None:
        limits.append(f"at most {retention.maximum_bytes:,} bytes")
    return f"keep {', '.join(kept) or 'everything'}{'; ' if limits else ''}{', '.join(limits)}"


def _told(policy: Policy) -> Iterator[str]:
    if policy.metrics.textfile:
        yield f"write metrics to {policy.metrics.textfile}"
    if policy.metrics.pushgateway:
        yield f"push metrics to {policy.metrics.pushgateway}"
    for each in policy.notifications:
        yield f"tell {each.name} on {', '.join(each.on)}"
    if policy.heartbeat is not None:
        yield "tell the dead man's switch"
