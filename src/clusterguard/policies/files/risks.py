"""What is risky about a policy although it is valid: pure, from the policy alone."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice, pairwise
from typing import TYPE_CHECKING, Final

from clusterguard.documents.values import duration_text
from clusterguard.policies.files.overlaps import storage_root
from clusterguard.policies.schedule import changes_around, due_times

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from clusterguard.policies.policy import Policy, Schedule

__all__ = ["Risk", "risks"]

_OFTEN: Final = timedelta(minutes=10)
_DUE_TIMES: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Risk:
    """Something that is allowed, and may be regretted."""

    about: str  # the key in ``spec`` that it is about
    message: str  # what may happen
    hint: str  # what to do about it

    def __str__(self) -> str:
        return f"spec.{self.about}: {self.message}"


def risks(policy: Policy, *, now: datetime) -> tuple[Risk, ...]:
    """Return what is risky, in the order of a policy file; ``now`` decides which due times are looked at."""
    return (
        *_of_velero(policy),
        *_of_schedule(policy, now),
        *_of_locations(policy),
        *_of_retention(policy, now),
        *_of_encryption(policy),
        *_of_verification(policy, now),
        *_of_proofs(policy),
        *_of_watching(policy),
    )


def _risk(about: str, message: str, hint: str) -> Risk:
    return Risk(about=about, message=message, hint=hint)


def _of_velero(policy: Policy) -> Iterator[Risk]:
    """Yield what the filters of Velero sources leave out without a word."""
    for index, source in enumerate(policy.sources):
        about, velero = f"sources[{index}].velero", source.velero
        if velero is None:
            continue
        if velero.cluster_scoped is False:
            yield _risk(
                f"{about}.clusterScoped",
                "no Namespace, volume or definition of custom resources is in the backups",
                "leave it out, unless all of that is made anew by other means",
            )
        elif velero.included_namespaces and velero.cluster_scoped is None:
            yield _risk(
                f"{about}.includedNamespaces",
                "cluster-scoped objects are in the backups only where these namespaces refer to them: no StorageClass,"
                " PriorityClass or webhook",
                "write clusterScoped: true, or back them up by another source",
            )
        if velero.selector:
            yield _risk(
                f"{about}.selector",
                "objects without these labels are left out, also those that the chosen ones need",
                "label ConfigMaps, Secrets and claims as well, and prove the backup by a drill",
            )
        if velero.volumes == "none":
            yield _risk(
                f"{about}.volumes",
                "no data of volumes is in the backups: claims come back empty",
                "volumes: move, fileSystem or snapshots; none is right where nothing is in volumes",
            )


def _of_schedule(policy: Policy, now: datetime) -> Iterator[Risk]:
    schedule = policy.schedule
    if schedule is None:
        yield _risk("schedule", "overdue backups cannot be detected", "write a schedule, whatever starts the runs")
        return
    shortest, _ = _gaps(schedule, now)
    if shortest < _OFTEN:
        yield _risk(
            "schedule.cron",
            f"runs are due {duration_text(shortest)} apart; one that takes longer is in the way of the next",
            "a run that finds another at work ends; leave more time between them",
        )
    if changes := changes_around(schedule, after=now):
        yield _risk(
            "schedule.cron",
            f"{changes[0]:%Y-%m-%d %H:%M} is skipped, or comes twice, when clocks change in {schedule.time_zone}:"
            " Kubernetes leaves a skipped run out, and runs a repeated one twice",
            "choose an hour in which clocks do not change, or timeZone: UTC",
        )
    day, _month, weekday = schedule.cron.split()[2:]
    if not day.startswith("*") and not weekday.startswith("*"):
        yield _risk(
            "schedule.cron",
            "with a day of the month and a day of the week, it is due when either of them fits",
            'write "*" for one of the two',
        )


def _of_locations(policy: Policy) -> Iterator[Risk]:
    roots = [storage_root(each.url) for each in policy.locations]
    systems = Counter(root.system for root in roots)
    if len(policy.locations) == 1:
        yield _risk("locations", "there is one location: what is lost there is lost", "add one in another place")
    elif set(systems) == {"files"}:
        yield _risk("locations", "all copies lie on this machine, and may be lost with it", "add a bucket")
    for system, count in systems.items():
        if system != "files" and count > 1:
            bucket = system.partition("@")[0]
            yield _risk("locations", f"{count} locations are in {bucket}, and may be lost together", "use two buckets")


def _of_retention(policy: Policy, now: datetime) -> Iterator[Risk]:
    keeps = policy.retention
    if not keeps.rules and keeps.maximum_age is None and keeps.maximum_bytes is None:
        yield _risk("retention", "nothing is ever removed: the locations grow for ever", "daily: 14, weekly: 8")
    if keeps.maximum_age is None:
        return
    if keeps.maximum_age <= policy.verification.every:
        yield _risk(
            "retention.maximumAge",
            f"backups go after {duration_text(keeps.maximum_age)}, before they are verified again"
            f" (every {duration_text(policy.verification.every)})",
            "verify more often, or keep them longer",
        )
    if policy.schedule is not None and keeps.maximum_age <= (longest := _gaps(policy.schedule, now)[1]):
        yield _risk(
            "retention.maximumAge",
            f"backups go after {duration_text(keeps.maximum_age)}, and up to {duration_text(longest)} pass until the"
            " next: all but the newest verified one would be removed",
            "keep them longer than two runs are apart",
        )


def _of_encryption(policy: Policy) -> Iterator[Risk]:
    given = policy.encryption
    if given is None:
        yield _risk(
            "encryption",
            "backups are not encrypted: an etcd snapshot holds every Secret of the cluster in clear",
            "write encryption.recipients; age-keygen makes a pair",
        )
    elif given.passphrase is not None:
        yield _risk(
            "encryption",
            "whoever writes backups with this passphrase can read them all",
            "recipients let a machine write what it cannot read",
        )
    elif given.identity is not None:
        yield _risk(
            "encryption",
            "the private key is where this policy runs: whoever takes over the machine that writes backups can read"
            " them all",
            "leave the identity out where backups are made, and verify contents and prove elsewhere",
        )


def _of_verification(policy: Policy, now: datetime) -> Iterator[Risk]:
    rules = policy.retention.rules
    if policy.schedule is None or not rules:
        return
    _, longest = _gaps(policy.schedule, now)
    copies = sum(rules.values()) * len(policy.sources)  # in each location, and so is what a run reads
    read = max(1, policy.verification.every // longest) * policy.verification.per_run
    if copies > read:
        yield _risk(
            "verification.perRun",
            f"about {copies} copies are kept in each location, and runs read {read} again in"
            f" {duration_text(policy.verification.every)}: some wait longer",
            "raise perRun or every",
        )


def _of_proofs(policy: Policy) -> Iterator[Risk]:
    proven = {each.source for each in policy.proofs}
    for source in policy.sources:
        if source.name not in proven:
            yield _risk(
                "proofs",
                f"nothing ever restores a backup of `{source.name}`: whether it restores is unknown",
                "rehearse it: {rehearse: {}}; or write a drill with a storedBackup step, and name it here",
            )


def _of_watching(policy: Policy) -> Iterator[Risk]:
    if not policy.notifications:
        yield _risk("notifications", "no one is notified when a backup fails", "add a notification")
    if policy.heartbeat is None:
        yield _risk(
            "heartbeat", "a run that never starts goes unnoticed", "name a dead man's switch, or alert on metrics"
        )


def _gaps(schedule: Schedule, now: datetime) -> tuple[timedelta, timedelta]:
    """Return the shortest and the longest time between two of the coming runs."""
    coming = pairwise(islice(due_times(schedule, after=now), _DUE_TIMES))
    gaps = [later - earlier for earlier, later in coming]
    return min(gaps), max(gaps)
