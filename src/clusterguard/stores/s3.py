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
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, get_args
from urllib.parse import quote, urlencode

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError
from botocore.loaders import Loader, create_loader
from botocore.session import Session as BotocoreSession

from clusterguard.errors import ClusterGuardError, ConfigError, ObjectNotFoundError, StoreError
from clusterguard.sockets import is_loopback
from clusterguard.stores.base import ObjectInfo, check_key, key_problem
from clusterguard.stores.s3_checksums import Checksum
from clusterguard.stores.s3_download import Download
from clusterguard.stores.s3_errors import BOTO_ERRORS, explain, required, status_of, translate, translated
from clusterguard.stores.s3_upload import SMALLEST_PART, Target, Upload, key_taken, version_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

__all__ = ["Checksum", "S3Credentials", "S3Store"]

_LOG = logging.getLogger(__name__)
_NEVER = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Credentials:
    """An identity given by the program, instead of AWS's usual chain."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)

    @classmethod
    def of_environment(cls) -> S3Credentials | None:
        """Return the identity that AWS's usual chain finds (variables, profile, role); None where it finds none."""
        with translated("AWS's credentials"):
            found = BotocoreSession().get_credentials()
            keys = found.get_frozen_credentials() if found else None
        if keys is None or not keys.access_key or not keys.secret_key:
            return None
        return cls(access_key=keys.access_key, secret_key=keys.secret_key, session_token=keys.token)

    def as_file(self) -> str:
        """Return it as a credentials file of AWS's."""
        token = f"aws_session_token={self.session_token}\n" if self.session_token else ""
        return f"[default]\naws_access_key_id={self.access_key}\naws_secret_access_key={self.secret_key}\n{token}"


@dataclass(frozen=True, kw_only=True, eq=False)
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
            that know no checksums. By default that where the AWS configuration has it
            (``AWS_REQUEST_CHECKSUM_CALCULATION``), else CRC32.
        sse: Server-side encryption of what is put, such as ``AES256`` or ``aws:kms``; by default the bucket's own.
        sse_key: The key of the server's KMS to encrypt with.
        credentials: By default AWS's usual chain: environment, profile, role of the machine.
        part_size: Bytes of one part, at least 5 MiB. S3 takes 10,000 parts, so 5 MiB make objects of 48 GiB; larger
            ones take more memory, once for each part on its way in each store.
        parts_in_flight: Parts uploaded at the same time, by as many connections.
        attempts: How often a request is sent in all before giving up.
        resumptions: How often a broken read goes on, for each object read.
        connect_timeout_seconds: For one attempt to connect.
        read_timeout_seconds: For one silence of the server.

    Raises:
        ConfigError: The part size is below 5 MiB, the checksum is none of the three, the endpoint holds
            credentials, or the prefix has an empty part, ``.`` or ``..`` (``prefix-ambiguous``).
    """

    bucket: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None
    path_style: bool = False
    ca_file: Path | None = None
    profile: str | None = None
    checksum: Checksum | None = None
    sse: str | None = None
    sse_key: str | None = None
    credentials: S3Credentials | None = None
    part_size: int = SMALLEST_PART
    parts_in_flight: int = 2
    attempts: int = 3
    resumptions: int = 8
    connect_timeout_seconds: float = 3
    read_timeout_seconds: float = 60

    def __post_init__(self) -> None:
        if self.part_size < SMALLEST_PART:
            raise ConfigError(
                f"parts of {self.part_size} bytes are smaller than S3 allows", hint="5 MiB or more: 5242880"
            )
        if self.checksum is not None and self.checksum not in get_args(Checksum):
            raise ConfigError(
                f"{self.checksum!r} is not a valid checksum", hint=f"one of {', '.join(get_args(Checksum))}"
            )
        if self.endpoint is not None and "@" in self.endpoint:
            raise ConfigError("the endpoint holds a user or a password", hint="give credentials to AWS's usual chain")
        object.__setattr__(self, "prefix", self.prefix.strip("/"))
        if self.prefix and {"", ".", ".."} & set(self.prefix.split("/")):
            # A server that keeps objects as files stores `a//b/x` as `a/b/x`, and lists nothing under `a//b/`.
            raise ConfigError(
                f"the prefix {self.prefix!r} has an empty part, a . or a .., which servers read differently",
                code="prefix-ambiguous",
                fields={"prefix": self.prefix},
                hint="leave it out: a/b",
            )

    @property
    def url(self) -> str:
        """Where this is, as ``s3://bucket/prefix?…``, without credentials."""
        settings = {
            "endpoint": self.endpoint,
            "region": self.region,
            "pathStyle": "true" if self.path_style else None,
            "ca": str(self.ca_file) if self.ca_file else None,
            "profile": self.profile,
            "checksum": self.checksum,
            "sse": self.sse,
            "sseKey": self.sse_key,
        }
        query = urlencode({name: value for name, value in settings.items() if value is not None}, safe=":/")
        return f"{self._place('')}{'?' if query else ''}{query}"

    def create_bucket(self) -> None:
        """Create the bucket; one that is ours already is no error.

        Raises:
            StoreError: It is somebody else's, or we may not.
        """
        with translated(self._place("")):
            try:
                self._client.create_bucket(Bucket=self.bucket)
            except self._client.exceptions.BucketAlreadyOwnedByYou:
                return

    @contextmanager
    def put(self, key: str, *, overwrite: bool = False, if_version: str | None = None) -> Iterator[Upload]:
        """Open an object for writing; see `ObjectStore.put`."""
        check_key(key)
        if if_version is None and not overwrite:
            self._refuse_taken(key)
        upload = Upload(
            self._client,
            Target(
                bucket=self.bucket,
                key=self._full(key),
                place=self._place(key),
                checksum=self._sent_checksum,
                encryption=self._encryption,
                overwrite=overwrite,
                if_version=if_version,
            ),
            part_size=self.part_size,
            parts_in_flight=self.parts_in_flight,
        )
        try:
            yield upload
            upload.finish()
        except BaseException:
            upload.abort()
            raise

    def get(self, key: str) -> AbstractContextManager[Download]:
        """Open an object for reading; see `ObjectStore.get`."""
        return self._download(key, None)

    def get_range(self, key: str, first: int, size: int) -> AbstractContextManager[Download]:
        """Open a part of an object for reading: at most ``size`` bytes (one or more) from the offset ``first`` on.

        Raises:
            ObjectNotFoundError: There is no such object.
            StoreError: It ends before that offset, or the server knows no ranges.
        """
        return self._download(key, (first, size))

    @contextmanager
    def _download(self, key: str, part: tuple[int, int] | None) -> Iterator[Download]:
        check_key(key)
        download = Download(
            self._client,
            bucket=self.bucket,
            key=self._full(key),
            place=self._place(key),
            resumptions=self.resumptions,
            part=part,
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
            size=required(head, "ContentLength", place=place),
            modified=_utc(required(head, "LastModified", place=place)),
            version=version_of(head.get("ETag", "")),
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
        return _utc(required(head, "LastModified", place=self._place(key))) + self._default_retention

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with ``prefix``, in the order of their keys, a page at a time.

        What is in the bucket under names that are no keys, such as the folders of a web console, is left out.
        """
        place = self._place(prefix)
        with translated(place):
            pages = iter(
                self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._full(prefix))
            )
        last = ""
        while True:
            with translated(place):
                page = next(pages, None)
            if page is None:
                return
            required(page, "IsTruncated", place=place)
            for entry in page.get("Contents", ()):
                last = _require_order(last, entry["Key"], place=place)
                key = entry["Key"][len(self._full("")) :]
                if key_problem(key) is None:
                    modified = _utc(entry["LastModified"])
                    version = version_of(entry.get("ETag", ""))
                    yield ObjectInfo(key=key, size=entry["Size"], modified=modified, version=version)

    def delete(self, key: str) -> None:
        """Remove an object; removing one that is not there is no error.

        Raises:
            StoreError: An object lock holds it, or we may not. In a bucket with versions the object is hidden and its
                versions stay, locked or not, for the lifecycle rules of the bucket.
        """
        check_key(key)
        try:
            with contextlib.suppress(ObjectNotFoundError), translated(self._place(key)):
                self._client.delete_object(Bucket=self.bucket, Key=self._full(key))
        except StoreError as error:
            self._refuse_locked(key, error)
            if not self._is_gone(key, error):
                raise

    def _head(self, key: str) -> HeadObjectOutputTypeDef:
        check_key(key)
        try:
            return self._client.head_object(Bucket=self.bucket, Key=self._full(key))
        except BOTO_ERRORS as error:
            full, place = self._full(key), self._place(key)
            raise explain(self._client, error, bucket=self.bucket, key=full, place=place) from error

    def _refuse_locked(self, key: str, cause: StoreError) -> None:
        """Tell a lock from a missing permission: a server answers both alike."""
        if not isinstance(cause.__cause__, Exception) or status_of(cause.__cause__) != HTTPStatus.FORBIDDEN:
            return
        until = None
        with contextlib.suppress(ClusterGuardError):  # the error that made us ask is the one to tell
            until = self.locked_until(key)
        if until is not None:
            end = "its legal hold is lifted" if until == _NEVER else until.isoformat()
            raise StoreError(
                f"{self._place(key)}: an object lock holds it until {end}: {cause.message}",
                code="object-locked",
                fields={"key": key, "until": until},
                hint="it can be removed after that; until then nobody can, which is what the lock is for",
            ) from cause

    def _is_gone(self, key: str, cause: StoreError) -> bool:
        """Return whether nothing lies there: some servers fail to delete what is only the beginning of other keys."""
        status = status_of(cause.__cause__) if isinstance(cause.__cause__, Exception) else None
        if (status or 0) < HTTPStatus.INTERNAL_SERVER_ERROR:
            return False
        try:
            self._head(key)
        except ClusterGuardError as error:
            return isinstance(error, ObjectNotFoundError)
        return False

    @cached_property
    def _default_retention(self) -> timedelta | None:
        """The bucket's; None where it has none, where the server knows no locks, and where we may not ask."""
        try:
            answer = self._client.get_object_lock_configuration(Bucket=self.bucket)
        except ClientError as error:
            _LOG.debug("s3://%s: no default retention is told: %s", self.bucket, error)
            return None
        except BOTO_ERRORS as error:
            raise translate(error, place=f"s3://{self.bucket}") from error
        rule = answer.get("ObjectLockConfiguration", {}).get("Rule", {}).get("DefaultRetention", {})
        days = rule.get("Days", 0) + 365 * rule.get("Years", 0)
        return timedelta(days=days) if days else None

    @cached_property
    def _client(self) -> S3Client:
        client = self._new_client(proxies=None)
        # Alone among programs botocore sends what is for loopback to the proxy of HTTP_PROXY, too.
        return self._new_client(proxies={}) if is_loopback(client.meta.endpoint_url) else client

    @cached_property
    def _sent_checksum(self) -> Checksum:
        if self.checksum is not None:
            return self.checksum
        with translated(self._place("")):
            configured = self._session.get_config_variable("request_checksum_calculation")
        return "when_required" if str(configured).lower() == "when_required" else "CRC32"

    @cached_property
    def _session(self) -> BotocoreSession:
        """A session of its own, with the description of S3 that all of them share: 12 MiB, and slow to read."""
        session = BotocoreSession(profile=self.profile)
        session.register_component("data_loader", _shared_loader())
        return session

    @cached_property
    def _boto3(self) -> boto3.session.Session:
        return boto3.session.Session(region_name=self.region, botocore_session=self._session)

    @property
    def _encryption(self) -> dict[str, str]:
        given = {"ServerSideEncryption": self.sse, "SSEKMSKeyId": self.sse_key}
        return {name: value for name, value in given.items() if value is not None}

    def _new_client(self, *, proxies: dict[str, str] | None) -> S3Client:
        if self.ca_file is not None and not self.ca_file.is_file():
            raise ConfigError(f"{self.ca_file}: no such file", hint="ca= takes a file of certificates in PEM")
        identity = self.credentials
        with translated(self._place("")):
            return self._boto3.client(
                "s3",
                endpoint_url=self.endpoint,
                verify=str(self.ca_file) if self.ca_file else None,
                aws_access_key_id=identity.access_key if identity else None,
                aws_secret_access_key=identity.secret_key if identity else None,
                aws_session_token=identity.session_token if identity else None,
                config=Config(
                    connect_timeout=self.connect_timeout_seconds,
                    read_timeout=self.read_timeout_seconds,
                    retries={"mode": "standard", "total_max_attempts": self.attempts},
                    s3={"addressing_style": "path" if self.path_style else "auto"},
                    request_checksum_calculation="when_required",  # uploads bring their own
                    response_checksum_validation="when_required" if self.checksum == "when_required" else None,
                    max_pool_connections=self.parts_in_flight + 8,
                    tcp_keepalive=True,
                    proxies=proxies,
                ),
            )

    def _full(self, key: str) -> str:
        return f"{self.prefix}/{key}" if self.prefix else key

    def _place(self, key: str) -> str:
        path = quote(self._full(key).rstrip("/"))
        return f"s3://{self.bucket}/{path}" if path else f"s3://{self.bucket}"

    def _refuse_taken(self, key: str) -> None:
        with contextlib.suppress(ObjectNotFoundError):
            self.stat(key)
            raise key_taken(self._place(key))


@cache
def _shared_loader() -> Loader:
    return create_loader()


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC)  # botocore gives the machine's own time zone


def _require_order(last: str, key: str, *, place: str) -> str:
    """Return the key; a listing that goes back may lack keys as well, and what it lacks would be taken for gone.

    Raises:
        StoreError: It is listed again, or too late.
    """
    if key <= last:
        raise StoreError(
            f"{place}: the server lists {key} after {last}: not in the order of keys, or twice",
            hint="this server's listings cannot be relied on; do not keep backups in it",
            code="listing-disordered",
            fields={"key": key, "after": last},
        )
    return key
