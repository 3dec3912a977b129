"""An HTTP proxy that stands between a client and an S3 server and goes wrong on demand."""

from __future__ import annotations

import contextlib
import http.client
import io
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Fault:
    """What to do instead of passing an answer on.

    ``status`` answers that without asking the server. ``cut_after`` passes that many bytes of the body on and
    ends the connection. ``lose_answer`` asks the server and then ends the connection. ``stall`` never
    answers, or with ``cut_after`` not beyond that. ``damage`` changes one byte of the body, there or back.
    """

    status: int | None = None
    code: str = "Injected"
    cut_after: int | None = None
    lose_answer: bool = False
    stall: bool = False
    damage: bool = False


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]

    @property
    def is_part(self):
        return self.method == "PUT" and "partNumber=" in self.path

    @property
    def is_join(self):
        return self.method == "POST" and "uploadId=" in self.path


@dataclass
class FaultProxy:
    """``decide`` is asked about every request and may return a Fault.

    ``most_parts`` is how many parts of uploads were underway at the same time.
    """

    endpoint: str = ""
    decide: Callable[[Request], Fault | None] = lambda _: None
    most_parts: int = 0
    parts: int = 0
    seen: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def first(self, count, fault, *, when=lambda request: True):
        """Go wrong for the first ``count`` requests of a kind."""
        left = [count]

        def decide(request):
            if when(request) and left[0] > 0:
                left[0] -= 1
                return fault
            return None

        self.decide = decide

    def enter(self, request):
        with self.lock:
            self.seen.append(request)
            self.parts += request.is_part
            self.most_parts = max(self.most_parts, self.parts)
            return self.decide(request) or Fault()

    def leave(self, request):
        with self.lock:
            self.parts -= request.is_part

    def always(self, fault, *, when=lambda request: True):
        self.first(1 << 30, fault, when=when)


def damaged(data):
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data


class Handler(BaseHTTPRequestHandler):
    """Answers one request of each connection, as the proxy decides."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        self.close_connection = True
        proxy = self.server.proxy
        request = Request(self.command, self.path, dict(self.headers.items()))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = proxy.enter(request)
        try:
            if fault.stall and fault.cut_after is None:
                proxy.ended.wait(60)
            elif fault.status:
                self.refuse(fault)
            else:
                self.pass_on(damaged(body) if fault.damage else body, fault)
        finally:
            proxy.leave(request)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer  # noqa: N815 - the names that http.server looks for

    def refuse(self, fault):
        body = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode() if fault.code else b""
        self.send_response(fault.status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def pass_on(self, body, fault):
        target = self.server.target
        with contextlib.closing(http.client.HTTPConnection(target.hostname, target.port, timeout=60)) as upstream:
            # The Host header is signed: it stays the client's.
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"expect", "connection"}:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            # Closed here: of an answer that is not read to its end nobody else lets the socket go.
            with upstream.getresponse() as response:
                if fault.lose_answer:
                    response.read()
                else:
                    self.pass_back(response, fault)

    def pass_back(self, response, fault):
        size = response.getheader("Content-Length")
        whole = response.read() if size is None else None
        self.send_response(response.status)
        for name, value in response.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "date", "server", "content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", size or str(len(whole)))
        self.send_header("Connection", "close")
        self.end_headers()
        for piece in pieces(response if whole is None else io.BytesIO(whole), fault.cut_after):
            self.wfile.write(damaged(piece) if fault.damage else piece)
        if fault.stall:
            self.server.proxy.ended.wait(60)


def pieces(body, limit):
    left = limit
    while piece := body.read(65536 if left is None else min(65536, left)):
        yield piece
        left = left if left is None else left - len(piece)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, target, proxy):
        super().__init__(("127.0.0.1", 0), Handler)
        self.target = target
        self.proxy = proxy

    def handle_error(self, request, client_address):
        """Clients that go away are what these tests are about."""


@contextmanager
def fault_proxy(upstream):
    """Run a proxy in front of the server at an address."""
    proxy = FaultProxy()
    with Server(urlsplit(upstream), proxy) as server:
        proxy.endpoint = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            server.shutdown()
            thread.join()
