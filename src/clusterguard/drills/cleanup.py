"""What runs at the end, however a drill ends: its cleanup steps, then what it made is removed and closed."""

from __future__ import annotations

import math
import time
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.capabilities import Persistable
from clusterguard.drills.clusters import kept_clusters
from clusterguard.drills.diagnostics import collect, why_silent
from clusterguard.drills.events import Note
from clusterguard.drills.gathering import gather
from clusterguard.drills.markers import RUN_LABEL
from clusterguard.drills.recording import phase, record
from clusterguard.drills.run import DEFAULT_WAIT
from clusterguard.drills.steps.base import StepContext
from clusterguard.drills.steps.selection import labels_of, named, wait_until_gone
from clusterguard.drills.verdict import Verdict
from clusterguard.errors import ClusterGuardError, ClusterUnreachableError, ResourceNotFoundError
from clusterguard.model.attempts import try_each

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.recording import OpenPhase
    from clusterguard.drills.run import DrillRun
    from clusterguard.drills.steps.selection import Selected

__all__ = ["clean_up", "remove_leftovers"]


def remove_leftovers(run: DrillRun) -> None:
    """Remove what the setup of an earlier run made, from clusters that clusterguard created and kept for a look.

    Raises:
        WaitTimeoutError: Something stays, held by a finalizer.
    """
    for name, cluster in run.clusters.items():
        kept = not run.owns(name) and isinstance(cluster, Persistable) and cluster.kept
        if kept and (number := _remove_made_by_setup(run, name, of_any_run=True)):
            run.on_event(Note(text=f"removed {number} object(s) of an earlier run from the kept cluster `{name}`"))


def clean_up(run: DrillRun) -> None:
    """Collect what explains a red drill, then clean up, whatever happened before."""
    if not run.touched:
        return
    run.deadline = math.inf  # the drill's own time may be over; cleanup takes what it needs
    failed = run.verdict is not Verdict.PASS and not run.interrupted
    try:
        for markers in run.markers.values():
            markers.stop_ticking()
        # Before anything is cleaned up: that is what it was red about.
        if failed:
            run.diagnostics = collect(run)
        if run.journal is not None and not run.interrupted:
            with phase(run, "evidence"):
                gather(run, run.journal)
    finally:
        asked = run.settings.keep == "always" or (run.settings.keep == "on-failure" and failed)
        run.keep_clusters = asked and not run.spoiled
        with phase(run, "cleanup") as opened, ExitStack() as stack:
            # Last in, first out; each runs whatever becomes of the others, a second Ctrl-C included.
            stack.callback(_do, run, opened, "close everything", run.close)
            stack.callback(_remove_own_objects, run, opened)
            for step in run.drill.phase("cleanup"):
                stack.callback(_do_step, run, opened, step)
            _tell_what_is_kept(run, opened)


def _tell_what_is_kept(run: DrillRun, opened: OpenPhase) -> None:
    kept = [f"{cluster.name} ({cluster.kubeconfig})" for name, cluster in run.clusters.items() if run.owns(name)]
    if run.keep_clusters and kept:
        opened.detail = f"kept: {', '.join(kept)}"
        for text in (opened.detail, *kept_clusters(run)):
            run.on_event(Note(text=text))


def _do_step(run: DrillRun, opened: OpenPhase, step: LoadedStep) -> None:
    if step.cluster not in run.clusters:
        run.on_event(Note(text=f"{step.title}: cluster `{step.cluster}` does not run, so nothing in it is cleaned up"))
        return
    _do(run, opened, step.title, partial(step.action.perform, StepContext(run, step)), step.location)


def _remove_own_objects(run: DrillRun, opened: OpenPhase) -> None:
    for name, cluster in run.clusters.items():
        if run.owns(name):
            continue  # it goes as a whole, or is kept as a whole
        if silent := why_silent(cluster.api):
            _do(run, opened, "remove what this run made", partial(_refuse, name, silent))
            continue
        for markers in run.markers.values():  # a restore brings them into other clusters, too
            renamed = run.namespace_mapping.get(markers.namespace, "")
            _do(run, opened, "remove markers", partial(markers.remove_all, cluster.api, renamed=renamed))
        _do(run, opened, "remove what setup made", partial(_remove_own, run, name))


def _refuse(cluster: str, silent: str) -> None:
    raise ClusterUnreachableError(
        f"cluster `{cluster}` does not answer, so what this run made in it stays: {silent}",
        hint=f"once it answers: delete what has the label {RUN_LABEL}",
    )


def _do(run: DrillRun, opened: OpenPhase, title: str, act: Callable[[], object], location: str = "") -> None:
    """Do one thing of the cleanup; where it fails the others still follow, and the drill does not pass."""
    began = time.monotonic()
    try:
        detail = act()
    except ClusterGuardError as error:
        opened.verdict = Verdict.ERROR
        record(run, "cleanup", title, Verdict.ERROR, time.monotonic() - began, error.message, location)
        run.worsen(Verdict.ERROR, f"cleanup: {title}: {error.message}", error.hint, code=error.code)
    else:
        if isinstance(detail, str):
            record(run, "cleanup", title, Verdict.PASS, time.monotonic() - began, detail, location)


def _remove_own(run: DrillRun, cluster: str) -> str | None:
    number = _remove_made_by_setup(run, cluster)
    return f"{number} object(s) removed" if number else None


def _remove_made_by_setup(run: DrillRun, cluster: str, *, of_any_run: bool = False) -> int:
    """Remove what this drill's setup applied to a cluster, last first, and nothing that lacks the label of a run.

    Each is tried, whatever becomes of the others. Returns how many once they are gone, so that the next run may use
    the same names.

    Raises:
        WaitTimeoutError: Something stays, held by a finalizer.
        ClusterGuardError: The cluster refused to remove something.
    """
    api = run.clusters[cluster].api
    doomed: list[Selected] = []

    def remove(manifest: Any) -> None:  # noqa: ANN401 - a manifest from YAML
        with suppress(ResourceNotFoundError):
            resource, found = named(api, manifest)
            metadata, owner = found["metadata"], labels_of(found).get(RUN_LABEL)
            if owner == run.run_id or (of_any_run and owner is not None):
                api.delete(resource, metadata["name"], metadata.get("namespace"), uid=metadata["uid"])
                doomed.append((resource, found))

    steps = [step for step in run.drill.phase("setup") if step.cluster == cluster]
    try_each([
        *(partial(remove, manifest) for step in reversed(steps) for manifest in reversed(step.objects)),
        lambda: wait_until_gone(api, doomed, seconds=DEFAULT_WAIT.total_seconds()),
    ])  # fmt: skip
    return len(doomed)
