"""One object on its way into an S3 bucket: parts are uploaded by a few threads while the caller goes on writing."""

from __future__ import annotations

import logging
import queue
import secrets
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from clusterguard.errors import ClusterGuardError, ObjectExistsError, ObjectNotFoundError, StoreError
from clusterguard.stores.base import object_changed
from clusterguard.stores.s3_errors import BOTO_ERRORS, required, status_of, translate, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

__all__ = ["SMALLEST_PART", "Checksum", "Target", "Upload", "key_taken"]

Checksum: TypeAlias = Literal["CRC32", "SHA256", "when_required"]

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
        """The checksum that botocore shall send."""
        return {} if self.checksum == "when_required" else {"ChecksumAlgorithm": self.checksum}


@dataclass(frozen=True, slots=True, kw_only=True)
class _There:
    """The object that has the key now: the id of the put that made it (empty where it has none), and its ETag."""

    put: str
    etag: str


class Upload:
    """Writes one object; after a failed write it can only be given up."""

    def __init__(self, client: S3Client, target: Target, *, part_size: int, parts_in_flight: int) -> None:
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
        with translated(self._target.place):
            begun = self._client.create_multipart_upload(
                **self._target.names, **self._target.algorithm, Metadata={_PUT_ID: self._id}
            )
        return str(required(begun, "UploadId", place=self._target.place))

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
        with translated(self._target.place):
            self._parts.append(self._underway.popleft().result())

    def _put_whole(self, **condition: str) -> None:
        made = self._client.put_object(
            **self._target.names,
            **self._target.algorithm,
            **condition,
            Body=bytes(self._gathered[: self._filled]),
            Metadata={_PUT_ID: self._id},
        )
        required(made, "ETag", place=self._target.place)

    def _join(self, **condition: str) -> None:
        made = self._client.complete_multipart_upload(
            **self._target.names,
            **condition,
            UploadId=self._upload_id,
            MultipartUpload={"Parts": self._parts},
        )
        required(made, "ETag", place=self._target.place)

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
        meaning = translate(error, place=self._target.place)
        try:
            there = self._there()
        except BOTO_ERRORS:
            return meaning  # the error that made us ask is the one to tell
        if there is not None and there.put == self._id:
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
        return _There(put=str(head.get("Metadata", {}).get(_PUT_ID, "")), etag=head.get("ETag", ""))


def key_taken(place: str) -> ObjectExistsError:
    """Return the error for a key that must be free, and is not."""
    return ObjectExistsError(f"{place}: the key is taken", hint="choose another key, or allow overwriting")
