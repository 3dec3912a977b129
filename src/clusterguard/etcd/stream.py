"""The snapshot stream of one member, over HTTP/2 by libcurl. The only user of pycurl.

gRPC in Python costs more per 32 KiB message than etcd needs to send it; libcurl hands over raw frames, and
`SnapshotFrames` cuts the messages out of them. The measurements are in docs/adr/0002.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING
from urllib.parse import unquote

import pycurl

from clusterguard.errors import (
    ClusterGuardError,
    EtcdAuthError,
    EtcdError,
    EtcdUnavailableError,
    SnapshotIncompleteError,
)
from clusterguard.etcd.wire import SnapshotFrames

if TYPE_CHECKING:
    from collections.abc import Callable

    from clusterguard.clusters.base import EtcdAccess

__all__ = ["stream_snapshot"]

_METHOD = "/etcdserverpb.Maintenance/Snapshot"
_EMPTY_MESSAGE = b"\0\0\0\0\0"  # SnapshotRequest has no fields
_CONNECT_SECONDS = 5
_BUFFER_BYTES = 512 * 1024
_OK, _PERMISSION_DENIED, _UNAUTHENTICATED, _UNAVAILABLE = "0", "7", "16", "14"
_TLS_ERRORS = frozenset({35, 53, 54, 58, 59, 60, 66, 77, 80, 83, 90, 91})
# Before any answer these mean "nobody there"; TLS 1.3 tells of a refused certificate only on the first read.
_RECEIVE_ERROR = 56


def stream_snapshot(
    access: EtcdAccess,
    endpoint: str,
    take: Callable[[memoryview], object],
    *,
    token: str | None = None,
    stall_seconds: int = 30,
    watch: Callable[[SnapshotFrames], object] = lambda _: None,
) -> SnapshotFrames:
    """Ask one member for a snapshot and hand every byte of it to ``take``, trailer included.

    Args:
        access: Certificates; its endpoints are not used.
        endpoint: The member's client URL.
        take: Called with each piece, at most 32 KiB, in order. The buffer is reused after it returns.
        token: From `EtcdGateway.token`, where etcd's authentication is on.
        stall_seconds: How long the stream may stand still; there is no limit on its whole duration.
        watch: Called now and then with the state so far, for progress.

    Raises:
        EtcdUnavailableError: Nobody answers there.
        EtcdAuthError: The member refuses our certificate or token.
        SnapshotIncompleteError: The stream was cut or stood still.
    """
    frames = SnapshotFrames(take)
    call = _Call(frames, watch)
    curl = pycurl.Curl()
    try:
        call.configure(curl, access, endpoint, token, stall_seconds)
        try:
            curl.perform()
        except pycurl.error as error:
            raise call.failure() or _curl_error(error, endpoint, frames) from error
        if failure := call.failure():
            raise failure
        call.check_status(endpoint, curl.getinfo(pycurl.RESPONSE_CODE))
    finally:
        curl.close()
    frames.finish()
    return frames


class _Call:
    """One gRPC call. Exceptions cannot cross libcurl, so they wait here until it has returned."""

    def __init__(self, frames: SnapshotFrames, watch: Callable[[SnapshotFrames], object]) -> None:
        self._frames = frames
        self._watch = watch
        self._failure: BaseException | None = None
        self._headers: dict[str, str] = {}

    def configure(
        self, curl: pycurl.Curl, access: EtcdAccess, endpoint: str, token: str | None, stall_seconds: int
    ) -> None:
        secure = endpoint.startswith("https://")
        version = pycurl.CURL_HTTP_VERSION_2TLS if secure else pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
        headers = ["content-type: application/grpc", "te: trailers", "user-agent: clusterguard"]
        if token is not None:
            headers.append(f"token: {token}")
        curl.setopt(pycurl.URL, endpoint.rstrip("/") + _METHOD)
        curl.setopt(pycurl.HTTP_VERSION, version)
        curl.setopt(pycurl.POST, 1)
        curl.setopt(pycurl.POSTFIELDS, _EMPTY_MESSAGE)
        curl.setopt(pycurl.POSTFIELDSIZE, len(_EMPTY_MESSAGE))
        curl.setopt(pycurl.HTTPHEADER, headers)
        curl.setopt(pycurl.WRITEFUNCTION, self._body)
        curl.setopt(pycurl.HEADERFUNCTION, self._header)
        curl.setopt(pycurl.XFERINFOFUNCTION, self._tick)
        curl.setopt(pycurl.NOPROGRESS, 0)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.NOSIGNAL, 1)
        curl.setopt(pycurl.NOPROXY, "*")
        curl.setopt(pycurl.CONNECTTIMEOUT, _CONNECT_SECONDS)
        curl.setopt(pycurl.LOW_SPEED_LIMIT, 1)
        curl.setopt(pycurl.LOW_SPEED_TIME, stall_seconds)
        if secure:
            curl.setopt(pycurl.CAINFO, str(access.ca or ssl.get_default_verify_paths().cafile))
        if access.cert is not None and access.key is not None:
            curl.setopt(pycurl.SSLCERT, str(access.cert))
            curl.setopt(pycurl.SSLKEY, str(access.key))

    def failure(self) -> BaseException | None:
        return self._failure

    def check_status(self, endpoint: str, http_status: int) -> None:
        status = self._headers.get("grpc-status")
        message = unquote(self._headers.get("grpc-message", ""))
        if status == _OK:
            return
        if status is None:
            if http_status == 200:  # noqa: PLR2004 - HTTP's OK
                raise SnapshotIncompleteError(f"{endpoint}: the stream ended without a gRPC status")
            raise EtcdError(f"{endpoint}: HTTP {http_status}, not gRPC", hint="is this etcd's client port?")
        if status in (_PERMISSION_DENIED, _UNAUTHENTICATED) or "user name is empty" in message:
            raise EtcdAuthError(f"{endpoint}: {message}", hint="a snapshot needs etcd's root role")
        if status == _UNAVAILABLE and not self._frames.received:
            raise EtcdUnavailableError(f"{endpoint}: {message}")
        raise SnapshotIncompleteError(
            f"{endpoint}: after {self._frames.received:,} bytes the member said: {message} (gRPC status {status})"
        )

    def _body(self, data: bytes) -> int:
        try:
            self._frames.feed(data)
        except BaseException as error:  # noqa: BLE001 - raised again once libcurl has returned
            self._failure = error
            return 0
        return len(data)

    def _header(self, line: bytes) -> None:
        name, _, value = line.decode("latin-1").partition(":")
        self._headers[name.strip().lower()] = value.strip()

    def _tick(self, *_: object) -> int:
        # Also where Ctrl-C gets its turn while the member is silent.
        try:
            self._watch(self._frames)
        except BaseException as error:  # noqa: BLE001 - raised again once libcurl has returned
            self._failure = error
            return 1
        return 0


def _curl_error(error: pycurl.error, endpoint: str, frames: SnapshotFrames) -> ClusterGuardError:
    code, text = error.args[0], error.args[1]
    if code in _TLS_ERRORS or (code == _RECEIVE_ERROR and "alert" in text):
        return EtcdAuthError(
            f"{endpoint}: TLS failed: {text}",
            hint="check the CA, and that the client certificate is signed by etcd's own CA",
        )
    if frames.remaining is None:
        return EtcdUnavailableError(f"{endpoint}: {text}", hint="is etcd running there, and is this its client port?")
    return SnapshotIncompleteError(
        f"{endpoint}: {text}; {frames.received:,} bytes had come, {frames.remaining:,} were still to come",
        hint="nothing was stored; run it again",
    )
