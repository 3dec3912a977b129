"""Files come through a signed URL: whatever the other end does, the answer is the file or a clear error."""

import base64
import contextlib
import gzip
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clusterguard.clusters.certificates import Authority
from clusterguard.errors import (
    ObjectNotFoundError,
    ResourceNotFoundError,
    StoreError,
    StoreUnavailableError,
    VeleroError,
    WaitTimeoutError,
)
from clusterguard.velero.downloads import Downloads
from clusterguard.velero.objects import VeleroObjects
from clusterguard.velero.resources import Backup, BackupStorageLocation, DownloadKind, DownloadRequest, Restore
from endless_server import Jumping, endless_server

SECRET = "X-Amz-Signature=0123456789"


class Bucket:
    """An object store that answers every request as it is told to."""

    def __init__(self, tls=None):
        bucket = self
        self.answer = (200, b"")
        self.short_by = 0
        self.requests = []

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                bucket.requests.append(self.path)
                status, body = bucket.answer
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + bucket.short_by))
                if status == 307:
                    self.send_header("Location", "http://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
            self.server.handle_error = lambda *_: None  # handshakes that the client breaks off
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self.thread.start()
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server.server_port}/file?{SECRET}"

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Objects:
    """The objects of a server that answers download requests with one URL."""

    namespace = "velero"

    def __init__(self, url, *, storage=None):
        self.url = url
        self.deleted = []
        self.there = {
            ("Backup", "b"): Backup.model_validate({"metadata": {"name": "b"}, "spec": {"storageLocation": "main"}}),
            ("Backup", "new"): Backup.model_validate({"metadata": {"name": "new"}}),
            ("Restore", "r"): Restore.model_validate({"metadata": {"name": "r"}, "spec": {"backupName": "b"}}),
            ("BackupStorageLocation", "main"): BackupStorageLocation.model_validate(
                {"metadata": {"name": "main"}, "spec": {"objectStorage": storage or {}}}
            ),
        }

    def get(self, kind, name):
        try:
            return self.there[kind.kind, name]
        except KeyError:
            raise ResourceNotFoundError(f"no {kind.kind} {name!r}") from None

    def create(self, new):
        return DownloadRequest.model_validate({**new.manifest, "metadata": {"name": "request"}})

    ask = VeleroObjects.ask

    def wait(self, kind, name, *, until, what, timeout_seconds):
        if self.url is None:
            raise WaitTimeoutError(what, seconds=timeout_seconds, last_seen="DownloadRequest request")
        answered = DownloadRequest.model_validate({"status": {"phase": "Processed", "downloadURL": self.url}})
        assert until(answered)
        return answered

    def delete(self, old):
        self.deleted.append(old.name)


@pytest.fixture
def bucket():
    running = Bucket()
    yield running
    running.close()


@pytest.fixture
def downloads(bucket):
    return Downloads(objects=Objects(bucket.url), timeout_seconds=1)


def test_files_come_unpacked_and_the_request_is_gone(downloads, bucket):
    bucket.answer = (200, gzip.compress(b'{"a": [1]}'))
    assert downloads.document(DownloadKind.RESTORE_RESULTS, "r") == {"a": [1]}
    bucket.answer = (200, gzip.compress("one\nzwölf\n".encode()))
    assert list(downloads.text(DownloadKind.BACKUP_LOG, "b")) == ["one", "zwölf"]
    assert downloads.objects.deleted == ["request", "request"]


def test_the_contents_come_packed(downloads, bucket):
    bucket.answer = (200, gzip.compress(b"tar"))
    with downloads.open(DownloadKind.BACKUP_CONTENTS, "b") as file:
        assert file.read() == bucket.answer[1]


@pytest.mark.parametrize(
    ("status", "error", "said"),
    [
        (404, ObjectNotFoundError, "404 NoSuchKey: the bucket has no such file"),
        (403, StoreError, "refused"),
        (307, StoreError, "elsewhere"),
        (400, StoreError, "400"),
        (500, StoreUnavailableError, "500"),
        (503, StoreUnavailableError, "503"),
    ],
)
def test_refusals_are_told_without_the_signature(downloads, bucket, status, error, said):
    bucket.answer = (status, b"<Error><Code>NoSuchKey</Code></Error>" if status == 404 else b"")
    with pytest.raises(error, match=said) as caught:
        downloads.document(DownloadKind.BACKUP_RESULTS, "b")
    assert type(caught.value) is error
    assert "results of backup b from 127.0.0.1" in caught.value.message
    assert "Signature" not in f"{caught.value.message}{caught.value.hint}"
    assert len(bucket.requests) == 1


@pytest.mark.parametrize("kept", range(0, 60, 7))
def test_a_file_cut_anywhere_is_noticed(downloads, bucket, kept):
    whole = gzip.compress(b'{"warnings": {}, "errors": {"velero": ["one"]}}')
    bucket.answer = (200, whole[:kept])
    with pytest.raises((StoreError, StoreUnavailableError)):
        downloads.document(DownloadKind.BACKUP_RESULTS, "b")


def test_a_connection_that_breaks_is_noticed(downloads, bucket):
    bucket.answer, bucket.short_by = (200, gzip.compress(b"x" * 100)[:40]), 60
    with pytest.raises(StoreUnavailableError, match="ended early"):
        list(downloads.text(DownloadKind.BACKUP_LOG, "b"))


@pytest.mark.parametrize("body", [b"plain text", b"\x1f\x8b\x08\x00" + b"\xff" * 40])
def test_a_damaged_file_is_noticed(downloads, bucket, body):
    bucket.answer = (200, body)
    with pytest.raises(StoreError, match="damaged"):
        list(downloads.text(DownloadKind.BACKUP_LOG, "b"))


def test_what_is_no_json_is_told(downloads, bucket):
    bucket.answer = (200, gzip.compress(b"no"))
    with pytest.raises(StoreError, match="JSON"):
        downloads.document(DownloadKind.BACKUP_RESULTS, "b")


def test_a_file_that_trickles_for_ever_is_given_up():
    """Each byte ends a silence, so the limit on silence never ends it."""
    log = gzip.compress(b"line\n" * 1000)
    with endless_server(piece=log, pause=0) as address:  # one gzip member after the other
        downloads = Downloads(objects=Objects(f"{address}/log"), whole_seconds=60, clock=Jumping(1))
        with pytest.raises(StoreUnavailableError):
            list(downloads.text(DownloadKind.BACKUP_LOG, "b"))


def test_a_refusal_that_does_not_end_is_told():
    with endless_server(status=500, piece=b"x" * 65_536, pause=0) as address:
        downloads = Downloads(objects=Objects(f"{address}/log"))
        with pytest.raises(StoreUnavailableError, match="500"):
            list(downloads.text(DownloadKind.BACKUP_LOG, "b"))


def test_a_log_without_line_ends_comes_in_pieces(downloads, bucket, monkeypatch):
    monkeypatch.setattr("clusterguard.velero.downloads._LONGEST_LINE", 1000)
    bucket.answer = (200, gzip.compress(b"x" * 2500 + b"\n"))
    assert [len(line) for line in downloads.text(DownloadKind.BACKUP_LOG, "b")] == [1000, 1000, 500]


def test_a_bomb_is_not_unpacked_to_its_end(downloads, bucket, monkeypatch):
    monkeypatch.setattr("clusterguard.velero.downloads._LARGEST_DOCUMENT", 1 << 20)
    bucket.answer = (200, gzip.compress(bytes(8 << 20)))
    with pytest.raises(StoreError, match="unpacks to more than"):
        downloads.document(DownloadKind.BACKUP_RESULTS, "b")


def test_a_request_that_is_never_answered_has_a_limit():
    downloads = Downloads(objects=Objects(None), timeout_seconds=3)
    with pytest.raises(WaitTimeoutError, match="not within 3 s") as caught:
        downloads.document(DownloadKind.BACKUP_RESULTS, "b")
    assert "velero status" in caught.value.hint
    assert downloads.objects.deleted == ["request"]


def test_a_bucket_that_nobody_listens_for_is_told():
    downloads = Downloads(objects=Objects(f"http://127.0.0.1:1/file?{SECRET}"))
    with pytest.raises(StoreUnavailableError) as caught:
        downloads.document(DownloadKind.BACKUP_RESULTS, "b")
    assert "127.0.0.1:1" in caught.value.fields["server"]
    assert "refused" in caught.value.message
    assert "publicUrl" in caught.value.hint
    assert "Signature" not in caught.value.message


def test_nothing_is_asked_of_the_server_for_what_is_not_there(downloads):
    with pytest.raises(ResourceNotFoundError, match="no Restore 'x'"):
        downloads.document(DownloadKind.RESTORE_LOG, "x")
    with pytest.raises(VeleroError, match="no storage location yet"):
        downloads.document(DownloadKind.BACKUP_LOG, "new")
    assert downloads.objects.deleted == []


# ---- TLS -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pki")
    Authority("ca", folder=folder).issue("s3", common_name="s3")
    return folder


@pytest.fixture
def tls_bucket(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "s3.crt", authority / "s3.key")
    running = Bucket(tls=context)
    running.answer = (200, gzip.compress(b"[]"))
    with contextlib.closing(running):
        yield running


def test_an_unknown_certificate_is_refused(tls_bucket):
    with pytest.raises(StoreError) as caught:
        Downloads(objects=Objects(tls_bucket.url)).document(DownloadKind.BACKUP_RESULTS, "b")
    assert caught.value.code == "untrusted-certificate"
    assert "--cacert" in caught.value.hint


@pytest.mark.parametrize("way", ["own", "location", "insecure"])
def test_a_certificate_is_trusted_by_a_ca_file_the_location_or_on_request(tls_bucket, authority, way):
    encoded = base64.b64encode((authority / "ca.crt").read_bytes()).decode()
    objects = Objects(tls_bucket.url, storage={"caCert": encoded} if way == "location" else None)
    ca = authority / "ca.crt" if way == "own" else None
    downloads = Downloads(objects=objects, ca=ca, insecure=way == "insecure")
    assert downloads.document(DownloadKind.BACKUP_RESULTS, "b") == []
