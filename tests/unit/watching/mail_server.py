"""Small servers that people are told by: HTTP that keeps what it is sent, and just enough SMTP for one letter."""

from __future__ import annotations

import socket
import socketserver
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Post:
    method: str
    path: str
    body: bytes
    headers: dict


@dataclass
class Server:
    port: int
    seen: list = field(default_factory=list)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"


@contextmanager
def _running(server):
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def http_server(*codes, hang=None):
    """Answer with these codes, one after the other, the last one for good; wait for `hang` first."""
    found = Server(port=0)
    answers = list(codes or (200,))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found.seen.append(Post(self.command, self.path, body, dict(self.headers)))
            if hang is not None:
                hang.wait(20)
            self.send_response(answers.pop(0) if len(answers) > 1 else answers[0])
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found.port = server.server_port
    with _running(server):
        try:
            yield found
        finally:
            if hang is not None:
                hang.set()


@contextmanager
def smtp_server():
    """Take letters; each is kept as (sender and recipients, text)."""
    found = Server(port=0)

    class Handler(socketserver.StreamRequestHandler):
        def say(self, line):
            self.wfile.write(line.encode() + b"\r\n")

        def handle(self):
            envelope = []
            self.say("220 here")
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"DATA":
                    self.say("354 go on")
                    letter = b"".join(iter(self.rfile.readline, b".\r\n"))
                    found.seen.append((envelope, letter.decode()))
                elif verb in {b"MAIL", b"RCPT"}:
                    envelope.append(line.decode().strip())
                self.say("221 bye" if verb == b"QUIT" else "250 ok")
                if verb == b"QUIT":
                    return

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    found.port = server.server_address[1]
    with _running(server):
        yield found


def closed_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
