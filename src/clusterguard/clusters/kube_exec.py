"""Commands in containers, through the API server by WebSocket: the only user of the ``websocket`` package.

Each message begins with a byte that names its channel: standard input, output and error, and one on which the
API server says how the command ended. Version 5 of the protocol can also tell that standard input is over;
with version 4 a command has to know by itself how much it reads.

Not by ``kubernetes.stream`` (37.0): it connects without a time-out, ``update()`` returns only once no frame is waiting,
so a command that prints without end fills the memory, and a message that trickles in is read for as long as it takes.

Sources of facts: kubernetes.io/docs/reference/using-api/api-concepts, KEP-4006 (v5.channel.k8s.io).
"""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import orjson

from clusterguard.clusters.kube import ApiResource
from clusterguard.errors import (
    ClusterError,
    ClusterUnreachableError,
    ConfigError,
    ResourceNotFoundError,
    WaitTimeoutError,
)
from clusterguard.model.readiness import readiness

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import websocket

    from clusterguard.clusters.kube import Connection, Json, KubeClient

__all__ = ["Container", "Executed", "find_container", "run_in"]

_STDIN, _STDOUT, _STDERR, _ENDED, _CLOSED = 0, 1, 2, 3, 255
_V5, _V4 = "v5.channel.k8s.io", "v4.channel.k8s.io"
_CONNECT_SECONDS = 10.0
_MESSAGE_BYTES = 1 << 17
_MOST_OUTPUT = 1 << 20
_MOST_OVERHEAD = 1 << 20
_MOST_WORDS = 400
# As container runtimes word it; whatever else keeps a command from starting may pass.
_NO_PROGRAM = ("executable file not found", "no such file or directory", "permission denied", "exec format error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Container:
    """A running container of a Pod."""

    namespace: str
    pod: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.pod}, container {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """A command that ended."""

    exit_code: int
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)

    def last_words(self) -> str:
        """Return the end of what it said, standard error first, for messages."""
        said = (self.stderr.strip() or self.stdout.strip()).decode(errors="replace")
        return said[-_MOST_WORDS:] or "it printed nothing"


def find_container(
    api: KubeClient,
    namespace: str,
    *,
    pod: str | None = None,
    selector: str | None = None,
    container: str | None = None,
) -> Container:
    """Return a running container of one Pod: of the one that is named, or of the first ready one with these labels.

    Without a container's name it is the Pod's first one.

    Raises:
        ClusterUnreachableError: No such Pod runs now, or its container does not; a moment later it may.
        ConfigError: The Pod has no container of that name.
    """
    resource = api.resource("Pod", api_version="v1")
    if pod is not None:
        try:
            found = [api.get(resource, pod, namespace)]
        except ResourceNotFoundError:
            found = []
    else:
        found = sorted(
            api.list(resource, namespace, label_selector=selector or ""), key=lambda item: str(item["metadata"]["name"])
        )
    which = pod or f"with labels {selector}"
    chosen = _first_usable(found, by_name=pod is not None)
    if chosen is None:
        raise ClusterUnreachableError(
            f"no Pod {which} runs in namespace {namespace}: {_states(found)}",
            code="no-running-pod",
            fields={"namespace": namespace, "pod": pod, "found": [item["metadata"]["name"] for item in found]},
        )
    return Container(namespace=namespace, pod=chosen["metadata"]["name"], name=_container_of(chosen, container))


def _first_usable(pods: Iterable[Json], *, by_name: bool) -> Json | None:
    """Return the first Pod that is ready, or, where it was named, that merely runs: its command may be the cure."""
    for item in pods:
        leaving = "deletionTimestamp" in item["metadata"]
        running = (item.get("status") or {}).get("phase") == "Running"
        if running and not leaving and (by_name or readiness({"apiVersion": "v1", "kind": "Pod", **item})):
            return item
    return None


def _states(pods: Sequence[Json]) -> str:
    if not pods:
        return "there is none"
    told = [f"{item['metadata']['name']}: {_state(item)}" for item in pods[:3]]
    return "; ".join(told) + (f" and {len(pods) - 3} more" if len(pods) > 3 else "")  # noqa: PLR2004 - told above


def _state(item: Json) -> str:
    if "deletionTimestamp" in item["metadata"]:
        return "being deleted"
    phase = str((item.get("status") or {}).get("phase", ""))
    reason = readiness({"apiVersion": "v1", "kind": "Pod", **item}).reason
    return reason if phase in reason else f"{phase}, {reason}"


def _container_of(item: Json, wanted: str | None) -> str:
    names = [str(each["name"]) for each in item["spec"]["containers"]]
    if wanted is not None and wanted not in names:
        raise ConfigError(
            f"Pod {item['metadata']['name']} has no container {wanted}", hint=f"it has {', '.join(names)}"
        )
    name = wanted or names[0]
    for status in (item.get("status") or {}).get("containerStatuses") or ():
        if status.get("name") == name and "running" not in (status.get("state") or {}):
            seen = ", ".join(status.get("state") or {}) or "in no state"
            raise ClusterUnreachableError(
                f"container {name} of Pod {item['metadata']['name']} is {seen}",
                code="container-not-running",
                fields={"container": name, "pod": item["metadata"]["name"], "state": seen},
            )
    return name


def run_in(
    api: KubeClient,
    container: Container,
    command: Sequence[str],
    *,
    stdin: Iterable[bytes] | None = None,
    timeout_seconds: float = 60,
    most_output: int = _MOST_OUTPUT,
    clock: Callable[[], float] = time.monotonic,
) -> Executed:
    """Run a command in a container and return how it ended, without a shell.

    A command whose time is over is left behind in its container: nobody but the container can end it.

    Args:
        api: The cluster.
        container: As `find_container` returns it.
        command: The program and its arguments. They pass through the API server's audit log: no secrets.
        stdin: What it reads, in pieces.
        timeout_seconds: How long it may take.
        most_output: How many bytes it may print.
        clock: Seconds that only grow.

    Raises:
        ClusterUnreachableError: The container cannot be reached now.
        ClusterError: The cluster refused it, the program is not there, or it printed more than it may.
        WaitTimeoutError: It still runs.
    """
    words = " ".join(command)
    deadline = clock() + timeout_seconds
    path = _POD.path(container.namespace, container.pod, "exec")
    query = [("container", container.name), ("stdout", "true"), ("stderr", "true")]
    query += [("stdin", "true")] if stdin is not None else []
    query += [("command", word) for word in command]
    import websocket

    try:
        socket = _connected(api.connection(), f"{path}?{urlencode(query)}", min(timeout_seconds, _CONNECT_SECONDS))
    except websocket.WebSocketBadStatusException as error:
        raise _refused(error, f"run {words!r} in {container}") from error
    except (websocket.WebSocketException, OSError) as error:
        raise ClusterUnreachableError(f"run {words!r} in {container}: {error}") from error
    session = _Session(socket=socket, left=lambda: deadline - clock(), most_output=most_output)
    try:
        session.feed(stdin)
        session.listen()
        return session.result(f"{words!r} in {container}")
    except (websocket.WebSocketTimeoutException, TimeoutError) as error:
        raise WaitTimeoutError(
            f"{words!r} in {container} ends", seconds=timeout_seconds, last_seen=session.last_words()
        ) from error
    except (websocket.WebSocketException, OSError) as error:
        raise ClusterUnreachableError(f"{words!r} in {container}: the connection broke: {error}") from error
    finally:
        socket.close(timeout=0)


_POD = ApiResource(group="", version="v1", kind="Pod", plural="pods", namespaced=True, verbs=frozenset())


@dataclass(slots=True, kw_only=True)
class _Session:
    """One command while it runs."""

    socket: websocket.WebSocket
    left: Callable[[], float]
    most_output: int
    output: dict[int, bytearray] = field(default_factory=lambda: {_STDOUT: bytearray(), _STDERR: bytearray()})
    verdict: Json | None = None
    received: int = 0

    def __post_init__(self) -> None:
        # A message is read to its end, however long it says it is and however slowly it comes: each piece is looked at.
        buffer = self.socket.frame_buffer
        buffer.recv = partial(self._receive, buffer.recv)

    def feed(self, stdin: Iterable[bytes] | None) -> None:
        """Send standard input, and its end where the protocol has a word for it."""
        if stdin is None:
            return
        for piece in stdin:
            view = memoryview(piece)
            for start in range(0, len(view), _MESSAGE_BYTES):
                self._patience()
                self.socket.send_binary(bytes([_STDIN]) + bytes(view[start : start + _MESSAGE_BYTES]))
        # Before v5 the protocol cannot say that the input has ended: `sh` and `cat` would wait for more.
        if self.socket.getsubprotocol() == _V5:
            self.socket.send_binary(bytes([_CLOSED, _STDIN]))

    def listen(self) -> None:
        """Collect what it prints until the API server says how it ended."""
        import websocket

        while self.verdict is None:
            self._patience()
            try:
                opcode, message = self.socket.recv_data()
            except websocket.WebSocketConnectionClosedException:
                return
            if opcode not in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_TEXT) or not message:
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    return
                continue
            self._take(message[0], bytes(message[1:]))

    def result(self, what: str) -> Executed:
        """Return how it ended."""
        if self.verdict is None:
            words = self.last_words()
            raise ClusterUnreachableError(
                f"{what}: the connection ended before the command did: {words}",
                code="command-cut-off",
                fields={"output": words},
            )
        code = _exit_code(self.verdict)
        if code is None:
            message = str(self.verdict.get("message") or "no reason is given")
            if any(words in message for words in _NO_PROGRAM):
                raise ClusterError(f"{what}: {message}", hint="is that program in the container's image?")
            raise ClusterUnreachableError(f"{what}: {message}")  # its container has just ended, or is starting
        return Executed(exit_code=code, stdout=bytes(self.output[_STDOUT]), stderr=bytes(self.output[_STDERR]))

    def last_words(self) -> str:
        """Return the end of what it said so far."""
        said = bytes(self.output[_STDERR] or self.output[_STDOUT]).decode(errors="replace").strip()
        return said[-_MOST_WORDS:] or "it printed nothing"

    def _receive(self, receive: Callable[[int], bytes], size: int) -> bytes:
        self._patience()
        data = receive(size)
        self.received += len(data)
        if self.received > _MOST_OVERHEAD + 4 * self.most_output:  # a byte may come with three around it
            raise self._too_much()
        return data

    def _take(self, channel: int, data: bytes) -> None:
        if channel == _ENDED:
            self.verdict = orjson.loads(data)
        elif channel in self.output:
            self.output[channel] += data
            if sum(map(len, self.output.values())) > self.most_output:
                raise self._too_much()

    def _too_much(self) -> ClusterError:
        return ClusterError(
            f"the command printed more than {self.most_output:,} bytes", hint="let it print less, as by `| tail`"
        )

    def _patience(self) -> None:
        left = self.left()
        if left <= 0:
            raise TimeoutError
        # Each wait gets what is left of the whole: a command that says a word now and then must not outlast its time.
        self.socket.settimeout(left)


def _exit_code(verdict: Mapping[str, object]) -> int | None:
    """Return the exit code out of the Status that ends a command, or None where it was never started."""
    if verdict.get("status") == "Success":
        return 0
    details = verdict.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes or ():
        if cause.get("reason") == "ExitCode" and str(cause.get("message", "")).isdigit():
            return int(cause["message"])
    return None


def _connected(connection: Connection, path: str, seconds: float) -> websocket.WebSocket:
    import websocket

    scheme, _, rest = connection.server.partition("://")
    proxy = urlsplit(connection.proxy) if connection.proxy else None
    return websocket.create_connection(
        f"{'wss' if scheme == 'https' else 'ws'}://{rest}{path}",
        timeout=seconds,
        header=[f"{key}: {value}" for key, value in connection.headers.items()],
        subprotocols=[_V5, _V4],
        sslopt=_tls(connection) if scheme == "https" else None,
        suppress_origin=True,
        # A redirect would take the credentials to whoever it names.
        redirect_limit=0,
        # The official client has looked for a proxy already, in the kubeconfig and in the environment.
        http_proxy_host=proxy.hostname if proxy else None,
        http_proxy_port=proxy.port if proxy else None,
        http_proxy_auth=(proxy.username, proxy.password or "") if proxy and proxy.username else None,
        proxy_type="http",
        http_no_proxy=None if proxy else ["*"],
    )


def _tls(connection: Connection) -> dict[str, object]:
    context = ssl.create_default_context(cafile=connection.ca)
    if not connection.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if connection.cert:
        context.load_cert_chain(connection.cert, connection.key)
    options: dict[str, object] = {"context": context}
    return options | ({"server_hostname": connection.server_name} if connection.server_name else {})


def _refused(error: websocket.WebSocketBadStatusException, what: str) -> ClusterError:
    body = error.resp_body or b""
    try:
        message = str(orjson.loads(body)["message"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        message = body.decode(errors="replace").strip() or str(error)
    text = f"{what}: {error.status_code}: {message}"
    if error.status_code == HTTPStatus.FORBIDDEN:
        return ClusterError(text, hint="grant the user create and get on pods/exec (RBAC)")
    if error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ClusterUnreachableError(text)
    return ResourceNotFoundError(text) if error.status_code == HTTPStatus.NOT_FOUND else ClusterError(text)
