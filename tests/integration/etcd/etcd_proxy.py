"""Proxies in front of etcd: one lets HTTP/1 pass and harms gRPC, the other passes HTTP/1 alone."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from clusterguard.clusters.base import EtcdAccess

_PREFACE = b"PRI * HTTP/2"  # how an HTTP/2 connection begins, and no other does
_PIECE = 64 * 1024


class Proxy:
    """Set one of the faults before connecting; it then holds for every HTTP/2 connection.

    Attributes:
        cut_after: Close the connection once this many bytes went to the client.
        stall_after: Send nothing more after so many bytes, but keep the connection.
        harm: Called with (bytes so far, piece); what it returns is sent instead.
        sent: Bytes that went to the client over the HTTP/2 connection with most of them.
    """

    def __init__(self, port):
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open = []
        self.endpoint = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.reset()
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self):
        self.cut_after = self.stall_after = None
        self.harm = lambda _, piece: piece
        self._sent = []

    @property
    def sent(self):
        return max(self._sent, key=len, default=bytearray())

    def close(self):
        self._listener.close()
        for each in self._open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self._target))
            self._open += [client, server]
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client, server):
        with contextlib.suppress(OSError):
            first = client.recv(_PIECE)
            harmed = first.startswith(_PREFACE)
            server.sendall(first)
            threading.Thread(target=_pump, args=(client, server), daemon=True).start()
            self._send_back(server, client) if harmed else _pump(server, client)
        for each in (client, server):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _send_back(self, server, client):
        sent = bytearray()
        self._sent.append(sent)
        while piece := server.recv(_PIECE):
            piece = self.harm(len(sent), piece)
            if self.stall_after is not None:
                piece = piece[: max(0, self.stall_after - len(sent))]
            if self.cut_after is not None:
                piece = piece[: max(0, self.cut_after - len(sent))]
            sent += piece
            client.sendall(piece)
            if self.cut_after is not None and len(sent) >= self.cut_after:
                return


def _pump(source, target):
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            target.sendall(piece)


@contextmanager
def proxy(port):
    """Run a proxy in front of a port on this machine."""
    running = Proxy(port)
    try:
        yield running
    finally:
        running.close()


def end_of_stream(sent):
    """Return where the frame that ends the snapshot's call ends: everything before it is needed.

    One connection has several calls; the snapshot is the one with most bytes.
    """
    at, ends, sizes = 0, {}, Counter()
    while at + 9 <= len(sent):
        length, kind, flags = int.from_bytes(sent[at : at + 3], "big"), sent[at + 3], sent[at + 4]
        call = int.from_bytes(sent[at + 5 : at + 9], "big")
        at += 9 + length
        if call:
            sizes[call] += length
        if kind == 1 and flags & 1:  # HEADERS with END_STREAM: gRPC's trailers
            ends[call] = at
    assert ends, "the stream was not whole"
    return ends[max(sizes, key=sizes.get)]


@contextmanager
def http_1_proxy(port, authority=None):
    """A reverse proxy that passes nothing but HTTP/1.1, with TLS where there is an authority."""

    class Proxy(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            inner = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            inner.request("POST", self.path, body, {"Authorization": self.headers.get("Authorization", "")})
            answer = inner.getresponse()
            data = answer.read()
            inner.close()
            self.send_response(answer.status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
    if authority:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(*authority.issue("proxy", common_name="proxy"))
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        scheme, ca = ("https", authority.file) if authority else ("http", None)
        yield EtcdAccess(endpoints=(f"{scheme}://127.0.0.1:{server.server_port}",), ca=ca)
    finally:
        server.shutdown()
        server.server_close()
