"""What is on this machine is never sent to a proxy, whatever the library underneath makes of HTTP_PROXY."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clusterguard.policies.policy import EtcdSource, Heartbeat, Location, Policy, Source
from clusterguard.policies.watching.heartbeat import beat
from clusterguard.policies.watching.metrics import push
from clusterguard.policies.watching.status import policy_status
from clusterguard.sockets import is_loopback
from clusterguard.stores.s3 import S3Credentials, S3Store
from clusterguard.velero.downloads import _pool

LISTING = (
    b'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Name>b</Name><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
)
CREDENTIALS = S3Credentials(access_key="a", secret_key="b")


@pytest.fixture
def server(monkeypatch):
    """A server on loopback, and a proxy in the environment that nobody must ask: it is not there."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:1")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            seen.append(self.path)
            self.send_response(200)
            self.send_header("content-length", str(len(LISTING)))
            self.end_headers()
            self.wfile.write(LISTING)

        do_PUT = do_POST = do_GET  # noqa: N815 - the library's names

        def log_message(self, *_):
            pass

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=listening.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_port}", seen
    listening.shutdown()
    listening.server_close()


def ask_s3(url):
    store = S3Store(bucket="b", endpoint=url, region="us-east-1", path_style=True, credentials=CREDENTIALS, attempts=1)
    assert list(store.list()) == []


def ask_s3_by_environment(url):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL_S3", url)
        store = S3Store(bucket="b", region="us-east-1", path_style=True, credentials=CREDENTIALS, attempts=1)
        assert list(store.list()) == []


def send_a_beat(url):
    done = beat(Heartbeat(url_env="BEAT"), "success", environ={"BEAT": url}, now=lambda: datetime.now(UTC))
    assert done.outcome == "ok"


def push_metrics(url):
    policy = Policy(
        name="p",
        sources=(Source(name="etcd", etcd=EtcdSource(cluster="kind:a")),),
        locations=(Location(name="here", url="/backups"),),
        copies=1,
    )
    push(url, policy_status(policy, {}, now=datetime.now(UTC)))


def download(url):
    assert _pool(url, None).request("GET", url, retries=False).status == 200


@pytest.mark.parametrize("ask", [ask_s3, ask_s3_by_environment, send_a_beat, push_metrics, download])
def test_loopback_is_asked_directly(server, ask):
    url, seen = server
    ask(url)
    assert seen


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:2379", True),
        ("https://127.8.8.8", True),
        ("http://[::1]:2379", True),
        ("http://localhost:9000/x", True),
        ("localhost:9000", True),
        ("http://10.0.0.1:2379", False),
        ("https://localhost.example.com", False),
        ("http://", False),
    ],
)
def test_what_is_loopback(url, expected):
    assert is_loopback(url) is expected
