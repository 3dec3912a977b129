"""Files of backups and restores, as the server gives them out: through a DownloadRequest and a signed URL.

The URL leads to the bucket itself, so what is read is what is stored there, and no credentials are needed. It is
never part of a message: who has it has the file.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import ssl
import time
import zlib
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Any, ParamSpec, TypeVar, cast
from urllib.parse import urlsplit

import orjson

from clusterguard.errors import (
    ConfigError,
    ObjectNotFoundError,
    ResourceNotFoundError,
    StoreError,
    StoreUnavailableError,
    VeleroError,
    WaitTimeoutError,
)
from clusterguard.response_body import BodyBoundError, BodyUnfinishedError, BoundedBody
from clusterguard.sockets import is_loopback
from clusterguard.velero.phases import RequestPhase
from clusterguard.velero.resources import Backup, BackupStorageLocation, DownloadKind, DownloadRequest, Restore

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import urllib3

    from clusterguard.velero.objects import VeleroObjects

__all__ = ["Downloads"]

_P = ParamSpec("_P")
_R = TypeVar("_R")
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 60.0
_LARGEST_DOCUMENT = 1 << 29  # bytes; the resource list of a million objects takes a tenth of this
_WHOLE_SECONDS = 3600.0  # until a file must have come
_LONGEST_LINE = 1 << 20  # of a log; what is longer comes in pieces
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Downloads:
    """Gives the files of backups and restores.

    Attributes:
        objects: The server's objects.
        ca: PEM file that the bucket's server is trusted by, beside what its location says.
        insecure: Trust any certificate of the bucket's server.
        timeout_seconds: How long the server may take to answer a request. One for something that is not there
            is never answered.
        whole_seconds: How long a file may take to come.
        clock: Seconds that only grow.
    """

    objects: VeleroObjects = field(repr=False)
    ca: Path | None = None
    insecure: bool = False
    timeout_seconds: float = 30.0
    whole_seconds: float = _WHOLE_SECONDS
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)

    @contextmanager
    def open(self, kind: DownloadKind, name: str) -> Iterator[IO[bytes]]:
        """Open a file for reading; everything but the contents (a ``.tar.gz``) comes unpacked.

        Args:
            kind: Which file.
            name: Of the backup or the restore.

        Raises:
            ResourceNotFoundError: There is no such backup or restore.
            WaitTimeoutError: The server does not answer the request.
            ObjectNotFoundError: The bucket does not have the file.
            StoreUnavailableError: The bucket did not answer, or the file ended early.
            StoreError: The bucket refused, or the file is damaged.
        """
        what = f"{kind.what} of {'restore' if kind.of_restore else 'backup'} {name}"
        location = self._location_of(kind, name)
        url = self._signed_url(kind, name, what)
        deadline = self.clock() + self.whole_seconds
        with _opened(url, what=what, tls=self._trust(url, location)) as response, _translated_errors(what):
            raw = BoundedBody(response, deadline=deadline, decode_content=False, clock=self.clock)
            body = io.BufferedReader(raw, _CHUNK)
            if kind is DownloadKind.BACKUP_CONTENTS:
                yield cast("IO[bytes]", body)
            else:
                with gzip.GzipFile(fileobj=body) as unpacked:
                    yield cast("IO[bytes]", unpacked)

    def text(self, kind: DownloadKind, name: str) -> Iterator[str]:
        """Yield the lines of a log; as `open` otherwise."""
        with self.open(kind, name) as file:
            text = io.TextIOWrapper(file, encoding="utf-8", errors="replace")
            for line in iter(partial(text.readline, _LONGEST_LINE), ""):
                yield line.rstrip("\n")

    def document(self, kind: DownloadKind, name: str) -> Any:  # noqa: ANN401 - any JSON
        """Return a JSON file; as `open` otherwise.

        Raises:
            StoreError: It holds none, or half a gigabyte of it.
        """
        with self.open(kind, name) as file:
            data = bytearray()
            while chunk := file.read(_CHUNK):
                data += chunk
                if len(data) > _LARGEST_DOCUMENT:
                    raise StoreError(f"{kind.what} of {name}: it unpacks to more than {_LARGEST_DOCUMENT:,} bytes")
        try:
            return orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise StoreError(f"{kind.what} of {name} is not JSON: {error}", hint="verify the bucket") from error

    def _location_of(self, kind: DownloadKind, name: str) -> BackupStorageLocation:
        """Return the file's location; fails early where a request would never be answered."""
        backup_name = self.objects.get(Restore, name).backup_name if kind.of_restore else name
        backup = self.objects.get(Backup, backup_name)
        if not backup.storage_location:
            raise VeleroError(
                f"{backup} has no storage location yet, so it has no files",
                hint="the server has not begun it: clusterguard velero status",
            )
        return self.objects.get(BackupStorageLocation, backup.storage_location)

    def _signed_url(self, kind: DownloadKind, name: str, what: str) -> str:
        try:
            return self.objects.ask(
                DownloadRequest.new(
                    namespace=self.objects.namespace,
                    generate_name="clusterguard-",
                    spec={"target": {"kind": kind.value, "name": name}},
                ),
                answered=lambda seen: seen.phase == RequestPhase.PROCESSED and bool(seen.url),
                what=f"Velero to answer the request for the {what}",
                timeout_seconds=self.timeout_seconds,
            ).url
        except WaitTimeoutError as error:
            error.hint = (
                "is its server running, and its location available? clusterguard velero status; "
                "clusterguard velero location list"
            )
            raise

    def _trust(self, url: str, location: BackupStorageLocation) -> ssl.SSLContext | None:
        if not url.startswith("https:"):
            return None
        context = ssl.create_default_context()
        for pem in filter(None, (self._own_ca(), self._location_ca(location))):
            try:
                context.load_verify_locations(cadata=pem)
            except ssl.SSLError as error:
                raise ConfigError(
                    f"the CA certificates for location {location.name} cannot be read: {error.reason}",
                    hint="they must be PEM",
                ) from error
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def _own_ca(self) -> str:
        if self.ca is None:
            return ""
        try:
            return self.ca.read_text()
        except OSError as error:
            raise ConfigError(f"CA file {self.ca}: {error.strerror}") from error

    def _location_ca(self, location: BackupStorageLocation) -> str:
        reference = (location.spec.get("objectStorage") or {}).get("caCertRef")
        encoded = location.ca_cert or (self._secret(reference) if reference else "")
        try:
            return base64.b64decode(encoded, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise VeleroError(f"the CA certificate of {location} is not base64 of PEM") from error

    def _secret(self, reference: dict[str, str]) -> str:
        api = self.objects.api
        secret = api.get(api.resource("Secret", api_version="v1"), reference["name"], self.objects.namespace)
        try:
            return str(secret["data"][reference["key"]])
        except KeyError as error:
            raise ResourceNotFoundError(
                f"Secret {reference['name']} in namespace {self.objects.namespace} has no key {reference['key']}"
            ) from error


@contextmanager
def _opened(url: str, *, what: str, tls: ssl.SSLContext | None) -> Iterator[urllib3.BaseHTTPResponse]:
    import urllib3

    where = f"{what} from {urlsplit(url).netloc}"
    pool = _pool(url, tls)
    try:
        try:
            response = _quietly(pool.request, tls)(
                "GET",
                url,
                preload_content=False,
                decode_content=False,
                redirect=False,
                retries=urllib3.Retry(connect=2, read=0, redirect=0, status=0, other=0, backoff_factor=0.2),
                timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_SILENCE_SECONDS),
                headers={"Accept-Encoding": "identity", "User-Agent": "clusterguard"},
            )
        except urllib3.exceptions.HTTPError as error:
            raise _connection_error(error, where) from error
        try:
            if response.status != HTTPStatus.OK:
                raise _refused(response, where)
            yield response
        finally:
            response.close()
    finally:
        pool.clear()


def _quietly(request: Callable[_P, _R], tls: ssl.SSLContext | None) -> Callable[_P, _R]:
    """Return a request that does not warn of what its user asked for: to trust any certificate."""
    if tls is None or tls.verify_mode is not ssl.CERT_NONE:
        return request

    def quiet(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        import warnings

        import urllib3

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            return request(*args, **kwargs)

    return quiet


def _pool(url: str, tls: ssl.SSLContext | None) -> urllib3.PoolManager:
    from urllib.request import getproxies, proxy_bypass

    import urllib3

    parts = urlsplit(url)
    settings: dict[str, Any] = {} if tls is None else {"ssl_context": tls}
    proxy = getproxies().get(parts.scheme)
    if proxy and not is_loopback(url) and not proxy_bypass(parts.hostname or ""):
        return urllib3.ProxyManager(proxy, **settings)
    return urllib3.PoolManager(**settings)


def _connection_error(error: Exception, where: str) -> StoreError:
    cause = _root_cause(error)
    if isinstance(cause, ssl.SSLCertVerificationError):
        return StoreError(
            f"{where}: its certificate is not trusted: {cause.verify_message}",
            code="untrusted-certificate",
            hint="give the CA: --cacert, or the location's objectStorage.caCert",
        )
    return StoreUnavailableError(
        f"{where}: {cause}",
        fields={"server": where},
        hint="the signed URL has the location's address; inside a cluster that may be one which only pods reach: "
        "set publicUrl in the location's config",
    )


def _root_cause(error: BaseException) -> BaseException:
    # urllib3 wraps in three ways: by reason, by the last argument, by chaining.
    wrapped = (getattr(error, "reason", None), *reversed(error.args), error.__cause__)
    inner = next((part for part in wrapped if isinstance(part, BaseException)), None)
    return error if inner is None else _root_cause(inner)


def _refused(response: urllib3.BaseHTTPResponse, where: str) -> StoreError:
    body = _beginning(response)
    code = _between(body, "<Code>", "</Code>")
    said = f"{where}: {response.status} {code}".rstrip()
    match response.status:
        case HTTPStatus.NOT_FOUND:
            return ObjectNotFoundError(
                f"{said}: the bucket has no such file",
                fields={"server": where, "status": 404},
                hint="Velero writes some files on best effort; where others are missing as well, verify the backup",
            )
        case HTTPStatus.FORBIDDEN | HTTPStatus.UNAUTHORIZED:
            return StoreError(
                f"{said}: the signed URL was refused",
                hint="clocks apart by minutes, credentials that were changed, or customer-provided keys (SSE-C)",
            )
        case status if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            return StoreError(
                f"{said}: the bucket is elsewhere", hint="does the location's config name the bucket's region?"
            )
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS:
            return StoreUnavailableError(said, hint="the object store cannot answer now; try again")
        case _:
            return StoreError(said)


def _beginning(response: urllib3.BaseHTTPResponse) -> str:
    import urllib3

    body = BoundedBody(response, deadline=time.monotonic() + _CONNECT_SECONDS)
    with suppress(BodyBoundError, urllib3.exceptions.HTTPError):  # the status says enough
        return (body.read(2000) or b"").decode(errors="replace")
    return ""


def _between(text: str, start: str, end: str) -> str:
    _, _, rest = text.partition(start)
    return rest.partition(end)[0] if end in rest else ""


@contextmanager
def _translated_errors(what: str) -> Iterator[None]:
    import urllib3

    try:
        yield
    except BodyUnfinishedError as error:
        raise StoreUnavailableError(f"{what}: {error}", hint="try again, or read it in the bucket itself") from error
    except (EOFError, urllib3.exceptions.HTTPError) as error:
        raise StoreUnavailableError(
            f"{what}: it ended early", hint="try again; if it stays so, verify the backup"
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise StoreError(f"{what}: it is damaged: {error}", hint="verify the backup in the bucket") from error
