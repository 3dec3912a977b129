"""Objects in an S3 bucket, of AWS or of any server that speaks its language. The only user of boto3.

A put streams: parts are gathered in memory, uploaded by a few threads while the caller goes on writing, and
joined into the object at the end; what fits into one part is one PutObject. Either way the object appears by
one request, which carries ``If-None-Match: *`` where the key must be free, so of two writers one wins.

A get streams too, and survives a connection that breaks: the rest is asked for from where it stopped, on the
condition that the object still has the ETag it had (``If-Match``), so bytes of two versions never mix.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import secrets
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args
from urllib.parse import quote, urlencode

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.loaders import Loader, create_loader
from botocore.session import Session as BotocoreSession
from urllib3.exceptions import HTTPError

from clusterguard.errors import (
    ClusterGuardError,
    ConfigError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreError,
    StoreUnavailableError,
)
from clusterguard.sockets import is_loopback
from clusterguard.stores.base import CHUNK_BYTES, ObjectInfo, check_key, key_problem, object_changed
from clusterguard.stores.s3_errors import Answer, error_for_answer, error_for_exception

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

__all__ = ["Checksum", "S3Credentials", "S3Store"]

Checksum: TypeAlias = Literal["CRC32", "SHA256", "when_required"]

_LOG = logging.getLogger(__name__)
_SMALLEST_PART = 5 << 20  # S3's rule for every part but the last
_NEVER = datetime.max.replace(tzinfo=UTC)
_PUT_ID = "clusterguard-put"  # the metadata field that tells which put made an object
# botocore lets some errors of urllib3 (TLS in the middle of a body), of sockets and of its own files through.
_BOTO_ERRORS = (BotoCoreError, ClientError, HTTPError, OSError)
# What a condition that does not hold is answered with; without an answer (None), what lies there decides.
_REFUSED = {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, None}


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credentials:
    """An identity given by the program, instead of AWS's usual chain."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


class S3Store:
    """An object store in a bucket, below a prefix.

    Nothing is connected to before the first verb. A put keeps ``(parts_in_flight + 1) * part_size`` bytes in
    memory at most. A process that is killed leaves an unfinished upload, which is no object but costs
    storage: give the bucket a lifecycle rule with ``AbortIncompleteMultipartUpload``.

    On a server without conditional writes (it answers 501) a free key is ensured by asking right before the
    object is made; a warning says so, since two writers can then both believe they were first.

    Args:
        bucket: Its name.
        prefix: What every key is put behind, without slashes at its ends; empty for the whole bucket.
        endpoint: Such as ``https://s3.example.com:9000``; by default AWS's own.
        region: By default that of the AWS configuration.
        path_style: Put the bucket's name into the path instead of the host name.
        ca_file: PEM file of the certificate authorities to trust; by default those of the AWS configuration
            or of botocore.
        profile: A profile of ``~/.aws/config``.
        checksum: What the server checks uploads by. ``when_required`` sends none and checks none: for servers
            that know no checksums.
        credentials: By default AWS's usual chain: environment, profile, role of the machine.
        part_size: Bytes of one part, at least 5 MiB. S3 takes 10,000 parts, so 5 MiB make objects of 48 GiB; larger
            ones take more memory, once for each part on its way in each store.
        parts_in_flight: Parts uploaded at the same time, by as many connections.
        attempts: How often a request is sent in all before giving up.
        resumptions: How often a broken read goes on, for each object read.
        connect_timeout_seconds: For one attempt to connect.
        read_timeout_seconds: For one silence of the server.

    Raises:
        ConfigError: The part size is below 5 MiB, the checksum is none of the three, or the endpoint holds
            credentials.
    """

    def __init__(
        self,
        *,
        bucket: str,
        prefix: str = "",
        endpoint: str | None = None,
        region: str | None = None,
        path_style: bool = False,
        ca_file: Path | None = None,
        profile: str | None = None,
        checksum: Checksum = "CRC32",
        credentials: S3Credentials | None = None,
        part_size: int = _SMALLEST_PART,
        parts_in_flight: int = 2,
        attempts: int = 3,
        resumptions: int = 8,
        connect_timeout_seconds: float = 3,
        read_timeout_seconds: float = 60,
    ) -> None:
        if part_size < _SMALLEST_PART:
            raise ConfigError(f"parts of {part_size} bytes are smaller than S3 allows", hint="5 MiB or more: 5242880")
        if checksum not in get_args(Checksum):
            raise ConfigError(f"{checksum!r} is no checksum", hint=f"one of {', '.join(get_args(Checksum))}")
        if endpoint is not None and "@" in endpoint:
            raise ConfigError("the endpoint holds a user or a password", hint="give credentials to AWS's usual chain")
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._endpoint = endpoint
        self._region = region
        self._path_style = path_style
        self._ca_file = ca_file
        self._profile = profile
        self._checksum = checksum
        self._credentials = credentials
        self._part_size = part_size
        self._parts_in_flight = parts_in_flight
        self._attempts = attempts
        self._resumptions = resumptions
        self._connect_timeout_seconds = connect_timeout_seconds
        self._read_timeout_seconds = read_timeout_seconds

    @property
    def url(self) -> str:
        """Where this is, as ``s3://bucket/prefix?…``, without credentials."""
        settings = {
            "endpoint": self._endpoint,
            "region": self._region,
            "pathStyle": "true" if self._path_style else None,
            "ca": str(self._ca_file) if self._ca_file else None,
            "profile": self._profile,
            "checksum": self._checksum if self._checksum != "CRC32" else None,
        }
        query = urlencode({name: value for name, value in settings.items() if value is not None}, safe=":/")
        return f"{self._place('')}{'?' if query else ''}{query}"

    def create_bucket(self) -> None:
        """Create the bucket; one that is ours already is no error.

        Raises:
            StoreError: It is somebody else's, or we may not.
        """
        with _telling(self._place("")):
            try:
                self._client.create_bucket(Bucket=self._bucket)
            except self._client.exceptions.BucketAlreadyOwnedByYou:
                return

    @contextmanager
    def put(self, key: str, *, overwrite: bool = False, if_version: str | None = None) -> Iterator[_Upload]:
        """Open an object for writing; see `ObjectStore.put`."""
        check_key(key)
        if if_version is None and not overwrite:
            self._refuse_taken(key)
        upload = _Upload(
            self._client,
            _Target(
                bucket=self._bucket,
                key=self._full(key),
                place=self._place(key),
                checksum=self._checksum,
                overwrite=overwrite,
                if_version=if_version,
            ),
            part_size=self._part_size,
            parts_in_flight=self._parts_in_flight,
        )
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.abort()
            raise

    @contextmanager
    def get(self, key: str) -> Iterator[_Download]:
        """Open an object for reading; see `ObjectStore.get`."""
        check_key(key)
        download = _Download(
            self._client,
            bucket=self._bucket,
            key=self._full(key),
            place=self._place(key),
            resumptions=self._resumptions,
        )
        try:
            yield download
        finally:
            download.close()

    def stat(self, key: str) -> ObjectInfo:
        """Describe one object; see `ObjectStore.stat`."""
        head, place = self._head(key), self._place(key)
        return ObjectInfo(
            key=key,
            size=_field(head, "ContentLength", place=place),
            modified=_utc(_field(head, "LastModified", place=place)),
            version=head.get("ETag", ""),
        )

    def locked_until(self, key: str) -> datetime | None:
        """Return until when an object lock lets nobody remove an object, in UTC; None where there is no lock.

        A legal hold has no end, for which the last of all times stands. Governance counts like compliance. Where the
        server does not tell an object's own lock (some need ``s3:GetObjectRetention`` and ``s3:GetObjectLegalHold``
        for it, some never do), the default retention of the bucket is taken to have begun with the object. The time
        may be in the past: then the lock has ended.

        Raises:
            ObjectNotFoundError: There is no such object.
        """
        head = self._head(key)
        if head.get("ObjectLockLegalHoldStatus") == "ON":
            return _NEVER
        if "ObjectLockRetainUntilDate" in head:
            return _utc(head["ObjectLockRetainUntilDate"])
        if self._default_retention is None:
            return None
        return _utc(_field(head, "LastModified", place=self._place(key))) + self._default_retention

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in the order of their keys, a page at a time.

        What is in the bucket under names that are no keys, such as the folders of a web console, is left out.
        """
        place = self._place(prefix)
        with _telling(place):
            pages = iter(
                self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=self._full(prefix))
            )
        while True:
            with _telling(place):
                page = next(pages, None)
            if page is None:
                return
            _field(page, "IsTruncated", place=place)
            for entry in page.get("Contents", ()):
                key = entry["Key"][len(self._full("")) :]
                if key_problem(key) is None:
                    modified = _utc(entry["LastModified"])
                    yield ObjectInfo(key=key, size=entry["Size"], modified=modified, version=entry.get("ETag", ""))

    def delete(self, key: str) -> None:
        """Remove an object; removing one that is not there is no error.

        Raises:
            StoreError: An object lock holds it, or we may not. In a bucket with versions the object is hidden and its
                versions stay, locked or not, for the lifecycle rules of the bucket.
        """
        check_key(key)
        try:
            with contextlib.suppress(ObjectNotFoundError), _telling(self._place(key)):
                self._client.delete_object(Bucket=self._bucket, Key=self._full(key))
        except StoreError as error:
            self._refuse_locked(key, error)
            raise

    def _head(self, key: str) -> HeadObjectOutputTypeDef:
        check_key(key)
        try:
            with _telling(self._place(key)):
                return self._client.head_object(Bucket=self._bucket, Key=self._full(key))
        except ObjectNotFoundError:
            self._refuse_missing_bucket(key)
            raise

    def _refuse_locked(self, key: str, cause: StoreError) -> None:
        """Tell a lock from a missing permission: a server answers both alike."""
        if not isinstance(cause.__cause__, ClientError) or _answer_status(cause.__cause__) != HTTPStatus.FORBIDDEN:
            return
        until = None
        with contextlib.suppress(ClusterGuardError):  # the error that made us ask is the one to tell
            until = self.locked_until(key)
        if until is not None:
            end = "its legal hold is lifted" if until == _NEVER else until.isoformat()
            raise StoreError(
                f"{self._place(key)}: an object lock holds it until {end}: {cause.message}",
                hint="it can be removed after that; until then nobody can, which is what the lock is for",
            ) from cause

    @cached_property
    def _default_retention(self) -> timedelta | None:
        """The bucket's; None where it has none, where the server knows no locks, and where we may not ask."""
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self._bucket)
        except ClientError as error:
            _LOG.debug("s3://%s: no default retention is told: %s", self._bucket, error)
            return None
        except _BOTO_ERRORS as error:
            raise _meaning_of(error, place=f"s3://{self._bucket}") from error
        rule = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
        days = rule.get("Days", 0) + 365 * rule.get("Years", 0)
        return timedelta(days=days) if days else None

    @cached_property
    def _client(self) -> S3Client:
        client = self._new_client(proxies=None)
        # Alone among programs botocore sends what is for loopback to the proxy of HTTP_PROXY, too.
        return self._new_client(proxies={}) if is_loopback(client.meta.endpoint_url) else client

    def _new_client(self, *, proxies: dict[str, str] | None) -> S3Client:
        if self._ca_file is not None and not self._ca_file.is_file():
            raise ConfigError(f"{self._ca_file}: there is no such file", hint="ca= takes a file of certificates in PEM")
        identity = self._credentials
        sends: Literal["when_required", "when_supported"]
        sends = "when_required" if self._checksum == "when_required" else "when_supported"
        with _telling(self._place("")):
            session = boto3.session.Session(
                profile_name=self._profile, region_name=self._region, botocore_session=_new_session()
            )
            return session.client(
                "s3",
                endpoint_url=self._endpoint,
                verify=str(self._ca_file) if self._ca_file else None,
                aws_access_key_id=identity.access_key if identity else None,
                aws_secret_access_key=identity.secret_key if identity else None,
                aws_session_token=identity.session_token if identity else None,
                config=Config(
                    connect_timeout=self._connect_timeout_seconds,
                    read_timeout=self._read_timeout_seconds,
                    retries={"mode": "standard", "total_max_attempts": self._attempts},
                    s3={"addressing_style": "path" if self._path_style else "auto"},
                    request_checksum_calculation=sends,
                    response_checksum_validation=sends,
                    max_pool_connections=self._parts_in_flight + 8,
                    tcp_keepalive=True,
                    proxies=proxies,
                ),
            )

    def _full(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _place(self, key: str) -> str:
        path = quote(self._full(key).rstrip("/"))
        return f"s3://{self._bucket}/{path}" if path else f"s3://{self._bucket}"

    def _refuse_taken(self, key: str) -> None:
        with contextlib.suppress(ObjectNotFoundError):
            self.stat(key)
            raise _taken(self._place(key))

    def _refuse_missing_bucket(self, key: str) -> None:
        """Tell a missing bucket or user from a missing object: they look the same in the answer to a HEAD."""
        try:
            self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._full(key), MaxKeys=1)
        except _BOTO_ERRORS as error:
            # Who may not list may still know that there is no such object.
            if _answer_status(error) != HTTPStatus.FORBIDDEN:
                raise _meaning_of(error, place=f"s3://{self._bucket}") from error


def _new_session() -> BotocoreSession:
    """Return a session of its own, with the description of S3 that all of them share: 12 MiB, and slow to read."""
    session = BotocoreSession()
    session.register_component("data_loader", _shared_loader())
    return session


@cache
def _shared_loader() -> Loader:
    return create_loader()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target:
    """The object that a put shall make."""

    bucket: str
    key: str
    place: str
    checksum: Checksum
    overwrite: bool
    if_version: str | None

    @property
    def names(self) -> dict[str, str]:
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def condition(self) -> dict[str, str]:
        if self.if_version is not None:
            return {"IfMatch": self.if_version}
        return {} if self.overwrite else {"IfNoneMatch": "*"}

    def refusal(self, there: _There | None) -> StoreError | None:
        """Return why what lies there now lets nothing be made under this key; None where it does."""
        if self.if_version is not None:
            return None if there is not None and there.etag == self.if_version else object_changed(self.place)
        return None if self.overwrite or there is None else _taken(self.place)

    @property
    def algorithm(self) -> dict[str, str]:
        return {} if self.checksum == "when_required" else {"ChecksumAlgorithm": self.checksum}


@dataclass(frozen=True, slots=True, kw_only=True)
class _There:
    """The object that has the key now: the id of the put that made it (empty where it has none), and its ETag."""

    put: str
    etag: str


class _Upload:
    """Writes one object; after a failed write it can only be given up."""

    def __init__(self, client: S3Client, target: _Target, *, part_size: int, parts_in_flight: int) -> None:
        # The client's methods take so many literal types that a shared set of arguments has none of them.
        self._client: Any = client
        self._target = target
        self._part_size = part_size
        self._parts_in_flight = parts_in_flight
        self._gathered = bytearray()
        self._filled = 0
        self._underway: deque[Future[dict[str, Any]]] = deque()
        self._parts: list[dict[str, Any]] = []
        # Buffers go round: memory that is given back and asked for again all the time is kept by the allocator.
        self._free: queue.SimpleQueue[bytearray] = queue.SimpleQueue()
        for _ in range(parts_in_flight):
            self._free.put(bytearray())
        self._upload_id: str | None = None
        self._failure: ClusterGuardError | None = None
        self._id = secrets.token_hex(16)

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes, waiting while as many parts as allowed are on their way."""
        self._refuse_after_failure()
        rest = memoryview(data).cast("B")
        while rest:
            taken = rest[: self._part_size - self._filled]
            self._gathered[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            rest = rest[len(taken) :]
            if self._filled == self._part_size:
                self._send_part()

    def finish(self) -> None:
        """Make the object."""
        self._refuse_after_failure()
        if self._upload_id is None:
            self._publish(self._put_whole)
            return
        if self._filled:
            self._send_part()
        while self._underway:
            self._take_result()
        self._workers.shutdown()
        self._publish(self._join)

    def abort(self) -> None:
        """Give the object up."""
        if self._upload_id is None:
            return
        # A part that arrives after the abort would stay in the bucket for good.
        self._workers.shutdown(cancel_futures=True)
        try:
            self._client.abort_multipart_upload(**self._target.names, UploadId=self._upload_id)
        except _BOTO_ERRORS as error:
            if _answer_status(error) == HTTPStatus.NOT_FOUND:
                return
            _LOG.warning(
                "%s: parts of an unfinished upload stay in the bucket until its lifecycle rule acts: %s",
                self._target.place,
                error,
            )

    @cached_property
    def _workers(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._parts_in_flight, thread_name_prefix="clusterguard-upload")

    def _refuse_after_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _send_part(self) -> None:
        try:
            if self._upload_id is None:
                self._upload_id = self._begin()
            free = self._free.get()
            while self._underway and self._underway[0].done():
                self._take_result()
            number = len(self._parts) + len(self._underway) + 1
            self._underway.append(self._workers.submit(self._upload_part, number, self._gathered, self._filled))
        except ClusterGuardError as error:
            self._failure = error
            raise
        self._gathered, self._filled = free, 0

    def _begin(self) -> str:
        with _telling(self._target.place):
            begun = self._client.create_multipart_upload(
                **self._target.names, **self._target.algorithm, Metadata={_PUT_ID: self._id}
            )
        return str(_field(begun, "UploadId", place=self._target.place))

    def _upload_part(self, number: int, buffer: bytearray, size: int) -> dict[str, Any]:
        try:
            sent = self._client.upload_part(
                **self._target.names,
                **self._target.algorithm,
                UploadId=self._upload_id,
                PartNumber=number,
                Body=buffer if size == len(buffer) else bytes(buffer[:size]),
            )
        finally:
            self._free.put(buffer)
        checksum = f"Checksum{self._target.checksum}"
        told = {name: sent[name] for name in ("ETag", checksum) if name in sent}
        return {"PartNumber": number, **told}

    def _take_result(self) -> None:
        with _telling(self._target.place):
            self._parts.append(self._underway.popleft().result())

    def _put_whole(self, **condition: str) -> None:
        made = self._client.put_object(
            **self._target.names,
            **self._target.algorithm,
            **condition,
            Body=bytes(self._gathered[: self._filled]),
            Metadata={_PUT_ID: self._id},
        )
        _field(made, "ETag", place=self._target.place)

    def _join(self, **condition: str) -> None:
        made = self._client.complete_multipart_upload(
            **self._target.names,
            **condition,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
        )
        _field(made, "ETag", place=self._target.place)

    def _publish(self, publish: Callable[..., None]) -> None:
        condition = self._target.condition
        if "" in condition.values():  # some servers take an empty condition for none
            raise object_changed(self._target.place)
        try:
            try:
                publish(**condition)
            except ClientError as error:
                if not condition or _answer_status(error) != HTTPStatus.NOT_IMPLEMENTED:
                    raise
                self._publish_unconditionally(publish)
        except _BOTO_ERRORS as error:
            if (meaning := self._after_failure(error)) is not None:
                raise meaning from error

    def _after_failure(self, error: Exception) -> ClusterGuardError | None:
        """Return what a failed request means; None where it did its work although its answer was lost."""
        meaning = _meaning_of(error, place=self._target.place)
        try:
            there = self._there()
        except _BOTO_ERRORS:
            return meaning  # the error that made us ask is the one to tell
        if there is not None and there.put == self._id:
            return None  # sent again, it met itself
        if _answer_status(error) in _REFUSED or isinstance(meaning, ObjectNotFoundError):
            return self._target.refusal(there) or meaning
        return meaning

    def _publish_unconditionally(self, publish: Callable[..., None]) -> None:
        _LOG.warning(
            "%s: this server has no conditional writes, so another writer of the same key at the same moment"
            " would not be noticed",
            self._target.place,
        )
        refusal = self._target.refusal(self._there())
        if refusal is not None:
            raise refusal
        publish()

    def _there(self) -> _There | None:
        """Return what lies there under the key now; None for no object."""
        try:
            head = self._client.head_object(**self._target.names)
        except ClientError as error:
            if _answer(error).status == HTTPStatus.NOT_FOUND:
                return None
            raise
        return _There(put=str(head.get("Metadata", {}).get(_PUT_ID, "")), etag=head.get("ETag", ""))


class _Download:
    """Reads one version of one object, over several connections where one breaks."""

    def __init__(self, client: S3Client, *, bucket: str, key: str, place: str, resumptions: int) -> None:
        self._client = client
        self._bucket = bucket
        self._key = key
        self._place = place
        self._resumptions = resumptions
        with _telling(place):
            self._response = client.get_object(Bucket=bucket, Key=key)
        self._etag = _field(self._response, "ETag", place=place)
        self._size = self._response["ContentLength"]
        self._at = 0

    def read(self, size: int = -1, /) -> bytes:
        """Return at most ``size`` bytes, and ``b""`` only at the end, where botocore checks the checksum.

        Only an object of one part has a checksum that covers all of it, and only where one connection
        brought it; who must be sure compares a digest of their own.
        """
        if size < 0:
            return b"".join(iter(lambda: self.read(CHUNK_BYTES), b""))
        while size:
            try:
                # At the end this asks once more, which is when botocore compares the checksum.
                data = self._response["Body"].read(size)
            except _BOTO_ERRORS as error:
                self._resume(error)
                continue
            self._at += len(data)
            if data or self._at == self._size:
                return data
            self._resume(None)
        return b""

    def close(self) -> None:
        """Let the connection go."""
        self._response["Body"].close()

    def _resume(self, cause: Exception | None) -> None:
        why = f": {cause}" if cause else ""
        broken = f"{self._place}: the connection broke after {self._at} of {self._size} bytes{why}"
        if cause is not None and self._at == self._size:
            raise _meaning_of(cause, place=self._place) from cause
        if not self._resumptions:
            raise StoreUnavailableError(broken, hint="read the object again") from cause
        self._resumptions -= 1
        _LOG.info("%s; going on from there", broken)
        self.close()
        try:
            self._response = self._client.get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={self._at}-", IfMatch=self._etag
            )
        except _BOTO_ERRORS as error:
            if _answer_status(error) == HTTPStatus.PRECONDITION_FAILED:
                raise self._changed() from error
            raise _meaning_of(error, place=self._place) from error
        if not _continues(self._response, at=self._at, etag=self._etag):
            raise self._changed()

    def _changed(self) -> StoreError:
        return StoreUnavailableError(
            f"{self._place}: the object was replaced after {self._at} of {self._size} bytes were read",
            hint="read the object again",
        )


def _continues(response: GetObjectOutputTypeDef, *, at: int, etag: str) -> bool:
    """Return whether a response holds the rest of the same version: a server may ignore conditions."""
    return response.get("ContentRange", "").startswith(f"bytes {at}-") and response.get("ETag") == etag


@contextmanager
def _telling(place: str) -> Iterator[None]:
    try:
        yield
    except _BOTO_ERRORS as error:
        raise _meaning_of(error, place=place) from error


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)  # botocore gives the machine's own time zone


def _field(response: Mapping[str, Any], name: str, *, place: str) -> Any:  # noqa: ANN401 - botocore types it
    """Return what every S3 server tells: an answer without it is from something else, and proves nothing."""
    if name not in response:
        raise StoreError(
            f"{place}: the server's answer lacks {name}, so it is no S3 server's", hint="check the endpoint"
        )
    return response[name]


def _meaning_of(error: Exception, *, place: str) -> ClusterGuardError:
    if isinstance(error, ClientError):
        return error_for_answer(_answer(error), place=place)
    return error_for_exception(error, place=place)


def _answer(error: ClientError) -> Answer:
    told = error.response.get("Error", {})
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return Answer(
        code=str(told.get("Code", status)),
        status=status,
        message=str(told.get("Message", "no message")),
        operation=error.operation_name,
    )


def _answer_status(error: Exception) -> int | None:
    return _answer(error).status if isinstance(error, ClientError) else None


def _taken(place: str) -> ObjectExistsError:
    return ObjectExistsError(f"{place}: the key is taken", hint="choose another key, or allow overwriting")
