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
    http: str = ""  # where it is not the client port
    token: str = ""

    @property
    def endpoint(self):
        return self.access.endpoints[0]

    @property
    def port(self):
        return int(self.endpoint.rpartition(":")[2])

    def request(self, method, path, body=None):
        """Ask the port for HTTP, which is the client port unless it has one of its own."""
        url = self.http or self.endpoint
        scheme, port = url.partition(":")[0], int(url.rpartition(":")[2])
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        if scheme == "https":
            context = ssl.create_default_context(cafile=str(self.access.ca))
            context.load_cert_chain(self.access.cert, self.access.key)
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        with contextlib.closing(connection):
            headers = {"Authorization": self.token} if self.token else {}  # before 3.5.5 an empty one is refused
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def ask(self, path, body):
        """Post to the gateway, as root where etcd asks who we are."""
        status, answer = self.request("POST", f"/v3/{path}", json.dumps(body))
        assert status == 200, f"{path}: {answer}"
        return answer

    def healthy(self):
        return self.request("GET", "/health")[1]["health"] == "true"

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
def member(program, folder, *, tls=False, own_http_port=False, certificate=None, flags=(), add_to=None):
    """Run a member on the data in a folder, by default the only one of its cluster.

    Args:
        program: etcd, of any version.
        folder: Its own.
        tls: It wants a client certificate.
        own_http_port: Its client port speaks gRPC only, and another one HTTP.
        certificate: Makes its certificate of an authority, if it is not to be the usual one.
        flags: Further ones.
        add_to: The member of a running cluster that it joins as a learner.
    """
    folder.mkdir(exist_ok=True)
    scheme = "https" if tls else "http"
    client, peer = f"{scheme}://127.0.0.1:{free_port()}", f"http://127.0.0.1:{free_port()}"
    name = "learner" if add_to else "m1"
    cluster = f"{name}={peer}"
    if add_to:
        add_to.ask("cluster/member/add", {"peerURLs": [peer], "isLearner": True})
        others = add_to.ask("cluster/member/list", {})["members"]
        cluster = ",".join(f"{each.get('name', name)}={each['peerURLs'][0]}" for each in others)
    argv = [program, f"--name={name}", f"--data-dir={folder / 'data'}", "--log-level=warn", "--unsafe-no-fsync"]
    argv += [f"--listen-client-urls={client}", f"--advertise-client-urls={client}"]
    argv += [f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}", f"--initial-cluster={cluster}"]
    argv += ["--initial-cluster-state=existing"] if add_to else []
    http_url = f"{scheme}://127.0.0.1:{free_port()}" if own_http_port else client
    argv += [f"--listen-client-http-urls={http_url}"] if own_http_port else []
    access = EtcdAccess(endpoints=(client,))
    if tls:
        authority = Authority("etcd-ca", folder=folder)
        cert, key = certificate(authority) if certificate else authority.issue("server", common_name="etcd")
        argv += [f"--cert-file={cert}", f"--key-file={key}"]
        argv += [f"--trusted-ca-file={authority.file}", "--client-cert-auth"]
        own_cert, own_key = authority.issue("client", common_name="clusterguard")
        access = EtcdAccess(endpoints=(client,), ca=authority.file, cert=own_cert, key=own_key)
    log = folder / "log"
    process = spawn([*argv, *flags], log=log)
    started = Member(access, process, log, http_url)
    try:
        _wait_for(started, (lambda: started.revision() >= add_to.revision()) if add_to else started.healthy)
        yield started
    finally:
        process.stop(grace_seconds=0)


def _wait_for(started, ready):
    deadline = time.monotonic() + 30
    while True:
        with contextlib.suppress(OSError, AssertionError, http.client.HTTPException):
            if ready():
                return
        assert started.process.alive(), tail(started.log)
        assert time.monotonic() < deadline, tail(started.log)
        time.sleep(0.03)
