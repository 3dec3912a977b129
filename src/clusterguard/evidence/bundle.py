"""A bundle: the folder of files that one run of a drill leaves, and the envelope that signs them.

    EVIDENCE/DRILL-RUN/drill.yaml                         the drill file
                       events.jsonl                       what happened, as it happened
                       result.json                        what it came to
                       materials.json                     what was used: versions and digests
                       comparison.json                    each difference, and what explains it
                       inventory-before-CLUSTER.jsonl.gz  the objects in scope, Secrets as digests
                       inventory-after-CLUSTER.jsonl.gz
                       evidence.intoto.jsonl              the signature over all of them

EVIDENCE is a folder or a bucket. Anything else may lie there, too.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ObjectNotFoundError
from clusterguard.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from clusterguard.stores.base import ObjectStore

__all__ = [
    "COMPARISON",
    "DRILL",
    "ENVELOPE",
    "EVENTS",
    "MATERIALS",
    "RESULT",
    "bundles_in",
    "evidence_store",
    "folder_name",
    "is_remote",
]

DRILL: Final = "drill.yaml"
EVENTS: Final = "events.jsonl"
RESULT: Final = "result.json"
MATERIALS: Final = "materials.json"
COMPARISON: Final = "comparison.json"
ENVELOPE: Final = "evidence.intoto.jsonl"
_OURS: Final = frozenset({EVENTS, RESULT, ENVELOPE})
"""A folder with one of these is a bundle, or was one."""


def is_remote(location: Path | str) -> bool:
    """Return whether evidence is kept in a bucket, and not in a folder of this machine."""
    return isinstance(location, str) and "://" in location and not location.startswith("file:")


def evidence_store(location: Path | str) -> ObjectStore:
    """Return where evidence is kept: a folder, written in any way, or the location of a store.

    Raises:
        ConfigError: The location of a store is not a valid one.
    """
    return open_store(location if isinstance(location, str) and "://" in location else Path(location))


def folder_name(drill: str, run_id: str) -> str:
    """Return the name of the folder of a run; what no file should be called is replaced."""
    safe = "".join(character if character.isalnum() or character in "-_." else "_" for character in drill)
    return f"{safe}-{run_id}"


def bundles_in(store: ObjectStore) -> Iterator[tuple[str, frozenset[str]]]:
    """Yield the prefix of each bundle (``""`` where the store is one itself) and the names of its files.

    Raises:
        ObjectNotFoundError: There is none.
        StoreError: The store cannot be read.
    """
    folders: dict[str, set[str]] = {}
    for info in store.list():
        folder, slash, name = info.key.partition("/")
        folders.setdefault(f"{folder}/" if slash else "", set()).add(name if slash else folder)
    found = {prefix: names for prefix, names in folders.items() if _OURS & names}
    if "" in found:  # a bundle itself: whatever lies below it is none of its files
        inside = {prefix + name for prefix, names in folders.items() for name in names}
        found = {"": inside}
    if not found:
        raise ObjectNotFoundError(
            f"{store.url}: there is no evidence of a drill",
            hint="give a folder that --evidence named, or one of those in it",
        )
    for prefix in sorted(found):
        yield prefix, frozenset(found[prefix])
