"""A policy on real etcd and real stores, and a server that hears what is told."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml

from clusterguard.cli.main import main
from s3_gateway import BUCKET, CREDENTIALS

CLUSTERGUARD = (sys.executable, "-m", "clusterguard")


class Told(list):
    """What a server was told: path and body, in order."""

    @property
    def paths(self):
        return [path for path, _ in self]


@contextmanager
def http_server():
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            told.append((self.path, self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()))
            self.send_response(200)
            self.end_headers()

        do_GET = do_POST  # noqa: N815 - the library's name

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}", told
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Nightly:
    """A policy file, and the command line on it: in this process, unless the process is the point."""

    def __init__(self, folder, etcd, monkeypatch, capsys):
        self.folder = folder
        self.file = folder / "policy.yaml"
        self.spec = {
            "schedule": {"cron": "0 2 * * *", "timeZone": "Europe/Berlin"},
            "sources": [{"name": "etcd", "etcd": {"endpoints": [etcd.endpoint]}}],
            "locations": [{"name": "disk", "url": "./disk"}],
        }
        self._capsys, self._monkeypatch = capsys, monkeypatch
        monkeypatch.chdir(folder)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", CREDENTIALS.access_key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", CREDENTIALS.secret_key)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("CLUSTERGUARD_ACTOR", "the night shift")
        monkeypatch.setenv("COLUMNS", "200")

    def keep(self, name, secret):
        """Write a file with a secret, for its owner alone."""
        (self.folder / name).touch(mode=0o600)
        (self.folder / name).write_text(secret)

    def write(self, **changes):
        self.spec |= changes
        document = {"apiVersion": "clusterguard.dev/v1alpha1", "kind": "BackupPolicy", "metadata": {"name": "nightly"}}
        self.file.write_text(yaml.safe_dump({**document, "spec": self.spec}, sort_keys=False))
        return self.file

    def start(self, *words, **options):
        """Start a command as a process of its own."""
        settings = {"text": True, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, **options}
        return subprocess.Popen([*CLUSTERGUARD, *words], **settings)

    def call(self, *words, code=0):
        """Run a command to its end and return what it said; its exit code must be the one expected."""
        ended, out, err = self._main(*words)
        assert ended == code, out + err
        return out + err

    def run(self, *options, code=0):
        return self.call("run", str(self.file), *options, code=code)

    def report(self, *options, code=0):
        ended, out, err = self._main("run", str(self.file), "--json", *options)
        assert ended == code, out + err
        return json.loads(out)

    def _main(self, *words):
        self._monkeypatch.setattr("sys.argv", ["clusterguard", *words])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = self._capsys.readouterr()
        return end.value.code or 0, printed.out, printed.err

    def files(self, where="disk"):
        root = self.folder / where / "nightly" / "etcd"
        return sorted(path.name for path in root.iterdir()) if root.is_dir() else []

    def status(self):
        _, out, _ = self._main("status", str(self.file), "--json")
        return json.loads(out)[0]


def bucket_of(server, prefix):
    return f"s3://{BUCKET}/{prefix}?endpoint={server.endpoint}&pathStyle=true&region=us-east-1"


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in Path(folder).rglob("*") if path.is_file())
