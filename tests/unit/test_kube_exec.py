"""Commands in containers, against an API server that speaks the protocol and does what a test says."""

import base64
import hashlib
import json
import socket
import struct
import threading
import time
from contextlib import closing, suppress

import pytest

from clusterguard.clusters.kube import Connection
from clusterguard.clusters.kube_exec import Container, find_container, run_in
from clusterguard.errors import (
    ClusterError,
    ClusterUnreachableError,
    ConfigError,
    ResourceNotFoundError,
    WaitTimeoutError,
)

WEB = Container(namespace="shop", pod="web-0", name="web")
_KEY = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def ended(code):
    if not code:
        return {"status": "Success"}
    return {
        "status": "Failure",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
    }


class Server:
    """Takes one connection after the other; ``answer`` says what happens on it."""

    def __init__(self, answer, *, protocol="v5.channel.k8s.io", refuse=None):
        self._answer, self._protocol, self._refuse = answer, protocol, refuse
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.request = ""
        self.stdin = bytearray()
        self.stdin_closed = False
        threading.Thread(target=self._serve, daemon=True).start()

    def connection(self):
        headers = {"Authorization": "Bearer secret-token"}
        return Connection(server=f"http://127.0.0.1:{self._listener.getsockname()[1]}", headers=headers)

    def close(self):
        self._listener.close()

    def send(self, channel, data):
        payload = bytes([channel]) + (data if isinstance(data, bytes) else json.dumps(data).encode())
        size = bytes([len(payload)]) if len(payload) < 126 else b"\x7f" + struct.pack(">Q", len(payload))
        self._peer.sendall(b"\x82" + size + payload)

    def receive(self):
        """Take one message in, and return its channel; None once the client went away."""
        head = self._exactly(2)
        if not head or head[0] & 0x0F == 8:
            return None
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(self._exactly(2 if size == 126 else 8), "big")
        mask, data = self._exactly(4), self._exactly(size)
        data = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
        if data[0] == 255:
            self.stdin_closed = data[1] == 0
        else:
            self.stdin += data[1:]
        return data[0]

    def _serve(self):
        try:
            self._peer, _ = self._listener.accept()
        except OSError:
            return
        with closing(self._peer):
            while "\r\n\r\n" not in self.request:
                self.request += self._peer.recv(65536).decode()
            if self._refuse:
                code, body = self._refuse
                self._peer.sendall(f"HTTP/1.1 {code} No\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
                return
            key = next(
                line.split(": ")[1]
                for line in self.request.splitlines()
                if line.lower().startswith("sec-websocket-key")
            )
            accept = base64.b64encode(hashlib.sha1(key.encode() + _KEY).digest()).decode()  # noqa: S324 - as RFC 6455 has it
            self._peer.sendall(
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: {self._protocol}\r\n\r\n".encode()
            )
            self._answer(self)

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self._peer.recv(size - len(data))
            if not piece:
                return b""
            data += piece
        return data


@pytest.fixture
def serve():
    servers = []

    def serve(answer, **options):
        servers.append(Server(answer, **options))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def says(*messages):
    def answer(server):
        for channel, data in messages:
            server.send(channel, data)

    return answer


@pytest.mark.parametrize("code", [0, 1, 137])
def test_output_and_exit_code_are_told_apart(serve, code):
    server = serve(says((1, b"out "), (2, b"err"), (1, b"put"), (3, ended(code))))
    done = run_in(server, WEB, ["cat", "/a b"])
    assert (done.exit_code, done.stdout, done.stderr) == (code, b"out put", b"err")


def test_the_command_is_handed_on_word_by_word_as_the_user_of_the_kubeconfig(serve):
    server = serve(says((3, ended(0))))
    run_in(server, WEB, ["sh", "-c", "echo $HOME & exit"])
    line = server.request.splitlines()[0]
    assert line.startswith(
        "GET /api/v1/namespaces/shop/pods/web-0/exec?container=web&stdout=true&stderr=true&command=sh"
    )
    assert "&command=echo+%24HOME+%26+exit " in line
    assert "stdin" not in line
    assert "Authorization: Bearer secret-token" in server.request


@pytest.mark.parametrize(("protocol", "closed"), [("v5.channel.k8s.io", True), ("v4.channel.k8s.io", False)])
def test_standard_input_arrives_whole_and_its_end_where_the_protocol_knows_one(serve, protocol, closed):
    data = [b"a" * 100, b"b" * 300_000]

    def answer(server):
        while len(server.stdin) < 300_100 or (closed and not server.stdin_closed):
            server.receive()
        server.send(3, ended(0))

    server = serve(answer, protocol=protocol)
    assert run_in(server, WEB, ["cat"], stdin=data, timeout_seconds=30).exit_code == 0
    assert bytes(server.stdin) == b"".join(data)
    assert server.stdin_closed == closed


def test_a_command_that_does_not_end_is_given_up_in_time(serve):
    def answer(server):
        server.send(1, b"still working")
        server.receive()

    with pytest.raises(WaitTimeoutError, match="still working"):  # nothing else would end it
        run_in(serve(answer), WEB, ["sleep", "1000"], timeout_seconds=0.3)


def test_a_command_that_never_stops_talking_is_given_up_in_time(serve):
    def answer(server):
        while True:
            try:
                server.send(1, b"x")
            except OSError:
                return

    with pytest.raises(WaitTimeoutError):
        run_in(serve(answer), WEB, ["yes"], timeout_seconds=0.3, most_output=1 << 40)


def test_a_message_that_trickles_is_given_up_in_time(serve):
    """One long message: between two of its bytes there is never much silence."""

    def answer(server):
        with suppress(OSError):
            server._peer.sendall(b"\x82\x7f" + struct.pack(">Q", 1 << 20))
            while True:
                server._peer.sendall(b"\x01")
                time.sleep(0.02)

    with pytest.raises(WaitTimeoutError):
        run_in(serve(answer), WEB, ["cat"], timeout_seconds=0.5)


def test_a_message_longer_than_the_limit_is_not_read_to_its_end(serve):
    def answer(server):
        with suppress(OSError):
            server._peer.sendall(b"\x82\x7f" + struct.pack(">Q", 1 << 60))
            while True:
                server._peer.sendall(b"\x01" * 65536)

    with pytest.raises(ClusterError, match="printed more than"):
        run_in(serve(answer), WEB, ["cat"], timeout_seconds=60, most_output=1000)


def test_output_beyond_the_limit_is_an_error(serve):
    with pytest.raises(ClusterError, match="more than 10 bytes"):
        run_in(serve(says((1, b"x" * 11), (3, ended(0)))), WEB, ["yes"], most_output=10)


def test_a_connection_that_ends_before_the_command_is_no_success(serve):
    with pytest.raises(ClusterUnreachableError) as caught:
        run_in(serve(says((1, b"half"))), WEB, ["cat"])
    assert (caught.value.code, caught.value.fields) == ("command-cut-off", {"output": "half"})


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ('OCI runtime exec failed: exec: "nope": executable file not found in $PATH', ClusterError),
        ('container not found ("web")', ClusterUnreachableError),
    ],
)
def test_a_missing_program_is_told_from_a_container_that_has_just_ended(serve, message, error):
    failed = {"status": "Failure", "reason": "InternalError", "message": message}
    with pytest.raises(ClusterError) as raised:
        run_in(serve(says((3, failed))), WEB, ["nope"])
    assert type(raised.value) is error
    assert message in str(raised.value)


@pytest.mark.parametrize(
    ("code", "error"),
    [(403, ClusterError), (404, ResourceNotFoundError), (500, ClusterUnreachableError), (503, ClusterUnreachableError)],
)
def test_a_refusal_is_told_in_the_servers_words(serve, code, error):
    refused = serve(None, refuse=(code, json.dumps({"kind": "Status", "message": 'pods "web-0" …'})))
    with pytest.raises(ClusterError, match='pods "web-0"') as raised:
        run_in(refused, WEB, ["true"])
    assert type(raised.value) is error


def test_nobody_there_is_unreachable(serve):
    server = serve(None)
    server.close()
    with pytest.raises(ClusterUnreachableError):
        run_in(server, WEB, ["true"])


# ---- which container -------------------------------------------------------------------------------------


def pod(
    name, *, ready=True, phase="Running", labels=None, leaving=False, containers=("web", "sidecar"), state="running"
):
    metadata = {"name": name, "namespace": "shop", "labels": labels or {"app": "web"}}
    metadata |= {"deletionTimestamp": "2030-01-01T00:00:00Z"} if leaving else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"containers": [{"name": each} for each in containers]},
        "status": {
            "phase": phase,
            "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
            "containerStatuses": [{"name": each, "state": {state: {}}} for each in containers],
        },
    }


class Pods:
    def __init__(self, *pods):
        self.pods = pods

    def resource(self, kind, *, api_version):
        return kind

    def list(self, resource, namespace, *, label_selector):
        yield from self.pods

    def get(self, resource, name, namespace):
        for each in self.pods:
            if each["metadata"]["name"] == name:
                return each
        raise ResourceNotFoundError(name)


def test_the_first_ready_pod_by_name_is_taken_and_its_first_container():
    pods = Pods(pod("web-2"), pod("web-1"), pod("web-0", ready=False), pod("web-00", leaving=True))
    assert find_container(pods, "shop", selector="app=web") == Container(namespace="shop", pod="web-1", name="web")


def test_a_container_may_be_named():
    assert find_container(Pods(pod("web-0")), "shop", pod="web-0", container="sidecar").name == "sidecar"


def test_a_named_pod_need_only_run():
    assert find_container(Pods(pod("web-0", ready=False)), "shop", pod="web-0").pod == "web-0"


@pytest.mark.parametrize(
    ("pods", "told"),
    [
        ([], "there is none"),
        ([pod("web-0", phase="Pending", ready=False)], "web-0: Pending"),
        ([pod("web-0", leaving=True)], "web-0: being deleted"),
    ],
)
def test_where_none_runs_it_is_told_what_there_is(pods, told):
    with pytest.raises(ClusterUnreachableError, match=told):
        find_container(Pods(*pods), "shop", selector="app=web")


def test_a_named_pod_that_is_not_there_is_not_there_yet():
    with pytest.raises(ClusterUnreachableError) as caught:
        find_container(Pods(pod("web-0")), "shop", pod="web-9")
    assert (caught.value.code, caught.value.fields) == (
        "no-running-pod",
        {"namespace": "shop", "pod": "web-9", "found": []},
    )


def test_a_container_that_waits_is_told_with_its_state():
    with pytest.raises(ClusterUnreachableError) as caught:
        find_container(Pods(pod("web-0", state="waiting")), "shop", pod="web-0")
    assert (caught.value.code, caught.value.fields["state"]) == ("container-not-running", "waiting")


def test_a_container_that_no_pod_has_is_a_mistake():
    with pytest.raises(ConfigError, match="has no container db"):
        find_container(Pods(pod("web-0")), "shop", pod="web-0", container="db")
