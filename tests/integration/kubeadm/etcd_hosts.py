"""Three hosts of etcd, and a kind cluster that keeps its state there.

They are containers of the node image of kind, which has systemd. There etcd is a unit of systemd, set up in another way
on each, with this machine's etcd; or a static pod of the host's own kubelet, as the guide of kubeadm makes it.
"""

from __future__ import annotations

import json
import subprocess
from contextlib import contextmanager

import yaml

from clusterguard.clusters.kind import KindCluster
from clusterguard.clusters.node_shell import DockerNodeShell

_PKI = "/etc/etcd/pki"
_OPTIONS = (
    *("--privileged", "--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
    *("--cgroupns=private", "--tmpfs", "/tmp", "--tmpfs", "/run", "--volume", "/var"),
    *("--volume", "/lib/modules:/lib/modules:ro", "--network", "kind"),
)
_CONFIG = """\
apiVersion: kubeadm.k8s.io/v1beta4
kind: InitConfiguration
nodeRegistration: {{name: {name}}}
localAPIEndpoint: {{advertiseAddress: {address}}}
---
apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
kubernetesVersion: {version}
etcd:
  local:
    serverCertSANs: ["{address}"]
    peerCertSANs: ["{address}"]
    extraArgs: {flags}
"""
_KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: systemd
cgroupRoot: /kubelet
failSwapOn: false
failCgroupV1: false
address: 127.0.0.1
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
staticPodPath: /etc/kubernetes/manifests
evictionHard: {imagefs.available: 0%, nodefs.available: 0%, nodefs.inodesFree: 0%}
"""
_ALONE = """\
[Service]
ExecStart=
ExecStart=/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml --runtime-cgroups=/system.slice/containerd.service
"""
_UP = "until systemctl is-system-running | grep -Eq 'running|degraded'; do sleep 0.2; done"
_UNIT = """\
[Unit]
After=network-online.target

[Service]
Type=notify
Restart=always
RestartSec=1
User=etcd
{settings}

[Install]
WantedBy=multi-user.target
"""


def run_docker(*words):
    return subprocess.run(["docker", *words], check=True, capture_output=True, text=True).stdout.strip()


class EtcdHosts:
    """The hosts, with a certificate authority of theirs.

    Args:
        name: What their names begin with.
        folder: For certificates.
        programs: Paths of etcd and etcdutl for units of systemd; none: static pods.
        image: What the hosts are made of.
    """

    def __init__(self, name, *, folder, image, programs=()):
        self.names = [f"{name}-etcd-{number}" for number in (1, 2, 3)]
        self._folder = folder
        self._programs = programs
        self._image = image
        self.addresses = {}

    @property
    def shells(self):
        return [DockerNodeShell(name) for name in self.names]

    def start(self):
        subprocess.run(["docker", "network", "create", "kind"], check=False, capture_output=True)
        self._make_authority()
        for name in self.names:
            run_docker("run", "--detach", "--name", name, "--hostname", name, *_OPTIONS, self._image)
            (network,) = json.loads(run_docker("inspect", name))[0]["NetworkSettings"]["Networks"].values()
            self.addresses[name] = network["IPAddress"]
        for number, shell in enumerate(self.shells):
            if self._programs:
                self._set_up_unit(shell, number)
            else:
                self._set_up_pod(shell)
        for shell in self.shells:
            # Type=notify: each of them has started once it has found the others.
            shell.run(["systemctl", "start", "etcd" if self._programs else "kubelet"], timeout_seconds=120)

    def remove(self):
        for name in self.names:
            subprocess.run(["docker", "rm", "--force", "--volumes", name], check=False, capture_output=True)

    def issue(self, name, *addresses):
        """Write a certificate for servers and clients; return its file and that of its key."""
        cert, key = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        names = ",".join(["DNS:localhost", *(f"IP:{each}" for each in addresses)])
        self._openssl(
            *("-CA", self._folder / "ca.crt", "-CAkey", self._folder / "ca.key", "-subj", f"/CN={name}"),
            *("-addext", "extendedKeyUsage=serverAuth,clientAuth", "-addext", f"subjectAltName={names}"),
            *("-addext", "basicConstraints=critical,CA:FALSE", "-out", cert, "-keyout", key),
        )
        return cert, key

    def _make_authority(self):
        self._openssl("-subj", "/CN=etcd", "-out", self._folder / "ca.crt", "-keyout", self._folder / "ca.key")

    @staticmethod
    def _openssl(*words):
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "2")
        subprocess.run(["openssl", *new, *words], check=True, capture_output=True)

    def _set_up_pod(self, shell):
        name, address = shell.name, self.addresses[shell.name]
        wanted = ("name", "initial-cluster", "listen-peer-urls", "listen-client-urls", "advertise-client-urls",
                  "initial-advertise-peer-urls")  # fmt: skip
        flags = [{"name": key, "value": value} for key, value in self._settings(name).items() if key in wanted]
        version = shell.run(["kubeadm", "version", "--output=short"]).strip()
        shell.run(["sh", "-c", f"{_UP}; mkdir -p /etc/kubernetes/pki/etcd /etc/systemd/system/kubelet.service.d"])
        for file in ("ca.crt", "ca.key"):
            shell.put(self._folder / file, f"/etc/kubernetes/pki/etcd/{file}")
        config = _CONFIG.format(name=name, address=address, version=version, flags=json.dumps(flags))
        self._write(shell, "/etc/kubernetes/kubeadmcfg.yaml", config)
        self._write(shell, "/var/lib/kubelet/config.yaml", _KUBELET)
        self._write(shell, "/etc/systemd/system/kubelet.service.d/alone.conf", _ALONE)
        certs = ("etcd-server", "etcd-peer", "etcd-healthcheck-client", "apiserver-etcd-client")
        for phase in (*(f"certs {each}" for each in certs), "etcd local"):
            shell.run(["kubeadm", "init", "phase", *phase.split(), "--config", "/etc/kubernetes/kubeadmcfg.yaml"])
        # Its key is for the host that issues certificates alone.
        shell.run(["rm", "/etc/kubernetes/pki/etcd/ca.key"])
        shell.run(["systemctl", "daemon-reload"])

    def _write(self, shell, path, text):
        file = self._folder / "file"
        file.write_text(text)
        shell.put(file, path, mode=0o644)

    def _set_up_unit(self, shell, number):
        name = shell.name
        cert, key = self.issue(name, self.addresses[name])
        # A container runtime is no part of such a host, and takes of what a machine has for all of them.
        shell.run(["systemctl", "disable", "--now", "containerd"])
        etcd = "useradd --system etcd && install -d -o etcd -m 700 /var/lib/etcd"
        shell.run(["sh", "-c", f"mkdir -p {_PKI} /opt/etcd && {etcd} && {_UP}"])
        for file, target in ((self._folder / "ca.crt", "ca.crt"), (cert, "server.crt"), (key, "server.key")):
            shell.put(file, f"{_PKI}/{target}", mode=0o644)
        for program in self._programs:
            shell.put(program, f"/opt/etcd/{program.name}", mode=0o755)
        settings = self._settings(name)
        ways = (_by_flags, _by_variables, _by_file)
        for path, text in ways[number](settings).items():
            self._write(shell, path, text)
        shell.run(["sh", "-c", "systemctl daemon-reload && systemctl enable etcd"])
        shell.run(["systemctl", "start", "--no-block", "etcd"])

    def _settings(self, name):
        address = self.addresses[name]
        return {
            "name": name,
            "data-dir": "/var/lib/etcd",
            "initial-advertise-peer-urls": f"https://{address}:2380",
            "listen-peer-urls": f"https://{address}:2380",
            "listen-client-urls": f"https://{address}:2379",
            "advertise-client-urls": f"https://{address}:2379",
            "initial-cluster": ",".join(f"{each}=https://{where}:2380" for each, where in self.addresses.items()),
            "initial-cluster-token": "theirs",
            **{f"{kind}{each}": f"{_PKI}/{file}" for kind in ("", "peer-") for each, file in
               (("trusted-ca-file", "ca.crt"), ("cert-file", "server.crt"), ("key-file", "server.key"))},
            **dict.fromkeys(("client-cert-auth", "peer-client-cert-auth"), "true"),
        }  # fmt: skip

    def kind_config(self):
        """Return kind's configuration of a cluster that keeps its state here."""
        pki = self._folder / "kubernetes"
        pki.mkdir()
        cert, key = self.issue("apiserver-etcd-client")
        for file, name in ((cert, "client.crt"), (key, "client.key"), (self._folder / "ca.crt", "ca.crt")):
            (pki / name).write_bytes(file.read_bytes())
        inside = "/etc/kubernetes/pki/etcd"
        endpoints = [f"https://{address}:2379" for address in self.addresses.values()]
        files = {"caFile": "ca.crt", "certFile": "client.crt", "keyFile": "client.key"}
        external = {"endpoints": endpoints} | {key: f"{inside}/{name}" for key, name in files.items()}
        patch = {"kind": "ClusterConfiguration", "etcd": {"external": external}}
        node = {"role": "control-plane", "extraMounts": [{"hostPath": str(pki), "containerPath": inside}]}
        return yaml.safe_dump(
            {
                "kind": "Cluster",
                "apiVersion": "kind.x-k8s.io/v1alpha4",
                "kubeadmConfigPatches": [yaml.safe_dump(patch)],
                "nodes": [node],
            }
        )


def _by_flags(settings):
    flags = " ".join(f"--{key}={value}" for key, value in settings.items() if key != "name")
    environment = f"Environment=ME={settings['name']}\nExecStart=/opt/etcd/etcd --name ${{ME}} {flags}"
    return {"/etc/systemd/system/etcd.service": _UNIT.format(settings=environment)}


def _by_variables(settings):
    lines = [f'ETCD_{key.upper().replace("-", "_")}="{value}"' for key, value in settings.items()]
    text = "EnvironmentFile=-/etc/etcd/etcd.env\nExecStart=/opt/etcd/etcd"
    return {
        "/etc/systemd/system/etcd.service": _UNIT.format(settings=text),
        "/etc/etcd/etcd.env": "# of this host\n" + "\n".join(lines) + "\n",
    }


def _by_file(settings):
    content = {}
    for key, value in settings.items():
        section = "peer-transport-security" if key.startswith("peer-") else "client-transport-security"
        plain = key.removeprefix("peer-")
        if plain in {"trusted-ca-file", "cert-file", "key-file"}:
            content.setdefault(section, {})[plain] = value
        elif plain == "client-cert-auth":
            content.setdefault(section, {})[plain] = True
        else:
            content[key] = value
    return {
        "/etc/systemd/system/etcd.service": _UNIT.format(
            settings="ExecStart=/opt/etcd/etcd --config-file /etc/etcd/etcd.yaml"
        ),
        "/etc/etcd/etcd.yaml": yaml.safe_dump(content),
    }


@contextmanager
def cluster_with_etcd_hosts(name, *, folder, image, programs=()):
    """Start both; yield the cluster and the hosts, and remove all of it in the end."""
    hosts = EtcdHosts(name, folder=folder, image=image, programs=programs)
    try:
        hosts.start()
        config = folder / "kind.yaml"
        config.write_text(hosts.kind_config())
        with KindCluster(name, config=config) as cluster:
            yield cluster, hosts
    finally:
        hosts.remove()
