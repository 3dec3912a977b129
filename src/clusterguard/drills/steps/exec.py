"""``exec``: run a command in a container."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from clusterguard.documents.model import Omitted
from clusterguard.drills.steps.base import Action, Look, Requirement, StepContext
from clusterguard.drills.steps.containers import NOT_RUNNING, ExecTarget, one_line
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kube_exec import Container

# A look has no time of its own to spend, but a command needs some to end.
_SHORTEST_SECONDS = 10.0


class Exec(Action):
    """Run a command in a container. A drill file cannot run anything on the machine of whoever runs it."""

    phases = ("setup", "fault", "restore", "verify")
    requires = frozenset({Requirement.CONTAINERS})

    command: Annotated[tuple[str, ...], Field(min_length=1)]
    """The program and its arguments; no shell is put between."""
    in_: Annotated[ExecTarget, Field(alias="in")]
    """Where it runs."""
    exit_code: Annotated[int, Field(ge=0, le=255)] = 0
    """The exit code that counts as success."""
    contains: str | Omitted = None
    """Text that its standard output must contain."""

    def plan(self) -> str:
        says = f" and a text that contains {self.contains!r}" if self.contains else ""
        return f"run {' '.join(self.command)!r} in {self.in_}; expect exit code {self.exit_code}{says}"

    def perform(self, here: StepContext) -> str:
        began, api = time.monotonic(), here.api
        container = self.in_.wait(api, seconds=here.seconds)
        left = max(1.0, here.seconds - (time.monotonic() - began))
        result = self._run(api, container, seconds=left)
        if not result.ok:
            raise DrillError(
                f"{' '.join(self.command)!r} in {container}: {result.summary}",
                hint=f"kubectl -n {container.namespace} exec {container.pod} -c {container.name} -- … shows it by hand",
            )
        return result.summary

    def check(self, here: StepContext, look: Look) -> CheckResult:
        api = here.api
        try:
            return self._run(
                api, self.in_.find(api), seconds=here.run.at_least(here.seconds_of(look), _SHORTEST_SECONDS)
            )
        except NOT_RUNNING as error:
            return CheckResult(ok=False, summary=error.message)

    def _run(self, api: KubeClient, container: Container, *, seconds: float) -> CheckResult:
        from clusterguard.clusters.kube_exec import run_in

        done = run_in(api, container, self.command, timeout_seconds=seconds)
        text = done.stdout.decode(errors="replace")
        problems = [] if done.exit_code == self.exit_code else [f"{self.exit_code} expected"]
        problems += [] if self.contains is None or self.contains in text else [f"its output lacks {self.contains!r}"]
        summary = "; ".join([f"exit code {done.exit_code}: {one_line(done.last_words())}", *problems])
        return CheckResult(ok=not problems, summary=summary)
