"""Commands in containers and requests to Services: what a drill does and looks at where the workloads run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from clusterguard.clusters.kube_exec import find_container, run_in
from clusterguard.drills.files import differences, random_bytes, read_tree, write_file
from clusterguard.drills.schema import SameFiles
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import (
    ClusterUnreachableError,
    DrillError,
    ResourceNotFoundError,
    WaitTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kube_exec import Container
    from clusterguard.drills.load import LoadedStep
    from clusterguard.drills.run import Run
    from clusterguard.drills.schema import Exec, ExecTarget, Http, WriteFile

__all__ = ["ask", "ask_once", "compare_once", "container_of", "execute", "execute_once", "note_files", "write"]

_POLL_SECONDS = 0.5
# A look has no time of its own to spend, but a command and a Service need some to answer.
_SHORTEST_SECONDS = 10.0
_LONGEST_ANSWER_SECONDS = 10.0
_FILES_SECONDS = 60.0
_MOST_TOLD = 200


def execute(action: Exec, run: Run, step: LoadedStep) -> str:
    """Run the command once, as soon as its container runs; return what it said.

    Raises:
        DrillError: It ended otherwise than it must.
        WaitTimeoutError: The container did not run, or the command did not end, in time.
    """
    began = time.monotonic()
    api = run.cluster_of(step).api
    container = container_of(api, action.in_, seconds=run.wait_of(step))
    left = max(1.0, run.wait_of(step) - (time.monotonic() - began))
    result = _executed(action, api, container, seconds=left)
    if not result.ok:
        raise DrillError(f"{' '.join(action.command)!r} in {container}: {result.summary}", hint=_hint(container))
    return result.summary


def execute_once(action: Exec, run: Run, step: LoadedStep, *, seconds: float) -> CheckResult:
    """Run the command and compare how it ended; a container that does not run now is red.

    Raises:
        ClusterGuardError: It cannot be run at all.
    """
    api = run.cluster_of(step).api
    try:
        container = _find(api, action.in_)
        return _executed(action, api, container, seconds=run.at_least(seconds, _SHORTEST_SECONDS))
    except (ClusterUnreachableError, ResourceNotFoundError, WaitTimeoutError) as error:
        return CheckResult(ok=False, summary=error.message)


def ask(action: Http, run: Run, step: LoadedStep) -> str:
    """Ask a Service once; return what it answered.

    Raises:
        DrillError: It answered otherwise than it must, or not at all.
    """
    result = ask_once(action, run, step, seconds=run.wait_of(step))
    if not result.ok:
        raise DrillError(f"Service {action.namespace}/{action.service}: {result.summary}")
    return result.summary


def ask_once(action: Http, run: Run, step: LoadedStep, *, seconds: float) -> CheckResult:
    """Ask a Service and compare its answer; none is red, and so is one that does not end in time.

    Raises:
        ClusterGuardError: We may not ask.
    """
    try:
        answer = run.cluster_of(step).api.ask_service(
            action.namespace,
            action.service,
            port=action.port,
            path=action.path,
            timeout_seconds=run.at_least(min(seconds, _LONGEST_ANSWER_SECONDS), 1.0),
        )
    except (ClusterUnreachableError, ResourceNotFoundError) as error:
        return CheckResult(ok=False, summary=error.message)
    text = answer.body.decode(errors="replace")
    problems = [] if answer.status == action.status else [f"{action.status} expected"]
    problems += [] if action.contains is None or action.contains in text else [f"it lacks {action.contains!r}"]
    problems += [answer.cut] if answer.cut else []
    said = f"status {answer.status}" + (f": {_short(text)}" if text.strip() else ", empty")
    return CheckResult(ok=not problems, summary="; ".join([said, *problems]))


def write(action: WriteFile, run: Run, step: LoadedStep) -> str:
    """Write a file into a container, as soon as that runs; return its size and digest.

    Raises:
        DrillError: It could not be written.
        WaitTimeoutError: The container did not run, or the file was not written, in time.
    """
    api = run.cluster_of(step).api
    container = container_of(api, action.in_, seconds=run.wait_of(step))
    if action.content is not None:
        data = action.content.encode()
    else:
        data = random_bytes(action.size or 0, seed=f"{run.run_id} {action.in_.namespace} {action.path}")
    digest = write_file(api, container, action.path, data, seconds=run.at_least(run.wait_of(step), _SHORTEST_SECONDS))
    return f"{action.path} in {container}: {len(data):,} bytes, sha256 {digest[:16]}…"


def note_files(run: Run) -> str:
    """Note the digests of all files that verify will compare, while they are as they must be again.

    Raises:
        DrillError: There is no file to compare, or one cannot be read.
        WaitTimeoutError: A container does not run.
    """
    noted = []
    for step in run.drill.phase("verify"):
        if isinstance(step.action, SameFiles):
            cluster = run.clusters.get(step.cluster) or run.clusters[run.drill.default_cluster]
            target = _before_renaming(step.action, run)
            container = container_of(cluster.api, target, seconds=run.wait_of(step))
            tree = read_tree(
                cluster.api, container, step.action.path, seconds=run.at_least(run.wait_of(step), _FILES_SECONDS)
            )
            if not tree.files:
                raise DrillError(f"there is no file below {step.action.path} in {container}: nothing would be compared")
            run.files[step.location] = tree
            noted.append(f"{step.action.path}: {tree.summary()}")
    return "; ".join(noted)


def compare_once(action: SameFiles, run: Run, step: LoadedStep, *, seconds: float) -> CheckResult:
    """Compare the files with those that were noted; a container that does not run now is red.

    Raises:
        DrillError: Nothing was noted.
    """
    before = run.files.get(step.location)
    if before is None:
        raise DrillError(f"the files below {action.path} were not noted before the backup")
    api = run.cluster_of(step).api
    try:
        container = _find(api, action.in_)
        after = read_tree(api, container, action.path, seconds=run.at_least(seconds, _FILES_SECONDS))
    except (ClusterUnreachableError, ResourceNotFoundError, WaitTimeoutError, DrillError) as error:
        return CheckResult(ok=False, summary=error.message)
    found = differences(before, after)
    own = f"; {after.ignored} of Velero's own passed over" if after.ignored else ""
    if found:
        return CheckResult(ok=False, summary="; ".join(found) + own, detail="\n".join(found))
    return CheckResult(ok=True, summary=f"the same {after.summary()}{own}")


def _before_renaming(action: SameFiles, run: Run) -> ExecTarget:
    """Return where the files were before a restore that renames namespaces."""
    old = {new: old for old, new in run.namespace_mapping.items()}
    namespace = action.in_.namespace
    return action.in_.model_copy(update={"namespace": old.get(namespace, namespace)})


def container_of(
    api: KubeClient,
    target: ExecTarget,
    *,
    seconds: float,
    sleep: Callable[[float], object] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
) -> Container:
    """Return the container that a step means, as soon as it runs.

    Raises:
        WaitTimeoutError: It does not.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            return _find(api, target)
        except ClusterUnreachableError as error:
            if time.monotonic() >= deadline:
                which = target.pod or target.selector
                raise WaitTimeoutError(
                    f"a container of {target.namespace}/{which} runs", seconds=seconds, last_seen=error.message
                ) from error
            sleep(_POLL_SECONDS)


def _find(api: KubeClient, target: ExecTarget) -> Container:
    return find_container(api, target.namespace, pod=target.pod, selector=target.selector, container=target.container)


def _executed(action: Exec, api: KubeClient, container: Container, *, seconds: float) -> CheckResult:
    done = run_in(api, container, action.command, timeout_seconds=seconds)
    text = done.stdout.decode(errors="replace")
    problems = [] if done.exit_code == action.exit_code else [f"{action.exit_code} expected"]
    problems += [] if action.contains is None or action.contains in text else [f"its output lacks {action.contains!r}"]
    summary = "; ".join([f"exit code {done.exit_code}: {_short(done.last_words())}", *problems])
    return CheckResult(ok=not problems, summary=summary)


def _hint(container: Container) -> str:
    return f"kubectl -n {container.namespace} exec {container.pod} -c {container.name} -- … shows it by hand"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST_TOLD else f"{line[:_MOST_TOLD]}…"
