"""A volume that came back empty, or with one byte that is another one: put there and undone in a container that has it.

Only in clusters of the run's own: what a program holds open while its files are gone it may never find again.
"""

from __future__ import annotations

import secrets
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from clusterguard.drills.defects.placing import NotAppliedError, NotUndoneError
from clusterguard.drills.files import differences, read_tree
from clusterguard.errors import ClusterGuardError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kube_exec import Container

__all__ = ["BYTE_CHANGED", "VOLUME_EMPTIED", "Mounted", "byte_changed", "emptied", "mounted_claims"]

BYTE_CHANGED: Final = "byte-changed"
VOLUME_EMPTIED: Final = "volume-emptied"
_MOST_BYTES: Final = 64 << 20  # what a container's own file system surely has room for
_SECONDS: Final = 120.0
# $1 the file, $2 where its last byte is, $3 where that is kept.
CHANGE: Final = (
    'tail -c 1 "$1" > "$3" && touch -r "$1" "$3" && if [ "$(cat "$3")" = X ]; then new=Y; else new=X; fi && '
    'printf %s "$new" | dd of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null && touch -r "$3" "$1"'
)
CHANGE_BACK: Final = (
    'touch -r "$1" "$3.time" && dd if="$3" of="$1" bs=1 seek="$2" conv=notrunc 2>/dev/null && '
    'touch -r "$3.time" "$1" && rm -f "$3" "$3.time"'
)
# $1 the volume, $2 where all of it is kept.
EMPTY: Final = (
    'mkdir "$2" && cp -a "$1/." "$2/" && find "$1" -mindepth 1 -maxdepth 1 ! -name lost+found -exec rm -rf {} +'
)
FILL: Final = 'cp -a "$2/." "$1/" && rm -rf "$2"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Mounted:
    """A claim that a running container has."""

    claim: str
    container: Container
    path: str

    def __str__(self) -> str:
        return f"PersistentVolumeClaim {self.container.namespace}/{self.claim}"


def mounted_claims(pods: Iterable[Any]) -> Iterator[Mounted]:
    """Yield the claims that running Pods may write to, each by the first container that has it whole."""
    from clusterguard.clusters.kube_exec import Container

    for pod in pods:
        spec, metadata = pod["spec"], pod["metadata"]
        if pod.get("status", {}).get("phase") != "Running" or metadata.get("deletionTimestamp"):
            continue
        claims = {
            volume["name"]: volume["persistentVolumeClaim"]["claimName"]
            for volume in spec.get("volumes") or ()
            if volume.get("persistentVolumeClaim") and not volume["persistentVolumeClaim"].get("readOnly")
        }
        for inside in spec["containers"]:
            for mount in inside.get("volumeMounts") or ():
                if mount["name"] in claims and not mount.get("readOnly") and not mount.get("subPath"):
                    yield Mounted(
                        claim=claims.pop(mount["name"]),
                        container=Container(namespace=metadata["namespace"], pod=metadata["name"], name=inside["name"]),
                        path=mount["mountPath"].rstrip("/"),
                    )


def byte_changed(api: KubeClient, mounted: Mounted) -> AbstractContextManager[None]:
    """Change the last byte of one file while the ``with`` block runs."""

    def arguments(files: Sequence[tuple[str, int]], kept: str) -> list[str]:
        path, size = files[0]
        return [path, str(size - 1), kept]

    return _changed(api, mounted, CHANGE, CHANGE_BACK, arguments)


def emptied(api: KubeClient, mounted: Mounted) -> AbstractContextManager[None]:
    """Let the volume be empty while the ``with`` block runs."""
    return _changed(api, mounted, EMPTY, FILL, lambda _, kept: [mounted.path, kept])


@contextmanager
def _changed(
    api: KubeClient,
    mounted: Mounted,
    change: str,
    undo: str,
    arguments: Callable[[Sequence[tuple[str, int]], str], list[str]],
) -> Iterator[None]:
    """Run one script in the container, and in the end the other one; then every file must be what it was.

    Raises:
        NotAppliedError: The volume has no file, or the container cannot do it.
        NotUndoneError: A file is not what it was.
    """
    read = partial(read_tree, api, mounted.container, mounted.path, seconds=_SECONDS)
    kept = f"/tmp/clusterguard-{secrets.token_hex(8)}"  # noqa: S108 - in the container, by a name that nobody knows
    try:
        before = read()
    except ClusterGuardError as error:
        raise NotAppliedError(error.message) from error
    files = [(path, each.size) for path, each in sorted(before.files.items()) if each.size]
    if not files:
        raise NotAppliedError("there is no file in it")
    if sum(size for _, size in files) > _MOST_BYTES or kept.startswith(f"{mounted.path}/"):
        raise NotAppliedError("the container has no other room for what is in it")
    given = arguments(files, kept)

    def run(script: str) -> str:
        from clusterguard.clusters.kube_exec import run_in

        try:
            done = run_in(api, mounted.container, ["sh", "-c", script, "sh", *given], timeout_seconds=_SECONDS)
        except ClusterGuardError as error:
            return error.message
        return done.last_words() if done.exit_code else ""

    try:
        if why := run(change):
            raise NotAppliedError(why)
        yield
    finally:
        why = run(undo)
        try:
            found = differences(before, read())
        except ClusterGuardError as error:
            raise NotUndoneError(error.message) from error
        if found:
            raise NotUndoneError("; ".join([*found, why]))
