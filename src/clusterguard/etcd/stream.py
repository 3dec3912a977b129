"""The snapshot stream of one member, over HTTP/2 by libcurl. The only user of pycurl.

gRPC in Python costs more per 32 KiB message than etcd needs to send it; libcurl hands over raw frames, and
`SnapshotFrames` cuts the messages out of them. The measurements are in docs/adr/0002.
"""

from __future__ import annotations

import ssl
import time
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
# TLS 1.3 tells of a refused certificate only after the handshake, in a send or receive error that names it.
_TLS_ERRORS = frozenset({35, 53, 54, 58, 59, 60, 66, 77, 80, 83, 90, 91})


def stream_snapshot(
    access: EtcdAccess,
    endpoint: str,
    take: Callable[[memoryview], object],
    *,
    token: str | None = None,
    stall_seconds: float = 30,
    watch: Callable[[SnapshotFrames], object] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> SnapshotFrames:
    """Ask one member for a snapshot and hand every byte of it to ``take``, trailer included.

    Args:
        access: Certificates; its endpoints are not used.
        endpoint: The member's client URL.
        take: Called with each piece, at most 32 KiB, in order. The buffer is reused after it returns.
        token: From `EtcdGateway.token`, where etcd's authentication is on.
        stall_seconds: How long the stream may stand still; there is no limit on its whole duration.
        watch: Called now and then with the state so far, for progress.
        clock: Seconds, monotonic.

    Raises:
        EtcdUnavailableError: Nobody answers there.
        EtcdAuthError: The member refuses our certificate or token.
        SnapshotIncompleteError: The stream was cut or stood still.
    """
    frames = SnapshotFrames(take)
    call = _Call(frames, watch, endpoint=endpoint, stall_seconds=stall_seconds, clock=clock)
    curl = pycurl.Curl()
    try:
        call.configure(curl, access, token)
        try:
            curl.perform()
        except pycurl.error as error:
            if call.failure is None:
                raise _curl_error(error, endpoint, frames) from error
        if call.failure is not None:
            raise call.failure
        call.check_status(curl.getinfo(pycurl.RESPONSE_CODE))
    finally:
        curl.close()
    frames.finish()
    return frames


class _Call:
    """One gRPC call. Exceptions cannot cross libcurl, so they wait here until it has returned."""

    def __init__(
        self,
        frames: SnapshotFrames,
        watch: Callable[[SnapshotFrames], object],
        *,
        endpoint: str,
        stall_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._frames = frames
        self._watch = watch
        self._endpoint = endpoint
        self._stall_seconds = stall_seconds
        self._clock = clock
        self._heard = clock()
        self.failure: BaseException | None = None
        self._headers: dict[str, str] = {}

    def configure(self, curl: pycurl.Curl, access: EtcdAccess, token: str | None) -> None:
        secure = self._endpoint.startswith("https://")
        version = pycurl.CURL_HTTP_VERSION_2TLS if secure else pycurl.CURL_HTTP_VERSION_2_PRIOR_KNOWLEDGE
        headers = ["content-type: application/grpc", "te: trailers", "user-agent: clusterguard"]
        if token is not None:
            headers.append(f"token: {token}")
        curl.setopt(pycurl.URL, self._endpoint.rstrip("/") + _METHOD)
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
        if secure:
            # The CAs that libcurl was built with are those of whoever built it, so they are always named.
            trusted = access.ca or ssl.get_default_verify_paths().cafile
            if trusted is not None:
                curl.setopt(pycurl.CAINFO, str(trusted))
        if access.cert is not None and access.key is not None:
            curl.setopt(pycurl.SSLCERT, str(access.cert))
            curl.setopt(pycurl.SSLKEY, str(access.key))

    def check_status(self, http_status: int) -> None:
        endpoint = self._endpoint
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
            self.failure = error
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
            self._watch(self._frames)
            self._refuse_silence()
        except BaseException as error:  # noqa: BLE001 - raised again once libcurl has returned
            self.failure = error
            return 1
        return 0

    def _refuse_silence(self) -> None:
        # libcurl's own limit on low speed takes an average, which is slow to notice a fast stream that stops.
        silence = self._clock() - self._heard
        if silence > self._stall_seconds:
            raise _lost(self._endpoint, f"the member has sent nothing for {silence:.0f} s", self._frames)


def _curl_error(error: pycurl.error, endpoint: str, frames: SnapshotFrames) -> ClusterGuardError:
    code, text = error.args[0], error.args[1]
    if code in _TLS_ERRORS or "SSL routines" in text:
        return EtcdAuthError(
            f"{endpoint}: TLS failed: {text}",
            hint="check the CA, and that the client certificate is signed by etcd's own CA",
        )
    return _lost(endpoint, text, frames)


def _lost(endpoint: str, seen: str, frames: SnapshotFrames) -> EtcdUnavailableError | SnapshotIncompleteError:
    if frames.remaining is None:
        return EtcdUnavailableError(f"{endpoint}: {seen}", hint="is etcd running there, and is this its client port?")
    return SnapshotIncompleteError(
        f"{endpoint}: {seen}; {frames.received:,} bytes had come, {frames.remaining:,} were still to come",
        hint="nothing was stored; run it again",
    )
