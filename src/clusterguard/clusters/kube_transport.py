"""Requests to an API server: JSON in, bytes and JSON out, within bounds of bytes and time."""

from __future__ import annotations

import threading
import time
import weakref
from dataclasses import dataclass, field, replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

import orjson

from clusterguard.clusters.kube_errors import not_kubernetes, status_error, transport_error
from clusterguard.clusters.kubeconfig import connect
from clusterguard.errors import ClusterError, ClusterUnreachableError
from clusterguard.response_body import BodyBoundError, BodyUnfinishedError, BoundedBody
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    import urllib3

    from clusterguard.clusters.kube_discovery import Json
    from clusterguard.clusters.kubeconfig import Connection

__all__ = ["READ_SECONDS", "ApiResponse", "KubeTransport"]

READ_SECONDS = 60.0
_CONNECT_SECONDS = 5.0
_WHOLE_SECONDS = 600.0  # until an answer must have ended
_MOST_BYTES = 1 << 30  # of an answer: a list in one page can be large, but no sane one is larger
_LONGEST_EVENT = 1 << 26  # etcd takes objects of 1.5 MiB; JSON makes several times that of it
_PIECE_BYTES = 1 << 16
_THROTTLED_TRIES = 6  # the API server asks for one second at a time while it is busy or starting


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiResponse:
    """An answer, with its headers' names in lower case; ``cut`` says why the body is not all that was sent."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    cut: str = ""

    def json(self) -> Json:
        """Return the decoded body; a ClusterError says that it is not a JSON object: did a proxy answer instead?"""
        try:
            decoded = orjson.loads(self.body)
        except orjson.JSONDecodeError as error:
            raise not_kubernetes(self.body) from error
        if not isinstance(decoded, dict):
            raise not_kubernetes(self.body)
        return decoded


class KubeTransport:
    """Sends requests to one API server; may be used from several threads."""

    def __init__(
        self,
        connection: Connection,
        *,
        pool: urllib3.PoolManager,
        auth_headers: Callable[[], Mapping[str, str]] = dict,
        sleep: Callable[[float], None] = time.sleep,  # noqa: TID251 - the real one; tests pass their own
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.server = connection.server
        self._connection = connection
        self._pool = pool
        self._auth_headers = auth_headers
        self._sleep = sleep
        self._clock = clock
        # Compression costs the server more time than a loopback connection saves.
        self._encoding = "identity" if is_loopback(self.server) else "gzip"
        self._auth_lock = threading.Lock()

    @classmethod
    def from_kubeconfig(cls, path: Path | str, *, context: str | None = None) -> Self:
        """Connect as a kubeconfig file says; nothing is sent before the first request.

        The certificate authority of the kubeconfig decides whom we trust, whatever ``SSL_CERT_FILE`` or
        ``REQUESTS_CA_BUNDLE`` say. ``HTTPS_PROXY`` holds as for kubectl, and never for loopback addresses.

        Args:
            path: The file, or several with colons between them, as ``KUBECONFIG`` has it.
            context: One of its contexts, by default the current one.

        Raises:
            ConfigError: The file or the context is missing or malformed.
            ClusterError: Its credential plugin gave no credentials.
        """
        connection, pool, auth_headers, files = connect(str(path), context)
        made = cls(connection, pool=pool, auth_headers=auth_headers)
        weakref.finalize(made, files.close)  # a closed client may be used again
        return made

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections; the client may be used again and opens new ones."""
        self._pool.clear()

    def connection(self) -> Connection:
        """Return how to connect to the API server, with credentials that are valid now."""
        with self._auth_lock:
            return replace(self._connection, headers=dict(self._auth_headers()))

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, object] | None = None,
        body: Json | Sequence[Json] | bytes | None = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_seconds: float = READ_SECONDS,
        retry_throttled: bool = True,
    ) -> ApiResponse:
        """Send any request.

        Args:
            method: Such as ``GET``.
            path: From the root, such as ``/version``.
            query: Parameters; those with the empty string are left out.
            body: JSON, or bytes to send as they are.
            content_type: Of the body.
            accept: What to ask for.
            timeout_seconds: How long the server may stay silent; connecting has 5 seconds.
            retry_throttled: Whether to come back when the server asks for that (429 with Retry-After).

        Raises:
            ClusterUnreachableError: No answer, or an answer of the kind "not now" (429, 5xx).
            ClusterError: The answer is an error; its subclasses tell 404 and 409 apart. Or it is larger than 1 GiB or
                has not ended after ten minutes (code ``answer-cut``).
        """
        what = f"{method} {self.server}{path}"
        headers = {"Accept": accept}
        data: bytes | None = None
        if body is not None:
            headers["Content-Type"] = content_type
            data = body if isinstance(body, bytes) else orjson.dumps(body)
        for left in reversed(range(_THROTTLED_TRIES if retry_throttled else 1)):
            response = self._send(method, path, query=query, headers=headers, body=data, read_seconds=timeout_seconds)
            answer = self._answer(response, what, deadline=self._clock() + _WHOLE_SECONDS)
            if answer.status != HTTPStatus.TOO_MANY_REQUESTS or not left or "retry-after" not in answer.headers:
                break
            self._sleep(_seconds(answer.headers["retry-after"]))
        if answer.status >= HTTPStatus.MULTIPLE_CHOICES:
            raise status_error(answer.status, answer.body, what)
        if answer.cut:
            raise ClusterError(f"{what}: {answer.cut}", code="answer-cut", hint="is that an API server that answers?")
        return answer

    def fetch(self, path: str, *, most_bytes: int, timeout_seconds: float) -> ApiResponse:
        """Get whatever lies behind the API server; an error is an answer, too, and a long answer is cut."""
        deadline = self._clock() + timeout_seconds
        response = self._send("GET", path, headers={"Accept": "*/*"}, read_seconds=timeout_seconds)
        return self._answer(response, f"GET {self.server}{path}", deadline=deadline, most_bytes=most_bytes)

    def stream_lines(
        self,
        path: str,
        *,
        query: Mapping[str, object],
        silence_seconds: float,
        whole_seconds: float,
        silence_ends: bool,
    ) -> Generator[bytes]:
        """Yield the lines of an answer, 64 MiB each at most, as they come.

        It ends after ``whole_seconds``; ``silence_seconds`` without a byte are an error, unless ``silence_ends``.

        Raises:
            ClusterUnreachableError: The connection broke.
        """
        import urllib3

        what = f"watch {self.server}{path}"
        deadline = self._clock() + whole_seconds
        try:
            response = self._send(
                "GET", path, query=query, headers={"Accept": "application/json"}, read_seconds=silence_seconds
            )
        except ClusterUnreachableError as error:
            if silence_ends and isinstance(error.__cause__, urllib3.exceptions.ReadTimeoutError):
                return
            raise
        try:
            if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                answer = self._answer(response, what, deadline=deadline)
                raise status_error(answer.status, answer.body, what)
            yield from _lines(self._pieces(response, deadline=deadline), what)
        # The whole time is over, which is how a watch ends.
        except BodyUnfinishedError:
            return
        except urllib3.exceptions.ReadTimeoutError as error:
            if not silence_ends:
                raise transport_error(error, what) from error
        except urllib3.exceptions.HTTPError as error:
            raise transport_error(error, what) from error
        finally:
            response.close()  # an abandoned watch leaves a connection that nobody else can use

    def _send(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str],
        query: Mapping[str, object] | None = None,
        body: bytes | None = None,
        read_seconds: float,
    ) -> urllib3.BaseHTTPResponse:
        import urllib3

        parameters = urlencode({key: value for key, value in (query or {}).items() if value != ""})
        url = f"{self.server}{path}{'?' if parameters else ''}{parameters}"
        with self._auth_lock:
            common = {"Accept-Encoding": self._encoding, "User-Agent": "clusterguard", **self._auth_headers()}
        # A pooled connection may have died with the API server it led to (a restore restarts it). Reading
        # again is harmless, and connecting again shows whether the server is really gone.
        for left in reversed(range(2 if method == "GET" else 1)):
            try:
                return self._pool.request(
                    method,
                    url,
                    headers={**headers, **common},
                    body=body,
                    timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=read_seconds),
                    preload_content=False,
                    retries=False,
                    redirect=False,
                )
            except urllib3.exceptions.HTTPError as error:
                if left and isinstance(error, urllib3.exceptions.ProtocolError):
                    continue
                raise transport_error(error, f"{method} {self.server}{path}") from error
        raise AssertionError  # pragma: no cover - the loop returns or raises

    def _answer(
        self, response: urllib3.BaseHTTPResponse, what: str, *, deadline: float, most_bytes: int | None = None
    ) -> ApiResponse:
        """Read an answer to its end, or to its bounds, which are kept to within one piece."""
        import urllib3

        body, cut = bytearray(), ""
        try:
            for piece in self._pieces(response, deadline=deadline, most_bytes=most_bytes or _MOST_BYTES):
                body += piece
        except BodyBoundError as error:
            cut = str(error)
        except urllib3.exceptions.HTTPError as error:
            response.close()
            raise transport_error(error, what) from error
        if cut:
            response.close()  # what is still on its way would be taken for the next answer
        else:
            response.release_conn()
        headers = {key.lower(): value for key, value in response.headers.items()}
        return ApiResponse(status=response.status, headers=headers, body=bytes(body), cut=cut)

    def _pieces(
        self, response: urllib3.BaseHTTPResponse, *, deadline: float, most_bytes: int | None = None
    ) -> Iterator[bytes]:
        body = BoundedBody(response, deadline=deadline, most_bytes=most_bytes, clock=self._clock)
        return iter(partial(body.read, _PIECE_BYTES), b"")


def _lines(pieces: Iterable[bytes], what: str) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line.strip())
        if len(rest) > _LONGEST_EVENT:
            raise ClusterError(f"{what}: an event is larger than {_LONGEST_EVENT:,} bytes", code="answer-cut")
    if rest.strip():
        raise ClusterUnreachableError(f"{what}: the stream ended in the middle of an event")


def _seconds(retry_after: str) -> float:
    return min(float(retry_after), 10.0) if retry_after.isdigit() else 1.0
