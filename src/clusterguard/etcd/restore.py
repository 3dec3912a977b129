"""Restore a control plane from a verified snapshot file: everything checked first, and a rollback until proven."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, TypeVar

from clusterguard.clusters.base import WithRunbook
from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    EtcdError,
    EtcdUnavailableError,
    ProvisioningError,
    RestoreError,
    UnsupportedVersionError,
    WaitTimeoutError,
)
from clusterguard.etcd.agreement import look_at_members
from clusterguard.etcd.member import EtcdMember
from clusterguard.retrying import RetryPolicy, poll_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from clusterguard.clusters.base import ControlPlane, EtcdAccess, RunbookLine, RunbookStep
    from clusterguard.etcd.mvcc import StoreFacts
    from clusterguard.model.snapshot import Snapshot

__all__ = [
    "REVISION_MARGIN",
    "RestorePlan",
    "RestoreResult",
    "RestoreStep",
    "bump_for",
    "plan_restore",
    "require_usable",
    "restore_control_plane",
    "typed",
]

# Watchers and caches outside etcd compare revisions: after a restore they must only ever see larger ones, even
# if writes went on between our look at the live revision and the stop. 1,000 writes a second for 16 minutes.
REVISION_MARGIN = 1_000_000
# Where the live revision cannot be asked: what OpenShift bumps by in the same position (1,000 a second, 11 days).
DEFAULT_REVISION_BUMP = 1_000_000_000
# How long members may take to elect a leader and to compute a comparable HashKV, once all of them serve.
_AGREE_SECONDS = 60.0
# Of members at different revisions in so many looks in a row, one had more from the beginning.
_LOOKS = 3
_T = TypeVar("_T")
_RETRY = RetryPolicy(attempts=3)
_RECOVER = "clusterguard etcd recover finishes it"
# The alarms under which etcd refuses writes, and what should be seen to before they are disarmed.
_BLOCKING = {
    "CORRUPT": "see that the snapshot is of a member whose data was sound, or restore one from before",
    "NOSPACE": "see that etcd's quota has room",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreStep:
    """One step of a restore and how long it took, in seconds."""

    name: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreResult:
    """A restore that succeeded.

    Attributes:
        snapshot: What was restored.
        steps: In their order.
        revision_before: etcd's revision before the restore, or None if it could not be asked.
        revision_after: etcd's revision after it, larger than every one before.
        previous: Where the old data directory is.
        command: The command that built the new data directory.
        warnings: What somebody should look at, such as an alarm that the snapshot carried.
    """

    snapshot: Snapshot
    steps: tuple[RestoreStep, ...]
    revision_before: int | None
    revision_after: int
    previous: str
    command: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """What a restore would do, command by command; nothing was touched.

    Attributes:
        snapshot: What would be restored.
        steps: The commands of each step.
        rollback: What undoes them, at any point before the step ``commit``.
        fetch: What must be fetched first, in words, or ``""``.
        notes: What whoever restores should know before.
    """

    snapshot: Snapshot
    steps: tuple[RunbookStep, ...]
    rollback: tuple[RunbookLine, ...]
    fetch: str = ""
    notes: tuple[str, ...] = ()

    def to_text(self) -> str:
        """Return it as a runbook: shell lines, each under a comment that says why."""
        taken = f"{self.snapshot.taken:%Y-%m-%d %H:%M:%S} UTC"
        lines = [
            f"# Restore of snapshot {self.snapshot.name}: revision {self.snapshot.revision}, taken {taken}.",
            "# Checked: the snapshot is intact, and each node has what is needed. Nothing was touched.",
            "# Do each line once, in this order, and stop at the first that fails: the rollback is at the end.",
        ]
        remarks = [remark.detail for remark in self.snapshot.remarks if remark.warning]
        lines += [f"# Note: {note}." for note in (*remarks, *self.notes)]
        if self.fetch:
            lines += ["", f"# 0. fetch {self.fetch}"]
        for number, step in enumerate(self.steps, start=1):
            lines += ["", f"# {number}. {step.name}", *typed(step.lines)]
        lines += ["", "# Rollback, from anywhere before the step `commit`", *typed(self.rollback, quiet=True)]
        return "\n".join(lines)


def typed(lines: tuple[RunbookLine, ...], *, quiet: bool = False) -> list[str]:
    """Return the lines of a runbook, each under the reason for it; ``quiet``: nothing of it runs by itself."""
    mark = "# " if quiet else ""
    return [text for each in lines for text in (f"# {each.why}:", f"{mark}{each.line}")]


def bump_for(*, snapshot_revision: int, live_revision: int | None) -> int:
    """Return by how much to raise the restored revision, so that no watcher ever sees it go back."""
    if live_revision is None:
        return DEFAULT_REVISION_BUMP
    return max(0, live_revision - snapshot_revision) + REVISION_MARGIN


def restore_control_plane(
    control_plane: ControlPlane,
    access: EtcdAccess,
    *,
    snapshot: Snapshot,
    file: Path,
    disarm_alarms: bool = False,
    watch: Callable[[RestoreStep], object] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
    retry: RetryPolicy = _RETRY,
) -> RestoreResult:
    """Restore a snapshot whose file was verified already.

    Nothing is touched before the new data directory stands complete beside the live one. From the stop on,
    any failure brings the old state back, until etcd and the API server serve the restored one: that is committed,
    and from then on nothing is undone.

    Args:
        control_plane: What to restore.
        access: How to reach its etcd.
        snapshot: The record of the snapshot.
        file: Its bytes.
        disarm_alarms: Whether alarms that it brings back are disarmed; one that etcd raises again fails the restore.
        watch: Told of each step when it is done.
        clock: Seconds, monotonic.
        retry: How often each step after the proof is tried.

    Raises:
        UnsupportedVersionError: etcd or Kubernetes is of a version that is not supported; nothing was touched.
        RestoreError: It failed; ``rolled_back`` tells whether the old state serves again, ``restored`` whether the new
            one does and stays.
    """
    return _Restore(control_plane, access, snapshot, file, watch, clock, retry, disarm_alarms=disarm_alarms).run()


def require_usable(facts: StoreFacts, access: EtcdAccess, *, disarm_alarms: bool) -> None:
    """Return if a cluster could use a database that etcd would start on.

    Raises:
        RestoreError: Its writes would be refused, or its API server would be; nothing was touched.
    """
    blocking = sorted({alarm.kind for alarm in facts.alarms} & set(_BLOCKING))
    if blocking and not disarm_alarms:
        raise RestoreError(
            f"the snapshot brings back alarm {', '.join(blocking)}, and etcd would refuse every write; "
            "nothing was touched",
            rolled_back=True,
            code="alarm-in-snapshot",
            hint=f"{'; '.join(_BLOCKING[kind] for kind in blocking)}; disarm it during the restore: --disarm-alarms",
        )
    if facts.auth_enabled and False in _told_by_each(access, EtcdMember.authentication):
        raise RestoreError(
            "the snapshot has etcd's authentication on, and this etcd has it off: its API server has no user there, "
            "and could not read what was restored; nothing was touched",
            rolled_back=True,
            code="authentication-in-snapshot",
            hint="restore it where authentication is on with the same users, or turn it on here first",
        )


def plan_restore(control_plane: ControlPlane, access: EtcdAccess, *, snapshot: Snapshot, file: Path) -> RestorePlan:
    """Check everything that a restore would check, and return the commands that it would run.

    Raises:
        ClusterError: A restore is not possible, or this control plane is not restored by commands.
    """
    if not isinstance(control_plane, WithRunbook):
        raise ClusterError(
            "this cluster's restore is not made of commands, so there is no plan to show",
            hint="an embedded cluster is restored within clusterguard; plans are for kubeadm control planes",
        )
    _check(control_plane, snapshot, access)
    bump = bump_for(snapshot_revision=snapshot.revision, live_revision=_live_revision(access))
    return RestorePlan(
        snapshot=snapshot,
        steps=control_plane.runbook(file, bump_revision=bump),
        rollback=control_plane.rollback_lines(),
        notes=control_plane.notes(),
    )


class _Reached(Enum):
    """How far a restore came, and with it what undoes it."""

    NOTHING = auto()
    BUILDING = auto()
    SWITCHING = auto()


class _Restore:
    def __init__(
        self,
        control_plane: ControlPlane,
        access: EtcdAccess,
        snapshot: Snapshot,
        file: Path,
        watch: Callable[[RestoreStep], object],
        clock: Callable[[], float],
        retry: RetryPolicy,
        *,
        disarm_alarms: bool,
    ) -> None:
        self._control_plane = control_plane
        self._access = access
        self._snapshot = snapshot
        self._file = file
        self._disarm_alarms = disarm_alarms
        self._watch = watch
        self._clock = clock
        self._retry = retry
        self._steps: list[RestoreStep] = []
        self._reached = _Reached.NOTHING

    def run(self) -> RestoreResult:
        with self._control_plane.exclusive():
            self._recover()
            # Read while the old etcd still serves: the restored one must come back beyond every revision that watchers
            # have seen.
            before = _live_revision(self._access)
            bump = bump_for(snapshot_revision=self._snapshot.revision, live_revision=before)
            try:
                command = self._prepare(bump)
                after = self._switch(bump)
            # Ctrl-C, too: in the middle of the switch it would leave a cluster that does not serve.
            except BaseException as error:
                self._undo(error)
                raise
            # Outside of the try: from here on people write to the restored state, and undoing it would lose that.
            unfinished = self._finish()
            return RestoreResult(
                snapshot=self._snapshot,
                steps=tuple(self._steps),
                revision_before=before,
                revision_after=after,
                previous=self._control_plane.previous,
                command=command,
                warnings=(*unfinished, *self._alarms(), *self._aftermath()),
            )

    def _recover(self) -> None:
        """Clear up after a restore that was killed. A cluster that cannot serve is no obstacle, but the reason."""
        try:
            self._control_plane.recover()
        except (ProvisioningError, WaitTimeoutError):
            pass
        except ClusterError as error:
            if error.code != "rollback-incomplete":
                raise

    def _prepare(self, bump: int) -> str:
        command = ""

        def build() -> None:
            nonlocal command
            command = self._control_plane.prepare(self._file, bump_revision=bump)

        self._step("check the control plane", self._check)
        # Noted before the step: what it built half has to go as well.
        self._reached = _Reached.BUILDING
        self._step("build the new data directory", build)
        return command

    def _check(self) -> None:
        _check(self._control_plane, self._snapshot, self._access)

    def _switch(self, bump: int) -> int:
        # Likewise: rolling back is safe from anywhere, and needed as soon as the first program was told to stop.
        self._reached = _Reached.SWITCHING
        self._step("stop the control plane", self._control_plane.stop)
        self._step("swap the data directory", self._control_plane.swap_in)
        self._step("start etcd", self._control_plane.start_etcd)
        # Before the API server starts: a client that has seen a larger revision would take old objects for new ones.
        after = self._proven_revision(self._snapshot.revision + bump)
        if self._disarm_alarms:
            # Under an alarm etcd refuses every write, and an API server that cannot write does not get ready.
            self._step("disarm alarms", lambda: _on_member(self._access, EtcdMember.disarm))
        self._step("start the API server", self._control_plane.start_api)
        if self._disarm_alarms and (again := _on_member(self._access, EtcdMember.alarms)):
            raise RestoreError(
                f"etcd raised alarm {', '.join(again)} again as soon as it was written to",
                rolled_back=False,
                hint="give etcd a larger --quota-backend-bytes first: the restored database is beyond it",
            )
        return after

    def _proven_revision(self, least: int) -> int:
        """Return the revision that etcd came back at, once every member is seen to hold the same."""
        if len(self._access.endpoints) == 1:
            after = _status_revision(self._access)
        else:
            self._step("compare the members", self._require_agreement)
            after = _live_revision(self._access) or 0
        if after < least:
            raise RestoreError(
                f"etcd came back at revision {after}, below {least}: watchers may have seen larger ones",
                rolled_back=False,
                code="revision-too-low",
                fields={"revision": after, "least": least},
            )
        return after

    def _require_agreement(self) -> None:
        apart = 0

        def missing() -> str:
            nonlocal apart
            found = look_at_members(self._access)
            # All of them were built from one file, and nobody has written yet: no revision is a matter of time. But a
            # lease may run out between two questions, which takes its keys away and is a revision of its own.
            apart = apart + 1 if len(set(found.revisions)) > 1 else 0
            if found.differ or apart == _LOOKS:
                raise RestoreError(
                    f"the members were not restored from one snapshot: {found.missing or found.revisions}",
                    rolled_back=False,
                    code="members-differ",
                    fields={"revisions": list(found.revisions)},
                )
            return found.missing or (f"they are at revisions {found.revisions}" if apart else "")

        poll_until(missing, what="all members hold the same", seconds=_AGREE_SECONDS)
        carried = {remark.code for remark in self._snapshot.remarks}
        raised = _on_member(self._access, EtcdMember.alarms)
        if "alarm-corrupt" not in carried and any(alarm.startswith("CORRUPT") for alarm in raised):
            raise RestoreError(
                f"etcd itself finds that its members differ: alarm {', '.join(raised)}",
                rolled_back=False,
                code="members-differ",
            )

    def _finish(self) -> tuple[str, ...]:
        """Make the restored state stay: it is proven, and people write to it, so from here on nothing is undone.

        Returns:
            What could not be finished, and what to do about it.
        """
        # The commit comes before the controllers: whoever finds an uncommitted restore undoes it, and with it what they
        # wrote. Where it fails they are started all the same, since the cleaning up below commits again.
        uncommitted = self._tried("commit", self._control_plane.commit)
        idle = self._tried("start the controllers", self._control_plane.start_controllers)
        if idle is not None:
            raise RestoreError(
                f"the snapshot is restored and serves, but the controllers were not started: {_said(idle)}",
                rolled_back=False,
                restored=True,
                code="restore-unfinished",
                hint=_by_hand(uncommitted) if uncommitted else _RECOVER,
            ) from idle
        unclean = self._tried("clean up", self._control_plane.clean_up)
        if unclean is None:
            return ()
        if uncommitted is not None:
            raise RestoreError(
                f"the snapshot is restored and serves, but the next restore or recover would undo it: {_said(unclean)}",
                rolled_back=False,
                restored=True,
                code="restore-uncommitted",
                hint=_by_hand(uncommitted),
            ) from unclean
        return (f"the restore is done, but not what it leaves to clean up: {_said(unclean)}\n{_RECOVER}",)

    def _tried(self, name: str, act: Callable[[], object]) -> ClusterGuardError | None:
        """Take a step again and again; return why it failed each time, or None once it succeeded."""
        try:
            self._step(name, lambda: self._retry.run(act, retryable=_worth_another_try))
        except RestoreError:  # stepped aside: what serves now is another run's
            raise
        except ClusterGuardError as error:
            return error
        return None

    def _undo(self, error: BaseException) -> None:
        """Bring the old state back, as far as it was left."""
        if self._reached is _Reached.SWITCHING:
            self._go_back(error)
        if self._reached is _Reached.BUILDING:
            self._throw_away()
        # These two say by themselves what they mean; after the first, what serves may be another run's.
        if isinstance(error, ClusterGuardError) and not isinstance(error, (RestoreError, UnsupportedVersionError)):
            raise RestoreError(
                f"{error.message}\nNothing was touched: the cluster serves as before.",
                rolled_back=True,
                hint=error.hint,
            ) from error

    def _throw_away(self) -> None:
        # What cannot be removed now, the next restore removes before it begins; why this one failed is worth more.
        with contextlib.suppress(ClusterGuardError, OSError):
            self._control_plane.discard()

    def _go_back(self, error: BaseException) -> None:
        """Bring the old state back; a failure of that is told together with what led to it."""
        try:
            self._step("roll back", self._control_plane.roll_back)
        except RestoreError as aside:
            raise RestoreError(
                f"the restore failed: {_said(error)}\n{aside.message}",
                rolled_back=False,
                code=aside.code,
                hint=aside.hint,
            ) from error
        except (ClusterGuardError, OSError) as second:
            if isinstance(second, ClusterGuardError) and second.code == "rollback-incomplete":
                raise RestoreError(
                    f"the restore failed: {_said(error)}\nRolled back: {second.message}",
                    rolled_back=True,
                    code=second.code,
                    fields=second.fields,
                    hint=second.hint,
                ) from error
            raise RestoreError(
                f"the restore failed: {_said(error)}\nThe rollback failed, too: {_said(second)}",
                rolled_back=False,
                code="rollback-failed",
                hint="fix the cause, then `clusterguard etcd recover` rolls back; the old data directory is kept",
            ) from error
        # Ctrl-C stays Ctrl-C, now that the old state is back.
        if isinstance(error, Exception):
            raise RestoreError(
                f"the restore failed: {_said(error)}\nRolled back: the previous state serves.",
                rolled_back=True,
                hint=getattr(error, "hint", None),
            ) from error

    def _step(self, name: str, act: Callable[[], object]) -> None:
        began = self._clock()
        act()
        step = RestoreStep(name=name, seconds=self._clock() - began)
        self._steps.append(step)
        self._watch(step)

    def _aftermath(self) -> tuple[str, ...]:
        try:
            return self._control_plane.warnings()
        except ClusterGuardError as error:  # the restore is done; this must not make it look undone
            return (f"what restored clusters suffer from could not be looked for: {error.message}",)

    def _alarms(self) -> tuple[str, ...]:
        try:
            alarms = _on_member(self._access, EtcdMember.alarms)
        except ClusterGuardError as error:  # likewise
            return (f"alarms could not be asked for: {error.message}",)
        return tuple(
            f"alarm {alarm} came back with the snapshot; etcdctl alarm disarm once its cause is gone"
            for alarm in alarms
        )


def _check(control_plane: ControlPlane, snapshot: Snapshot, access: EtcdAccess) -> None:
    control_plane.check(
        needed_bytes=snapshot.size,
        etcd_version=snapshot.etcd_version,
        storage_version=snapshot.storage_version,
    )
    # What is not asked is not proven: a member with another state would be found by whoever reads from it.
    members = len(control_plane.layout().cluster)
    if len(access.endpoints) < members:
        raise ClusterError(
            f"{members} members are restored, and {len(access.endpoints)} of them can be asked whether they agree",
            code="endpoints-missing",
            fields={"members": members, "endpoints": len(access.endpoints)},
            hint="name the client URL of every member: --endpoints",
        )


def _live_revision(access: EtcdAccess) -> int | None:
    """Return the largest revision that any member has; None where none answers: a lost etcd is why people restore."""
    return max((status.revision for status in _told_by_each(access, EtcdMember.status)), default=None)


def _status_revision(access: EtcdAccess) -> int:
    return _on_member(access, EtcdMember.status).revision


def _told_by_each(access: EtcdAccess, ask: Callable[[EtcdMember], _T]) -> list[_T]:
    """Return what the members say that answer."""
    told = []
    for endpoint in access.endpoints:
        with contextlib.suppress(EtcdError), EtcdMember(access, endpoint) as member:
            told.append(ask(member))
    return told


def _on_member(access: EtcdAccess, ask: Callable[[EtcdMember], _T]) -> _T:
    """Return what the first member says that answers at all."""
    for endpoint in access.endpoints[:-1]:
        with EtcdMember(access, endpoint) as member, contextlib.suppress(EtcdUnavailableError):
            return ask(member)
    with EtcdMember(access, access.endpoints[-1]) as member:
        return ask(member)


def _worth_another_try(error: BaseException) -> bool:
    return isinstance(error, ClusterGuardError) and not isinstance(error, RestoreError)


def _by_hand(uncommitted: ClusterGuardError) -> str:
    return f"until this was done by hand, the next restore or recover would undo it:\n{uncommitted.hint}"


def _said(error: BaseException) -> str:
    return str(error) or type(error).__name__
