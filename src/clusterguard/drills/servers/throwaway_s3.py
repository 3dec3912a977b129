"""What throwaway S3 servers share: address, credentials, and the stores in them."""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Self
from urllib.parse import urlencode

from clusterguard.sockets import free_ports
from clusterguard.stores.s3 import S3Credentials, S3Store

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ThrowawayS3Server"]


class ThrowawayS3Server(ABC):
    """An S3 server of a drill's own, with new credentials; its data go with it at the end of the ``with`` block."""

    region = "us-east-1"
    endpoint_for_pods: str | None = None
    """Its URL for the pods of clusters whose nodes are containers, or None where it has none."""

    def __init__(self, *, sleep: Callable[[float], object]) -> None:
        self._sleep = sleep
        (self._port,) = free_ports(1)
        self.credentials = S3Credentials(access_key=f"drill{secrets.token_hex(6)}", secret_key=secrets.token_hex(20))

    @property
    def endpoint(self) -> str:
        """The server's URL on this machine."""
        return f"http://127.0.0.1:{self._port}"

    def credentials_file(self) -> str:
        """Return the credentials in the form of an AWS credentials file."""
        return self.credentials.as_file()

    def location(self, bucket: str, prefix: str = "") -> str:
        """Return the location of a bucket, as `open_store` takes it."""
        query = urlencode({"endpoint": self.endpoint, "region": self.region, "pathStyle": "true"})
        return f"s3://{bucket}{f'/{prefix}' if prefix else ''}?{query}"

    def store(self, bucket: str, prefix: str = "") -> S3Store:
        """Return a store in a bucket."""
        return S3Store(
            bucket=bucket,
            prefix=prefix,
            endpoint=self.endpoint,
            region=self.region,
            path_style=True,
            credentials=self.credentials,
        )

    def create_bucket(self, bucket: str) -> None:
        """Create a bucket, unless it exists; the server must run."""
        self.store(bucket).create_bucket()

    @abstractmethod
    def start(self) -> Self:
        """Start serving, after `stop` with the same data and at the same address.

        Raises:
            ProvisioningError: The server could not be started.
            WaitTimeoutError: It does not answer.
        """

    @abstractmethod
    def stop(self) -> None:
        """Stop serving until `start`; the data stay. Safe to repeat."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _environment(self) -> dict[str, str]:
        """Return versitygw's settings; keys on a command line could be read by everybody on the machine."""
        keys = self.credentials
        return {"ROOT_ACCESS_KEY": keys.access_key, "ROOT_SECRET_KEY": keys.secret_key, "VGW_REGION": self.region}
