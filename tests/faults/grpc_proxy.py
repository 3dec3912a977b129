"""A proxy in front of etcd that reads which call a client makes, and lets one kind of call go wrong.

It speaks HTTP/2 as far as frames and header names go; what it does not harm it passes on as it came.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field

from hpack import Decoder

CALLS = {
    "/etcdserverpb.Maintenance/Status": "status",
    "/etcdserverpb.Maintenance/Snapshot": "snapshot",
    "/etcdserverpb.Maintenance/HashKV": "hashkv",
    "/etcdserverpb.Maintenance/Alarm": "alarms",
    "/etcdserverpb.KV/Range": "count",
    "/etcdserverpb.Cluster/MemberList": "members",
}
FAULTS = ("before", "after", "middle", "hang", "wrong")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _CONTINUATION = 0, 1, 9
_END_STREAM, _END_HEADERS, _PADDED, _PRIORITY = 1, 4, 8, 32
_MIDDLE = 100_000  # bytes of a snapshot that pass before it breaks
_HANDSHAKE = 1000  # bytes of a TLS handshake that pass before it does


@dataclass
class GrpcProxy:
    """``verb`` and ``fault`` say what goes wrong; ``struck`` is called whenever a call of that kind arrives.

    ``calls`` are the verbs that were asked for, in order. A fault stays until another one is set.
    """

    endpoint: str = ""
    verb: str = ""
    fault: str = ""
    struck: object = lambda: None
    calls: list[str] = field(default_factory=list)
    freed: threading.Event = field(default_factory=threading.Event)

    def set(self, verb="", fault="", struck=lambda: None):
        self.freed.set()
        self.freed = threading.Event()
        self.verb, self.fault, self.struck = verb, fault, struck
        self.calls.clear()

    def arrived(self, verb):
        self.calls.append(verb)
        if verb != self.verb:
            return ""
        self.struck()
        return self.fault

    def run(self, client, server):
        _Connection(self, client, server).run()


class _GoneError(Exception):
    """The proxy ends the connection."""


class _Connection:
    def __init__(self, proxy, client, server):
        self.proxy, self.client, self.server = proxy, client, server
        self.decoder = Decoder()
        self.headers = b""
        self.streams = {}  # number to [verb, fault, bytes of data so far]

    def run(self):
        preface = _exactly(self.client, len(_PREFACE))
        self.server.sendall(preface)
        requests, answers = self._requests, self._answers
        if preface != _PREFACE:  # HTTP/1.1: none of the calls that are harmed here
            requests, answers = (lambda: _pump(self.client, self.server)), (lambda: _pump(self.server, self.client))
        other = threading.Thread(target=self._guarded, args=(answers,), daemon=True)
        other.start()
        self._guarded(requests)
        other.join()

    def _guarded(self, pump):
        with contextlib.suppress(OSError, _GoneError, EOFError):
            pump()
        for each in (self.client, self.server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _requests(self):
        for kind, flags, stream, frame in _frames(self.client):
            if kind in (_HEADERS, _CONTINUATION):
                self._hear(kind, flags, stream, frame[9:])
            self.server.sendall(frame)

    def _hear(self, kind, flags, stream, block):
        if kind == _HEADERS and flags & _PADDED:
            block = block[1 : len(block) - block[0]]
        self.headers += block[5:] if kind == _HEADERS and flags & _PRIORITY else block
        if not flags & _END_HEADERS:
            return
        path = dict(self.decoder.decode(self.headers, raw=True)).get(b":path", b"").decode()
        self.headers = b""
        verb = CALLS.get(path, path)
        fault = self.proxy.arrived(verb)
        self.streams[stream] = [verb, fault, 0]
        if fault == "before":
            raise _GoneError
        if fault == "hang":
            self.proxy.freed.wait(60)
            raise _GoneError

    def _answers(self):
        for kind, flags, stream, frame in _frames(self.server):
            self._pass_back(kind, flags, stream, frame)

    def _pass_back(self, kind, flags, stream, frame):
        verb, fault, passed = self.streams.get(stream, ("", "", 0))
        if not fault:
            self.client.sendall(frame)
            return
        if fault == "after":
            # The work is done, and its answer lost: of a snapshot the trailers, which say that it is whole.
            if verb == "snapshot" and kind == _DATA:
                self.client.sendall(frame)
            elif flags & _END_STREAM:
                raise _GoneError
            return
        if fault == "middle" and (verb != "snapshot" or passed > _MIDDLE):
            self.client.sendall(frame[: 9 + (len(frame) - 9) // 2])
            raise _GoneError
        if kind == _DATA:
            self.streams[stream][2] += len(frame)
            # Its last byte: of an answer a value; of a snapshot one that its own digest covers.
            if fault == "wrong" and len(frame) > 9 and (verb != "snapshot" or passed > _MIDDLE):
                self.streams[stream][1] = ""
                frame = frame[:-1] + bytes([frame[-1] ^ 1])
        self.client.sendall(frame)


class TcpProxy(GrpcProxy):
    """The same for what it cannot read, such as TLS: here a verb is the number of the connection, from 1.

    ``after`` is not to be had: nobody can tell when the call is done.
    """

    def run(self, client, server):
        fault = self.arrived(str(len(self.calls) + 1))
        if fault == "hang":
            self.freed.wait(60)
        if fault in ("before", "hang"):
            return
        threading.Thread(target=_suppressed, args=(_pump, client, server), daemon=True).start()
        passed = 0
        while piece := server.recv(65536):
            passed += len(piece)
            if fault == "wrong" and passed > _HANDSHAKE:
                piece = piece[:-1] + bytes([piece[-1] ^ 1])
            client.sendall(piece)
            if fault == "middle" and passed > _HANDSHAKE:
                return


def _suppressed(pump, source, target):
    with contextlib.suppress(OSError):
        pump(source, target)
        target.shutdown(socket.SHUT_WR)


def _frames(source):
    while True:
        head = _exactly(source, 9)
        length = int.from_bytes(head[:3], "big")
        yield head[3], head[4], int.from_bytes(head[5:], "big") & 0x7FFFFFFF, head + _exactly(source, length)


def _exactly(source, size):
    data = bytearray()
    while len(data) < size:
        piece = source.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)


def _pump(source, target):
    while piece := source.recv(65536):
        target.sendall(piece)


@contextmanager
def grpc_proxy(port, *, tls=False):
    """Run a proxy in front of a member's client port; with TLS one that counts connections."""
    proxy = TcpProxy() if tls else GrpcProxy()
    listener = socket.create_server(("127.0.0.1", 0))
    proxy.endpoint = f"http{'s' * tls}://127.0.0.1:{listener.getsockname()[1]}"

    def serve(client):
        with contextlib.suppress(OSError, EOFError), contextlib.ExitStack() as stack:
            server = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stack.enter_context(client)
            proxy.run(client, server)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.set()
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
