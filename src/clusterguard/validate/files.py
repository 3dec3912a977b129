"""Inventories as files: gzip over lines of JSON, whole or not there.

The first line says what the file is, then comes one line for each object, exactly as captured; the last line
holds their number and the SHA-256 of all lines before it. Secrets are in it in clear, so only its owner may
read it.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import orjson

from clusterguard.errors import ConfigError
from clusterguard.model.inventory import Inventory, ObjectRef, Scope
from clusterguard.scratch import replacing

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["load_inventory", "save_inventory"]

_FORMAT = "clusterguard-inventory"
_VERSION = 1
_QUICK = 1  # of gzip's levels; JSON shrinks to a tenth at any of them


def save_inventory(inventory: Inventory, path: Path | str) -> None:
    """Write an inventory to a file, replacing one that is there; on failure the old one stays.

    Raises:
        ConfigError: It cannot be written there.
    """
    path = Path(path)
    try:
        with replacing(path) as file:
            _write(inventory, file)
    except OSError as error:
        raise ConfigError(
            f"cannot write the inventory {path}: {error.strerror}", code="inventory-not-written"
        ) from error


def load_inventory(path: Path | str) -> Inventory:
    """Read an inventory from a file.

    Raises:
        ConfigError: There is none, it is damaged or cut off, or a later clusterguard wrote it.
    """
    path = Path(path)
    try:
        with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as file:
            return _read(file)
    except FileNotFoundError as error:
        raise ConfigError(f"inventory {path}: no such file") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"inventory {path}: {reason}", hint=_RETAKE) from error
    except (EOFError, zlib.error, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"inventory {path} is damaged: {error}", hint=_RETAKE) from error


_RETAKE = "take it again, or restore the file from where it was kept"


def _write(inventory: Inventory, raw: IO[bytes]) -> None:
    digest = hashlib.sha256()
    # Neither time nor name: the same inventory makes the same file.
    with gzip.GzipFile(filename="", fileobj=raw, mode="wb", compresslevel=_QUICK, mtime=0) as file:
        for line in _lines(inventory):
            digest.update(line)
            file.write(line)
        file.write(orjson.dumps({"objects": len(inventory.objects), "sha256": digest.hexdigest()}) + b"\n")


def _lines(inventory: Inventory) -> Iterator[bytes]:
    scope = inventory.scope
    header = {
        "format": _FORMAT,
        "version": _VERSION,
        "taken": inventory.taken.isoformat(),
        "serverVersion": inventory.server_version,
        "scope": {
            "namespaces": scope.namespaces,
            "kinds": scope.kinds,
            "selector": scope.selector,
            "exclude": scope.exclude,
        },
        "plainStatus": sorted(inventory.plain_status),
        "skipped": dict(inventory.skipped),
        "unanswered": dict(inventory.unanswered),
        "leftOut": dict(inventory.left_out),
        "notListed": dict(inventory.not_listed),
        # Here, and not among the lines, where an earlier clusterguard would take them for objects to look for.
        "system": [orjson.Fragment(inventory.system[ref]) for ref in sorted(inventory.system)],
    }
    yield orjson.dumps(header) + b"\n"
    for ref in sorted(inventory.objects):
        yield inventory.objects[ref] + b"\n"


def _read(file: gzip.GzipFile) -> Inventory:
    digest = hashlib.sha256()
    first = file.readline()
    header = _header(first)
    digest.update(first)
    objects = {}
    previous = file.readline()
    for line in file:
        digest.update(previous)
        data = previous.removesuffix(b"\n")
        objects[ObjectRef.of(orjson.loads(data))] = data
        previous = line
    last = orjson.loads(previous) if previous else {}
    if last.get("sha256") != digest.hexdigest() or last.get("objects") != len(objects):
        raise ValueError(f"its end does not match its {len(objects)} objects")
    scope = header["scope"]
    return Inventory(
        taken=datetime.fromisoformat(header["taken"]),
        server_version=header["serverVersion"],
        scope=Scope(
            namespaces=tuple(scope["namespaces"]),
            kinds=tuple(scope["kinds"]),
            selector=scope["selector"],
            exclude=tuple(scope["exclude"]),
        ),
        objects=objects,
        system={
            ObjectRef.of(item): orjson.dumps(item, option=orjson.OPT_SORT_KEYS) for item in header.get("system", ())
        },
        plain_status=frozenset(header.get("plainStatus", ())),
        # Earlier ones skipped a whole group, "*.metrics.k8s.io", when one of its versions did not answer.
        skipped={kind: why for kind, why in header["skipped"].items() if not kind.startswith("*.")},
        unanswered=header.get(
            "unanswered", {f"{kind[2:]}/*": why for kind, why in header["skipped"].items() if kind.startswith("*.")}
        ),
        left_out=header["leftOut"],
        not_listed=header["notListed"],
    )


def _header(line: bytes) -> dict[str, Any]:
    header = orjson.loads(line)
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise ValueError("it is not an inventory")
    if header["version"] != _VERSION:
        raise ValueError(f"it is of format version {header['version']}, and this clusterguard reads {_VERSION}")
    return header
