"""What must hold after any fault. Each function returns what is wrong, in words; nothing where all is well.

They look from outside: at files, exit codes and etcd itself, not at what clusterguard says of them.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from injector import Plan
from worlds import CANARY, CANARY_KEY, KEPT, LOCATIONS, WANTED

from clusterguard.stores.base import PARTIAL

_CALM = Plan()
KILLED, INTERRUPTED, TERMINATED = -9, 130, 143
# Faults by which a location itself gives other bytes, or says that there are none: then it is right to believe it.
LIES = {"wrong", "absent", "taken"}


@dataclass
class Struck:
    """A command that suffered a fault; ``other`` is the run that took over from it while it stood still."""

    command: object
    plan: Plan
    reached: bool = True
    other: object = None
    taken_over: int = 0


@dataclass(frozen=True)
class Before:
    """What lay in each location before: the whole copies of the policy, and the plain snapshots."""

    policy: dict
    plain: dict

    @classmethod
    def of(cls, world):
        return cls(*({where: world.copies(where, plain=plain) for where in LOCATIONS} for plain in (False, True)))


def nothing_lost(world, before):
    """Every whole copy that retention wants is still there, byte for byte."""
    for where in LOCATIONS:
        now = world.copies(where)
        whole = {**{c.name: c for c in before.policy[where].values() if c.whole},
                 **{c.name: c for c in now.values() if c.whole}}  # fmt: skip
        newest = sorted(whole.values(), key=lambda copy: (copy.created, copy.name))[-KEPT:]
        for copy in newest:
            if now.get(copy.name) != copy:
                yield f"{where} lost {copy.name}"
        for name, copy in before.plain[where].items():
            if world.copies(where, plain=True).get(name) != copy:
                yield f"{where} lost {name}"


def nothing_half_listed(world, plan, *, mended=False):
    """Whatever has a record has its bytes, unless the location changed them on their way.

    What was ``mended`` since is held to this as well: the copies of policies, not the plain snapshots of ``etcd save``.
    """
    for where in LOCATIONS:
        lied = _lied(plan, where, {"put", "create", "replace"})
        for plain in (False, True):
            if lied and (plain or not mended):
                continue
            for copy in world.copies(where, plain=plain).values():
                if not copy.whole:
                    yield f"{where} lists {copy.name}, which is not whole"


def nothing_maligned(world, plan):
    """No whole copy is called damaged, and no damaged one is called verified.

    What etcd told wrongly when a snapshot was saved is not what is in it, and is found out by that.
    """
    if _lied(plan, "etcd"):
        return
    for where in LOCATIONS:
        copies = world.copies(where)
        for entry in world.catalog(where)["entries"]:
            copy = copies.get(entry["name"])
            if copy is None:
                continue
            if entry["problem"] and copy.whole and not _lied(plan, where):
                yield f"{where} calls {copy.name} damaged: {entry['problem']}"
            if entry["verified"] and not entry["problem"] and not copy.whole:
                yield f"{where} calls {copy.name} verified, and it is damaged"


def _lied(plan, where, verbs=None):
    site = plan.site
    return site is not None and site.where == where and plan.fault in LIES and (verbs is None or site.verb in verbs)


def nothing_in_plain(world, operation):
    """No byte of the database and no key lies where temporary files or state do, nor in any encrypted copy."""
    identity = (world.services.keys / "identity.txt").read_bytes().strip()
    # The plain snapshots are wanted in plain, and so is one that a killed save had begun; the next put sweeps it.
    plain = {world.disk} if operation.locked else {world.disk, world.disk / PARTIAL}
    for path in world.folder.rglob("*"):
        if not path.is_file() or path.parent in plain:
            continue
        data = path.read_bytes()
        for secret, what in ((CANARY, "the database"), (identity, "the private key")):
            if secret in data:
                yield f"{path.relative_to(world.folder)} holds {what} in plain"


def no_crash(world, command):
    """Whatever happened was expected by somebody."""
    if crashes := list(world.folder.rglob("crashes/*")):
        yield f"it crashed: {crashes[0].read_text()}"
    elif "Traceback (most recent call last)" in command.printed():
        yield f"it crashed: {command.printed()}"


def etcd_works(world):
    """etcd answers, and has what was put there."""
    answer = world.services.member.ask("kv/range", {"key": base64.b64encode(CANARY_KEY.encode()).decode()})
    if base64.b64decode(answer["kvs"][0]["value"]) != CANARY:
        yield "etcd lost its data"


def one_holder(struck):
    """A run that stood still while another one took over changes nothing any more but what it had begun."""
    if struck.other is None:
        return
    if struck.other.code != 0:
        yield f"the run that took over ended with {struck.other.code}: {struck.other.printed()}"
    later = [call for call in struck.command.calls() if call[0] > struck.taken_over]
    for _, _, where, verb, what, key in later:
        if verb in ("put", "replace", "delete") and what != "lock":
            yield f"after another run had taken over, it called {verb} on {key} in {where}"


def after(world, before, operation, struck):
    """Return everything that is wrong after an operation that suffered."""
    command, plan = struck.command, struck.plan
    return [
        *nothing_lost(world, before),
        *nothing_half_listed(world, plan),
        *nothing_maligned(world, plan),
        *nothing_in_plain(world, operation),
        *no_crash(world, command),
        *right_code(world, operation, command, before, plan),
        *one_holder(struck),
        *etcd_works(world),
    ]


def outcome(code):
    """Return what an exit code is called in the table."""
    return "killed" if code == KILLED else str(code)


# ---- exit codes --------------------------------------------------------------------------------------------


def right_code(world, operation, command, before, plan):
    """0 only if what was asked for is done, 1 only if the answer is no, 2 otherwise; a signal is told as such."""
    code = command.code
    if plan.fault.startswith("kill"):
        if code not in (KILLED, 0, 1, 2):
            yield f"killed, and ended with {code}"
        return
    if operation.signalled:
        if code not in (INTERRUPTED, TERMINATED):
            yield f"told to end, and ended with {code}"
        return
    if code not in (0, 1, 2):
        yield f"ended with {code}"
    elif code == 0:
        yield from operation.done(world, before, command, plan)
    elif code == 1:
        yield from operation.refused(world, before, command, plan)


def report_of(command):
    return json.loads(command.out)


def backed_up(world, before, command, plan):
    """At least so many whole copies of a new backup as the policy wants."""
    new = [
        copy.name
        for where in LOCATIONS
        for copy in world.copies(where).values()
        if copy.whole and copy.name not in before.policy[where] and copy.name not in before.policy["disk"]
    ]
    if len(new) < WANTED:
        yield f"exit code 0, and only {len(new)} copies of a new backup are whole"


def saved(world, before, command, plan):
    """One more snapshot, whole."""
    name = json.loads(command.out)["name"]
    found = [copies[name] for copies in (world.copies(where, plain=True) for where in LOCATIONS) if name in copies]
    # A disk that keeps other bytes than it was given is found out by `etcd verify`, not by `etcd save`.
    if not found or not (found[0].whole or _lied(plan, "disk", {"create"})):
        yield f"exit code 0, and {name} is not there or not whole"


def nothing_more(world, before, command, plan):
    yield from ()


def removed(world, before, command, plan):
    """The oldest went, wherever the run could reach it."""
    report = report_of(command) if command.out.startswith("{") else None
    if report is None and all(len(world.copies(where)) == len(before.policy[where]) for where in LOCATIONS):
        yield "exit code 0, and nothing was removed anywhere"


def never(world, before, command, plan):
    yield "exit code 1, and nobody asked a question that can be answered by no"


def failed_step(world, before, command, plan):
    """A run's no is about bytes: too few copies, a damaged one, an audit trail that was cut."""
    report = report_of(command)
    failed = [step for step in report["steps"] if step["outcome"] == "failed"]
    if report["outcome"] != "failed" or not failed:
        yield "exit code 1, and the report says no step failed"
    if not {step["code"] for step in failed} & {"copy-damaged", "too-few-copies", "audit-trail-cut"}:
        yield f"exit code 1, and no step says that anything is not intact: {failed}"
    for step in failed:
        if step["verb"] == "verify" and not (_lied(plan, step["location"]) or _lied(plan, "etcd")):
            yield f"exit code 1: {step['location']} is said to have a damaged copy: {step['detail']}"


def only_if_it_lied(world, before, command, plan):
    if not (plan.fault in LIES and plan.site and (plan.site.where == "etcd" or _lied(plan, plan.site.where))):
        yield f"exit code 1, and the snapshot is whole: {command.printed()}"


# ---- afterwards --------------------------------------------------------------------------------------------


def recovered(world, before, plan=_CALM):
    """One more run, undisturbed, ends well: the same newest copies everywhere, all whole, none maligned, no lock left.

    Three faults are told for longer, and must be: a backup from the future, until which nothing is removed, an audit
    trail whose bytes were changed, and a backup that holds another number of keys than etcd told.
    """
    world.services.calm()
    ahead = plan.fault == "clock+1h"
    lied = "verify" if _lied(plan, "etcd") else "audit" if plan.fault == "wrong" and plan.site.what == "audit" else ""
    tolerated = "delete" if ahead else lied
    command = world.run("run", "policy.yaml", "--json", plan=Plan(lease=plan.lease))
    report = report_of(command) if command.out.startswith("{") else {"outcome": command.printed(), "steps": []}
    failed = [step for step in report["steps"] if step["outcome"] == "failed"]
    unexpected = [step for step in failed if step["verb"] != tolerated]
    if unexpected or command.code != ((2 if ahead else 1) if failed else 0):
        yield f"the next run ended with {command.code}: {failed or report['outcome']}"
    yield from no_crash(world, command)
    yield from nothing_lost(world, before)
    yield from nothing_half_listed(world, plan, mended=True)
    yield from nothing_maligned(world, plan if _lied(plan, "etcd") else _CALM)
    yield from _everywhere(world, ahead)
    yield from backed_up(world, before, command, plan)


def _everywhere(world, ahead):
    names = {where: {copy.name for copy in world.copies(where).values()} for where in LOCATIONS}
    if not ahead and len({frozenset(each) for each in names.values()}) != 1:
        yield f"the locations hold different backups: {names}"
    for where in LOCATIONS:
        lock = world.root(where) / "nightly" / ".clusterguard" / "lock"
        if lock.exists() and json.loads(lock.read_text())["holder"]:
            yield f"{where} has a lock that nobody holds: {lock.read_text()}"
