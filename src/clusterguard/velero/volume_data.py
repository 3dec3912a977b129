"""Is the data of a backup's volumes in the bucket, whole, and can it be read? Asked of the repositories themselves.

What is looked at, for every volume that the records name: its snapshot is in the repository, is whole, and says of
itself what the records say of it; its tree has as many entries and bytes as it says; every content has its place in the
index and its blob in the bucket; and a chosen share of the contents, or all of them, is read, decrypted and compared
with its hash.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final, TypeAlias

from clusterguard.errors import BackupCorruptError
from clusterguard.model.progress import Progress, ProgressSink, ignore_progress
from clusterguard.velero.bucket_report import count_of
from clusterguard.velero.repository import DEFAULT_PASSWORD, classify, opened_repository

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterguard.stores.base import ObjectInfo, ObjectStore
    from clusterguard.velero.repository import KopiaRepository, KopiaSnapshot, Verification
    from clusterguard.velero.stored_volumes import StoredVolume

__all__ = ["DataCheck", "VolumeData", "check_volume_data", "parse_share"]

Flaw: TypeAlias = "tuple[str, str, str]"
"""Subject, detail and code."""

_LOOKS: Final = 2  # what changed under the first one stands still for the second, or is changed all the time
_DATA, _INDEX, _LOGS = ("p", "q"), ("x", "n"), "_log"
_BLOB: Final = re.compile(r"\b[pqxn][0-9a-f]*_?[0-9a-f]{32}-s[0-9a-f]+(?:-c\d+)?\b")
_SOURCE: Final = re.compile(r"^[^@/]*@[^:/]*:.*?@\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [A-Z]+/?")
_WHOLE_BLOBS: Final = 0.5  # from this share on, most of each blob is read
_NAMED: Final = 3  # blobs in one finding; a command of kopia's tells all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCheck:
    """How the data of volumes is looked at.

    Attributes:
        program: Returns the kopia program; called only where there is something to look at.
        share: How much of each volume's bytes is read, decrypted and compared with its hash: more than 0, at most 1.
        password: What the repositories are encrypted with.
        scratch: Where parts of blobs rest whose store gives whole ones only.
        choose: Chooses what is read.
    """

    program: Callable[[], Path]
    share: float = 1.0
    password: str = field(default=DEFAULT_PASSWORD, repr=False)
    scratch: Path | None = None
    choose: random.Random = field(default_factory=random.SystemRandom, repr=False)


@dataclass(slots=True, kw_only=True)
class VolumeData:
    """What was seen.

    Attributes:
        volumes: How many the records name.
        entries: Files, folders and links in them.
        size: Bytes of all of them, files that are there more than once counted as often.
        read: Bytes that were decrypted and compared with their hashes.
        fetched: Bytes that came out of the bucket for it.
        flaws: What is wrong.
    """

    volumes: int = 0
    entries: int = 0
    size: int = 0
    read: int = 0
    fetched: int = 0
    flaws: list[Flaw] = field(default_factory=list)

    def add(self, other: VolumeData) -> None:
        """Add what was seen elsewhere."""
        self.volumes += other.volumes
        self.entries += other.entries
        self.size += other.size
        self.read += other.read
        self.fetched += other.fetched
        self.flaws += other.flaws


def parse_share(text: str) -> float:
    """Read ``5%``, ``0.1%`` or ``all``, and return a number above 0 and up to 1.

    Raises:
        ValueError: It is none of these.
    """
    number = "100" if text == "all" else text.removesuffix("%") if text.endswith("%") else ""
    try:
        share = float(number) / 100
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise ValueError(f"{text!r} is not a share: write it like 5%, or all")
    return share


def check_volume_data(
    store: ObjectStore, volumes: Sequence[StoredVolume], check: DataCheck, *, progress: ProgressSink = ignore_progress
) -> VolumeData:
    """Look at the data of volumes.

    Args:
        store: Opened at the prefix of the storage location.
        volumes: Of one backup, those of a repository beside each other.
        check: How.
        progress: Told the volume that is looked at.

    Raises:
        StoreError: The store cannot be read; whether the data is intact is not known.
        ToolchainError: There is no kopia program.
        ProgramError: It could not be run.
    """
    found = VolumeData()
    for (folder, uploader), group in groupby(volumes, key=lambda each: (each.repository, each.uploader or "kopia")):
        of_repository = list(group)
        if uploader == "kopia":
            found.add(_Looking(store, folder, check, progress).at(of_repository))
        else:
            detail = f"its data is in a repository of {uploader}, which is not read here"
            found.add(
                VolumeData(
                    volumes=len(of_repository), flaws=[(each.name, detail, "volume-unread") for each in of_repository]
                )
            )
    return found


class _Looking:
    """Looks at the volumes of one repository."""

    def __init__(self, store: ObjectStore, folder: str, check: DataCheck, progress: ProgressSink) -> None:
        self._store = store
        self._folder = folder
        self._check = check
        self._progress = progress
        self._missed: set[str] = set()

    def at(self, volumes: Sequence[StoredVolume]) -> VolumeData:
        """Look, and once more where blobs went away meanwhile: maintenance rewrites what a reader has just found."""
        fetched = 0
        for look in range(1, _LOOKS + 1):
            before = self._blobs()
            found = self._look(volumes, before)
            fetched += found.fetched
            # Some may be back by now: those were not there when they were read.
            gone = (
                sorted((before.keys() - self._blobs().keys()) | (self._missed & before.keys())) if found.flaws else []
            )
            if not gone or look == _LOOKS:
                break
        found.fetched = fetched
        if gone:
            detail = (
                f"{count_of(len(gone), 'blob')} went away while it was read, such as {gone[0]}: the rest is not sure"
            )
            found.flaws.insert(0, (self._folder, detail, "volume-repository-changing"))
        return found

    def _blobs(self) -> dict[str, ObjectInfo]:
        start = len(self._folder)
        listed = {info.key[start:]: info for info in self._store.list(self._folder)}
        return {name: info for name, info in listed.items() if not name.startswith(_LOGS)}

    def _look(self, volumes: Sequence[StoredVolume], blobs: Mapping[str, ObjectInfo]) -> VolumeData:
        found = VolumeData(volumes=len(volumes))
        if "kopia.repository" not in blobs:
            found.flaws.append((self._folder, "there is no repository", "volume-repository-missing"))
            return found
        check = self._check
        gateway = None
        try:
            with opened_repository(
                check.program(),
                self._store,
                self._folder,
                password=check.password,
                scratch=check.scratch,
                whole=check.share >= _WHOLE_BLOBS,
            ) as repository:
                gateway = repository.gateway
                snapshots = repository.snapshots()
                for number, volume in enumerate(volumes):
                    task = f"reading the data of {volume.name}"
                    self._progress(Progress(task=task, done=number, total=len(volumes), unit="objects"))
                    found.flaws += self._volume(repository, volume, snapshots, blobs, found)
                    self._progress(
                        Progress(task=task, done=number + 1, total=len(volumes), unit="objects", finished=True)
                    )
        except BackupCorruptError as error:
            found.flaws.append((self._folder, _told(error), error.code))
        if gateway is not None:
            found.fetched = gateway.bytes_read
            self._missed = gateway.missing
            if gateway.failure is not None:
                raise gateway.failure
        return found

    def _volume(
        self,
        repository: KopiaRepository,
        volume: StoredVolume,
        snapshots: Mapping[str, KopiaSnapshot],
        blobs: Mapping[str, ObjectInfo],
        found: VolumeData,
    ) -> list[Flaw]:
        if not volume.snapshot:
            return [(volume.name, "the records name no snapshot of it", "volume-snapshot-missing")]
        snapshot = snapshots.get(volume.snapshot)
        if snapshot is None:
            return [(volume.name, *_why_missing(volume, blobs))]
        flaws = [(volume.name, *flaw) for flaw in _contradictions(volume, snapshot)]
        try:
            tree = _Tree.of(repository, snapshot)
            found.entries += tree.entries
            found.size += tree.size
            flaws += [(volume.name, *flaw) for flaw in tree.contradictions(snapshot)]
            flaws += [(volume.name, *flaw) for flaw in self._contents(repository, snapshot, tree, found)]
        except BackupCorruptError as error:
            flaws.append((volume.name, _told(error), error.code))
        return flaws

    def _contents(
        self, repository: KopiaRepository, snapshot: KopiaSnapshot, tree: _Tree, found: VolumeData
    ) -> Iterator[tuple[str, str]]:
        everything = self._check.share >= 1
        walked = repository.verify_snapshot(snapshot.id, read=everything)
        found.read += walked.size
        yield from _problems(walked)
        expected = sum(tree.objects.values())
        if everything and not walked.problems and walked.size != expected:
            yield f"its files are {expected:,} bytes, and {walked.size:,} came out", "volume-size-differs"
        if not everything and not walked.problems:
            chosen = _chosen(repository, tree.objects, self._check)
            read = repository.read_objects(list(chosen))
            found.read += read.size
            yield from _problems(read)
            if not read.problems and read.size != sum(chosen.values()):
                told = f"{sum(chosen.values()):,} bytes were chosen, and {read.size:,} came out"
                yield told, "volume-size-differs"


@dataclass(slots=True, kw_only=True)
class _Tree:
    """What is below the topmost folder of a snapshot.

    Attributes:
        kinds: How many entries there are of each kind.
        size: Bytes of all files.
        objects: Bytes of each object that a file or a link is; equal files are one object.
    """

    kinds: Counter[str] = field(default_factory=Counter)
    size: int = 0
    objects: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, repository: KopiaRepository, snapshot: KopiaSnapshot) -> _Tree:
        tree = cls()
        for entry in repository.entries(snapshot.root):
            tree.kinds[entry.kind] += 1
            if entry.kind == "file":
                tree.size += entry.size
            if entry.kind != "folder":
                tree.objects[entry.object] = entry.size
        return tree

    @property
    def entries(self) -> int:
        return self.kinds.total()

    def contradictions(self, snapshot: KopiaSnapshot) -> Iterator[tuple[str, str]]:
        """Yield in what the tree is another one than the snapshot says."""
        # A snapshot counts its topmost folder, too.
        told = {"file": snapshot.files, "folder": snapshot.folders - 1, "link": snapshot.links}
        for kind, count in told.items():
            if self.kinds[kind] != count:
                yield (
                    f"its snapshot says {count:,} {kind}s, and there are {self.kinds[kind]:,}",
                    "volume-entries-differ",
                )
        if self.size != snapshot.size:
            yield f"its snapshot says {snapshot.size:,} bytes, and its files are {self.size:,}", "volume-size-differs"


def _contradictions(volume: StoredVolume, snapshot: KopiaSnapshot) -> Iterator[tuple[str, str]]:
    """Yield in what a snapshot is another one than the records say, or is not whole by its own account."""
    if snapshot.incomplete or snapshot.failed:
        why = snapshot.incomplete or f"{snapshot.failed} entries could not be read when it was made"
        yield f"snapshot {snapshot.id} is not complete: {why}", "volume-snapshot-incomplete"
    for name, wanted in volume.tags.items():
        if snapshot.tags.get(name, wanted) != wanted:
            detail = f"snapshot {snapshot.id} is of {name} {snapshot.tags[name]}, and the records want {wanted}"
            yield detail, "volume-snapshot-foreign"
    if volume.size is not None and volume.size != snapshot.size:
        detail = f"the records say {volume.size:,} bytes, and snapshot {snapshot.id} has {snapshot.size:,}"
        yield detail, "volume-size-differs"


def _why_missing(volume: StoredVolume, blobs: Mapping[str, ObjectInfo]) -> tuple[str, str]:
    """Say whether a snapshot is not there, or the index that would name it."""
    detail = f"snapshot {volume.snapshot} is not in the repository"
    written = {
        kind: [info.modified for name, info in blobs.items() if name.startswith(kind)] for kind in (_DATA, _INDEX)
    }
    if written[_DATA] and (not written[_INDEX] or max(written[_DATA]) > max(written[_INDEX])):
        return f"{detail}: its index is older than its data", "volume-index-old"
    return detail, "volume-snapshot-missing"


def _problems(verification: Verification) -> Iterator[tuple[str, str]]:
    """Yield each kind of damage once, with the blobs that it is in and one of the entries that need them."""
    by_code: dict[str, list[tuple[str, str]]] = {}
    for path, said in verification.problems:
        by_code.setdefault(classify(said), []).append((_SOURCE.sub("", path), said))
    for code, found in by_code.items():
        path, said = found[0]
        blobs = sorted({blob for _, text in found for blob in _BLOB.findall(text)})
        more = f" and {len(blobs) - _NAMED} more" if len(blobs) > _NAMED else ""
        where = f"in {', '.join(blobs[:_NAMED])}{more}; " if blobs else ""
        yield f"{count_of(len(found), 'entry', 'entries')} cannot be read, {where}the first: {path}: {said}", code


def _chosen(repository: KopiaRepository, objects: Mapping[str, int], check: DataCheck) -> dict[str, int]:
    """Choose objects until the share of all bytes is reached; of one that is larger than the rest, some contents."""
    left = check.share * sum(objects.values())
    chosen: dict[str, int] = {}
    names = list(objects)
    check.choose.shuffle(names)
    for name in names:
        if left <= 0:
            break
        if objects[name] <= left:
            chosen[name] = objects[name]
            left -= objects[name]
            continue
        parts = list(repository.parts_of([name])) or [(name, objects[name])]
        check.choose.shuffle(parts)
        for part, size in parts:
            if left <= 0:
                break
            # A file may have one content several times.
            left -= 0 if part in chosen else size
            chosen[part] = size
    return chosen


def _told(error: BackupCorruptError) -> str:
    if error.code == "volume-password-wrong":
        return "the password does not open it, or its kopia.repository is damaged"
    return error.message
