"""One run of a policy: back up, make up for what is missing, read again, remove, prove, and tell.

What goes wrong in one part is taken down, and the next part goes on. Whatever happens, the audit trail, the catalogs,
the metrics and those who are to be told get what was seen.
"""

from __future__ import annotations

import getpass
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

from clusterguard.errors import ClusterGuardError, ConfigError, RunInProgressError, StoreUnavailableError
from clusterguard.model.progress import ProgressSink, ignore_progress
from clusterguard.policies.copies.catalog import RunRecord, entry_key
from clusterguard.policies.copies.encryption import encryption_of
from clusterguard.policies.copies.locations import open_locations, read_catalogs
from clusterguard.policies.report import RunReport, StepReport
from clusterguard.policies.runs.backup import back_up
from clusterguard.policies.runs.lease import LOCK_KEY
from clusterguard.policies.runs.lock import locked
from clusterguard.policies.runs.reencrypt import reencrypt_all
from clusterguard.policies.runs.replicate_missing import replicate_missing
from clusterguard.policies.runs.retain import plan_retention_of, retain
from clusterguard.policies.runs.session import Session, new_run_id
from clusterguard.policies.runs.verify import verify_due
from clusterguard.policies.watching.audit import AuditTrail, events_of
from clusterguard.policies.watching.heartbeat import beat
from clusterguard.policies.watching.notifications import notify
from clusterguard.policies.watching.status import policy_status
from clusterguard.stores.encryption import Encryption

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from clusterguard.policies.copies.catalog import Catalog, Leftover
    from clusterguard.policies.copies.locations import StorageLocation
    from clusterguard.policies.policy import Policy
    from clusterguard.policies.runs.retain import PlannedRetention
    from clusterguard.policies.watching.verdict import PolicyStatus

__all__ = ["PARTS", "Part", "PolicyRunner"]

Part: TypeAlias = Literal["backup", "verify", "retain", "prove"]
PARTS: Final[tuple[Part, ...]] = get_args(Part)
_NAMED: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRunner:
    """Runs a policy.

        report = PolicyRunner(policy=load_policy(path, environ=os.environ), environ=os.environ).run()
        assert report.outcome == "ok"

    Attributes:
        policy: What to do.
        environ: Where secrets and drills find variables.
        on_step: Called with each step as it ends.
        progress: Told of bytes.
        now: The time, UTC.
        wait_seconds: How long to wait for another run of the policy.
        trust_clock: Remove by age whatever speaks against this machine's clock.
    """

    policy: Policy
    environ: Mapping[str, str]
    on_step: Callable[[StepReport], object] = lambda _: None
    progress: ProgressSink = ignore_progress
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    wait_seconds: float = 0
    trust_clock: bool = False

    def run(self, parts: Sequence[Part] = PARTS) -> RunReport:
        """Do one cycle, or parts of one, and return what was done.

        Args:
            parts: What to do, always in the order of `PARTS`; ``backup`` makes up for missing copies, too.

        Raises:
            ConfigError: A secret that the policy names is missing or invalid.
            RunInProgressError: Another run of the policy is in progress.
        """
        # Removing alone needs no key, neither to decrypt nor to encrypt.
        session = self._session(
            encryption=None if set(parts) == {"retain"} else encryption_of(self.policy, self.environ)
        )
        return self._cycle(session, [_PARTS[part] for part in PARTS if part in parts], backs_up="backup" in parts)

    def rotate(self, old: Policy) -> RunReport:
        """Re-encrypt every copy for those who may read the policy's backups from now on.

        Args:
            old: The policy as it was, with the key that opens what lies there.

        Raises:
            ConfigError: A secret that one of the policies names is missing or invalid.
            RunInProgressError: Another run of the policy is in progress.
        """
        before = encryption_of(old, self.environ)
        session = self._session(encryption=encryption_of(self.policy, self.environ))
        return self._cycle(session, [partial(reencrypt_all, old=before)], backs_up=False)

    def planned_retention(self) -> tuple[PlannedRetention, ...]:
        """Return what a run would keep and remove now, by what lies in the locations that answer; nothing is changed.

        Raises:
            StoreUnavailableError: No location answers.
        """
        session = self._session(encryption=None)
        self._read_catalogs(session, open_locations(self.policy))
        return plan_retention_of(session)

    def _session(self, *, encryption: Encryption | None) -> Session:
        return Session(
            policy=self.policy,
            run=new_run_id(self.now()),
            encryption=encryption or Encryption(),
            environ=self.environ,
            on_step=self.on_step,
            progress=self.progress,
            now=self.now,
            trust_clock=self.trust_clock,
        )

    def _cycle(self, session: Session, work: Sequence[Callable[[Session], None]], *, backs_up: bool) -> RunReport:
        began = self.now()
        try:
            self._work(session, work, backs_up=backs_up)
        except BaseException as error:
            if isinstance(error, RunInProgressError) and session.lock is None:
                raise  # the other run tells what comes of it; this one has done nothing that could fail
            # Unexpected, and to be reported all the same.
            what = error.message if isinstance(error, ClusterGuardError) else f"{type(error).__name__}: {error}"
            session.add(StepReport(verb="backup", outcome="failed", at=self.now(), detail=f"the run broke off: {what}"))
            self._finish(session, began, backs_up=backs_up)
            raise
        return self._finish(session, began, backs_up=backs_up)

    # ---- the work ----------------------------------------------------------------------------------------

    def _work(self, session: Session, work: Sequence[Callable[[Session], None]], *, backs_up: bool) -> None:
        locations = open_locations(self.policy)
        with locked(locations, run=session.run, wait_seconds=self.wait_seconds) as lock:
            session.lock = lock
            if backs_up:
                self._beat(session, "start")  # a run that steps aside must not be taken for one that began
            for name, error in lock.failures.items():
                session.leave_out(name, error)
            for name, warning in lock.warnings.items():
                with session.step("lock", location=name, on_error="warning"):
                    raise warning
            # What the last run left is known for certain only now that no other run is in progress.
            self._read_catalogs(session, [location for location in locations if location.name not in lock.failures])
            self._compare_clocks(session)
            try:
                # Asked before each part: one of them may have taken hours, and the machine may have slept.
                for part in work:
                    lock.require()
                    part(session)
            finally:
                # Under the lock still: two runs that write catalogs and audit trails at once would lose one's lines.
                self._account(session)

    def _read_catalogs(self, session: Session, locations: Sequence[StorageLocation]) -> None:
        """Ask locations for their catalogs; those that do not answer are left out and reported."""
        found = read_catalogs(locations)
        answering = []
        for location in locations:
            catalog = found[location.name]
            if isinstance(catalog, ClusterGuardError):
                session.leave_out(location.name, catalog)
                continue
            answering.append(location)
            session.catalogs[location.name] = catalog
            for note in catalog.notes:
                with session.step("catalog", location=location.name) as task:
                    task.outcome, task.detail = "warning", note
            if catalog.leftovers:
                with session.step("catalog", location=location.name) as task:
                    task.code, task.size = "leftovers", sum(each.size for each in catalog.leftovers)
                    task.detail = _told(catalog.leftovers)
        session.locations = tuple(answering)
        session.failed_before = {
            name
            for catalog in session.catalogs.values()
            for name, last in catalog.runs.items()
            if last.outcome == "failed"
        }
        if not answering:
            reasons = (f"{name}: {each.message}" for name, each in found.items() if isinstance(each, ClusterGuardError))
            raise StoreUnavailableError(
                f"no location of policy {self.policy.name} answers: {'; '.join(reasons)}",
                hint="nothing was backed up; see each location's own error above",
            )

    def _compare_clocks(self, session: Session) -> None:
        """See how far the locations' own clocks are from ours, by the lock that was just written."""
        for location in session.locations:
            try:
                written = location.root.stat(LOCK_KEY).modified
            except ClusterGuardError:
                continue
            session.location_clocks[location.name] = written - self.now()

    # ---- reporting -----------------------------------------------------------------------------------------

    def _account(self, session: Session) -> None:
        """Write what was done into every location: the runs of the sources, the audit trail, the catalog."""
        report = self._report(session, session.steps[0].at if session.steps else self.now())
        if not report.steps:
            return  # nothing was due, so there is nothing to write down
        for location in session.locations:
            session.update(location, runs=_runs_after(session.catalogs[location.name], report, self.policy))
            with session.step("audit", location=location.name, on_error="warning") as task:
                events = events_of(report, actor=_actor(self.environ), policy_digest=self.policy.digest)
                trail, known = AuditTrail(location.root), session.catalogs[location.name].audit_head
                if known and not trail.has(known):
                    # Its head in the catalog is the evidence: it stays, and nothing is appended that would hide it.
                    task.outcome, task.code, task.digest = "failed", "audit-trail-cut", known
                    task.detail = "the trail lacks its last known line: it was cut off, or another one was put there"
                    task.hint = "compare it with the other locations': clusterguard audit verify POLICY"
                    continue
                head = trail.append(events, run=session.run)
                session.update(location, audit_head=head)
                task.digest, task.detail = head, f"{len(events)} events added"
            if task.outcome == "warning":
                session.answers(location)
        session.save_catalogs()

    def _finish(self, session: Session, began: datetime, *, backs_up: bool) -> RunReport:
        """Tell everybody; nothing that fails here undoes a backup."""
        report = self._report(session, began)
        catalogs: dict[str, Catalog | ClusterGuardError] = {
            each.name: ConfigError("it did not answer in this run") for each in self.policy.locations
        }
        catalogs |= {location.name: session.catalogs[location.name] for location in session.locations}
        status = policy_status(self.policy, catalogs, now=self.now())
        for step in (*self._published(status), *self._notified(report)):
            session.add(step)
        if report.outcome == "failed":
            self._beat(session, "failure", report)
        elif backs_up:  # whoever waits for the nightly backup must not take a verification at noon for it
            self._beat(session, "success", report)
        return replace(report, finished=self.now(), steps=tuple(session.steps))

    def _published(self, status: PolicyStatus) -> tuple[StepReport, ...]:
        if not (self.policy.metrics.textfile or self.policy.metrics.pushgateway):
            return ()
        from clusterguard.policies.watching.metrics import publish  # slow: it brings an HTTP client and a server

        return publish(self.policy, status)

    def _notified(self, report: RunReport) -> Iterator[StepReport]:
        try:
            yield from notify(self.policy, report, environ=self.environ)
        except ClusterGuardError as error:
            yield StepReport(
                verb="notify", outcome="warning", at=self.now(), detail=error.message, hint=error.hint or ""
            )

    def _beat(
        self, session: Session, moment: Literal["start", "success", "failure"], report: RunReport | None = None
    ) -> None:
        if self.policy.heartbeat is None:
            return
        body = "\n".join(str(step) for step in report.steps if step.outcome != "ok") if report else ""
        session.add(beat(self.policy.heartbeat, moment, environ=self.environ, body=body))

    def _report(self, session: Session, began: datetime) -> RunReport:
        steps = tuple(session.steps)
        backed_up = {step.source for step in steps if step.verb == "backup" and step.outcome != "failed"}
        return RunReport(
            policy=self.policy.name,
            run=session.run,
            started=began,
            finished=self.now(),
            steps=steps,
            recovered=tuple(sorted(backed_up & session.failed_before)),
        )


def _back_up(session: Session) -> None:
    for source in session.policy.sources:
        back_up(source, session)
    replicate_missing(session)


def _verify(session: Session) -> None:
    verify_due(session)
    replicate_missing(session)  # what was found damaged is replaced from a sound copy


def _prove(session: Session) -> None:
    from clusterguard.policies.runs.proofs import prove  # drills are slow to load, and most runs run none

    prove(session)


_PARTS: Final[Mapping[Part, Callable[[Session], None]]] = {
    "backup": _back_up,
    "verify": _verify,
    "retain": retain,
    "prove": _prove,
}


def _runs_after(catalog: Catalog, report: RunReport, policy: Policy) -> dict[str, RunRecord]:
    """Return what is known of the sources' runs after this one; a run without a backup changes nothing."""
    runs = dict(catalog.runs)
    for source in policy.sources:
        backups = [step for step in report.steps if step.verb == "backup" and step.source == source.name]
        if not backups:
            continue
        before = runs.get(source.name)
        done = backups[-1]
        about = [step for step in report.steps if step.source == source.name and step.verb != "prove"]
        well = all(step.outcome == "ok" for step in about)
        outcome: Literal["ok", "warning", "failed"] = (
            "failed" if done.outcome == "failed" else "ok" if well else "warning"
        )
        runs[source.name] = RunRecord(
            source=source.name,
            run=report.run,
            at=done.at,
            outcome=outcome,
            detail=done.detail if done.outcome != "ok" else "",
            seconds=done.seconds,
            last_success=done.at if done.outcome != "failed" else before.last_success if before else None,
        )
    return runs


def _told(leftovers: Sequence[Leftover]) -> str:
    names = sorted({entry_key(each.source, each.name) for each in leftovers})
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    objects = sum(len(each.keys) for each in leftovers)
    return (
        f"{objects:,} objects that no record names, of what broke off half-way: {', '.join(names[:_NAMED])}{more}; "
        "retention removes them once they are a day old"
    )


def _actor(environ: Mapping[str, str]) -> str:
    """Return who runs this: what a job says of itself, or the user."""
    if named := environ.get("CLUSTERGUARD_ACTOR"):
        return named
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a numeric user of a container has no name
        return "unknown"
