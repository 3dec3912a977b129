"""A repository that kopia keeps the data of volumes in, opened by the kopia program to be read and for nothing else.

Configuration, cache and logs lie in a private folder that goes with the ``with`` block. The password reaches the
program in its environment: a command line is shown to everybody on the machine, and a file would be left by a kill.
"""

from __future__ import annotations

import base64
import binascii
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson

from clusterguard import process
from clusterguard.errors import BackupCorruptError, ConfigError, ProgramError
from clusterguard.scratch import private_folder
from clusterguard.velero.repository_gateway import BUCKET, RepositoryGateway, serving

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterguard.clusters.kube import KubeClient
    from clusterguard.stores.base import ObjectStore

__all__ = [
    "DEFAULT_PASSWORD",
    "Entry",
    "KopiaRepository",
    "KopiaSnapshot",
    "Verification",
    "classify",
    "opened_repository",
    "password_in",
]

DEFAULT_PASSWORD: Final = "static-passw0rd"  # noqa: S105 - published in Velero's source, and what it uses unless told
"""What Velero encrypts repositories with where nobody put another password into ``velero-repo-credentials``."""

_SECRET: Final = "velero-repo-credentials"  # noqa: S105 - a name, published like the password
# Contents pass through once, so little is kept of them; of the folders' pages, enough to walk a tree twice.
_CACHE = (
    *("--content-cache-size-mb=64", "--content-cache-size-limit-mb=256"),
    *("--metadata-cache-size-mb=512", "--metadata-cache-size-limit-mb=1024"),
)
_SECONDS: Final = 24 * 3600.0
_MOST_ERRORS: Final = 1000  # told by one look; the first of them say what is wrong
_OBJECTS_AT_ONCE: Final = 2000  # 34 letters each, far below what a command line takes

# ``-rw-r--r--   1234 2030-01-31 12:00:00 UTC <object>   path``; what looks otherwise is the rest of a name.
_ENTRY = re.compile(r"(\S{10,14}) +(\d+) \d{4}-\d\d-\d\d \d\d:\d\d:\d\d \S+ (\S+) +(.*)")
_PROBLEM = re.compile(r"(?:ERROR )?error processing (.*?): (.*)")

# What kopia says, by what is wrong; the first that fits. Its texts are no interface: a test damages a real repository
# in each way, and fails when they change.
_CODES: Final[Sequence[tuple[str, re.Pattern[str]]]] = tuple(
    (code, re.compile(pattern, re.IGNORECASE))
    for code, pattern in (
        ("volume-password-wrong", "invalid repository password"),
        ("volume-repository-damaged", "invalid format blob|format blob"),
        ("volume-blob-missing", "backed by missing blob|blob not found"),
        ("volume-blob-cut", r"invalid length|invalid blob offset|invalid \(offset"),
        ("volume-index-damaged", "loading index|index blob|invalid index"),
        (
            "volume-data-damaged",
            "invalid checksum|unable to decrypt|authentication failed|unable to decompress|malformed",
        ),
        ("volume-content-missing", "not found"),
    )
)


def classify(said: str) -> str:
    """Return the code for what kopia says of a damaged repository; ``volume-unreadable`` where that is not known."""
    return next((code for code, pattern in _CODES if pattern.search(said)), "volume-unreadable")


@dataclass(frozen=True, slots=True, kw_only=True)
class KopiaSnapshot:
    """What a snapshot says of itself.

    Attributes:
        id: Of its manifest.
        root: The object of its topmost folder.
        size: Bytes of its files.
        files: How many regular files, as often as they are there.
        folders: How many folders, the topmost one among them.
        links: How many symbolic links.
        incomplete: Why it is not whole; empty where it is.
        failed: How many entries could not be read when it was made.
        tags: What its maker noted.
    """

    id: str
    root: str
    size: int
    files: int
    folders: int
    links: int
    incomplete: str = ""
    failed: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a snapshot's tree: ``kind`` is ``file``, ``folder`` or ``link``; ``size`` in bytes."""

    kind: str
    size: int
    object: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What reading came to.

    Attributes:
        problems: Path and what was said, each.
        files: How many objects were read to their end.
        size: How many bytes came out of them.
    """

    problems: Sequence[tuple[str, str]] = ()
    files: int = 0
    size: int = 0


class KopiaRepository:
    """An open repository; see `opened_repository`."""

    def __init__(self, program: Path, gateway: RepositoryGateway, folder: Path, password: str) -> None:
        self._program = program
        self.gateway = gateway
        self._env = {
            "KOPIA_PASSWORD": password,
            "KOPIA_CONFIG_PATH": str(folder / "repository.config"),
            "KOPIA_CACHE_DIRECTORY": str(folder / "cache"),
            "KOPIA_LOG_DIR": str(folder / "logs"),
            "KOPIA_CHECK_FOR_UPDATES": "false",
            "KOPIA_PERSIST_CREDENTIALS_ON_CONNECT": "false",
            "KOPIA_DISABLE_REPOSITORY_LOG": "true",
            "AWS_ACCESS_KEY_ID": gateway.access_key,
            "AWS_SECRET_ACCESS_KEY": gateway.secret_key,
            "AWS_SESSION_TOKEN": "",
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }

    def connect(self) -> None:
        """Read the format of the repository, and with it whether the password fits.

        Raises:
            BackupCorruptError: It cannot be opened; the code says why.
        """
        self._run(
            *("repository", "connect", "s3", f"--bucket={BUCKET}", f"--endpoint={self.gateway.address}"),
            *("--region=us-east-1", "--disable-tls", "--readonly", *_CACHE),
        )

    def snapshots(self) -> dict[str, KopiaSnapshot]:
        """Return all snapshots of the repository by their ID.

        Raises:
            BackupCorruptError: They cannot be listed; the code says why.
        """
        listed = orjson.loads(
            self._run("snapshot", "list", "--all", "--incomplete", "--json", "--max-results=0") or "[]"
        )
        found = (_snapshot(each) for each in listed or ())
        return {each.id: each for each in found}

    def entries(self, root: str) -> Iterator[Entry]:
        """Yield everything below a folder.

        Raises:
            BackupCorruptError: A folder cannot be read; the code says why.
        """
        for line in self._lines("ls", "--recursive", "--long", "--no-error-summary", root):
            if match := _ENTRY.fullmatch(line):
                mode = match[1]
                kind = "folder" if mode.startswith("d") else "link" if mode.startswith("L") else "file"
                yield Entry(kind, int(match[2]), match[3])

    def verify_snapshot(self, snapshot: str, *, read: bool) -> Verification:
        """Walk a whole snapshot: each object of it has its contents in the index, and these their blobs.

        Args:
            snapshot: Its ID.
            read: Whether every file is read, decrypted and compared with its hash as well.
        """
        return self._verify(snapshot, read=read)

    def read_objects(self, objects: Sequence[str]) -> Verification:
        """Read objects, decrypt them and compare them with their hashes."""
        problems: list[tuple[str, str]] = []
        files = size = 0
        for start in range(0, len(objects), _OBJECTS_AT_ONCE):
            part = objects[start : start + _OBJECTS_AT_ONCE]
            found = self._verify(*(f"--file-id={each}" for each in part), read=True)
            problems += found.problems
            files, size = files + found.files, size + found.size
        return Verification(problems=problems, files=files, size=size)

    def parts_of(self, objects: Iterable[str]) -> Iterator[tuple[str, int]]:
        """Yield the contents that objects are made of, and the bytes of each; one that is whole in itself has none.

        Raises:
            BackupCorruptError: The list of an object's parts cannot be read; the code says why.
        """
        waiting = [each for each in objects if each.startswith("I")]
        while waiting:
            at_once, waiting = waiting[:_OBJECTS_AT_ONCE], waiting[_OBJECTS_AT_ONCE:]
            for each in at_once:
                for part in orjson.loads(self._run("show", each[1:]))["entries"]:
                    if part["o"].startswith("I"):
                        waiting.append(part["o"])
                    else:
                        yield part["o"], part["l"]

    def _verify(self, *what: str, read: bool) -> Verification:
        share = "--verify-files-percent=100" if read else "--verify-files-percent=0"
        lines: list[str] = []
        problems: list[tuple[str, str]] = []
        failure: ProgramError | None = None
        try:
            for line in self._lines_of("snapshot", "verify", share, f"--max-errors={_MOST_ERRORS}", "--json", *what):
                if match := _PROBLEM.fullmatch(line):
                    problems.append((match[1], match[2]))
                else:
                    lines.append(line)
        except ProgramError as error:
            failure = error
        if failure is not None and not problems:
            raise self._failed(failure) from failure
        stats = _stats(lines)
        return Verification(
            problems=problems, files=int(stats.get("readFileCount", 0)), size=int(stats.get("readBytes", 0))
        )

    def _run(self, *words: str) -> str:
        try:
            return process.run(
                [self._program, *words], env=self._env, timeout_seconds=_SECONDS, dies_with_us=True
            ).stdout
        except ProgramError as error:
            raise self._failed(error) from error

    def _lines(self, *words: str) -> Iterator[str]:
        try:
            yield from self._lines_of(*words)
        except ProgramError as error:
            raise self._failed(error) from error

    def _lines_of(self, *words: str) -> Iterator[str]:
        return process.stream_lines([self._program, *words], env=self._env)

    def _failed(self, error: ProgramError) -> Exception:
        """Return what a failure of the program says: nothing of the repository where the store gave us an error."""
        if self.gateway.failure is not None:
            return self.gateway.failure
        if error.code == "program-timed-out" or error.exit_code is None:
            return error
        said = next((line for line in reversed(error.output.splitlines()) if line.strip()), "it printed nothing")
        return BackupCorruptError(said.removeprefix("ERROR ").strip(), code=classify(error.output))


@contextmanager
def opened_repository(
    program: Path, store: ObjectStore, folder: str, *, password: str, scratch: Path | None = None, whole: bool = False
) -> Iterator[KopiaRepository]:
    """Open a repository.

    Args:
        program: The kopia program.
        store: Where it is.
        folder: What the keys of its blobs start with, such as ``kopia/shop/``.
        password: What it is encrypted with.
        scratch: Where whole blobs rest of which parts are read.
        whole: Whether most of each blob will be read.

    Raises:
        BackupCorruptError: It cannot be opened; the code says why.
        StoreError: The store cannot be read.
    """
    with private_folder() as private, serving(store, folder, scratch=scratch, whole=whole) as gateway:
        repository = KopiaRepository(program, gateway, private, password)
        repository.connect()
        yield repository


def password_in(api: KubeClient, namespace: str) -> str:
    """Return the password of the repositories as the Velero of a cluster has it.

    Args:
        api: The cluster.
        namespace: Velero's own.

    Raises:
        ResourceNotFoundError: The Secret is not there: that Velero has never opened a repository.
        ForbiddenError: This user may not read it.
        ConfigError: There is no password in it.
    """
    secret = api.get(api.resource("Secret", api_version="v1"), _SECRET, namespace)
    try:
        password = base64.b64decode(secret["data"]["repository-password"], validate=True).decode().strip()
    except (KeyError, TypeError, binascii.Error, UnicodeDecodeError):
        password = ""
    if not password:
        raise ConfigError(
            f"Secret {namespace}/{_SECRET} holds no repository-password",
            hint="give the password in a file",
        )
    return password


def _snapshot(document: Mapping[str, Any]) -> KopiaSnapshot:
    root = document.get("rootEntry") or {}
    summary = root.get("summ") or {}
    return KopiaSnapshot(
        id=str(document["id"]),
        root=str(root.get("obj", "")),
        size=int(summary.get("size", 0)),
        files=int(summary.get("files", 0)),
        folders=int(summary.get("dirs", 0)),
        links=int(summary.get("symlinks", 0)),
        incomplete=str(document.get("incomplete", "") or summary.get("incomplete", "")),
        failed=int(summary.get("numFailed", 0)),
        tags={str(name).removeprefix("tag:"): str(value) for name, value in (document.get("tags") or {}).items()},
    )


def _stats(lines: Sequence[str]) -> Mapping[str, Any]:
    """Return the numbers of what a verification prints among its messages."""
    for line in reversed(lines):
        if line.startswith('{"stats"'):
            stats: Mapping[str, Any] = orjson.loads(line)["stats"]
            return stats
    return {}
