"""What a drill would do, step by step, in plain words: nothing is run, nothing is asked.

The steps that a drill file does not write down are in the plan too: markers, the baseline, the look at
``verify`` while everything is broken, the cleanup. They decide whether a green drill means anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import singledispatch
from typing import TYPE_CHECKING, Final

from clusterguard.documents.values import duration_text
from clusterguard.drills import schema as s

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.drills.load import Drill, LoadedStep

__all__ = ["PlanLine", "plan_lines", "plan_text"]

_OBJECTS_NAMED: Final = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLine:
    """One thing that would happen.

    Attributes:
        phase: When.
        text: What, in one sentence.
        details: How, in this order; exact commands where there are any.
        cluster: The name of the cluster that it happens on, or ``""``.
        destructive: Whether something is destroyed, overwritten or cut off.
        implied: Whether it happens without being in the file.
        location: ``path:line:column`` of the step, or ``""`` for what is implied.
    """

    phase: s.PhaseName
    text: str
    details: tuple[str, ...] = ()
    cluster: str = ""
    destructive: bool = False
    implied: bool = False
    location: str = field(default="", compare=False)


def plan_lines(drill: Drill, *, default_cluster: str = "embedded") -> tuple[PlanLine, ...]:
    """Return everything that would happen, in order.

    Args:
        drill: The drill.
        default_cluster: What clusters without a provider of their own become.
    """
    return tuple(line for phase in s.PHASES for line in _phase(drill, phase, default_cluster))


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


def _cluster_words(spec: s.ClusterSpec, default_cluster: str) -> str:
    if spec.context is not None:
        context = spec.context
        return f"context {context}, which exists; it is touched only with --drill-allow-context {context}"
    if spec.kubeconfig is not None:
        return f"the current context of {spec.kubeconfig}, which exists; it is touched only if it is allowed"
    when = "created when the restore begins" if spec.start_in == "restore" else "created for this run"
    for provider, name in ((spec.kind, "kind"), (spec.embedded, "embedded")):
        if provider is not None:
            version = f" {provider.version}" if provider.version else ""
            return f"{name}{version}, {when}, deleted at its end"
    if default_cluster in ("embedded", "kind"):
        return f"{default_cluster} (by --drill-cluster), {when}, deleted at its end"
    return f"{default_cluster} (by --drill-cluster), which exists"


def _promise_lines(drill: Drill) -> Iterator[str]:
    objectives = drill.spec.objectives
    if objectives.rto:
        yield f"recovery: within {duration_text(objectives.rto)}, or the drill fails"
    if objectives.rpo:
        yield f"data loss: at most {duration_text(objectives.rpo)}, or the drill fails"


# ── phase by phase ────────────────────────────────────────────────────────────────────────────────────────


def _phase(drill: Drill, phase: s.PhaseName, default_cluster: str) -> Iterator[PlanLine]:
    steps = [_step_line(step) for step in drill.phase(phase)]
    match phase:
        case "setup":
            yield from steps
        case "backup":
            yield _implied(phase, f"capture the baseline: {_scope_words(drill.spec.scope)}")
            yield from _noted_files(drill)
            yield from _canary_before(drill)
            yield from steps
            yield from _canary_after(drill)
        case "fault":
            if drill.spec.canary is not False:
                text = "delete the first marker"
                yield _implied(phase, text, destructive=True, cluster=drill.default_cluster)
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
    details = tuple(_details(step))
    named = f"{step.spec.name}: " if step.spec.name else ""
    limit = f" (at most {duration_text(step.timeout)})" if step.timeout else ""
    return PlanLine(
        phase=step.phase,
        text=f"{named}{_words(step.action)}{limit}",
        details=details,
        cluster="" if isinstance(step.action, _NOT_ON_A_CLUSTER) else step.cluster,
        destructive=step.phase == "fault" or isinstance(step.action, _DESTRUCTIVE),
        location=step.location,
    )


_NOT_ON_A_CLUSTER: Final = (s.CopyBackup, s.DeleteCluster, s.BlockStorage, s.UnblockStorage)
_DESTRUCTIVE: Final = (
    s.Delete, s.Scale, s.Patch, s.StopNode, s.LoseEtcd, s.DeleteCluster, s.BlockStorage, s.EtcdRestore,
)  # fmt: skip


def _implied(phase: s.PhaseName, text: str, *, destructive: bool = False, cluster: str = "") -> PlanLine:
    return PlanLine(phase=phase, text=text, destructive=destructive, cluster=cluster, implied=True)


def _noted_files(drill: Drill) -> Iterator[PlanLine]:
    for step in drill.phase("verify"):
        if isinstance(step.action, s.SameFiles):
            text = f"note size and SHA-256 of every file below {step.action.path}; none is an error"
            yield _implied("backup", text, cluster=step.cluster)


def _canary_before(drill: Drill) -> Iterator[PlanLine]:
    if drill.spec.canary is False:
        yield _implied("backup", "no markers: the file turns the canary off")
        return
    yield _implied("backup", "write the first marker: the restore must bring it back", cluster=drill.default_cluster)
    if isinstance(drill.spec.canary, s.Canary):
        every = duration_text(drill.spec.canary.every)
        text = f"write one more marker every {every} until the fault: the newest to come back measures data loss"
        yield _implied("backup", text, cluster=drill.default_cluster)


def _canary_after(drill: Drill) -> Iterator[PlanLine]:
    if drill.spec.canary is not False:
        fate = "the restore must lose it" if _restores_etcd(drill) else "it is in no backup"
        yield _implied("backup", f"write the second marker: {fate}", cluster=drill.default_cluster)


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
    if drill.spec.canary is not False:
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
    return any(isinstance(step.action, s.EtcdRestore) for step in drill.phase("restore"))


# ── one action in words ───────────────────────────────────────────────────────────────────────────────────


@singledispatch
def _words(action: object) -> str:
    raise TypeError(f"no words for {type(action).__name__}")


@_words.register
def _(action: s.Apply) -> str:
    return f"apply {', '.join(action.paths) or 'what the drill file holds'}"


@_words.register
def _(action: s.Ready) -> str:
    count = f"; {action.count.in_words()} of them" if action.count else ""
    stable = f"; for {duration_text(action.stable_for)} without a break" if action.stable_for else ""
    return f"wait until every {_selected(action)} is ready{count}{stable}"


@_words.register
def _(action: s.Exec) -> str:
    says = f" and a text that contains {action.contains!r}" if action.contains else ""
    command = " ".join(action.command)
    return f"run {command!r} in {_container(action.in_)}; expect exit code {action.exit_code}{says}"


@_words.register
def _(action: s.WriteFile) -> str:
    what = f"{action.size:,} random bytes" if action.size else "a text"
    return f"write {what} to {action.path} in {_container(action.in_)}, and note the digest"


@_words.register
def _(action: s.EtcdSnapshot) -> str:
    return f"save an etcd snapshot as `{action.name}` in {_storage(action.storage)}, checked while it is written"


@_words.register
def _(action: s.StoredBackup) -> str:
    which = f"backup {action.backup}" if action.backup else "the newest backup"
    where = f" from its location `{action.location}`" if action.location else ""
    return f"take {which} of source `{action.source}` of {action.policy}{where} as `{action.name}`"


@_words.register
def _(action: s.VeleroBackup) -> str:
    what = f"namespaces {', '.join(action.namespaces)}" if action.namespaces else "all namespaces"
    where = f"storage {action.storage}" if action.storage else "Velero's default location"
    volumes = ", with the files of every claimed volume," if action.volumes else ""
    return f"make a Velero backup `{action.name}` of {what}{_only(action)}{volumes} in {where}"


@_words.register
def _(action: s.CopyBackup) -> str:
    return f"copy backup `{action.backup}` from storage {action.from_} to {action.to}, and compare the digests"


@_words.register
def _(action: s.VerifyBackup) -> str:
    where = f" in storage {action.storage}" if action.storage else ""
    contents = ", and find everything in scope in it" if action.contains else ""
    same = f", and compare it byte for byte with {action.same_as}" if action.same_as else ""
    return f"read backup `{action.backup}`{where} back: digest, structure, revision{contents}{same}"


@_words.register
def _(action: s.Delete) -> str:
    what = f"all of {' and '.join(action.all_kinds)}" if action.all else " and ".join(action.all_kinds)
    names = f" {', '.join(action.all_names)}" if action.all_names else ""
    labels = f" with labels {action.selector}" if action.selector else ""
    grace = f", grace period {duration_text(action.grace_period)}" if action.grace_period is not None else ""
    stuck = ", and see finalizers hold it" if action.until == "stuck" else ""
    return f"delete {what}{names}{labels}{_in(action.namespace)}{grace}{stuck}; selecting none is an error"


@_words.register
def _(action: s.Scale) -> str:
    return f"scale {_selected(action)} to {action.replicas}"


@_words.register
def _(action: s.Patch) -> str:
    return f"change {_selected(action)} by a merge patch of {', '.join(_leaves(action.patch, ''))}"


@_words.register
def _(action: s.StopNode) -> str:
    return f"cut the power of {_nodes(action.name, action.selector)}; selecting none is an error"


@_words.register
def _(action: s.StartNode) -> str:
    which = f"node {action.name}" if action.name else "every node that was stopped"
    return f"start {which}, and wait until the API server answers"


@_words.register
def _(_: s.LoseEtcd) -> str:
    return "kill etcd and throw away what it wrote"


@_words.register
def _(action: s.DeleteCluster) -> str:
    return f"delete the whole cluster {action.name}"


@_words.register
def _(action: s.BlockStorage) -> str:
    return f"make storage {action.name} unreachable"


@_words.register
def _(action: s.UnblockStorage) -> str:
    return f"make storage {action.name} reachable again"


@_words.register
def _(action: s.EtcdRestore) -> str:
    return f"replace the cluster's whole etcd data by snapshot `{action.from_}`"


@_words.register
def _(action: s.VeleroRestore) -> str:
    where = f" from storage {action.storage}" if action.storage else ""
    only = f", only namespaces {', '.join(action.namespaces)}" if action.namespaces else ""
    renamed = "".join(f", {old} as {new}" for old, new in action.namespace_mapping.items())
    update = ", changing what is there already" if action.existing_resources == "update" else ""
    return (
        f"restore Velero backup `{action.from_}`{where}{only}{_only(action)}{renamed}{update}, "
        "and wait until it is complete"
    )


def _only(action: s.VeleroBackup | s.VeleroRestore) -> str:
    kinds = f", only kinds {', '.join(action.kinds)}" if action.kinds else ""
    return kinds + (f", only objects {action.selector}" if action.selector else "")


@_words.register
def _(action: s.Restored) -> str:
    extra = "shown only" if isinstance(action.extra, str) else action.extra.in_words()
    allowed = f"missing {action.missing.in_words()}, changed {action.changed.in_words()}, extra {extra}"
    identity = "; the same UIDs" if action.identity == "uid" else ""
    ignored = f"; not compared: {', '.join(action.ignore)}" if action.ignore else ""
    return f"compare everything in scope with the baseline, field by field: {allowed}{identity}{ignored}"


@_words.register
def _(action: s.Assert) -> str:
    metadata = action.resource.get("metadata", {})
    name = "/".join(str(metadata[key]) for key in ("namespace", "name") if key in metadata)
    count = f"; {action.count.in_words()} of them" if action.count else ""
    which = "every" if action.match == "all" else "at least one"
    return f"compare {which} {' '.join(filter(None, (action.resource['kind'], name)))} with the file{count}"


@_words.register
def _(action: s.Absent) -> str:
    return f"find no {_selected(action)}"


@_words.register
def _(action: s.Http) -> str:
    says = f" and a text that contains {action.contains!r}" if action.contains else ""
    where = f"http://{action.service}.{action.namespace}:{action.port}{action.path}"
    return f"ask {where} from inside the cluster; expect status {action.status}{says}"


@_words.register
def _(action: s.SameFiles) -> str:
    where = _container(action.in_)
    return f"compare every file below {action.path} in {where} with what was there before the backup, by SHA-256"


def _details(step: LoadedStep) -> Iterator[str]:
    match step.action:
        case s.Apply():
            names = [_object_name(thing) for thing in step.objects]
            yield from names[:_OBJECTS_NAMED]
            if len(names) > _OBJECTS_NAMED:
                yield f"and {len(names) - _OBJECTS_NAMED} more"
        case s.EtcdRestore():
            yield from _etcd_restore(step.action.from_)


def _etcd_restore(snapshot: str) -> Iterator[str]:
    yield f"check `{snapshot}` (digest, trailer, structure), and programs, rights and free space"
    yield (
        "etcdutl snapshot restore SNAPSHOT --data-dir NEW-DATA-DIR --name MEMBER"
        " --initial-cluster MEMBER=PEER-URL --initial-cluster-token TOKEN"
        " --initial-advertise-peer-urls PEER-URL --bump-revision N --mark-compacted"
        "   (N: beyond every revision served so far)"
    )
    yield "stop kube-scheduler, kube-controller-manager, kube-apiserver, then etcd"
    yield "move the live data directory aside, put the new one in its place"
    yield "start etcd and wait until it serves, then kube-apiserver until it is ready"
    yield "if anything fails up to here: put the old data directory back, and start on it; afterwards nothing is undone"
    yield "start kube-controller-manager and kube-scheduler"


def _container(target: s.ExecTarget) -> str:
    pod = target.pod or f"a ready Pod {target.selector}"
    container = f", container {target.container}" if target.container else ""
    return f"{target.namespace}/{pod}{container}"


def _nodes(name: str | None, selector: str | None) -> str:
    return f"node {name}" if name else f"every node with labels {selector}"


def _object_name(thing: object) -> str:
    metadata = thing.get("metadata", {}) if isinstance(thing, dict) else {}
    kind = thing.get("kind", "?") if isinstance(thing, dict) else "?"
    return f"{kind} {'/'.join(str(metadata[key]) for key in ('namespace', 'name') if key in metadata)}"


def _selected(action: s.Ready | s.Scale | s.Patch | s.Absent) -> str:
    selector = getattr(action, "selector", None)
    labels = f" with labels {selector}" if selector else ""
    name = f" {action.name}" if action.name else ""
    return f"{action.kind}{name}{labels}{_in(action.namespace)}"


def _in(namespace: str | None) -> str:
    return f" in namespace {namespace}" if namespace else ""


def _storage(name: str | None) -> str:
    return f"storage {name}" if name else "the run's own store"


def _scope_words(scope: s.ScopeSpec) -> str:
    namespaces = f"namespaces {', '.join(scope.namespaces)}" if scope.namespaces else ""
    kinds = f"kinds {', '.join(scope.kinds)}" if scope.kinds else ""
    labels = f"objects {scope.selector}" if scope.selector else ""
    without = f"without {', '.join(scope.exclude)}" if scope.exclude else ""
    words = ", ".join(filter(None, (namespaces, kinds, labels, without)))
    return words or "everything that is not system-owned"


def _leaves(patch: object, path: str) -> Iterator[str]:
    """Yield the fields that a merge patch sets or removes."""
    if isinstance(patch, dict) and patch:
        for key, value in patch.items():
            yield from _leaves(value, f"{path}.{key}" if path else str(key))
    else:
        yield path
