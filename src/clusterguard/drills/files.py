"""The files of a container: written by a drill, and compared by their digests, with what is beside."""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from clusterguard.errors import DrillError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kube_exec import Container

__all__ = [
    "Aspect",
    "FileDigest",
    "FileTree",
    "differences",
    "filled_holes",
    "parse_tree",
    "random_bytes",
    "read_tree",
    "write_file",
]

Aspect: TypeAlias = Literal["owners", "modes", "hardLinks", "specialFiles", "emptyFolders"]
"""What is compared beside the bytes, and may be passed over."""

_PIECE = 1 << 16
_MOST_OUTPUT = 64 << 20
_MOST_TOLD = 5
_HOLE = 1 << 20  # what a file takes may be less than its size by a little, without any hole
# Velero leaves a note here while it fills a volume, to tell the Pod's init container that it is done.
_VELEROS_OWN = ".velero"
# $1 path, $2 size. It appears under its name whole or not at all; the size is known because version 4 of the exec
# protocol cannot tell where standard input ends.
_WRITE = 'mkdir -p "$(dirname "$1")" && head -c "$2" > "$1.part" && mv -f "$1.part" "$1" && sync && sha256sum < "$1"'
# For each thing two texts that end with NUL, which no path can hold: kind, digest, size, mode, owner, links, blocks and
# the size of one, and the path; then where a symbolic link leads. `-` is what a container without `stat` cannot tell.
# What cannot be read says so. The folder at the path itself is the mount's, and says nothing of what is in it.
_EACH = r"""
root=$1 tell=$2; shift 2
for f; do
  if [ "$f" = "$root" ] && [ -d "$f" ]; then continue; fi
  what=unreadable digest=- size=0 about= to=
  if [ "$tell" ]; then about=$(stat -c "%s %a %u:%g %h %b %B" "$f"); fi
  if [ -L "$f" ]; then to=$(readlink "$f") && what=link
  elif [ -d "$f" ]; then what=folder
  elif [ -f "$f" ]; then digest=$(sha256sum < "$f") && { [ "$about" ] || size=$(wc -c < "$f"); } && what=file
  elif [ -p "$f" ]; then what=fifo
  elif [ -S "$f" ]; then what=socket
  elif [ -b "$f" ] && [ "$f" = "$root" ]; then digest=$(sha256sum < "$f") && size=$(wc -c < "$f") && about= what=file
  elif [ -b "$f" ] || [ -c "$f" ]; then what=device
  fi
  printf "%s %s %s %s\0%s\0" "$what" "${digest%% *}" "${about:-$((size)) - - - - -}" "$f" "$to"
done
"""
_READ = (
    'tell=; stat -c "%s %a %u:%g %h %b %B" / > /dev/null 2>&1 && tell=yes; '
    'find "$1" -exec sh -c "$2" sh "$1" "$tell" {} + && printf "end\\0"'
)
_SPECIAL: Final = ("fifo", "socket", "device")


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """One file, folder, link or special file.

    Attributes:
        size: In bytes.
        sha256: Of its bytes, in hexadecimal digits; ``-`` for what has none.
        kind: ``file``, ``folder``, ``link``, ``fifo``, ``socket`` or ``device``; a whole block device is a file.
        target: Where a link leads.
        mode: In octal digits; empty where the container cannot tell, like ``owner`` and zero ``links``.
        owner: Numbers of its user and group.
        links: How many names it has.
        used: The bytes that it takes; None where the container cannot tell.
    """

    size: int
    sha256: str
    kind: str = "file"
    target: str = ""
    mode: str = ""
    owner: str = ""
    links: int = 0
    used: int | None = None

    @property
    def has_holes(self) -> bool:
        """Whether it takes much less than its size."""
        return self.kind == "file" and self.used is not None and self.size - self.used >= _HOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTree:
    """What is below a path.

    Attributes:
        files: By their path, from the root of the file system.
        ignored: How many were passed over because Velero put them there.
    """

    files: Mapping[str, FileDigest]
    ignored: int = 0

    @property
    def has_files(self) -> bool:
        """Whether there is anything with bytes to compare."""
        return any(each.kind == "file" for each in self.files.values())

    def summary(self) -> str:
        """Return it in one line."""
        files = [each for each in self.files.values() if each.kind == "file"]
        others = len(self.files) - len(files)
        more = f", {others:,} folder(s), link(s) and the like" if others else ""
        told = "" if all(each.mode for each in self.files.values()) else "; owners and modes: the container has no stat"
        return f"{len(files):,} file(s), {sum(each.size for each in files):,} bytes{more}{told}"


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
    """Return everything at or below a path; the digests are taken in the container.

    Where the path is a block device, its bytes are those of a file.

    Raises:
        DrillError: There is no such path, something below it cannot be read, or the container lacks ``sh``,
            ``find``, ``sha256sum`` or ``wc``.
    """
    from clusterguard.clusters.kube_exec import run_in

    command = ["sh", "-c", _READ, "sh", path, _EACH]
    done = run_in(api, container, command, timeout_seconds=seconds, most_output=_MOST_OUTPUT)
    if done.exit_code or not done.stdout.endswith(b"end\0"):
        raise DrillError(f"{path} in {container} could not be read: {done.last_words()}")
    try:
        return parse_tree(done.stdout)
    except ValueError as error:
        raise DrillError(f"{path} in {container} could not be read: {error}") from error


def parse_tree(printed: bytes) -> FileTree:
    """Return what the container printed as a tree.

    Raises:
        ValueError: Something could not be read, or the output is not such a list.
    """
    files: dict[str, FileDigest] = {}
    ignored = 0
    texts = printed.decode(errors="surrogateescape").split("\0")[:-2]
    for record, target in zip(texts[::2], texts[1::2], strict=True):
        kind, digest, size, mode, owner, links, blocks, of, path = record.split(" ", 8)
        if kind == "unreadable":
            raise ValueError(f"{path} is unreadable")
        if _VELEROS_OWN in path.split("/"):
            ignored += 1
            continue
        known = mode != "-"
        files[path] = FileDigest(
            size=int(size) if kind == "file" else 0,
            sha256=digest,
            kind=kind,
            target=target,
            mode=mode if known else "",
            owner=owner if known else "",
            links=int(links) if known and kind == "file" else 0,
            used=int(blocks) * int(of) if known else None,
        )
    return FileTree(files=files, ignored=ignored)


# ---- what differs --------------------------------------------------------------------------------------------


def differences(
    before: FileTree, after: FileTree, *, ignore: Collection[Aspect] = (), moved: bool = False
) -> tuple[str, ...]:
    """Return in words what is not as it was.

    Args:
        before: What was there.
        after: What is there.
        ignore: What is passed over.
        moved: Whether the files were copied by Velero's mover, which keeps no special files and no hard links.
    """
    old, new = (_without(tree.files, ignore) for tree in (before, after))
    return tuple(_differences(old, new, {*ignore}, _NOT_KEPT if moved else ""))


_NOT_KEPT: Final = "; neither file-system backups nor moved snapshots keep such"


def _without(files: Mapping[str, FileDigest], ignore: Collection[Aspect]) -> Mapping[str, FileDigest]:
    left_out = {kind for kind in _SPECIAL if "specialFiles" in ignore} | (
        {"folder"} if "emptyFolders" in ignore else set()
    )
    return {path: each for path, each in files.items() if each.kind not in left_out}


def _differences(
    before: Mapping[str, FileDigest], after: Mapping[str, FileDigest], ignore: set[Aspect], not_kept: str
) -> Iterator[str]:
    missing = sorted(before.keys() - after.keys())
    special = [path for path in missing if before[path].kind in _SPECIAL]
    both = sorted(before.keys() & after.keys())
    yield from _told("missing", [path for path in missing if path not in special])
    yield from _told("missing", [f"{path} ({before[path].kind})" for path in special], not_kept)
    changed = [path for path in both if _content(before[path]) != _content(after[path])]
    yield from _told("changed", [f"{path} ({_change(before[path], after[path])})" for path in changed])
    yield from _told("additional", sorted(after.keys() - before.keys()))
    for name, what in (("owners", "owner"), ("modes", "mode")):
        if name not in ignore:
            yield from _told(f"with another {what}", list(_other(before, after, what)))
    if "hardLinks" not in ignore:
        split = [path for path in both if before[path].links > 1 and 0 < after[path].links < before[path].links]
        yield from _told("no longer one file with others (hard link)", split, not_kept)


def _content(each: FileDigest) -> tuple[str, str, int, str]:
    return each.kind, each.target, each.size, each.sha256


def _other(before: Mapping[str, FileDigest], after: Mapping[str, FileDigest], what: str) -> Iterator[str]:
    """Yield the paths whose owner or mode is another one, where both are known."""
    for path in sorted(before.keys() & after.keys()):
        was, now = getattr(before[path], what), getattr(after[path], what)
        if was and now and was != now and before[path].kind == after[path].kind:
            yield f"{path} ({was} before, {now} now)"


def filled_holes(before: FileTree, after: FileTree) -> str:
    """Return in words which files with holes take their whole size now; empty for none. Their bytes are the same."""
    both = [(each, after.files[path]) for path, each in before.files.items() if path in after.files]
    filled = [(was, now) for was, now in both if was.has_holes and not now.has_holes and now.used is not None]
    if not filled:
        return ""
    more = sum((now.used or 0) - (was.used or 0) for was, now in filled)
    return f"the holes of {len(filled):,} file(s) are filled, which takes {more:,} bytes more"


def _told(what: str, paths: list[str], why: str = "") -> Iterator[str]:
    if paths:
        more = f" and {len(paths) - _MOST_TOLD} more" if len(paths) > _MOST_TOLD else ""
        # A name may hold anything; in a report it must not move the cursor or end the line.
        shown = ", ".join(path.encode(errors="backslashreplace").decode() for path in paths[:_MOST_TOLD])
        yield f"{len(paths)} {what}: {' '.join(shown.split())}{more}{why}"


def _change(before: FileDigest, after: FileDigest) -> str:
    if before.kind != after.kind:
        return f"a {before.kind} before, a {after.kind} now"
    if before.kind == "link":
        return f"to {before.target} before, to {after.target} now"
    if before.size != after.size:
        return f"{before.size:,} bytes before, {after.size:,} now"
    return f"{after.size:,} bytes, sha256 {before.sha256[:12]}… before, {after.sha256[:12]}… now"


def random_bytes(size: int, *, seed: str) -> bytes:
    """Return random bytes, the same for the same seed."""
    return random.Random(seed).randbytes(size)  # noqa: S311 - data to recognise, no secret
