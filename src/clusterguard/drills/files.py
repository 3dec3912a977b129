"""The files of a container: written by a drill, and compared byte for byte by their digests."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kube_exec import Container

__all__ = ["FileDigest", "FileTree", "differences", "parse_tree", "random_bytes", "read_tree", "write_file"]

_PIECE = 1 << 16
_MOST_OUTPUT = 64 << 20
_MOST_TOLD = 5
# Velero leaves a note here while it fills a volume, to tell the Pod's init container that it is done.
_VELEROS_OWN = ".velero"
# $1 path, $2 size. It appears under its name whole or not at all; the size is known because version 4 of the exec
# protocol cannot tell where standard input ends.
_WRITE = 'mkdir -p "$(dirname "$1")" && head -c "$2" > "$1.part" && mv -f "$1.part" "$1" && sync && sha256sum < "$1"'
# A record for each file: digest, size, path, and NUL, which no path can hold. One that cannot be read says so.
_READ = (
    'find "$1" -type f -exec sh -c \'for f; do '
    'if d=$(sha256sum < "$f") && n=$(wc -c < "$f"); then printf "%s %s %s\\0" "${d%% *}" "$((n))" "$f"; '
    'else printf "unreadable 0 %s\\0" "$f"; fi; done\' sh {} + && printf "end\\0"'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """One file.

    Attributes:
        size: In bytes.
        sha256: Of its bytes, in hexadecimal digits.
    """

    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTree:
    """The regular files below a path.

    Attributes:
        files: By their path, from the root of the file system.
        ignored: How many were passed over because Velero put them there.
    """

    files: Mapping[str, FileDigest]
    ignored: int = 0

    def summary(self) -> str:
        """Return it in one line."""
        total = sum(each.size for each in self.files.values())
        return f"{len(self.files):,} file(s), {total:,} bytes"


def write_file(api: KubeClient, container: Container, path: str, data: bytes, *, seconds: float) -> str:
    """Write a file, whole or not at all; return its digest.

    Raises:
        DrillError: The container could not write it, or has other bytes now.
    """
    pieces = (data[start : start + _PIECE] for start in range(0, len(data), _PIECE))
    from clusterguard.clusters.kube_exec import run_in

    done = run_in(
        api, container, ["sh", "-c", _WRITE, "sh", path, str(len(data))], stdin=pieces, timeout_seconds=seconds
    )
    if done.exit_code:
        raise DrillError(f"{path} could not be written in {container}: {done.last_words()}")
    digest = hashlib.sha256(data).hexdigest()
    seen = done.stdout.decode(errors="replace").split()[:1]
    if seen != [digest]:
        raise DrillError(f"{path} in {container} has sha256 {seen} right after {digest} was written")
    return digest


def read_tree(api: KubeClient, container: Container, path: str, *, seconds: float) -> FileTree:
    """Return every regular file at or below a path; the digests are taken in the container.

    Raises:
        DrillError: There is no such path, something below it cannot be read, or the container lacks ``sh``,
            ``find``, ``sha256sum`` or ``wc``.
    """
    from clusterguard.clusters.kube_exec import run_in

    done = run_in(api, container, ["sh", "-c", _READ, "sh", path], timeout_seconds=seconds, most_output=_MOST_OUTPUT)
    if done.exit_code or not done.stdout.endswith(b"end\0"):
        raise DrillError(f"{path} in {container} could not be read: {done.last_words()}")
    try:
        return parse_tree(done.stdout)
    except ValueError as error:
        raise DrillError(f"{path} in {container} could not be read: {error}") from error


def parse_tree(printed: bytes) -> FileTree:
    """Return what the container printed as a tree.

    Raises:
        ValueError: A file could not be read, or the output is not a list of files.
    """
    files: dict[str, FileDigest] = {}
    ignored = 0
    for record in printed.decode(errors="surrogateescape").split("\0")[:-2]:
        digest, size, path = record.split(" ", 2)
        if digest == "unreadable":
            raise ValueError(f"{path} is unreadable")
        if _VELEROS_OWN in path.split("/"):
            ignored += 1
            continue
        files[path] = FileDigest(size=int(size), sha256=digest)
    return FileTree(files=files, ignored=ignored)


def differences(before: FileTree, after: FileTree) -> tuple[str, ...]:
    """Return in words what is not as it was: missing, changed and additional files."""
    return tuple(_differences(before.files, after.files))


def _differences(before: Mapping[str, FileDigest], after: Mapping[str, FileDigest]) -> Iterator[str]:
    missing = sorted(before.keys() - after.keys())
    changed = [path for path in sorted(before.keys() & after.keys()) if before[path] != after[path]]
    extra = sorted(after.keys() - before.keys())
    yield from _told("missing", missing)
    yield from _told("changed", [f"{path} ({_change(before[path], after[path])})" for path in changed])
    yield from _told("additional", extra)


def _told(what: str, paths: list[str]) -> Iterator[str]:
    if paths:
        more = f" and {len(paths) - _MOST_TOLD} more" if len(paths) > _MOST_TOLD else ""
        # A name may hold anything; in a report it must not move the cursor or end the line.
        shown = ", ".join(path.encode(errors="backslashreplace").decode() for path in paths[:_MOST_TOLD])
        yield f"{len(paths)} {what}: {' '.join(shown.split())}{more}"


def _change(before: FileDigest, after: FileDigest) -> str:
    if before.size != after.size:
        return f"{before.size:,} bytes before, {after.size:,} now"
    return f"{after.size:,} bytes, sha256 {before.sha256[:12]}… before, {after.sha256[:12]}… now"


def random_bytes(size: int, *, seed: str) -> bytes:
    """Return random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - data to recognise, no secret
