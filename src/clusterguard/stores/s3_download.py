"""One version of one object of an S3 bucket, read over several connections where one breaks."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import TYPE_CHECKING

from clusterguard.errors import StoreError, StoreUnavailableError
from clusterguard.stores.base import CHUNK_BYTES
from clusterguard.stores.s3_errors import BOTO_ERRORS, required, status_of, translate, translated

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

__all__ = ["Download"]

_LOG = logging.getLogger(__name__)


class Download:
    """Reads one version of one object, over several connections where one breaks."""

    def __init__(
        self,
        client: S3Client,
        *,
        bucket: str,
        key: str,
        place: str,
        resumptions: int,
        part: tuple[int, int] | None = None,
    ) -> None:
        """Ask for an object.

        Args:
            client: Of the server.
            bucket: Its name.
            key: As the server knows it.
            place: What messages call it.
            resumptions: How often a broken read goes on.
            part: Offset of the first byte and number of bytes, where not all of it is wanted.
        """
        self._client = client
        self._bucket = bucket
        self._key = key
        self._place = place
        self._resumptions = resumptions
        with translated(place):
            if part is None:
                self._response = client.get_object(Bucket=bucket, Key=key)
            else:
                self._response = client.get_object(Bucket=bucket, Key=key, Range=f"bytes={part[0]}-{sum(part) - 1}")
        self._etag = required(self._response, "ETag", place=place)
        self._at = self._begin = part[0] if part else 0
        self._size = self._begin + self._response["ContentLength"]
        self._end = f"{self._size - 1}" if part else ""
        if part and not _continues(self._response, at=self._begin, etag=self._etag):
            self.close()
            raise StoreError(
                f"{place}: the server sent other bytes than were asked for", hint="this server does not know ranges"
            )

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
            except BOTO_ERRORS as error:
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
        # All bytes came, and the checksum at their end was wrong: there is no rest to ask for.
        if cause is not None and self._at == self._size:
            raise translate(cause, place=self._place) from cause
        if not self._resumptions:
            fields = {"read": self._at, "size": self._size}
            raise StoreUnavailableError(
                broken, code="object-cut-off", fields=fields, hint="read the object again"
            ) from cause
        self._resumptions -= 1
        _LOG.info("%s; going on from there", broken)
        self.close()
        try:
            # The rest of that very version, or none: pieces of two would make an object that nobody wrote.
            self._response = self._client.get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={self._at}-{self._end}", IfMatch=self._etag
            )
        except BOTO_ERRORS as error:
            if status_of(error) == HTTPStatus.PRECONDITION_FAILED:
                raise self._changed() from error
            raise translate(error, place=self._place) from error
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
