"""Where bytes rest: a directory, an S3 bucket, or memory, behind one port.

`open_store` opens any of them by location. Importing this package does not load boto3: `S3Store` and
`S3Credentials` are imported when they are first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore, ObjectWriter
from clusterguard.stores.dry_run import DryRunStore, PlannedChange
from clusterguard.stores.fan_out import FanOutStore
from clusterguard.stores.local import LocalStore
from clusterguard.stores.location import open_store
from clusterguard.stores.memory import MemoryStore
from clusterguard.stores.prefixed import PrefixedStore
from clusterguard.stores.transfer import copy_object, local_copy

if TYPE_CHECKING:
    from clusterguard.stores.s3 import S3Credentials, S3Store

__all__ = [
    "ByteReader",
    "DryRunStore",
    "FanOutStore",
    "LocalStore",
    "MemoryStore",
    "ObjectInfo",
    "ObjectStore",
    "ObjectWriter",
    "PlannedChange",
    "PrefixedStore",
    "S3Credentials",
    "S3Store",
    "copy_object",
    "local_copy",
    "open_store",
]

_LAZY = {"S3Credentials", "S3Store"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - a module's attribute can be anything
    if name not in _LAZY:
        raise AttributeError(f"module 'clusterguard.stores' has no attribute {name!r}")
    from clusterguard.stores import s3

    return getattr(s3, name)
