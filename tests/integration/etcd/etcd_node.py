"""A control-plane node in a folder whose etcd is a real one, started and ended by a kubelet of a few lines."""

from __future__ import annotations

import re
import shutil
import threading
from contextlib import contextmanager

from clusterguard.clusters.base import EtcdAccess
from clusterguard.clusters.certificates import Authority
from clusterguard.clusters.kubeadm.manifests import EtcdManifest
from clusterguard.process import spawn
from etcd_member import free_port
from kubeadm_node import ETCD, Node

_POLL_SECONDS = 0.05


class EtcdNode(Node):
    """Like a node of kubeadm, but for its API server and its controllers, which are files.

    Args:
        root: The folder.
        program: etcd.
        version: What its image says.
        etcdutl: What the node has on its PATH, or None.
    """

    def __init__(self, root, *, program, version, etcdutl=None):
        super().__init__(root)
        self.program = program
        self.port, self.peer = free_port(), free_port()
        self._write_certificates()
        manifest = ETCD.replace("10.0.0.5", "127.0.0.1").replace("https://127.0.0.1:2379,", "")
        manifest = manifest.replace(":2379", f":{self.port}").replace(
            "https://127.0.0.1:2380", f"http://127.0.0.1:{self.peer}"
        )
        (self.manifests / "etcd.yaml").write_text(manifest.replace("3.6.8-0", f"{version}-0"))
        shutil.rmtree(self.data / "member")
        self._stand_in_programs(etcdutl)
        pki = root / "etc/kubernetes/pki/etcd"
        names = ("ca.crt", "healthcheck-client.crt", "healthcheck-client.key")
        ca, cert, key = (pki / name for name in names)
        self.access = EtcdAccess(endpoints=(f"https://127.0.0.1:{self.port}",), ca=ca, cert=cert, key=key)

    def _write_certificates(self):
        folder = self.root / "authority"
        folder.mkdir()
        authority = Authority("etcd-ca", folder=folder)
        self.server = authority.issue("server", common_name="etcd")
        cert, key = authority.issue("client", common_name="kube-etcd-healthcheck-client")
        pki = self.root / "etc/kubernetes/pki/etcd"
        shutil.copy(authority.file, pki / "ca.crt")
        shutil.copy(cert, pki / "healthcheck-client.crt")
        shutil.copy(key, pki / "healthcheck-client.key")

    def _stand_in_programs(self, etcdutl):
        folder = self.root / "stand-ins"
        (folder / "etcdutl").unlink()
        if etcdutl:
            (folder / "etcdutl").symlink_to(etcdutl)
        else:  # the search goes on to the PATH of whoever runs the tests
            (folder / "etcdutl").write_text("#!/bin/sh\nexit 127\n")
            (folder / "etcdutl").chmod(0o755)
        api = (folder / "curl").read_text().partition("\n")[2]
        real = shutil.which("curl")
        (folder / "curl").write_text(
            f'#!/bin/sh\nfor word; do case $word in *:{self.port}/*) exec {real} "$@";; esac; done\n{api}'
        )
        (folder / "crictl").write_text(
            (folder / "crictl")
            .read_text()
            .replace(
                "for pod in etcd kube",
                f'echo etcd | grep -Eq "$names" && cat {self.root}/etcd.id 2>/dev/null\nfor pod in kube',
            )
        )

    @contextmanager
    def kubelet(self):
        """Let etcd run while its manifest is there."""
        ending = threading.Event()
        thread = threading.Thread(target=self._keep_in_step, args=(ending,))
        thread.start()
        try:
            yield
        finally:
            ending.set()
            thread.join()

    def _keep_in_step(self, ending):
        process, running = None, None
        mark = self.root / "etcd.id"
        while not ending.wait(_POLL_SECONDS):
            path = self.manifests / "etcd.yaml"
            wanted = path.read_text() if path.exists() else None
            if process is not None and (wanted != running or not process.alive()):
                process.stop(grace_seconds=5)
                process = None
                mark.unlink()
            if process is None and wanted:
                mark.write_text("id-etcd\n")
                process, running = self._start(wanted), wanted
        if process is not None:
            process.stop(grace_seconds=0)

    def _start(self, manifest):
        told = EtcdManifest.parse(manifest, where="etcd.yaml")
        client, peer = self.access.endpoints[0], f"http://127.0.0.1:{self.peer}"
        cert, key = self.server
        return spawn(
            [
                str(self.program), f"--name={told.name}", f"--data-dir={self.root}{told.host_dir}",
                f"--listen-client-urls={client}", f"--advertise-client-urls={client}",
                f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}",
                f"--initial-cluster={told.name}={peer}", f"--cert-file={cert}", f"--key-file={key}",
                f"--trusted-ca-file={self.access.ca}", "--client-cert-auth", "--logger=zap", "--log-level=warn",
            ],
            log=self.root / "etcd.log",
        )  # fmt: skip

    def log(self):
        text = (self.root / "etcd.log").read_text()
        return re.sub(r"\n+", "\n", text)[-2000:]
