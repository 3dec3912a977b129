"""Members that speak gRPC only, as etcdctl has no trouble with, and those of which only the JSON gateway is left."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID
from etcd_proxy import http_1_proxy

from clusterguard.clusters import certificates
from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.certificates import Authority
from clusterguard.errors import EtcdAuthError, EtcdError, EtcdUnavailableError
from clusterguard.etcd import EtcdSnapshotter, rpc
from clusterguard.etcd.grpc import GrpcChannel
from clusterguard.etcd.member import EtcdMember
from clusterguard.etcd.rpc import BrokenAnswerError
from clusterguard.process import run
from clusterguard.stores import LocalStore
from etcd_member import member

pytestmark = pytest.mark.programs

PODS = ("/registry/pods/default/a", "/registry/pods/default/b")


@pytest.fixture
def store(tmp_path):
    return LocalStore(tmp_path / "store")


def gateway_answers(started):
    """Return whether the client port has a gateway, which is what these members must lack."""
    client_port = replace(started, http=started.endpoint)
    try:
        return client_port.request("POST", "/v3/maintenance/status", "{}")[0] == 200
    except (OSError, ValueError, http.client.HTTPException):
        return False


def ask_everything(started):
    """Save, compare with the live member, and ask what else there is to ask."""
    with EtcdMember(started.access, started.endpoint) as one:
        status = one.status()
        assert (status.revision, status.has_leader, status.is_learner, status.errors) == (2, True, False, ())
        assert status.applied_index == status.raft_index > 0
        assert one.count_keys(2) == len(PODS)
        assert one.hash_kv(2).compact_revision == -1
        assert (one.alarms(), one.disarm()) == ((), ())


def save_and_verify(started, store):
    snapshotter = EtcdSnapshotter(store=store, access=started.access)
    snapshot = snapshotter.save("s")
    assert (snapshot.revision, snapshot.total_keys, snapshot.member_name) == (2, len(PODS), "m1")
    report = snapshotter.verify("s")
    assert {check.name: check.ok for check in report.checks}["live HashKV"], report.to_text()


@pytest.mark.parametrize("tls", [False, True])
def test_a_member_without_a_gateway(etcd_program, tmp_path, store, tls):
    with member(etcd_program, tmp_path / "etcd", tls=tls) as filled:
        filled.put(*PODS)
    with member(etcd_program, tmp_path / "etcd", tls=tls, flags=["--enable-grpc-gateway=false"]) as started:
        assert not gateway_answers(started)
        ask_everything(started)
        save_and_verify(started, store)


@pytest.mark.parametrize("tls", [False, True])
def test_a_client_port_beside_one_for_http(etcd_program, tmp_path, store, tls):
    with member(etcd_program, tmp_path / "etcd", tls=tls, own_http_port=True) as started:
        started.put(*PODS)
        assert not gateway_answers(started)
        ask_everything(started)
        save_and_verify(started, store)


def for_servers_only(authority):
    """Issue a certificate that the gateway, which dials its own etcd as a client, cannot use."""
    both = certificates.x509.ExtendedKeyUsage
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(x509, "ExtendedKeyUsage", lambda _: both([ExtendedKeyUsageOID.SERVER_AUTH]))
        return authority.issue("server", common_name="etcd")


def test_a_certificate_for_servers_only(etcd_program, tmp_path, store):
    with member(etcd_program, tmp_path / "etcd") as filled:
        filled.put(*PODS)
    with member(etcd_program, tmp_path / "etcd", tls=True, certificate=for_servers_only) as started:
        assert not gateway_answers(started)
        ask_everything(started)
        save_and_verify(started, store)


def test_an_answer_beyond_all_measure_is_given_up(etcd_program, tmp_path):
    with member(etcd_program, tmp_path / "etcd") as started:
        for number in range(5):
            started.put(f"/big/{number}", value=b"x" * 1_000_000)
        with contextlib.closing(GrpcChannel(started.access, started.endpoint, timeout_seconds=30)) as channel:
            with pytest.raises(BrokenAnswerError, match="larger than"):
                channel.call(rpc.RANGE, {"key": b"/big/0", "range_end": b"\0"}, token=None)
            # The channel is as good as before.
            assert channel.call(rpc.RANGE, {"key": b"/big/4", "range_end": b"\0"}, token=None)["count"] == 1


# ---- the other way round: only HTTP/1.1 is left


@pytest.mark.parametrize("tls", [False, True])
def test_behind_a_proxy_for_http_1_the_gateway_answers(plain, tmp_path, tls):
    authority = Authority("proxy-ca", folder=tmp_path) if tls else None
    with http_1_proxy(plain.port, authority) as access, EtcdMember(access, access.endpoints[0]) as one:
        direct = EtcdMember(plain.access, plain.endpoint)
        expected, found = direct.status(), one.status()
        same = {"endpoint": "", "db_size": 0, "db_size_in_use": 0}  # the sizes move by themselves
        assert replace(found, **same) == replace(expected, **same)
        revision = plain.revision()
        assert (one.count_keys(revision), one.hash_kv(revision)) == (30, direct.hash_kv(revision))
        assert one.alarms() == ()
        with pytest.raises(EtcdError, match="required revision is a future revision"):
            one.hash_kv(revision + 1)


def test_a_snapshot_can_be_verified_there_and_not_saved(plain, store):
    snapshotter = EtcdSnapshotter(store=store, access=plain.access)
    snapshotter.save("s")
    with http_1_proxy(plain.port) as access:
        behind = EtcdSnapshotter(store=store, access=access)
        assert {check.name: check.ok for check in behind.verify("s").checks}["live HashKV"]
        with pytest.raises(EtcdError) as raised:
            behind.save("t")
    assert raised.value.code == "etcd-not-grpc"
    assert "HTTP/2" in raised.value.hint
    assert [each.name for each in snapshotter.list()] == ["s"]


def test_the_port_for_http_is_told_from_the_client_port(etcd_program, tmp_path, store):
    with member(etcd_program, tmp_path / "etcd", own_http_port=True) as started:
        access = EtcdAccess(endpoints=(started.http,))
        with pytest.raises(EtcdError) as raised:
            EtcdSnapshotter(store=store, access=access).save("s")
    assert raised.value.code == "etcd-not-grpc"
    assert "--listen-client-urls" in raised.value.hint


# ---- proxies


@contextlib.contextmanager
def tunnel(port):
    """A proxy that leads every CONNECT to a port on this machine, and the hosts that it was asked for."""
    asked = []

    class Tunnel(BaseHTTPRequestHandler):
        def do_CONNECT(self):
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            with socket.create_connection(("127.0.0.1", port)) as server:
                back = threading.Thread(target=pump, args=(server, self.connection), daemon=True)
                back.start()
                pump(self.connection, server)
                server.shutdown(socket.SHUT_RDWR)
                back.join()

        def log_message(self, *_):
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Tunnel)
    proxy.daemon_threads = True
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", asked
    finally:
        proxy.shutdown()
        proxy.server_close()


def pump(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(65536):
            target.sendall(piece)


AWAY = "http://etcd.clusterguard.invalid:2379"


@pytest.fixture
def environment(monkeypatch):
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return monkeypatch.setenv


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy"])
def test_the_way_leads_through_the_proxy_that_etcdctl_would_take(plain, store, environment, name, toolchain):
    with tunnel(plain.port) as (proxy, asked):
        environment(name, proxy)
        etcdctl = toolchain.ensure("etcdctl")["etcdctl"]
        run([etcdctl, "--endpoints", AWAY, "endpoint", "status"], timeout_seconds=30)
        assert set(asked) == {"etcd.clusterguard.invalid:2379"}
        asked.clear()
        away = replace(plain, access=EtcdAccess(endpoints=(AWAY,)))
        snapshotter = EtcdSnapshotter(store=store, access=away.access)
        snapshotter.save("s")
        assert {check.name: check.ok for check in snapshotter.verify("s").checks}["live HashKV"]
        assert set(asked) == {"etcd.clusterguard.invalid:2379"}


@pytest.mark.parametrize(
    "variables",
    [
        {"HTTP_PROXY": "{}"},
        {"ALL_PROXY": "{}"},
        {"HTTPS_PROXY": "{}", "NO_PROXY": "clusterguard.invalid"},
        {"HTTPS_PROXY": "{}", "no_proxy": "10.0.0.0/8,.clusterguard.invalid"},
    ],
)
def test_and_through_none_that_etcdctl_would_not_take(plain, environment, variables):
    with tunnel(plain.port) as (proxy, asked):
        for name, value in variables.items():
            environment(name, value.format(proxy))
        with EtcdMember(EtcdAccess(endpoints=(AWAY,)), AWAY) as one, pytest.raises(EtcdUnavailableError):
            one.status()
        assert asked == []


def test_a_proxy_that_is_down_is_told(environment):
    environment("HTTPS_PROXY", "http://127.0.0.1:1")
    with EtcdMember(EtcdAccess(endpoints=(AWAY,)), AWAY) as one, pytest.raises(EtcdUnavailableError) as raised:
        one.status()
    assert "HTTPS_PROXY" in raised.value.hint


# ---- authentication


@pytest.fixture(scope="module")
def named(etcd_program, toolchain, tmp_path_factory):
    """A member with authentication that wants certificates, whose common names are users: one of them may do all."""
    with member(etcd_program, tmp_path_factory.mktemp("etcd") / "named", tls=True) as started:
        started.put(*PODS)
        for name in ("root", "reader", "clusterguard"):
            started.ask("auth/user/add", {"name": name, "password": f"{name}-password"})
        started.ask("auth/role/add", {"name": "root"})
        started.ask("auth/user/grant", {"user": "root", "role": "root"})
        etcdctl = toolchain.ensure("etcdctl")["etcdctl"]
        access = started.access
        words = [
            etcdctl,
            "--endpoints",
            started.endpoint,
            "--cacert",
            access.ca,
            "--cert",
            access.cert,
            "--key",
            access.key,
        ]
        run([*words, "auth", "enable"], timeout_seconds=30)
        yield started


def test_user_and_password_count_more_than_the_name_in_the_certificate(named, store):
    named_root = replace(named.access, username="root", password="root-password")
    save_and_verify(replace(named, access=named_root), store)


def test_a_name_in_the_certificate_that_may_not_is_told(named, store):
    with pytest.raises(EtcdAuthError, match="permission denied") as raised:
        EtcdSnapshotter(store=store, access=named.access).save("s")
    assert "root role" in raised.value.hint
