"""The stream of a real member: whole, cut anywhere, changed, stalled, and from whom it is refused."""

from __future__ import annotations

import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from etcd_proxy import end_of_stream

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.certificates import Authority
from clusterguard.errors import (
    ConfigError,
    EtcdAuthError,
    EtcdError,
    EtcdUnavailableError,
    SnapshotError,
    SnapshotIncompleteError,
    StoreError,
)
from clusterguard.etcd.integrity import TrailerChecker
from clusterguard.etcd.member import EtcdMember
from clusterguard.etcd.wire import SnapshotFrames
from etcd_member import free_port, member

pytestmark = pytest.mark.programs


def fetch(access, endpoint=None, **options):
    """Stream a snapshot into memory and check its trailer."""
    got, checker = bytearray(), TrailerChecker()

    def take(piece):
        checker.update(piece)
        got.extend(piece)

    with EtcdMember(access, endpoint or access.endpoints[0]) as member:
        member.stream_snapshot(take, **options)
    return bytes(got), checker.finish()


@pytest.fixture(scope="module")
def frames(plain):
    """The real stream of a small member as gRPC frames, and the bytes in it."""
    raw = bytearray()
    feed = SnapshotFrames.feed

    def recording(self, data):
        raw.extend(data)
        feed(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SnapshotFrames, "feed", recording)
        got, _ = fetch(plain.access)
    return bytes(raw), got


# ---- whole


def test_a_plain_member_sends_a_whole_snapshot(plain):
    got, integrity = fetch(plain.access)
    assert len(got) == integrity.size
    assert integrity.size % 512 == 32


def test_a_member_with_client_certificates_does_too(secured):
    _, integrity = fetch(secured.access)
    assert integrity.size % 512 == 32


def test_progress_ends_where_nothing_remains(plain):
    seen = []
    fetch(plain.access, watch=lambda frames: seen.append((frames.received, frames.remaining)))
    assert seen[-1] == (seen[-1][0], 0)
    assert [received for received, _ in seen] == sorted(received for received, _ in seen)


def test_every_cut_of_the_real_frames_gives_the_same_bytes_or_is_incomplete(frames):
    raw, whole = frames
    for cut in range(len(raw)):
        got = bytearray()
        decoder = SnapshotFrames(got.extend)
        decoder.feed(raw[:cut])
        at_cut = bytes(got)
        assert whole.startswith(at_cut)
        checker = TrailerChecker()
        checker.update(at_cut)
        with pytest.raises(SnapshotIncompleteError):  # the first of the two guards, or else the second
            decoder.finish()
            checker.finish()
        decoder.feed(raw[cut:])
        decoder.finish()
        assert got == whole


# ---- cut, changed, stalled


def test_a_connection_cut_at_any_byte_is_never_a_snapshot(faulty):
    fetch(faulty.access)
    needed = end_of_stream(faulty.sent)
    places = {*range(1, 120), *range(120, needed, 499), *range(needed - 120, needed)}
    refused = 0
    for place in sorted(places):
        faulty.cut_after = place
        try:
            fetch(faulty.access)
        except (SnapshotIncompleteError, EtcdUnavailableError):
            refused += 1
        else:
            end_of_stream(faulty.sent)  # no two streams are framed alike: in this one the cut came too late to matter
    assert refused > len(places) - 120


def test_a_changed_byte_anywhere_is_never_a_snapshot(faulty):
    fetch(faulty.access)
    needed = end_of_stream(faulty.sent)
    refused = 0
    for place in [*range(0, needed, 999), *range(needed - 9, needed)]:

        def harm(sent, piece, place=place):
            if not sent <= place < sent + len(piece):
                return piece
            harmed = bytearray(piece)
            harmed[place - sent] ^= 0x10
            return bytes(harmed)

        faulty.harm = harm
        try:
            fetch(faulty.access, stall_seconds=0.2)
        except (SnapshotError, EtcdError):
            refused += 1
    # The rest are bytes that carry nothing, such as those of a window update: the trailer was right.
    assert refused > needed // 999 * 0.9


def test_a_stream_that_stands_still_is_given_up(faulty):
    fetch(faulty.access)
    faulty.stall_after = end_of_stream(faulty.sent) - 80  # within the last message
    with pytest.raises(SnapshotIncompleteError, match="still to come"):
        fetch(faulty.access, stall_seconds=0.2)


def test_a_member_that_never_answers_is_given_up(faulty):
    faulty.stall_after = 0
    with pytest.raises(EtcdUnavailableError) as caught:
        fetch(faulty.access, stall_seconds=0.2)
    assert caught.value.code == "etcd-silent"


# ---- errors of our own side


def test_an_error_of_the_taker_comes_out_as_it_was(plain):
    cause = OSError(28, "No space left on device")

    def full(_):
        raise StoreError("the disk is full") from cause

    with pytest.raises(StoreError, match="the disk is full") as raised:
        EtcdMember(plain.access, plain.endpoint).stream_snapshot(full)
    assert raised.value.__cause__ is cause


@pytest.mark.parametrize("where", ["take", "watch"])
def test_ctrl_c_comes_out_at_once(plain, where):
    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        EtcdMember(plain.access, plain.endpoint).stream_snapshot(**{"take": lambda _: None, where: interrupt})


# ---- refused


def test_nobody_there(tmp_path):
    access = EtcdAccess(endpoints=(f"http://127.0.0.1:{free_port()}",))
    with pytest.raises(EtcdUnavailableError) as raised:
        fetch(access)
    assert access.endpoints[0] in raised.value.message
    assert "is etcd running there" in raised.value.hint
    with pytest.raises(EtcdUnavailableError) as raised:
        EtcdMember(access, access.endpoints[0]).status()
    assert access.endpoints[0] in raised.value.message


@pytest.fixture
def ask(secured):
    """Ask the secured member in both ways, with other papers than the right ones."""

    def ask(**papers):
        access = replace(secured.access, **papers)
        return [
            lambda: fetch(access),
            lambda: EtcdMember(access, access.endpoints[0]).status(),
        ]

    return ask


def test_the_wrong_authority_is_told(ask, tmp_path):
    other = Authority("etcd-ca", folder=tmp_path)
    for call in ask(ca=other.file):
        with pytest.raises(EtcdAuthError, match="TLS failed") as raised:
            call()
        assert "check the CA" in raised.value.hint


def test_a_missing_client_certificate_is_told(ask):
    for call in ask(cert=None, key=None):
        with pytest.raises(EtcdAuthError, match="TLS failed"):
            call()


def test_a_client_certificate_of_another_authority_is_told(ask, tmp_path):
    cert, key = Authority("etcd-ca", folder=tmp_path).issue("client", common_name="clusterguard")
    for call in ask(cert=cert, key=key):
        with pytest.raises(EtcdAuthError, match="TLS failed"):
            call()


def test_certificate_files_that_are_not_there_are_named(ask, tmp_path):
    for call in ask(cert=tmp_path / "gone.crt", key=tmp_path / "gone.key"):
        with pytest.raises((ConfigError, EtcdAuthError), match="gone"):
            call()


def test_the_environment_does_not_replace_the_authority(secured, tmp_path, monkeypatch):
    other = Authority("etcd-ca", folder=tmp_path)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
        monkeypatch.setenv(name, str(other.file))
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    fetch(secured.access)
    assert EtcdMember(secured.access, secured.endpoint).status().revision > 0


def test_plain_http_to_a_tls_port_is_told(secured):
    endpoint = secured.endpoint.replace("https", "http")
    access = EtcdAccess(endpoints=(endpoint,))
    for call in (lambda: fetch(access), lambda: EtcdMember(access, endpoint).status()):
        with pytest.raises(EtcdError, match=r"127\.0\.0\.1"):
            call()


def test_tls_to_a_plain_port_is_told(plain, secured):
    access = replace(secured.access, endpoints=(plain.endpoint.replace("http", "https"),))
    for call in (lambda: fetch(access), lambda: EtcdMember(access, access.endpoints[0]).status()):
        with pytest.raises(EtcdError, match=r"127\.0\.0\.1"):
            call()


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>hello</html>"), (200, b'{"status": "ok"}'), (200, b"[]"), (404, b"nothing here"), (501, b"")],
)
def test_a_server_that_is_not_etcd_is_told(status, body):
    class Page(BaseHTTPRequestHandler):
        def do_POST(self):
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        access = EtcdAccess(endpoints=(f"http://127.0.0.1:{server.server_port}",))
        for call in (lambda: fetch(access), lambda: EtcdMember(access, access.endpoints[0]).status()):
            with pytest.raises(EtcdError, match=access.endpoints[0]):
                call()
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    "endpoint",
    ["127.0.0.1:2379", "ftp://127.0.0.1", "http://", "http://127.0.0.1:port", "https://127.0.0.1:99999", "http://h/v3"],
)
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(ConfigError) as raised:
        EtcdMember(EtcdAccess(endpoints=(endpoint,)), endpoint)
    assert raised.value.code == "invalid-endpoint"
    assert "https://127.0.0.1:2379" in raised.value.hint


def test_a_password_in_an_endpoint_is_refused_and_not_shown():
    with pytest.raises(ConfigError) as raised:
        EtcdMember(EtcdAccess(endpoints=()), "http://me:hunter2@127.0.0.1:2379")
    assert raised.value.code == "invalid-endpoint"
    assert "hunter2" not in f"{raised.value.message} {raised.value.__cause__}"


# ---- user and password


@pytest.fixture(scope="module")
def guarded(etcd_program, tmp_path_factory):
    """A member with etcd's own authentication; tokens run out after a second."""
    flags = ["--auth-token=simple", "--auth-token-ttl=1"]
    with member(etcd_program, tmp_path_factory.mktemp("etcd") / "guarded", flags=flags) as running:
        for name in ("root", "reader"):
            running.ask("auth/user/add", {"name": name, "password": f"{name}-password"})
        running.ask("auth/role/add", {"name": "root"})
        running.ask("auth/user/grant", {"user": "root", "role": "root"})
        running.put("/registry/pods/default/web")
        running.ask("auth/enable", {})
        yield replace(running.access, username="root", password="root-password")


def test_root_gets_a_snapshot(guarded):
    fetch(guarded)
    with EtcdMember(guarded, guarded.endpoints[0]) as member:
        assert member.status().revision == 2
        assert member.count_keys(2) == 1


@pytest.mark.parametrize("ask", [lambda one: one.count_keys(2), lambda one: one.stream_snapshot(lambda _: None)])
def test_a_token_that_ran_out_is_renewed(guarded, ask):
    with EtcdMember(guarded, guarded.endpoints[0]) as member:
        ask(member)
        member._token = "QmvkWWqTQVjlsnMg.7"  # one this member never gave out
        assert ask(member)


def test_a_wrong_password_is_told_and_not_shown(guarded):
    wrong = replace(guarded, password="hunter2")
    assert "hunter2" not in repr(wrong)
    for call in (lambda: fetch(wrong), lambda: EtcdMember(wrong, wrong.endpoints[0]).count_keys(2)):
        with pytest.raises(EtcdAuthError) as raised:
            call()
        assert "hunter2" not in f"{raised.value.message} {raised.value.hint} {raised.value.__cause__!r}"


def test_nobody_is_told_to_log_in(guarded):
    nobody = replace(guarded, username=None, password=None)
    member = EtcdMember(nobody, nobody.endpoints[0])
    for call in (lambda: fetch(nobody), lambda: member.count_keys(2), lambda: member.hash_kv(2), member.alarms):
        with pytest.raises(EtcdAuthError) as raised:
            call()
        assert "authentication is on" in raised.value.hint


def test_a_user_without_the_root_role_is_told(guarded):
    reader = replace(guarded, username="reader", password="reader-password")
    with pytest.raises(EtcdAuthError, match="permission denied") as raised:
        fetch(reader)
    assert "root role" in raised.value.hint


def test_a_password_for_a_member_that_asks_for_none_is_not_needed(plain):
    # As with etcdctl: a restore of an older snapshot may have switched authentication off.
    access = replace(plain.access, username="root", password="x")
    _, integrity = fetch(access)
    assert integrity.size % 512 == 32
