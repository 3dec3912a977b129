"""A server whose answers do not end: they trickle or pour, until nobody reads any more."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@contextmanager
def endless_server(*, status=200, piece=b"data: tick\n\n", pause=0.02, chunked=True, headers=()):
    """Give the address of a server that answers what begins with ``/end`` with 200 and ``ok``, all else endlessly."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.close_connection = True
            if self.path.startswith("/end"):
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")
                return
            self.send_response(status)
            for key, value in headers:
                self.send_header(key, value)
            self.send_header(*(("Transfer-Encoding", "chunked") if chunked else ("Connection", "close")))
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece) if chunked else piece)
                    time.sleep(pause)

        def log_message(self, *_):
            pass

    for verb in ("GET", "POST", "PUT"):
        setattr(Handler, f"do_{verb}", Handler.answer)
    for verb in ("GET", "POST", "PUT"):
        setattr(Handler, f"do_{verb}", Handler.answer)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class Jumping:
    """A clock that is some seconds later whenever it is asked."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.now = 0.0

    def __call__(self):
        self.now += self.seconds
        return self.now
