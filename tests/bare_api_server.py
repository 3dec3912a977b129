"""An API server with every API it has, on an etcd of its own, and no controller that changes what is written to it."""

from __future__ import annotations

import http.client
import json
import secrets
import ssl
import time

from clusterguard.clusters.certificates import write_key_pair
from clusterguard.process import spawn, tail
from clusterguard.sockets import free_ports

SECONDS = 90


class ApiError(OSError):
    """The API server answered with an error."""


class BareApiServer:
    """Both programs, and requests in plain dictionaries.

    Args:
        programs: Where ``etcd`` and ``kube-apiserver`` are.
        folder: Where they keep everything.
        arguments: More of them for the API server.
        etcd_arguments: More of them for etcd.
        everything: Whether alpha and beta APIs are on, too.
    """

    def __init__(self, programs, folder, *, arguments=(), etcd_arguments=(), everything=True):
        folder.mkdir(parents=True, exist_ok=True)
        self.token = secrets.token_hex(16)
        client, peer_port, port = free_ports(3)
        self.etcd_url, peer = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer_port}"
        self.url = f"https://127.0.0.1:{port}"
        self.logs = {name: folder / f"{name}.log" for name in ("etcd", "kube-apiserver")}
        self.data = folder / "etcd"
        public, key = write_key_pair(folder, "service-account")
        (folder / "tokens.csv").write_text(f'{self.token},admin,admin,"system:masters"\n')
        on = ["--runtime-config=api/all=true"] if everything else []
        etcd = [
            *(programs["etcd"], f"--data-dir={self.data}", "--unsafe-no-fsync", "--log-level=error"),
            *(f"--listen-client-urls={self.etcd_url}", f"--advertise-client-urls={self.etcd_url}"),
            *(
                f"--listen-peer-urls={peer}",
                f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster=default={peer}",
            ),
            *etcd_arguments,
        ]
        api = [
            *(programs["kube-apiserver"], f"--etcd-servers={self.etcd_url}", "--bind-address=127.0.0.1", *on),
            *(f"--secure-port={port}", "--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none"),
            *(f"--cert-dir={folder / 'certs'}", f"--token-auth-file={folder / 'tokens.csv'}"),
            *("--service-account-issuer=https://kubernetes.default.svc", f"--service-account-key-file={public}"),
            *(f"--service-account-signing-key-file={key}", "--service-cluster-ip-range=10.96.0.0/16"),
            *("--authorization-mode=RBAC", "--disable-admission-plugins=ServiceAccount", "--profiling=false"),
            *arguments,
        ]
        context = ssl._create_unverified_context()  # noqa: S323 - its own certificate, on loopback
        self._connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=context)
        self._processes = []
        try:
            self._processes.append(spawn(etcd, log=self.logs["etcd"]))
            self._processes.append(spawn(api, log=self.logs["kube-apiserver"]))
            self._wait()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._connection.close()
        for process in reversed(self._processes):
            process.stop(grace_seconds=0)

    def stop_api(self):
        """Stop writing, as the API server renews Leases of its own."""
        self._processes.pop().stop(grace_seconds=0)

    def ask(self, path, *, method="GET", body=None, content_type="application/json"):
        """Return what the API server answers, as raw JSON read by Python; `ApiError` for anything but success."""
        headers = {"Authorization": f"Bearer {self.token}", "Accept": "application/json", "Content-Type": content_type}
        self._connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = self._connection.getresponse()
        text = answer.read()
        if answer.status >= 300:
            raise ApiError(answer.status, text.decode("utf-8", "replace"))
        return json.loads(text)

    def resources(self):
        """Return everything that is served, as ``(group version, resource)``."""
        groups = ["api/v1"]
        for group in self.ask("/apis")["groups"]:
            groups += [f"apis/{version['groupVersion']}" for version in group["versions"]]
        for group in groups:
            try:
                found = self.ask(f"/{group}")["resources"]
            except ApiError:  # an aggregated API without anybody behind it
                continue
            yield from ((group, resource) for resource in found if "/" not in resource["name"])

    def _wait(self):
        began = time.monotonic()
        while time.monotonic() < began + SECONDS:
            try:
                self._connection.request("GET", "/readyz", None, {"Authorization": f"Bearer {self.token}"})
                answer = self._connection.getresponse()
                answer.read()
            except OSError:
                self._connection.close()
            else:
                if answer.status == 200:
                    return
            time.sleep(0.2)
        raise TimeoutError(tail(self.logs["kube-apiserver"]))
