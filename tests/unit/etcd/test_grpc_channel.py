"""What a broken or hostile server can do to a call: nothing that lasts, and nothing that fills the memory."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from clusterguard.clusters.base import EtcdAccess
from clusterguard.errors import EtcdAuthError, EtcdError, EtcdUnavailableError
from clusterguard.etcd import rpc
from clusterguard.etcd.gateway import JsonGateway
from clusterguard.etcd.grpc import GrpcChannel
from clusterguard.etcd.member import EtcdMember
from clusterguard.etcd.rpc import BrokenAnswerError, RpcError

DATA, HEADERS, SETTINGS = 0, 1, 4
END_STREAM, END_HEADERS = 1, 4


def frame(kind, payload=b"", *, flags=0, stream=1):
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def header(name, value):
    """HPACK's literal field without indexing, with a new name."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def message(payload):
    return b"\0" + len(payload).to_bytes(4, "big") + payload


HELLO = frame(SETTINGS, stream=0)
BEGIN = frame(HEADERS, b"\x88" + header("content-type", "application/grpc"), flags=END_HEADERS)


def end(**fields):
    block = b"".join(header(name.replace("_", "-"), value) for name, value in fields.items())
    return frame(HEADERS, block, flags=END_HEADERS | END_STREAM)


@pytest.fixture
def served():
    """Return a function that answers every call with pieces; between them it waits for so many seconds."""
    stop = threading.Event()
    listeners = []

    def serve(pieces, *, every=0.0):
        listener = socket.create_server(("127.0.0.1", 0))
        listeners.append(listener)

        def answer():
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.recv(65536)
                        for piece in pieces:
                            connection.sendall(piece)
                            if stop.wait(every):
                                return
                        connection.shutdown(socket.SHUT_WR)
                        while connection.recv(65536):
                            pass  # closed with something unread, it would be reset, and what was sent be lost

        threading.Thread(target=answer, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    stop.set()
    for each in listeners:
        each.close()


def ask(endpoint, *, seconds=10, call=rpc.STATUS):
    channel = GrpcChannel(EtcdAccess(endpoints=(endpoint,)), endpoint, timeout_seconds=seconds)
    with contextlib.closing(channel):
        return channel.call(call, {}, token=None)


STATUS = message(b"\x0a\x02\x08\x07" + b"\x12\x053.7.3" + b"\x42\x01e\x42\x01f")


def test_a_whole_answer_is_read(served):
    answer = ask(served([HELLO, BEGIN, frame(DATA, STATUS), end(grpc_status="0")]))
    assert (answer["header"]["cluster_id"], answer["version"], answer["errors"]) == (7, "3.7.3", ("e", "f"))


def test_an_answer_that_drips_is_given_up(served):
    endpoint = served(itertools.chain([HELLO, BEGIN], itertools.repeat(frame(DATA, b"x"))), every=0.05)
    with pytest.raises(EtcdUnavailableError, match="timed out"):
        ask(endpoint, seconds=0.5)


def test_a_server_that_only_listens_is_given_up(served):
    with pytest.raises(EtcdUnavailableError, match="timed out"):
        ask(served([b""], every=60), seconds=0.5)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        STATUS[:-1],
        message(b"\x0a\x02\x08\x07") * 2,
        b"\x01" + message(b"\x0a\x02\x08\x07")[1:],  # compressed
        message(b"\x0a\x05\x08\x07"),  # ends behind the message
        message(b"\x08\x07"),  # a number where the header belongs
        message(b"\x12\x01\xff"),  # no text
    ],
)
def test_what_is_no_answer_is_told(served, answer):
    endpoint = served([HELLO, BEGIN, frame(DATA, answer), end(grpc_status="0")])
    with pytest.raises(BrokenAnswerError):
        ask(endpoint)
    with pytest.raises(EtcdError, match="cannot be read"):
        EtcdMember(EtcdAccess(endpoints=(endpoint,)), endpoint).status()


def test_a_refusal_comes_with_its_code_and_words(served):
    endpoint = served([HELLO, BEGIN, end(grpc_status="9", grpc_message="rpc%20not supported")])
    with pytest.raises(RpcError, match="rpc not supported") as raised:
        ask(endpoint)
    assert raised.value.code == 9


def test_an_answer_without_a_status_was_cut(served):
    with pytest.raises(EtcdUnavailableError, match="without a gRPC status"):
        ask(served([HELLO, BEGIN, frame(DATA, STATUS, flags=END_STREAM)]))


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("etcdserver: user name is empty", EtcdAuthError, "etcd-auth"),
        ("auth: user name is empty", EtcdAuthError, "etcd-auth"),  # up to 3.5, with status Unknown
        ("auth: permission denied", EtcdAuthError, "etcd-auth"),
        ("etcdserver: rpc not supported for learner", EtcdError, "etcd-learner"),  # up to 3.5, with status Unavailable
    ],
)
@pytest.mark.parametrize("status", ["2", "3", "9", "14"])
def test_versions_differ_in_codes_and_their_words_count(served, said, kind, code, status):
    endpoint = served([HELLO, BEGIN, end(grpc_status=status, grpc_message=said)])
    with pytest.raises(EtcdError) as raised:
        EtcdMember(EtcdAccess(endpoints=(endpoint,)), endpoint).hash_kv(1)
    assert (type(raised.value), raised.value.code) == (kind, code)


def test_who_has_no_cluster_is_not_etcd(served):
    endpoint = served([HELLO, BEGIN, frame(DATA, message(b"\x0a\x00\x12\x063.6.11")), end(grpc_status="0")])
    with pytest.raises(EtcdError) as raised:
        EtcdMember(EtcdAccess(endpoints=(endpoint,)), endpoint).status()
    assert raised.value.code == "kine"
    assert "back up its database" in raised.value.hint


# ---- the JSON gateway


@pytest.fixture
def gateway():
    """Return a function that asks a gateway whose answers consist of pieces."""
    stop = threading.Event()
    servers = []

    def ask_for(pieces, *, every=0.0, seconds=10):
        class Answer(BaseHTTPRequestHandler):
            def do_POST(self):
                self.send_response(200)
                self.end_headers()
                with contextlib.suppress(OSError):
                    for piece in pieces:
                        self.wfile.write(piece)
                        if stop.wait(every):
                            return

            def log_message(self, *_):
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        server.daemon_threads = True
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.server_port}"
        with contextlib.closing(
            JsonGateway(EtcdAccess(endpoints=(endpoint,)), endpoint, timeout_seconds=seconds)
        ) as asked:
            return asked.call(rpc.ALARM, {"action": "GET"}, token=None)

    yield ask_for
    stop.set()
    for each in servers:
        each.shutdown()
        each.server_close()


def test_both_ways_give_the_same_answer(served, gateway):
    alarm = message(b"\x0a\x04\x08\x07\x18\x05" + b"\x12\x04\x08\x09\x10\x01")
    by_grpc = ask(served([HELLO, BEGIN, frame(DATA, alarm), end(grpc_status="0")]), call=rpc.ALARM)
    by_json = gateway(
        [b'{"header":{"cluster_id":"7","revision":"5"},"alarms":[{"memberID":"9","alarm":"NOSPACE"}],"new":1}']
    )
    assert by_grpc == by_json
    assert by_json["alarms"] == ({"memberID": 9, "alarm": "NOSPACE"},)


def test_json_without_end_is_given_up(gateway):
    with pytest.raises(BrokenAnswerError, match="larger than"):
        gateway(itertools.repeat(b"x" * 65536))


def test_json_that_drips_is_given_up(gateway):
    with pytest.raises(EtcdUnavailableError, match="in time"):
        gateway(itertools.repeat(b"x"), every=0.05, seconds=0.5)


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"{}", b'{"header": 7}', b'{"header": {}, "alarms": 7}'])
def test_json_that_is_no_answer_is_told(gateway, answer):
    with pytest.raises(BrokenAnswerError):
        gateway([answer])
