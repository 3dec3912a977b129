"""``http``: ask a Service from inside the cluster."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from clusterguard.documents.model import Label, Omitted, Port, Text
from clusterguard.drills.steps.base import Action, Look, Requirement, StepContext
from clusterguard.drills.steps.containers import one_line
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import ClusterUnreachableError, DrillError, ResourceNotFoundError

_LONGEST_ANSWER_SECONDS = 10.0


def _from_the_root(path: str) -> str:
    if not path.startswith("/"):
        raise ValueError("the path of a request begins with `/`")
    return path


class Http(Action):
    """Ask a Service over HTTP, from inside the cluster."""

    phases = ("verify",)
    requires = frozenset({Requirement.CONTAINERS})

    service: Label
    """The Service's name."""
    namespace: Label
    """Its namespace."""
    port: Port
    """Its port."""
    path: Annotated[Text, AfterValidator(_from_the_root)] = "/"
    """The path to ask for."""
    status: Annotated[int, Field(ge=100, le=599)] = 200
    """The status code that must come back."""
    contains: str | Omitted = None
    """Text that the answer must contain."""

    def plan(self) -> str:
        says = f" and a text that contains {self.contains!r}" if self.contains else ""
        where = f"http://{self.service}.{self.namespace}:{self.port}{self.path}"
        return f"ask {where} from inside the cluster; expect status {self.status}{says}"

    def perform(self, here: StepContext) -> str:
        result = self._ask(here, seconds=here.seconds)
        if not result.ok:
            raise DrillError(f"Service {self.namespace}/{self.service}: {result.summary}")
        return result.summary

    def check(self, here: StepContext, look: Look) -> CheckResult:
        return self._ask(here, seconds=look.seconds)

    def _ask(self, here: StepContext, *, seconds: float) -> CheckResult:
        try:
            answer = here.api.ask_service(
                self.namespace,
                self.service,
                port=self.port,
                path=self.path,
                timeout_seconds=here.run.at_least(min(seconds, _LONGEST_ANSWER_SECONDS), 1.0),
            )
        except (ClusterUnreachableError, ResourceNotFoundError) as error:
            return CheckResult(ok=False, summary=error.message)
        text = answer.body.decode(errors="replace")
        problems = [] if answer.status == self.status else [f"{self.status} expected"]
        problems += [] if self.contains is None or self.contains in text else [f"it lacks {self.contains!r}"]
        problems += [answer.cut] if answer.cut else []
        said = f"status {answer.status}" + (f": {one_line(text)}" if text.strip() else ", empty")
        return CheckResult(ok=not problems, summary="; ".join([said, *problems]))
