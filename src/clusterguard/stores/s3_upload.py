"""One object on its way into an S3 bucket: parts are uploaded by a few threads while the caller goes on writing."""

from __future__ import annotations

import logging
import queue
import secrets
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from clusterguard.errors import ClusterGuardError, ObjectExistsError, ObjectNotFoundError, StoreError
from clusterguard.stores.base import object_changed
from clusterguard.stores.parts import Part
from clusterguard.stores.s3_checksums import crc32_of_parts
from clusterguard.stores.s3_errors import BOTO_ERRORS, explain, required, status_of, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy_boto3_s3 import S3Client

    from clusterguard.stores.s3_checksums import Checksum

__all__ = ["SMALLEST_PART", "Target", "Upload", "key_taken", "version_of"]

SMALLEST_PART = 5 << 20
"""Bytes: S3's rule for every part but the last."""

_LOG = logging.getLogger(__name__)
_PUT_ID = "clusterguard-put"  # the metadata field that tells which put made an object
# What a condition that does not hold is answered with; without an answer (None), what lies there decides.
_REFUSED = {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED, None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The object that a put shall make."""

    bucket: str
    key: str
    place: str
    checksum: Checksum
    encryption: Mapping[str, str]
    overwrite: bool
    if_version: str | None

    @property
    def names(self) -> dict[str, str]:
        """Bucket and key, as boto3 takes them."""
        return {"Bucket": self.bucket, "Key": self.key}

    @property
    def condition(self) -> dict[str, str]:
        """The condition of the request that publishes the object."""
        if self.if_version is not None:
            return {"IfMatch": self.if_version}
        return {} if self.overwrite else {"IfNoneMatch": "*"}

    def refusal(self, there: _There | None) -> StoreError | None:
        """Return why what lies there now lets nothing be made under this key; None where it does."""
        if self.if_version is not None:
            return None if there is not None and there.etag == self.if_version else object_changed(self.place)
        return None if self.overwrite or there is None else key_taken(self.place)

    @property
    def algorithm(self) -> dict[str, str]:
        """What a multipart upload says of its checksums: of the whole where S3 has that, so that reads are checked."""
        if self.checksum == "when_required":
            return {}
        return {"ChecksumAlgorithm": self.checksum} | (
            {"ChecksumType": "FULL_OBJECT"} if self.checksum == "CRC32" else {}
        )

    def checksum_of(self, part: Part) -> dict[str, str]:
        """Return the checksum of a body, as boto3 takes it."""
        return {f"Checksum{self.checksum}": text} if (text := part.checksum(self.checksum)) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _There:
    """The object that has the key now: the id of the put that made it (empty where it has none), ETag and bytes."""

    put: str
    etag: str
    size: int


class Upload:
    """Writes one object; after a failed write it can only be given up."""

    def __init__(self, client: S3Client, target: Target, *, part_size: int, parts_in_flight: int) -> None:
        # The client's methods take so many literal types that a shared set of arguments has none of them.
        self._client: Any = client
        self._target = target
        self._part_size = part_size
        self._parts_in_flight = parts_in_flight
        self._gathered = bytearray(part_size)
        self._filled = 0
        self._size = 0
        self._underway: deque[Future[dict[str, Any]]] = deque()
        self._parts: list[dict[str, Any]] = []
        self._spare: deque[bytearray] = deque()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()  # as many as parts may set out
        for _ in range(parts_in_flight):
            self._room.put(None)
        self._upload_id: str | None = None
        self._failure: ClusterGuardError | None = None
        # Kept with the object: it tells ours from a rival's where an answer was lost and the request was sent again.
        self._id = secrets.token_hex(16)

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take the next bytes, waiting while as many parts as allowed are on their way."""
        self._refuse_after_failure()
        rest = memoryview(data).cast("B")
        while rest:
            taken = rest[: self._part_size - self._filled]
            # Through a view: what is assigned to a part of a bytearray itself is copied twice.
            with memoryview(self._gathered) as gathered:
                gathered[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            self._size += len(taken)
            rest = rest[len(taken) :]
            if self._filled == self._part_size:
                self._send_gathered()

    def write_part(self, part: Part) -> None:
        """Take the next bytes, and let go of them when they are sent; a whole part is not copied."""
        if self._filled or len(part.body) != self._part_size:
            self.write(part.body)
            part.let_go()
            return
        self._refuse_after_failure()
        self._size += self._part_size
        self._send(part)

    def finish(self) -> None:
        """Make the object."""
        self._refuse_after_failure()
        if self._upload_id is None:
            self._publish(self._put_whole)
            return
        if self._filled:
            self._send_gathered()
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
        except BOTO_ERRORS as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
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

    def _send_gathered(self) -> None:
        self._send(Part(self._gathered, self._filled, spare=self._spare))
        self._gathered = self._spare.pop() if self._spare else bytearray(self._part_size)
        self._filled = 0

    def _send(self, part: Part) -> None:
        try:
            if self._upload_id is None:
                self._upload_id = self._begin()
            # This is where a fast writer waits for a slow server.
            self._room.get()
            while self._underway and self._underway[0].done():
                self._take_result()
            number = len(self._parts) + len(self._underway) + 1
            self._underway.append(self._workers.submit(self._upload_part, number, part))
        except ClusterGuardError as error:
            self._failure = error
            raise

    def _begin(self) -> str:
        with translated(self._target.place):
            begun = self._client.create_multipart_upload(
                **self._target.names, **self._target.algorithm, **self._target.encryption, Metadata={_PUT_ID: self._id}
            )
        return str(required(begun, "UploadId", place=self._target.place))

    def _upload_part(self, number: int, part: Part) -> dict[str, Any]:
        try:
            checksum = self._target.checksum_of(part)
            sent = self._client.upload_part(
                **self._target.names, **checksum, UploadId=self._upload_id, PartNumber=number, Body=part.body
            )
        finally:
            part.let_go()
            self._room.put(None)
        return {"PartNumber": number, "ETag": required(sent, "ETag", place=self._target.place), **checksum}

    def _take_result(self) -> None:
        try:
            self._parts.append(self._underway.popleft().result())
        except BOTO_ERRORS as error:
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> ClusterGuardError:
        target = self._target
        return explain(self._client, error, bucket=target.bucket, key=target.key, place=target.place)

    def _put_whole(self, **condition: str) -> None:
        part = Part(self._gathered, self._filled, spare=self._spare)
        checksum = self._target.checksum_of(part)
        made = self._client.put_object(
            **self._target.names,
            **self._target.encryption,
            **checksum,
            **condition,
            Body=part.body,
            Metadata={_PUT_ID: self._id},
        )
        self._require_whole(made, checksum)

    def _join(self, **condition: str) -> None:
        checksum = self._checksum_of_parts()
        made = self._client.complete_multipart_upload(
            **self._target.names,
            **condition,
            **checksum,
            **({"ChecksumType": "FULL_OBJECT"} if checksum else {}),
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
        )
        self._require_whole(made, checksum)

    def _checksum_of_parts(self) -> dict[str, str]:
        if self._target.checksum != "CRC32":
            return {}  # S3 has a checksum of a whole multipart object for CRCs alone
        sizes = [self._part_size] * (len(self._parts) - 1)
        sizes.append(self._size - sum(sizes))
        return {
            "ChecksumCRC32": crc32_of_parts(zip((part["ChecksumCRC32"] for part in self._parts), sizes, strict=True))
        }

    def _require_whole(self, made: Mapping[str, Any], checksum: Mapping[str, str]) -> None:
        """Refuse what the server made where it has other bytes: it confirms their checksum, or tells their number."""
        etag = version_of(required(made, "ETag", place=self._target.place))
        if checksum and checksum.items() <= made.items():
            return
        try:
            there = self._there()
        except BOTO_ERRORS as error:  # it took the object; that more cannot be known says nothing against it
            _LOG.info("%s: the server does not tell the size of what it stored: %s", self._target.place, error)
            return
        if there is not None and there.etag == etag and there.size != self._size:
            with suppress(*BOTO_ERRORS):  # nobody shall take it for what was written
                self._client.delete_object(**self._target.names)
            raise StoreError(
                f"{self._target.place}: {self._size} bytes were written, and the server stored {there.size}",
                hint="this server changes what it is given; do not keep backups in it",
                code="stored-otherwise",
                fields={"written": self._size, "stored": there.size},
            )

    def _publish(self, publish: Callable[..., None]) -> None:
        condition = self._target.condition
        if "" in condition.values():  # some servers take an empty condition for none
            raise object_changed(self._target.place)
        try:
            try:
                publish(**condition)
            except BOTO_ERRORS as error:
                if not condition or status_of(error) != HTTPStatus.NOT_IMPLEMENTED:
                    raise
                self._publish_unconditionally(publish)
        except BOTO_ERRORS as error:
            if (meaning := self._after_failure(error)) is not None:
                raise meaning from error

    def _after_failure(self, error: Exception) -> ClusterGuardError | None:
        """Return what a failed request means; None where it did its work although its answer was lost."""
        meaning = self._explained(error)
        try:
            there = self._there()
        except BOTO_ERRORS:
            return meaning  # the error that made us ask is the one to tell
        if there is not None and there.put == self._id and there.size == self._size:
            return None  # sent again, it met itself
        if status_of(error) in _REFUSED or isinstance(meaning, ObjectNotFoundError):
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
        except BOTO_ERRORS as error:
            if status_of(error) == HTTPStatus.NOT_FOUND:
                return None
            raise
        put = str(head.get("Metadata", {}).get(_PUT_ID, ""))
        return _There(put=put, etag=version_of(head.get("ETag", "")), size=head.get("ContentLength", -1))


def key_taken(place: str) -> ObjectExistsError:
    """Return the error for a key that must be free, and is not."""
    return ObjectExistsError(f"{place}: the object exists already", hint="choose another key, or allow overwriting")


def version_of(etag: str) -> str:
    """Return an ETag in its quotes, so that those of different answers compare: some servers leave them out in XML."""
    return etag if not etag or etag.endswith('"') else f'"{etag}"'
