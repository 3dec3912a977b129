"""The port to a throwaway S3 server: as a process of this machine, or in a container."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from types import TracebackType

    from clusterguard.stores.s3 import S3Credentials, S3Store

__all__ = ["ThrowawayS3Server"]


class ThrowawayS3Server(Protocol):
    """An S3 server of a drill's own: its data go with it at the end of the ``with`` block."""

    @property
    def region(self) -> str:
        """The region that it says it is in."""

    @property
    def endpoint(self) -> str:
        """Its URL on this machine."""

    @property
    def endpoint_for_pods(self) -> str | None:
        """Its URL for the pods of clusters whose nodes are containers, or None where it has none."""

    @property
    def credentials(self) -> S3Credentials:
        """What it lets in; made anew for each server."""

    def credentials_file(self) -> str:
        """Return the credentials in the form of an AWS credentials file."""

    def store(self, bucket: str, prefix: str = "") -> S3Store:
        """Return a store in a bucket."""

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket, unless it is there; the server must run."""

    def start(self) -> Self:
        """Serve again, with the same data and at the same address, after `stop`.

        Raises:
            ProvisioningError: It cannot.
            WaitTimeoutError: It does not answer.
        """

    def stop(self) -> None:
        """Serve no more until `start`. Safe to repeat."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
