"""gRPC to one member, over HTTP/2 by libcurl. The only user of pycurl.

gRPC in Python costs more per 32 KiB message than etcd needs to send it; libcurl hands over raw frames, and the snapshot
stream's messages are cut out of them in ``wire.py``. The measurements are in docs/adr/0002; that all other calls go the
same way is docs/adr/0009.
"""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING
from urllib.parse import unquote
from urllib.request import getproxies_environment

import pycurl

from clusterguard.errors import EtcdAuthError, EtcdError, EtcdUnavailableError
from clusterguard.etcd.rpc import BrokenAnswerError, RpcError, decode, encode
from clusterguard.sockets import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from clusterguard.clusters.base import EtcdAccess
    from clusterguard.etcd.rpc import Call

__all__ = ["REACH_HINT", "GrpcChannel", "NotGrpcError", "UnansweredError"]

REACH_HINT = "is etcd running there, and is this the client port?"
_CONNECT_SECONDS = 5
_BUFFER_BYTES = 512 * 1024
_PREFIX = 5  # of each message: whether it is compressed, and its length
_LARGEST_ANSWER = 4 * 1024 * 1024  # what gRPC's own clients take
_HTTP_OK = 200
# TLS 1.3 tells of a refused certificate only after the handshake, in a send or receive error that names it.
_TLS_ERRORS = frozenset({35, 53, 54, 58, 59, 60, 66, 77, 80, 83, 90, 91})
# What libcurl says where HTTP/1 answers, and its codes where that answer was lost: such a server closes the connection
# before it has read everything. A connection that was cut has the same codes.
_NOT_HTTP2 = "expected SETTINGS frame"
_MAYBE_NOT_HTTP2 = frozenset({16, 52, 55, 56})


class NotGrpcError(EtcdError):
    """Somebody answers there, but not in gRPC."""

    code = "etcd-not-grpc"


class UnansweredError(EtcdUnavailableError):
    """The connection ended before anything came: it was cut, or HTTP/1 is all that is spoken there."""

    code = EtcdUnavailableError.code


class GrpcChannel:
    """A connection to one member's client port, kept from call to call; for one thread at a time.

    As etcdctl does, it goes through the proxy that ``HTTPS_PROXY`` names unless ``NO_PROXY`` exempts the member's host;
    loopback never does.

    Args:
        access: Certificates; its endpoints are not used.
        endpoint: The member's client URL.
        timeout_seconds: For a whole call and its answer; the stream has limits of its own.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        access: EtcdAccess,
        endpoint: str,
        *,
        timeout_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._access = access
        self._endpoint = endpoint
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        # libcurl itself looks whom NO_PROXY exempts.
        self._proxy = "" if is_loopback(endpoint) else getproxies_environment().get("https", "")
        self._curl = pycurl.Curl()

    def close(self) -> None:
        """Close the connection."""
        self._curl.close()

    def call(self, call: Call, request: Mapping[str, object], *, token: str | None) -> dict[str, Any]:
        """Return the answer to one call.

        Raises:
            RpcError: The member refuses.
            BrokenAnswerError: What it answers is no such answer.
            NotGrpcError: Nobody speaks gRPC there.
            EtcdUnavailableError: Nobody answers there in time.
            EtcdAuthError: TLS failed.
        """
        answer = bytearray()

        def take(data: bytes) -> None:
            answer.extend(data)
            if len(answer) > _LARGEST_ANSWER:
                raise BrokenAnswerError(f"it is larger than {_LARGEST_ANSWER:,} bytes")

        transfer = _Transfer(self._endpoint, take, hint=self._hint, clock=self._clock)
        self._prepare(call.method, encode(call.request, request), token)
        self._curl.setopt(pycurl.TIMEOUT_MS, int(self._timeout_seconds * 1000))
        transfer.run(self._curl)
        if len(answer) < _PREFIX or answer[0] or int.from_bytes(answer[1:_PREFIX], "big") != len(answer) - _PREFIX:
            raise BrokenAnswerError(f"it is not one whole message: {len(answer)} bytes")
        return decode(call.response, bytes(answer[_PREFIX:]))

    def stream(
        self,
        method: str,
        take: Callable[[bytes], object],
        *,
        token: str | None,
        stall_seconds: float,
        watch: Callable[[], object],
    ) -> None:
        """Send an empty request and hand on what comes, in any pieces; there is no limit on the whole duration.

        Args:
            method: gRPC's name of the call.
            take: Called with each piece; what it raises comes out as it was.
            token: For etcd's authentication.
            stall_seconds: How long the stream may stand still.
            watch: Called now and then.

        Raises:
            RpcError: The member refuses, or breaks the stream off.
            NotGrpcError: Nobody speaks gRPC there.
            EtcdUnavailableError: Nobody answers there, or the stream was cut or stood still.
            EtcdAuthError: TLS failed.
        """
        transfer = _Transfer(
            self._endpoint, take, hint=self._hint, watch=watch, stall_seconds=stall_seconds, clock=self._clock
        )
        self._prepare(method, b"", token)
        transfer.run(self._curl)

    def _prepare(self, method: str, message: bytes, token: str | None) -> None:
        curl, access = self._curl, self._access
        curl.reset()  # of the options; the connection stays
        secure = self._endpoint.startswith("https://")
        version = pycurl.CURL_HTTP_VERSION_2TLS if secure else pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
        body = b"\0" + len(message).to_bytes(_PREFIX - 1, "big") + message
        headers = ["content-type: application/grpc", "te: trailers", "user-agent: clusterguard"]
        if token:
            headers.append(f"token: {token}")
        curl.setopt(pycurl.URL, self._endpoint.rstrip("/") + method)
        curl.setopt(pycurl.HTTP_VERSION, version)
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.POSTFIELDS, body)
        curl.setopt(pycurl.POSTFIELDSIZE, len(body))
        curl.setopt(pycurl.HTTPHEADER, headers)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.CONNECTTIMEOUT, _CONNECT_SECONDS)
        curl.setopt(pycurl.PROXY, self._proxy)
        curl.setopt(pycurl.HTTPPROXYTUNNEL, 1)
        if secure:
            # The CAs that libcurl was built with are those of whoever built it, so they are always named.
            trusted = access.ca or ssl.get_default_verify_paths().cafile
            if trusted is not None:
                curl.setopt(pycurl.CAINFO, str(trusted))
        if access.cert is not None and access.key is not None:
            curl.setopt(pycurl.SSLCERT, str(access.cert))
            curl.setopt(pycurl.SSLKEY, str(access.key))

    @property
    def _hint(self) -> str:
        return (
            f"{REACH_HINT} HTTPS_PROXY puts a proxy on the way there unless NO_PROXY has the host"
            if self._proxy
            else REACH_HINT
        )


class _Transfer:
    """One call on its way. Exceptions cannot cross libcurl, so they wait here until it has returned."""

    def __init__(
        self,
        endpoint: str,
        take: Callable[[bytes], object],
        *,
        hint: str,
        clock: Callable[[], float],
        watch: Callable[[], object] = lambda: None,
        stall_seconds: float | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._take = take
        self._hint = hint
        self._watch = watch
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._heard = clock()
        self._failure: BaseException | None = None
        self._headers: dict[str, str] = {}

    def run(self, curl: pycurl.Curl) -> None:
        """Perform the call and check how it ended."""
        curl.setopt(pycurl.WRITEFUNCTION, self._body)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.XFERINFOFUNCTION, self._tick)
        curl.setopt(pycurl.NOPROGRESS, 0)
        try:
            curl.perform()
        except pycurl.error as error:
            if self._failure is None:
                raise self._curl_error(*error.args) from error
        if self._failure is not None:
            raise self._failure
        self._check_status(curl.getinfo(pycurl.RESPONSE_CODE))

    def _check_status(self, http_status: int) -> None:
        status = self._headers.get("grpc-status")
        if status == "0":
            return
        if status is not None:
            code = int(status) if status.isdecimal() else 2
            raise RpcError(code, unquote(self._headers.get("grpc-message", "")))
        if http_status == _HTTP_OK and self._speaks_grpc():
            raise EtcdUnavailableError(f"{self._endpoint}: the answer ended without a gRPC status", hint=self._hint)
        raise NotGrpcError(f"{self._endpoint}: HTTP {http_status}, not gRPC", hint=self._hint)

    def _speaks_grpc(self) -> bool:
        return self._headers.get("content-type", "").startswith("application/grpc")

    def _body(self, data: bytes) -> int:
        try:
            if self._speaks_grpc():  # else it is a page about an error
                self._take(data)
        except BaseException as error:  # noqa: BLE001 - raised again once libcurl has returned
            self._failure = error
            return 0
        self._heard = self._clock()  # only now: the time that a slow store took is not the member's
        return len(data)

    def _header(self, line: bytes) -> None:
        name, _, value = line.decode("latin-1").partition(":")
        self._headers[name.strip().lower()] = value.strip()
        self._heard = self._clock()

    def _tick(self, *_: object) -> int:
        # Called about once a second even while the member is silent, so Ctrl-C gets its turn here, too.
        try:
            self._watch()
            self._refuse_silence()
        except BaseException as error:  # noqa: BLE001 - raised again once libcurl has returned
            self._failure = error
            return 1
        return 0

    def _refuse_silence(self) -> None:
        # libcurl's own limit on low speed takes an average, which is slow to notice a fast stream that stops.
        silence = self._clock() - self._heard
        if self._stall_seconds is not None and silence > self._stall_seconds:
            raise EtcdUnavailableError(
                f"{self._endpoint}: the member has sent nothing for {silence:.0f} s",
                code="etcd-silent",
                fields={"seconds": silence},
                hint=self._hint,
            )

    def _curl_error(self, code: int, text: str) -> EtcdError:
        if code in _TLS_ERRORS or "SSL routines" in text:
            return EtcdAuthError(
                f"{self._endpoint}: TLS failed: {text}",
                hint="check the CA, and that the client certificate is signed by etcd's own CA",
            )
        kind: type[EtcdError] = EtcdUnavailableError
        if _NOT_HTTP2 in text:
            kind = NotGrpcError
        elif code in _MAYBE_NOT_HTTP2 and not self._headers:
            kind = UnansweredError
        return kind(f"{self._endpoint}: {text}", hint=self._hint)
