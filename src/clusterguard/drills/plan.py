"""What a drill would do, step by step, in plain words: nothing is run, nothing is asked.

The steps that a drill file does not write down are in the plan too: markers, the baseline, the look at
``verify`` while everything is broken, the cleanup. They decide whether a green drill means anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clusterguard.documents.values import duration_text
from clusterguard.drills.marker_plan import plan_markers
from clusterguard.drills.schema import Canary
from clusterguard.drills.steps.base import PHASES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.drills.load import Drill, LoadedStep
    from clusterguard.drills.schema import ClusterSpec
    from clusterguard.drills.steps.base import PhaseName

__all__ = ["PlanLine", "plan_lines", "plan_text"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """One thing that would happen; what is implied is not in the file, and has no ``path:line:column``."""

    phase: PhaseName
    text: str
    details: tuple[str, ...] = ()
    cluster: str = ""
    destructive: bool = False
    implied: bool = False
    location: str = field(default="", compare=False)


def plan_lines(drill: Drill, *, default_cluster: str = "embedded") -> tuple[PlanLine, ...]:
    """Return everything that would happen, in order; clusters without a provider are the default one."""
    return tuple(line for phase in PHASES for line in _phase(drill, phase, default_cluster))


def plan_text(drill: Drill, *, default_cluster: str = "embedded") -> str:
    """Return the plan as text: ``!`` marks what destroys, ``·`` what the file does not write down."""
    lines = [f"drill {drill.id}  ({drill.location})"]
    if drill.spec.description:
        lines.append(f"  {drill.spec.description}")
    lines += ["", *_cluster_lines(drill, default_cluster), *_promise_lines(drill)]
    phase = None
    for line in plan_lines(drill, default_cluster=default_cluster):
        if line.phase != phase:
            phase = line.phase
            lines += ["", phase]
        lines += _rendered(line, several_clusters=len(drill.spec.effective_clusters) > 1)
    return "\n".join([*lines, "", "! destroys, overwrites or cuts off   · not in the file, always done", ""])


def _rendered(line: PlanLine, *, several_clusters: bool) -> Iterator[str]:
    mark = "!" if line.destructive else "·" if line.implied else " "
    where = f"  [{line.cluster}]" if several_clusters and line.cluster else ""
    yield f"  {mark} {line.text}{where}"
    for number, detail in enumerate(line.details, start=1):
        yield f"      {number}. {detail}"


# ── before the phases ─────────────────────────────────────────────────────────────────────────────────────


def _cluster_lines(drill: Drill, default_cluster: str) -> Iterator[str]:
    yield "clusters"
    for name, spec in drill.spec.effective_clusters.items():
        yield f"    {name}: {_cluster_words(spec, default_cluster)}"


def _cluster_words(spec: ClusterSpec, default_cluster: str) -> str:
    if spec.context is not None:
        context = spec.context
        return f"context {context}, which exists; it is touched only with --drill-allow-context {context}"
    if spec.kubeconfig is not None:
        return f"the current context of {spec.kubeconfig}, which exists; it is touched only if it is allowed"
    when = "created when the restore begins" if spec.start_in == "restore" else "created for this run"
    if (provider := spec.provider(default_cluster)) and (shape := spec.kind if provider == "kind" else spec.embedded):
        return f"{provider}{shape.in_words}, {when}, deleted at its end"
    if default_cluster in ("embedded", "kind"):
        return f"{default_cluster} (by --drill-cluster), {when}, deleted at its end"
    return f"{default_cluster} (by --drill-cluster), which exists"


def _promise_lines(drill: Drill) -> Iterator[str]:
    objectives = drill.spec.objectives
    if objectives.rto:
        yield f"recovery: within {duration_text(objectives.rto)}, or the drill fails"
    if objectives.rpo:
        yield f"data loss: at most {duration_text(objectives.rpo)}, or the drill fails"
    if objectives.slower_than:
        yield f"recovery: within {objectives.slower_than:g} times the median of the last runs, or the drill fails"


# ── phase by phase ────────────────────────────────────────────────────────────────────────────────────────


def _phase(drill: Drill, phase: PhaseName, default_cluster: str) -> Iterator[PlanLine]:
    steps = [_step_line(step) for step in drill.phase(phase)]
    match phase:
        case "setup":
            yield from steps
        case "backup":
            if not drill.spec.proves_stored:
                yield _implied(phase, f"capture the baseline: {drill.spec.scope.words()}")
            yield from _notes(drill)
            yield from _first_marker(drill)
            yield from steps
            if drill.spec.compares_stored:
                yield _implied(phase, f"the baseline is what the backup holds: {drill.spec.scope.words()}")
            yield from _second_marker(drill)
        case "fault":
            if _has_markers(drill) and not drill.spec.proves_stored:
                text = "delete the first marker"
                yield _implied(phase, text, destructive=True, cluster=plan_markers(drill.spec).cluster)
            yield from steps
            yield _red_before_green(drill)
        case "restore":
            yield _implied(phase, "the recovery clock runs from here")
            yield from _late_clusters(drill, default_cluster)
            yield from steps
        case "verify":
            yield from steps
            yield from _proofs(drill)
        case "cleanup":
            yield from reversed(steps)
            yield from _leave_nothing(drill)


def _step_line(step: LoadedStep) -> PlanLine:
    named = f"{step.spec.name}: " if step.spec.name else ""
    limit = f" (at most {duration_text(step.timeout)})" if step.timeout else ""
    return PlanLine(
        phase=step.phase,
        text=f"{named}{step.action.plan()}{limit}",
        details=tuple(step.action.details(step)),
        cluster=step.cluster if step.action.on_a_cluster else "",
        destructive=step.phase == "fault" or step.action.destructive,
        location=step.location,
    )


def _implied(phase: PhaseName, text: str, *, destructive: bool = False, cluster: str = "") -> PlanLine:
    return PlanLine(phase=phase, text=text, destructive=destructive, cluster=cluster, implied=True)


def _notes(drill: Drill) -> Iterator[PlanLine]:
    for step in drill.phase("verify"):
        if noted := step.action.noted():
            yield _implied("backup", noted, cluster=step.cluster)


def _first_marker(drill: Drill) -> Iterator[PlanLine]:
    if drill.spec.canary is False:
        yield _implied("backup", "no markers: the file turns the canary off")
        return
    if drill.spec.proves_stored:
        return  # nothing that is written now can be in a backup that is older
    plan = plan_markers(drill.spec)
    if plan.impossible:
        yield _implied("backup", f"no markers: {plan.impossible}")
        return
    yield _implied("backup", "write the first marker: the restore must bring it back", cluster=plan.cluster)
    if isinstance(drill.spec.canary, Canary):
        every = duration_text(drill.spec.canary.every)
        text = f"write one more marker every {every} until the fault: the newest to come back measures data loss"
        yield _implied("backup", text, cluster=plan.cluster)


def _second_marker(drill: Drill) -> Iterator[PlanLine]:
    if not _has_markers(drill):
        return
    which = "a marker" if drill.spec.proves_stored else "the second marker"
    fate = "the restore must lose it" if _restores_etcd(drill) else "it is in no backup"
    yield _implied("backup", f"write {which}: {fate}", cluster=plan_markers(drill.spec).cluster)


def _has_markers(drill: Drill) -> bool:
    spec = drill.spec
    return spec.canary is not False and not spec.stored_in_velero and not plan_markers(spec).impossible


def _red_before_green(drill: Drill) -> PlanLine:
    if drill.spec.prove:
        return _implied("fault", "look at verify once: with nothing red the drill is vacuous, and fails")
    return _implied("fault", "verify need not be red now: the file says prove: false, and the report will")


def _late_clusters(drill: Drill, default_cluster: str) -> Iterator[PlanLine]:
    for name, spec in drill.spec.effective_clusters.items():
        if spec.start_in == "restore":
            words = _cluster_words(spec, default_cluster).partition(",")[0]
            yield _implied("restore", f"create cluster {name}: {words}", cluster=name)


def _proofs(drill: Drill) -> Iterator[PlanLine]:
    yield _implied("verify", "count a status only once a node or controller Lease was renewed after the restore")
    unmarked = drill.spec.canary is not False and plan_markers(drill.spec).impossible
    if drill.spec.stored_in_velero or unmarked:
        yield _implied("verify", "the restore itself has brought something of the scope back")
    elif drill.spec.proves_stored and drill.spec.canary is not False:
        yield _implied("verify", "the marker is gone")
    elif drill.spec.canary is not False:
        lost = ", the second is gone" if _restores_etcd(drill) else ""
        yield _implied("verify", f"the first marker is back{lost}")
    objectives = drill.spec.objectives
    text = "stop the recovery clock when all of this holds"
    yield _implied("verify", f"{text}, and compare it with the objectives" if objectives.rto else text)


def _leave_nothing(drill: Drill) -> Iterator[PlanLine]:
    yield _implied("cleanup", "delete what bears this run's id, and nothing else: markers, what setup made")
    for name, spec in drill.spec.effective_clusters.items():
        if not spec.existing:
            yield _implied("cleanup", f"delete cluster {name} if this run created it", cluster=name)


def _restores_etcd(drill: Drill) -> bool:
    return any(step.action.engine == "etcd" for step in drill.phase("restore"))
