"""Copies that a location missed while it was away: made from a location that has them, and read back."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ClusterGuardError, ObjectNotFoundError, RunInProgressError, SnapshotCorruptError
from clusterguard.policies.copies.locations import RECORD, read_record
from clusterguard.policies.copies.volumes import SHARED, is_shared
from clusterguard.policies.runs.retain import plan_for
from clusterguard.policies.runs.verify import check_stored, stored_objects
from clusterguard.stores.transfer import copy_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from clusterguard.policies.copies.catalog import BackupEntry
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.runs.session import Session

__all__ = ["missing_copies", "replicate_missing"]

_MOST_FOR_A_RUN: Final = 50  # newest first: what one run does not reach, the next one does


def replicate_missing(session: Session) -> None:
    """Copy to each location what it lacks of the backups that the retention would keep there, the newest first."""
    for location, entry in missing_copies(session):
        # A location may have gone away in the meantime.
        if location in session.locations and location.name not in session.takes_no_more:
            _copy(location, entry, session)


def missing_copies(session: Session) -> list[tuple[StorageLocation, BackupEntry]]:
    """Return which location lacks which backup, the newest backup first, at most as many as a run makes up for."""
    missing = []
    for source in session.policy.sources:
        everywhere: dict[str, BackupEntry] = {}
        for location in session.locations:
            for entry in session.catalogs[location.name].of_source(source.name):
                # The copy to make others from is one that was found sound.
                if entry.name not in everywhere or (entry.sound and not everywhere[entry.name].sound):
                    everywhere[entry.name] = entry
        kept = {backup.name for backup in plan_for(everywhere.values(), session.policy, now=session.now()).kept}
        for location in session.locations:
            there = {entry.name: entry for entry in session.catalogs[location.name].of_source(source.name)}
            missing += [
                (location, everywhere[name])
                for name in kept
                if name not in there or (there[name].problem and everywhere[name].sound)
            ]
    missing.sort(key=lambda pair: pair[1].created, reverse=True)
    return missing[:_MOST_FOR_A_RUN]


def _copy(location: StorageLocation, entry: BackupEntry, session: Session) -> None:
    with session.step(
        "copy", source=entry.source, location=location.name, backup=entry.name, on_error="warning"
    ) as task:
        task.digest, task.size = entry.sha256, entry.size
        replicas = list(_healthy_replicas(location, entry, session))
        if not replicas:
            task.outcome, task.detail = "warning", "no location that answers has a sound copy to make this one from"
            return
        for replica in replicas:
            there = session.catalogs[location.name].entries.get(entry.key)
            keep = there is None or not there.problem
            try:
                _copy_objects(replica, location, entry, keep=keep, confirm=partial(session.require_lease, location))
            except RunInProgressError:
                raise  # no fault of this copy: another run has taken over, so this one ends
            except ClusterGuardError as error:
                task.outcome, task.detail = "warning", f"from {replica.name}: {error.message}"
                task.code, task.hint = error.code, error.hint or ""
                # Where the target is away, no other source helps. Else it was the source, which is then left out.
                if not session.answers(location):
                    return
                session.answers(replica)
                continue
            check = check_stored(location, entry)
            new = replace(entry, verified=None, depth=None, problem="", unread="")
            session.know(location, [check.noted_in(new, now=session.now())])
            check.apply_to(task)
            task.outcome = "ok" if check.state == "intact" else "warning"
            task.detail = f"caught up from {replica.name}; {check}"
            # What could not be read back is there all the same: it is read by a later run, and not written again.
            if check.state != "damaged":
                return


def _healthy_replicas(location: StorageLocation, entry: BackupEntry, session: Session) -> Iterator[StorageLocation]:
    for other in session.locations:
        there = session.catalogs[other.name].entries.get(entry.key)
        if other.name != location.name and there is not None and not there.problem:
            yield other


def _copy_objects(
    replica: StorageLocation, location: StorageLocation, entry: BackupEntry, *, keep: bool, confirm: Callable[[], None]
) -> None:
    """Copy the stored bytes as they are, so that no key is needed; the record comes last and makes it a backup.

    ``keep``: leave blobs of volumes that are there already; not where the copy that is there was found damaged.

    ``confirm`` raises where this run no longer holds the lease: asked before each change, since a copy takes long.
    """
    with suppress(ObjectNotFoundError, SnapshotCorruptError):
        read_record(location.root, f"{entry.key}{RECORD}")  # one that a later release wrote is not written over
    source, target = replica.of_source(entry.source), location.of_source(entry.source)
    objects = stored_objects(replica, entry)
    there = {info.key: info.size for info in target.list(SHARED)} if keep and any(map(is_shared, objects)) else {}
    for key, (sha256, size) in objects.items():
        # A blob that other copies brought; the copy is read back as a whole.
        if there.get(key) == size:
            continue
        confirm()
        # Overwriting: what is there already without a record, or damaged, is no backup.
        found = copy_object(source, key, target, overwrite=True)
        if found != sha256:
            confirm()
            target.delete(key)
            raise SnapshotCorruptError(f"{key} of {replica.name} has sha256 {found[:16]}…, written was {sha256[:16]}…")
    confirm()
    copy_object(source, f"{entry.name}{RECORD}", target, overwrite=True)
