"""Reads a backup's tarball as a stream, in bounded memory, and never unpacks anything to disk.

What a backup holds comes from a bucket, and anyone who can write there could have written anything: a member may
be a link, lead out of its folder, or unpack to a petabyte. Everything that Velero never writes is refused, and
every size has a limit.

Why not `tarfile`: it takes 60 µs for each member, and a backup has two for each object. Velero (Go's
``archive/tar``) writes plain ustar headers, with a pax header before names that do not fit, and this is all that
is read here; ``docs/explanation/velero-bucket.md`` has the figures.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import orjson

from clusterguard.errors import BackupCorruptError
from clusterguard.velero.layout import ITEMS, PREFERRED, VERSION_PATH, ItemPath, parse_item_path, plural_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from clusterguard.stores.base import ByteReader

__all__ = [
    "DEFAULT_LIMITS",
    "Defect",
    "Inspection",
    "Limits",
    "Member",
    "PvcRef",
    "StoredObject",
    "inflated",
    "members",
    "read_document",
]

_BLOCK = 512
_ZEROS = bytes(_BLOCK)
_READ = 1 << 18  # bytes of compressed input at a time
_INFLATE = 1 << 20  # bytes of output at a time, whatever the input claims
_FREE_OUTPUT = 64 << 20  # bytes that may come of any input: small backups of uniform objects compress extremely well
_GZIP_ONLY = 31  # wbits: a gzip header is required, its checksum and length are verified
_UNSAFE_PARTS = frozenset({"", ".", ".."})
_FILE, _PAX = b"0", b"x"
_LONGEST_SHOWN = 300
_LONGEST_PAX = 64 << 10
_DIGITS = 6  # of the length of a pax record
_KINDS_OF_MEMBERS: Final = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a directory",
    b"6": "a named pipe",
    b"g": "a header for all that follows",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """How much is read before a file counts as a bomb.

    Attributes:
        members: Files in a tarball; each object has two.
        member_bytes: Of one file in a tarball. etcd takes requests of 1.5 MiB by default.
        total_bytes: That a tarball may unpack to.
        ratio: Unpacked bytes for each packed byte, beyond the first 64 MiB. Backups have about 10.
        document_bytes: That one of the other files may unpack to.
    """

    members: int = 4_000_000
    member_bytes: int = 32 << 20
    total_bytes: int = 64 << 30
    ratio: int = 200
    document_bytes: int = 256 << 20


DEFAULT_LIMITS: Final = Limits()


class Member(NamedTuple):
    """One file in a tarball."""

    path: str
    data: bytes


class Defect(NamedTuple):
    """Something wrong with one object of a backup."""

    subject: str
    detail: str


class StoredObject(NamedTuple):
    """One object of a backup.

    Attributes:
        path: Where it is in the tarball.
        item: The object, decoded.
        data: Its JSON as stored.
    """

    path: ItemPath
    item: dict[str, Any]
    data: bytes


class PvcRef(NamedTuple):
    """A PersistentVolumeClaim in a backup.

    Attributes:
        namespace: Its namespace.
        name: Its name.
        volume: The volume it was bound to, ``""`` if none.
    """

    namespace: str
    name: str
    volume: str


# ---- gzip ------------------------------------------------------------------------------------------------


def inflated(stream: ByteReader, *, limits: Limits, most_bytes: int) -> Iterator[bytes]:
    """Yield the unpacked bytes of a gzip stream, in pieces of at most 1 MiB.

    Args:
        stream: Read to its end.
        limits: For the ratio.
        most_bytes: That it may unpack to.

    Raises:
        BackupCorruptError: It is not a gzip stream, is cut off, fails its checksum, is followed by other bytes, or
            unpacks to more than allowed.
        StoreError: The store does.
    """
    unpacker = zlib.decompressobj(_GZIP_ONLY)
    taken = made = 0
    while packed := stream.read(_READ):
        taken += len(packed)
        while packed and not unpacker.eof:
            piece = _inflate(unpacker, packed, made)
            packed = unpacker.unconsumed_tail
            made += len(piece)
            _refuse_bomb(made, taken, limits.ratio, most_bytes)
            if piece:
                yield piece
            elif not packed:
                break
        # Several gzip streams in a row are legal, and nothing that Velero writes: what follows could be anything.
        if unpacker.unused_data:
            raise BackupCorruptError(
                f"{len(unpacker.unused_data)} or more bytes follow the end of the gzip stream",
                fields={"defect": "trailing-bytes"},
            )
    if not unpacker.eof:
        raise BackupCorruptError(
            f"the gzip stream is cut off after {taken} bytes" if taken else "it is empty: 0 bytes",
            fields={"defect": "cut-off" if taken else "empty"},
        )


def _inflate(unpacker: zlib._Decompress, packed: bytes, made: int) -> bytes:
    try:
        return unpacker.decompress(packed, _INFLATE)
    except zlib.error as error:
        # The library's text is "Error -3 while decompressing data: incorrect data check".
        reason = str(error).rpartition(": ")[2]
        raise BackupCorruptError(f"the gzip stream is damaged after {made} unpacked bytes: {reason}") from error


def _refuse_bomb(made: int, taken: int, ratio: int, most_bytes: int) -> None:
    if made > most_bytes:
        raise BackupCorruptError(f"it unpacks to more than {most_bytes} bytes, the limit")
    if made > _FREE_OUTPUT and made > taken * ratio:
        raise BackupCorruptError(
            f"{taken} bytes of it unpack to {made}, more than {ratio} times as many: a compression bomb"
        )


def read_document(stream: ByteReader, *, limits: Limits = DEFAULT_LIMITS, packed: bool = True) -> Any:  # noqa: ANN401 - any JSON
    """Return the JSON document that a stream holds.

    Raises:
        BackupCorruptError: It is not such a document, or larger than allowed.
        StoreError: The store does.
    """
    most = limits.document_bytes
    pieces = inflated(stream, limits=limits, most_bytes=most) if packed else _plain(stream, most)
    text = b"".join(pieces)
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise BackupCorruptError(f"it is not JSON: {error}" if text else "it is empty: 0 bytes") from error


def _plain(stream: ByteReader, most_bytes: int) -> Iterator[bytes]:
    size = 0
    while piece := stream.read(_READ):
        size += len(piece)
        if size > most_bytes:
            raise BackupCorruptError(f"it has more than {most_bytes} bytes, the limit")
        yield piece


# ---- tar -------------------------------------------------------------------------------------------------


def members(pieces: Iterable[bytes], *, limits: Limits) -> Iterator[Member]:
    """Yield the files of a tarball in order, each as a whole.

    Args:
        pieces: The unpacked bytes; taken to their end.
        limits: For the number and size of members.

    Raises:
        BackupCorruptError: It is cut off, damaged, has a member that is not a plain file or leads elsewhere, or is
            larger than allowed.
    """
    source = iter(pieces)
    piece, at, before = b"", 0, 0  # what was unpacked, where in it we are, and how much came before it
    count = 0
    long_name: str | None = None
    while True:
        if len(piece) < at + _BLOCK:
            piece, at, before = _more(source, piece[at:], _BLOCK), 0, before + at
        header = piece[at : at + _BLOCK]
        if header == _ZEROS:
            break
        path, size, kind = _read_header(header, before + at)
        # Before anything is gathered: a header can claim any size.
        if size > limits.member_bytes:
            raise BackupCorruptError(
                f"{_shown(path)}: {size} bytes, and the limit is {limits.member_bytes}",
                fields={"defect": "too-large", "size": size, "limit": limits.member_bytes},
            )
        end = at + _BLOCK - (-size // _BLOCK) * _BLOCK
        if len(piece) < end:
            piece, at, before, end = _more(source, piece[at:], end - at), 0, before + at, end - at
        data = piece[at + _BLOCK : at + _BLOCK + size]
        at = end
        if kind == _PAX and long_name is None:
            long_name = _pax_path(data, before + at)
            continue
        if long_name is not None:
            path, long_name = long_name, None
        if (problem := _member_problem(path, kind)) is not None:
            raise BackupCorruptError(f"{_shown(path)}: {problem}")
        count += 1
        if count > limits.members:
            raise BackupCorruptError(f"it has more than {limits.members} files, the limit")
        yield Member(path, data)
    _require_end(source, piece[at:])


def _member_problem(path: str, kind: bytes) -> str | None:
    if kind != _FILE:
        return f"it is {_KINDS_OF_MEMBERS.get(kind, f'of type {kind!r}')}, and Velero writes only files"
    if not _UNSAFE_PARTS.isdisjoint(path.split("/")):
        return "the path leads out of the tarball or is not in its plain form"
    return None


def _more(source: Iterator[bytes], rest: bytes, size: int) -> bytes:
    """Return the rest of a piece and what follows it, at least that many bytes."""
    found, length = [rest], len(rest)
    while length < size:
        following = next(source, None)
        if following is None:
            raise BackupCorruptError("the tarball is cut off: it has no end mark")
        found.append(following)
        length += len(following)
    return b"".join(found)


def _read_header(header: bytes, place: int) -> tuple[str, int, bytes]:
    """Return path, size and kind."""
    # adler32 begins as a plain sum of bytes: 1 plus the sum, modulo 65521, which 256 bytes cannot exceed.
    total = (zlib.adler32(header[:256]) & 0xFFFF) + (zlib.adler32(header[256:]) & 0xFFFF) - 2
    total += 256 - sum(header[148:156])  # the checksum is computed as if its own field held spaces
    if header[257:265] != b"ustar\x0000" or _octal(header[148:154]) != total or (size := _octal(header[124:135])) < 0:
        raise BackupCorruptError(
            f"no valid file header at unpacked byte {place}", fields={"defect": "file-header", "byte": place}
        )
    name = header[:100].partition(b"\0")[0]
    if header[345]:  # what did not fit into the first field
        name = header[345:500].partition(b"\0")[0] + b"/" + name
    return _text(name), size, header[156:157]


def _octal(digits: bytes) -> int:
    """Return a number, or -1 where it is not one; int alone would take signs, spaces and underscores."""
    return int(digits, 8) if digits.isdigit() and b"8" not in digits and b"9" not in digits else -1


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError as error:
        raise BackupCorruptError(f"the name {name[:80]!r} is not UTF-8") from error


def _pax_path(records: bytes, place: int) -> str | None:
    """Return the path that a pax header sets: lines of ``<length> <keyword>=<value>``."""
    where = f"the pax header before unpacked byte {place}"
    if len(records) > _LONGEST_PAX:
        raise BackupCorruptError(f"{where} has {len(records)} bytes")
    path = None
    rest = records
    while rest:
        length, space, _ = rest.partition(b" ")
        if not space or not length.isdigit() or len(length) > _DIGITS or not len(length) < int(length) <= len(rest):
            raise BackupCorruptError(f"{where} is damaged")
        keyword, equals, value = rest[len(length) + 1 : int(length)].partition(b"=")
        if not equals or not value.endswith(b"\n"):
            raise BackupCorruptError(f"{where} is damaged")
        if keyword == b"path":
            path = _text(value[:-1])
        # A pax header may also set size or linkpath, and so let the same bytes be read in two ways.
        elif keyword not in _HARMLESS_PAX:
            raise BackupCorruptError(f"{where} sets {keyword[:40].decode(errors='replace')!r}, which Velero does not")
        rest = rest[int(length) :]
    return path


_HARMLESS_PAX = frozenset({b"mtime", b"atime", b"ctime", b"uid", b"gid", b"uname", b"gname"})


def _require_end(source: Iterator[bytes], rest: bytes) -> None:
    """Check the end mark, two blocks of zeros; tar pads it to a record of 10 KiB, Velero does not."""
    size = 0
    while True:
        if rest.strip(b"\0"):
            raise BackupCorruptError("other bytes follow the end of the tarball")
        size += len(rest)
        following = next(source, None)
        if following is None:
            break
        rest = following
    if size < 2 * _BLOCK or size % _BLOCK:
        raise BackupCorruptError("the tarball is cut off inside its end mark")


def _shown(path: str) -> str:
    # Names are untrusted input, and are printed on a terminal.
    short = path if len(path) <= _LONGEST_SHOWN else f"{path[:_LONGEST_SHOWN]}…"
    return short if short.isprintable() else repr(short)


# ---- objects ---------------------------------------------------------------------------------------------

_PLAIN, _PREFERRED = 1, 2
_Key = tuple[str, str]  # resource, and namespace/name
_CLAIMS = "persistentvolumeclaims"
_DEFINITIONS = "customresourcedefinitions.apiextensions.k8s.io"


class _Copy(NamedTuple):
    """The first copy of an object.

    Attributes:
        key: Which object.
        data: Its JSON.
        version: That the JSON tells, ``""`` where it could not be read.
        twin: The path of the second copy.
    """

    key: _Key
    data: bytes
    version: str
    twin: str


class Inspection:
    """One pass over a tarball, and what is wrong with the objects in it.

    Each object is stored twice, one copy right behind the other, so only the last one is held to be compared;
    where copies are not adjacent, their digests are kept.

    Attributes:
        version: What ``metadata/version`` holds, or None.
        kinds: Group and kind of each resource, as its objects tell.
        copies: Copies that are not equal, missing, or there more than once.
        identities: Files that are not an object, or another one than their path says.
        unexpected_files: What Velero does not write.
        claims: The volume claims.
        files: How many there are.
    """

    def __init__(self, *, limits: Limits) -> None:
        self._limits = limits
        self._seen: dict[str, dict[str, int]] = {}
        self._others: set[tuple[str, str, str]] = set()
        self._unpaired: dict[_Key, tuple[bytes, str]] = {}  # digest and version
        self._last: _Copy | None = None
        self._definitions: dict[tuple[str, str], str] = {}
        self.version: str | None = None
        self.kinds: dict[str, tuple[str, str]] = {}
        self.copies: list[Defect] = []
        self.identities: list[Defect] = []
        self.unexpected_files: list[Defect] = []
        self.claims: list[PvcRef] = []
        self.files = 0

    def __len__(self) -> int:
        return sum(map(len, self._seen.values()))

    @property
    def defects(self) -> list[Defect]:
        """All that is wrong."""
        return [*self.unexpected_files, *self.copies, *self.identities]

    def names(self) -> Mapping[str, Collection[str]]:
        """Return ``namespace/name`` of each object, by resource."""
        return self._seen

    def objects(self, pieces: Iterable[bytes]) -> Iterator[StoredObject]:
        """Yield each object once; the defects are complete when this has ended.

        Raises:
            BackupCorruptError: The tarball is not whole and intact.
        """
        for member in members(pieces, limits=self._limits):
            self.files += 1
            if self._is_equal_twin(member):
                continue
            path = parse_item_path(member.path)
            if path is None:
                self._take_other_file(member)
            elif self._is_first_copy(path, member) and (item := self._decoded(path, member)) is not None:
                yield StoredObject(path, item, member.data)
        self._check_pairs()
        self._check_kinds()

    def _is_equal_twin(self, member: Member) -> bool:
        """Take the second copy where it is right behind the first one and equal, as nearly all are."""
        last = self._last
        if last is None or member.path != last.twin or member.data != last.data:
            return False
        resource, name = last.key
        self._seen[resource][name] = _PLAIN | _PREFERRED
        self._last = None
        return True

    def _take_other_file(self, member: Member) -> None:
        if member.path != VERSION_PATH:
            self.unexpected_files.append(Defect(_shown(member.path), "Velero writes no such file"))
        elif self.version is not None:
            self.unexpected_files.append(Defect(_shown(member.path), "it is there more than once"))
        else:
            self.version = member.data[:40].decode(errors="replace").strip()

    def _is_first_copy(self, path: ItemPath, member: Member) -> bool:
        if path.version and not path.preferred:
            self._take_other_version(path, member)
            return False
        key = (path.resource, path.full_name)
        names = self._seen.setdefault(path.resource, {})
        copy = _PREFERRED if path.preferred else _PLAIN
        before = names.get(key[1], 0)
        names[key[1]] = before | copy
        if not before:
            self._keep_digest_of_last()
            return True
        if before & copy:
            self.copies.append(Defect(_named(path), _TWICE))
        else:
            self._compare(key, path, member)
        return False

    def _compare(self, key: _Key, path: ItemPath, member: Member) -> None:
        if self._last is not None and self._last.key == key:
            digest, version = _digest(self._last.data), self._last.version
            self._last = None
        else:
            digest, version = self._unpaired.pop(key)
        if digest != _digest(member.data):
            self.copies.append(Defect(_named(path), "its two copies are not equal"))
        elif path.preferred and version and version != path.version and path.resource != _DEFINITIONS:
            detail = f"it is of version {_shown(version)}, and is stored as {_shown(path.version)}"
            self.identities.append(Defect(_named(path), detail))

    def _keep_digest_of_last(self) -> None:
        """Keep only the digest of a copy whose twin did not follow."""
        if self._last is not None:
            self._unpaired[self._last.key] = (_digest(self._last.data), self._last.version)
            self._last = None

    def _take_other_version(self, path: ItemPath, member: Member) -> None:
        """Note an object in a version that the server did not prefer; restores may choose to read it."""
        known = (path.resource, path.version, path.full_name)
        if known in self._others:
            self.copies.append(Defect(_named(path), _TWICE))
        self._others.add(known)
        self._seen.setdefault(path.resource, {}).setdefault(path.full_name, 0)
        self._decode(path, member)

    def _decoded(self, path: ItemPath, member: Member) -> dict[str, Any] | None:
        item = self._decode(path, member)
        version = twin = ""
        if item is not None:
            self._learn(path, item)
            version = item["apiVersion"].rpartition("/")[2]
            twin = "" if path.version else _twin_of(member.path, path, version)
        self._last = _Copy((path.resource, path.full_name), member.data, version, twin)
        return item

    def _decode(self, path: ItemPath, member: Member) -> dict[str, Any] | None:
        try:
            item = orjson.loads(member.data)
        except orjson.JSONDecodeError as error:
            self.identities.append(Defect(_named(path), f"it is not JSON: {error}"))
            return None
        problem = _identity_problem(path, item)
        if problem is None:
            return item  # type: ignore[no-any-return]  # orjson returns Any; _identity_problem saw that it is a dict
        self.identities.append(Defect(_named(path), problem))
        return None

    def _learn(self, path: ItemPath, item: dict[str, Any]) -> None:
        kind, known = item["kind"], self.kinds.get(path.resource)
        if known is None:
            self.kinds[path.resource] = (path.group, kind)
        elif known[1] != kind:
            detail = f"its kind is {_shown(kind)}, but others in {path.resource} are of {_shown(known[1])}"
            self.identities.append(Defect(_named(path), detail))
        if path.resource == _CLAIMS:
            volume = _part(item, "spec").get("volumeName") or ""
            self.claims.append(PvcRef(path.namespace, path.name, str(volume)))
        elif path.resource == _DEFINITIONS:
            spec = _part(item, "spec")
            names = _part(spec, "names")
            self._definitions[str(spec.get("group")), str(names.get("plural"))] = str(names.get("kind"))

    def _check_pairs(self) -> None:
        for resource, names in self._seen.items():
            for name, copies in names.items():
                if copies != _PLAIN | _PREFERRED:
                    self.copies.append(Defect(_shown(f"{resource} {name}"), _MISSING_COPY[copies]))

    def _check_kinds(self) -> None:
        for resource, (group, kind) in self.kinds.items():
            plural = resource.partition(".")[0]
            defined = self._definitions.get((group, plural))
            expected = plural_of(kind) if group in _OWN_GROUPS else None
            if (defined is not None and defined != kind) or (defined is None and expected not in {None, plural}):
                self.identities.append(Defect(resource, f"the objects in it are of kind {kind}"))


_TWICE = "it is stored more than once under the same path"
_MISSING_COPY = {
    _PLAIN: "it has no copy in its preferred version",
    _PREFERRED: "it has no copy outside the folder of its version, which is the one that restores read",
    0: "it is stored only in a version that the server did not prefer; restores read it only when configured to",
}
# Groups of Kubernetes itself whose plurals follow the rule; kinds of other groups may have any plural.
_OWN_GROUPS = frozenset(
    {
        "",
        "admissionregistration.k8s.io",
        "apps",
        "autoscaling",
        "batch",
        "networking.k8s.io",
        "policy",
        "rbac.authorization.k8s.io",
        "scheduling.k8s.io",
        "storage.k8s.io",
    }
)


def _identity_problem(path: ItemPath, item: object) -> str | None:
    if not isinstance(item, dict):
        return "it is not a JSON object"
    metadata, kind, api_version = item.get("metadata"), item.get("kind"), item.get("apiVersion")
    if not isinstance(metadata, dict) or not isinstance(kind, str) or not kind or not isinstance(api_version, str):
        return "it lacks apiVersion, kind or metadata"
    found = (metadata.get("namespace") or "", metadata.get("name"))
    if found != (path.namespace, path.name):
        return f"the object in it is {_shown(_where(str(found[0]), str(found[1])))}"
    group, _, version = api_version.rpartition("/")
    if group != path.group:
        return f"the object in it is of {_shown(f'{api_version}/{kind}')}"
    # Velero may turn a definition back into its older version, and leaves it under the newer one.
    if path.version and version != path.version and path.resource != _DEFINITIONS:
        return f"the object in it is of version {_shown(version)}"
    return None


def _part(item: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = item.get(key)
    return value if isinstance(value, dict) else {}


def _twin_of(first: str, path: ItemPath, version: str) -> str:
    """Return the path of the second copy of an object, given that of the first one."""
    at = len(ITEMS) + 1 + len(path.resource)
    return f"{first[:at]}/{version}{PREFERRED}{first[at:]}"


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _named(path: ItemPath) -> str:
    return _shown(f"{path.resource} {path.full_name}")


def _where(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name
