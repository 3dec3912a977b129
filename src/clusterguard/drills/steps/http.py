"""``http``: ask a Service from inside the cluster."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

from pydantic import AfterValidator, Field

from clusterguard.clusters.kube_errors import is_status, status_error
from clusterguard.documents.model import Label, Omitted, Port, Text
from clusterguard.drills.steps.base import Action, Look, Requirement, StepContext
from clusterguard.drills.steps.containers import one_line
from clusterguard.drills.verdict import CheckResult
from clusterguard.errors import ClusterUnreachableError, ResourceNotFoundError

if TYPE_CHECKING:
    from clusterguard.clusters.kube import ApiResponse, KubeClient

_LONGEST_ANSWER_SECONDS = 10.0
_MOST_BYTES = 1 << 20
_IN_A_PATH = "/?&=%:@!$'()*+,;~-._"  # what RFC 3986 lets stand in a path or a query; the rest is encoded


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

    def check(self, here: StepContext, look: Look) -> CheckResult:
        try:
            answer = ask_service(
                here.api,
                self.namespace,
                self.service,
                port=self.port,
                path=self.path,
                timeout_seconds=here.run.at_least(min(here.seconds_of(look), _LONGEST_ANSWER_SECONDS), 1.0),
            )
        except (ClusterUnreachableError, ResourceNotFoundError) as error:
            return CheckResult(ok=False, summary=error.message)
        text = answer.body.decode(errors="replace")
        problems = [] if answer.status == self.status else [f"{self.status} expected"]
        problems += [] if self.contains is None or self.contains in text else [f"it lacks {self.contains!r}"]
        problems += [answer.cut] if answer.cut else []
        said = f"status {answer.status}" + (f": {one_line(text)}" if text.strip() else ", empty")
        return CheckResult(ok=not problems, summary="; ".join([said, *problems]))


def ask_service(
    api: KubeClient, namespace: str, name: str, *, port: int, path: str = "/", timeout_seconds: float = 10
) -> ApiResponse:
    """Ask a Service over HTTP through the API server, which needs no way into the cluster's network.

    Any answer of the Service is an answer here, errors and redirects included. In HTML the API server turns
    links into links through itself; everything else arrives as it was sent. An answer that does not end in time (a
    stream of events, a watch), or is larger than 1 MiB, is cut, and says so.

    Raises:
        ResourceNotFoundError: There is no such Service.
        ClusterUnreachableError: No endpoint of it answers; the API server says why.
    """
    service = f"/api/v1/namespaces/{quote(namespace, safe='')}/services/http:{quote(name, safe='')}:{port}"
    proxied = f"{service}/proxy{quote(path, safe=_IN_A_PATH)}"
    answer = api.fetch(proxied, most_bytes=_MOST_BYTES, timeout_seconds=timeout_seconds)
    if answer.status >= HTTPStatus.BAD_REQUEST and is_status(answer.body):
        raise status_error(answer.status, answer.body, f"GET {api.server}{proxied}")
    return answer
