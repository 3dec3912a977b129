"""A part of a store, shown to a program as an S3 bucket on loopback that can only be read.

kopia brings clients of its own for object stores, with credentials, certificates and roles configured in their own
way, and none for a folder that holds objects under their plain names, or for copies that are encrypted. Through here it
reads whatever a store reads, and nothing else: no credentials reach it, a request that would change something is
refused and counted, and every byte that passes is counted, too.
"""

from __future__ import annotations

import hmac
import re
import secrets
import threading
from collections import OrderedDict
from contextlib import contextmanager, suppress
from email.utils import format_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import IO, TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from clusterguard.errors import ClusterGuardError, ObjectNotFoundError
from clusterguard.scratch import UnnamedFile, unnamed_file
from clusterguard.stores.base import CHUNK_BYTES, key_problem

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from clusterguard.stores.base import ByteReader, ObjectInfo, ObjectStore

__all__ = ["BUCKET", "RepositoryGateway", "serving"]

BUCKET: Final = "repository"
"""What the bucket is called."""

_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_KEPT_FILES: Final = 12  # of a store without ranges: kopia reads many parts of one blob, from a few blobs at a time
_WRITTEN_ONCE: Final = ("p", "q")  # the blobs that hold data, and folders
_NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"


class RepositoryGateway:
    """What was asked of the store, and how that went.

    Attributes:
        address: ``host:port`` that it listens on.
        access_key: What has to be in every request; made up anew, so nobody else on this machine reads here.
        secret_key: What clients sign with. It is not checked: who knows the access key has it from us.
        bytes_read: How many bytes the program was sent.
        missing: Keys that were asked for by name and are not there.
        refused: Requests that would have changed something.
        failure: The first error of the store: what the program then says is no evidence of anything.
    """

    def __init__(self, store: ObjectStore, folder: str, *, scratch: Path | None = None, whole: bool = False) -> None:
        self.access_key = secrets.token_hex(16)
        self.secret_key = secrets.token_hex(16)
        self.address = ""
        self.bytes_read = 0
        self.missing: set[str] = set()
        self.refused: list[str] = []
        self.failure: ClusterGuardError | None = None
        self._store = store
        self._folder = folder
        self._scratch = scratch
        self._whole = whole
        self._lock = threading.Lock()
        self._listed: dict[str, ObjectInfo] = {}
        self._kept: OrderedDict[str, UnnamedFile] = OrderedDict()
        self._in_use: dict[str, threading.Lock] = {}

    def objects(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects of the folder whose name, below it, starts so."""
        return self._store.list(self._folder + prefix)

    def listing(self, prefix: str) -> bytes:
        """Return the answer to a request for a list; all of it at once, since a repository has thousands of blobs."""
        start = len(self._folder)
        found = list(self.objects(prefix))
        # Of these the client asks for thousands of parts, and each would take a question of ours before.
        self._listed.update({info.key: info for info in found if info.key[start:].startswith(_WRITTEN_ONCE)})
        entries = "".join(
            f"<Contents><Key>{escape(info.key[start:])}</Key><Size>{info.size}</Size><ETag>&quot;&quot;</ETag>"
            f"<LastModified>{info.modified:%Y-%m-%dT%H:%M:%S}.{info.modified.microsecond // 1000:03d}Z</LastModified>"
            "</Contents>"
            for info in found
        )
        return (
            f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="{_NAMESPACE}"><Name>{BUCKET}</Name>'
            f"<Prefix>{escape(prefix)}</Prefix><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>"
        ).encode()

    def stat(self, name: str) -> ObjectInfo:
        """Describe one object of the folder; one that is written once, as it was when it was listed."""
        key = self._folder + name
        return self._listed.get(key) or self._store.stat(key)

    @contextmanager
    def opened(self, name: str, first: int, size: int) -> Iterator[ByteReader]:
        """Give a part of an object.

        Args:
            name: Below the folder.
            first: Offset of the first byte.
            size: How many bytes at most.
        """
        key = self._folder + name
        ranged: Any = None if self._whole else getattr(self._store, "get_range", None)
        if ranged is not None:
            part: AbstractContextManager[ByteReader] = ranged(key, first, size)
            with part as reader:
                yield reader
            return
        with self._file(key) as file:
            file.seek(first)
            yield file

    def note_failure(self, error: ClusterGuardError) -> None:
        """Keep what the store could not do."""
        with self._lock:
            self.failure = self.failure or error

    def count(self, size: int) -> None:
        """Count bytes that were sent."""
        with self._lock:
            self.bytes_read += size

    def close(self) -> None:
        """Let go what is kept."""
        for file in self._kept.values():
            file.close()
        self._kept.clear()

    @contextmanager
    def _file(self, key: str) -> Iterator[IO[bytes]]:
        """Give an object as a file: its own, or a copy without a name that is kept for the next part."""
        own_file: Any = getattr(self._store, "local_path", None)
        if own_file is not None:
            with own_file(key).open("rb") as file:
                yield file
            return
        with self._lock:
            one_at_a_time = self._in_use.setdefault(key, threading.Lock())
        with one_at_a_time:
            with self._lock:
                copy = self._kept.get(key)
            if copy is None:
                copy = self._copied(key)
                with self._lock:
                    self._kept[key] = copy
            # Opened anew by its path: the copy may be let go meanwhile.
            file = copy.path.open("rb")
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            while len(self._kept) > _KEPT_FILES:
                self._kept.popitem(last=False)[1].close()
        with file:
            yield file

    def _copied(self, key: str) -> UnnamedFile:
        copy = unnamed_file(self._scratch)
        try:
            with self._store.get(key) as reader:
                while piece := reader.read(CHUNK_BYTES):
                    copy.write(piece)
        except BaseException:
            copy.close()
            raise
        return copy


@contextmanager
def serving(
    store: ObjectStore, folder: str, *, scratch: Path | None = None, whole: bool = False
) -> Iterator[RepositoryGateway]:
    """Serve a folder of a store while the ``with`` block runs.

    Args:
        store: Where the objects are.
        folder: What their keys start with, up to and with its last ``/``.
        scratch: Where whole objects rest of which parts are given.
        whole: Whether most of each object will be asked for: then it is read at once, and not in thousands of parts.
    """
    gateway = RepositoryGateway(store, folder, scratch=scratch, whole=whole)
    server = _Server(gateway)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        gateway.close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # The backlog of the standard library, five, makes the connections of a parallel client wait.
    request_queue_size = 64

    def __init__(self, gateway: RepositoryGateway) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.gateway = gateway
        gateway.address = f"127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a program that went away in the middle of an answer: it was ended, or had enough."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # Headers and the first bytes of a body are two writes: Nagle's algorithm would hold the second one back.
    disable_nagle_algorithm = True
    wbufsize = 1 << 16
    server: _Server

    def do_GET(self) -> None:
        """Answer a request for a list or for an object."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Answer a question for an object, or whether there is such a bucket."""
        self._answer(body=False)

    def do_PUT(self) -> None:
        """Refuse a change."""
        self._refuse()

    do_POST = do_DELETE = do_PUT  # noqa: N815 - as the standard library calls them

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the standard library's
        """Print nothing."""

    def _answer(self, *, body: bool) -> None:
        gateway = self.server.gateway
        url = urlsplit(self.path)
        bucket, _, name = unquote(url.path).lstrip("/").partition("/")
        if not self._is_ours():
            self._fail(HTTPStatus.FORBIDDEN, "AccessDenied")
            return
        if bucket != BUCKET or (name and key_problem(name) is not None):
            self._fail(HTTPStatus.NOT_FOUND, "NoSuchBucket" if bucket != BUCKET else "NoSuchKey")
            return
        try:
            if gateway.failure is not None:
                # What the program says is not believed any more; of everything else it would try it again for minutes.
                raise gateway.failure
            if name:
                self._send_object(name, body=body)
            else:
                query = parse_qs(url.query, keep_blank_values=True)
                self._send_bucket(query, body=body)
        except ObjectNotFoundError:
            gateway.missing.add(name)
            self._fail(HTTPStatus.NOT_FOUND, "NoSuchKey")
        except ClusterGuardError as error:
            gateway.note_failure(error)
            self._fail(HTTPStatus.NOT_FOUND, "NoSuchKey")

    def _is_ours(self) -> bool:
        given = re.search(r"Credential=([0-9a-f]+)/", self.headers.get("Authorization", ""))
        return given is not None and hmac.compare_digest(given[1], self.server.gateway.access_key)

    def _send_bucket(self, query: dict[str, list[str]], *, body: bool) -> None:
        if "location" in query:
            text = f'<LocationConstraint xmlns="{_NAMESPACE}">us-east-1</LocationConstraint>'.encode()
        elif body:
            text = self.server.gateway.listing(query.get("prefix", [""])[0])
        else:
            text = b""
        self._begin(HTTPStatus.OK, len(text), kind="application/xml")
        self.wfile.write(text)

    def _send_object(self, name: str, *, body: bool) -> None:
        gateway = self.server.gateway
        info = gateway.stat(name)
        asked = _RANGE.fullmatch(self.headers.get("Range", ""))
        total = info.size
        if not body:
            self._begin(HTTPStatus.OK, total, info=info)
            return
        first = int(asked[1]) if asked else 0
        last = min(int(asked[2]), total - 1) if asked and asked[2] else total - 1
        if asked and first >= total:
            self._fail(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "InvalidRange")
            return
        size = last - first + 1
        with gateway.opened(name, first, size) as reader:
            status = HTTPStatus.PARTIAL_CONTENT if asked else HTTPStatus.OK
            self._begin(status, size, info=info, span=f"bytes {first}-{last}/{total}" if asked else "")
            self._send(reader, size)

    def _send(self, reader: ByteReader, size: int) -> None:
        left = size
        try:
            while left and (piece := reader.read(min(left, CHUNK_BYTES))):
                self.wfile.write(piece)
                left -= len(piece)
        except ClusterGuardError as error:
            self.server.gateway.note_failure(error)
        self.server.gateway.count(size - left)
        # What was promised cannot be taken back: a connection that ends early says that it is not all.
        self.close_connection = self.close_connection or bool(left)

    def _begin(
        self,
        status: HTTPStatus,
        size: int,
        *,
        kind: str = "application/octet-stream",
        info: ObjectInfo | None = None,
        span: str = "",
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(size))
        self.send_header("Content-Type", kind)
        if info is not None:
            self.send_header("Last-Modified", format_datetime(info.modified, usegmt=True))
            self.send_header("ETag", f'"{info.version or info.size}"')
        if span:
            self.send_header("Content-Range", span)
        self.end_headers()

    def _refuse(self) -> None:
        self.server.gateway.refused.append(f"{self.command} {unquote(urlsplit(self.path).path)}")
        # The rest of this connection would be the body of what is refused.
        self.close_connection = True
        self._fail(HTTPStatus.FORBIDDEN, "AccessDenied")

    def _fail(self, status: HTTPStatus, code: str) -> None:
        text = (
            b"" if self.command == "HEAD" else f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        )
        with suppress(OSError):
            self._begin(status, len(text), kind="application/xml")
            self.wfile.write(text)
