"""Real etcd members on this machine."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import socket
import ssl
import time
from contextlib import contextmanager
from dataclasses import dataclass

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.certificates import Authority
from clusterguard.process import spawn, tail


@dataclass
class Member:
    access: EtcdAccess
    process: object
    log: object
    token: str = ""

    @property
    def endpoint(self):
        return self.access.endpoints[0]

    @property
    def port(self):
        return int(self.endpoint.rpartition(":")[2])

    def ask(self, path, body):
        """Post to the gateway, as root where etcd asks who we are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        if self.endpoint.startswith("https"):
            context = ssl.create_default_context(cafile=str(self.access.ca))
            context.load_cert_chain(self.access.cert, self.access.key)
            connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=30, context=context)
        with contextlib.closing(connection):
            headers = {"Authorization": self.token} if self.token else {}  # before 3.5.5 an empty one is refused
            connection.request("POST", f"/v3/{path}", json.dumps(body), headers)
            response = connection.getresponse()
            answer = json.loads(response.read())
        assert response.status == 200, f"{path}: {answer}"
        return answer

    def put(self, *keys, value=b"v"):
        puts = [{"requestPut": {"key": b64(key.encode()), "value": b64(value)}} for key in keys]
        return int(self.ask("kv/txn", {"success": puts})["header"]["revision"])

    def delete(self, key):
        return int(self.ask("kv/deleterange", {"key": b64(key.encode())})["header"]["revision"])

    def compact(self, revision):
        self.ask("kv/compaction", {"revision": str(revision), "physical": True})

    def revision(self):
        return int(self.ask("maintenance/status", {})["header"]["revision"])

    def hash_kv(self, revision):
        return self.ask("maintenance/hashkv", {"revision": str(revision)})["hash"]


def b64(data):
    return base64.b64encode(data).decode()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def member(program, folder, *, tls=False, flags=()):
    """Run a cluster of one member; with ``tls`` it wants a client certificate."""
    folder.mkdir(exist_ok=True)
    scheme = "https" if tls else "http"
    client, peer = f"{scheme}://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    argv = [program, "--name=m1", f"--data-dir={folder / 'data'}", "--log-level=warn", "--unsafe-no-fsync"]
    argv += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=m1={peer}"]
    access = EtcdAccess(endpoints=(client,))
    if tls:
        authority = Authority("etcd-ca", folder=folder)
        cert, key = authority.issue("server", common_name="etcd")
        argv += [f"--cert-file={cert}", f"--key-file={key}"]
        argv += [f"--trusted-ca-file={authority.file}", "--client-cert-auth"]
        own_cert, own_key = authority.issue("client", common_name="clusterguard")
        access = EtcdAccess(endpoints=(client,), ca=authority.file, cert=own_cert, key=own_key)
    log = folder / "log"
    process = spawn([*argv, *flags], log=log)
    started = Member(access, process, log)
    try:
        _wait_for(started)
        yield started
    finally:
        process.stop(grace_seconds=0)


def _wait_for(started):
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            started.revision()
            return
        assert started.process.alive(), tail(started.log)
        assert time.monotonic() < deadline, tail(started.log)
        time.sleep(0.03)
