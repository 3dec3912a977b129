"""A control-plane node in a folder: its commands really run, in a shell, on files; the big programs are stand-ins.

The kubelet is instant: a static pod runs while its manifest is in the manifests folder.
"""

import json
import os
import re
import subprocess
import textwrap
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace

from clusterguard.clusters.kubeadm import KubeadmControlPlane, Timeouts
from clusterguard.clusters.node_shell import LocalNodeShell
from clusterguard.errors import ClusterGuardError, ProgramError, ResourceNotFoundError
from clusterguard.model.snapshot import Snapshot

CA = "-----BEGIN CERTIFICATE-----\nour authority\n-----END CERTIFICATE-----\n"
PODS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")
STEPS = ("stop", "swap_in", "start_etcd", "start_api", "commit", "start_controllers", "clean_up")
# Long enough for any machine; a test that sees one run out shortens it.
PATIENT = Timeouts(api_grace=1)
SNAPSHOT = Snapshot(
    name="s",
    key="s.db",
    taken=datetime(2030, 1, 31, tzinfo=UTC),
    revision=100,
    total_keys=1,
    size=10,
    etcd_version="3.6.1",
    storage_version="3.6.0",
    cluster_id="a",
    member_id="b",
    member_name="m",
    sha256="0" * 64,
    hash_kv=1,
    hash_revision=100,
    compact_revision=-1,
    endpoint="https://127.0.0.1:2379",
)
COUNTED = ("mv", "rm", "touch", "mkdir", "sync", "rmdir", "chown")

ETCD = """\
apiVersion: v1
kind: Pod
metadata: {name: etcd, namespace: kube-system}
spec:
  containers:
  - command:
    - etcd
    - --advertise-client-urls=https://10.0.0.5:2379
    - --data-dir=/var/lib/etcd
    - --initial-advertise-peer-urls=https://10.0.0.5:2380
    - --initial-cluster=node-1=https://10.0.0.5:2380
    - --listen-client-urls=https://127.0.0.1:2379,https://10.0.0.5:2379
    - --name=node-1
    - --trusted-ca-file=/etc/kubernetes/pki/etcd/ca.crt
    image: registry.k8s.io/etcd:3.6.8-0
    name: etcd
    volumeMounts:
    - mountPath: /var/lib/etcd
      name: etcd-data
    - mountPath: /etc/kubernetes/pki/etcd
      name: etcd-certs
  volumes:
  - hostPath:
      path: /etc/kubernetes/pki/etcd
      type: DirectoryOrCreate
    name: etcd-certs
  - hostPath:
      path: /var/lib/etcd
      type: DirectoryOrCreate
    name: etcd-data
"""
API = """\
apiVersion: v1
kind: Pod
spec:
  containers:
  - command: [kube-apiserver, --secure-port=6443, --etcd-servers=https://127.0.0.1:2379]
    image: registry.k8s.io/kube-apiserver:v1.36.3
    name: kube-apiserver
"""

# Shells that call no other program: a restore runs hundreds of them.
_STANDINS = {
    # etcd's unit runs while `unit-active` is there, which a drop-in with a condition keeps from coming back.
    "systemctl": """
        unit={root}/unit-active
        case "$*" in
          *--value*) if test -e $unit; then echo active; else echo inactive; fi ;;
          *=RequiredBy,*) show {root}/unit | grep -E '^(RequiredBy|RequisiteOf|BoundBy|ConsistsOf|PropagatesStopTo)=' ;;
          show*) if test -e {root}/unit; then
                   show {root}/unit; if test -e $unit; then echo ActiveState=active; else echo ActiveState=inactive; fi
                 fi ;;
          is-active*) ;;
          *stop*etcd.service) rm -f $unit ;;
          start*etcd.service) test -e {root}/etc/systemd/system/etcd.service.d/clusterguard.conf || touch $unit ;;
          daemon-reload|reset-failed*) ;;
          *) echo "$@" >> {root}/systemctl.log; test ! -e {root}/kubelet-died || rm {root}/kubelet-died ;;
        esac
    """,
    "kubectl": "exit 0",
    "ctr": "exit 1",  # where this machine has one, it would wait for a containerd that may not run
    # The data directory that the live manifest names must have a member; the API server needs etcd.
    # A member serves with a majority of the members of its cluster, which are those with the same state.
    "curl": """
        place() {
          if test -d $1/mnt/new && grep -qs /mnt/new $1/etc/kubernetes/manifests/etcd.yaml; then place=$1/mnt/new
          else place=$1/var/lib/etcd; fi
        }
        runs() { test -e $1/etc/kubernetes/manifests/etcd.yaml || test -e $1/unit-active; }
        state() { place $1; state=""; test ! -e $place/member/db || state=$(show $place/member/db); }
        quorum() {
          state $1; own=$state; n=0
          if test -e $place/member/size; then read -r size < $place/member/size; else read -r size < {root}/size; fi
          test $size = 1 && return
          test -n "$own" || return
          for each in $(show {root}/nodes); do
            runs $each || continue
            state $each
            test "$state" = "$own" && n=$((n + 1))
          done
          test $((2 * n)) -gt $size
        }
        # An API server has its etcd beside it, or asks the members elsewhere.
        served() {
          if test -e {root}/var/lib/etcd; then runs {root} && quorum {root}; return; fi
          for member in $(show {root}/nodes); do if runs $member && quorum $member; then return; fi; done; false
        }
        manifests={root}/etc/kubernetes/manifests
        url=""; for word; do url=$word; done
        case "$*" in
          *write-out*/kv/range*) test -e {root}/etcd-broken && echo 503 || echo 200; exit;;
          *member/list*) show {root}/members; exit;;
          */version) runs {root} && show {root}/version; exit;;
          */kv/range*) show {root}/range; exit;;
          *:2379/readyz*)
            runs {root} && ! test -e {root}/kubelet-died || { echo 000; exit 7; }
            if test -e {root}/etcd-broken || ! quorum {root}; then echo 503; else show {root}/readyz; fi
            exit;;
          *) test -e $manifests/kube-apiserver.yaml && served; exit;;
        esac
    """,
    "crictl": """
        names=""; for word; do case $word in ^*) names=$word;; esac; done
        names=${names#^(}; names=${names%)$}
        for pod in etcd kube-apiserver kube-controller-manager kube-scheduler; do
          test -e {root}/etc/kubernetes/manifests/$pod.yaml || continue
          case "|$names|" in *"|$pod|"*) echo id-$pod;; esac
        done
        test -e {root}/stuck && show {root}/stuck
        exit 0
    """,
    "etcdutl": """
        if test "$1" = version; then echo "etcdutl version: 3.6.8"; exit; fi
        test -e {root}/etcdutl-fails && { echo "Error: expected sha256" >&2; exit 1; }
        for word; do case $word in --data-dir=*) to=${word#--data-dir=};; esac; done
        mkdir -p $to/member && show "$3" > $to/member/db || exit
        for word; do case $word in --initial-cluster=*) IFS=,; set -- $word; echo $# > $to/member/size;; esac; done
    """,
}
# What cat does.
_SHOW = """show() {
    while IFS= read -r line; do printf '%s\\n' "$line"; done < "$1"
    test -z "$line" || printf %s "$line"
}
"""

_PLACES = re.compile(r"/etc/kubernetes|/etc/systemd|/etc/etcd|/opt/etcd|/var/lib/etcd|/run/|/mnt/")


def peer_url(name):
    """Return the peer URL of a member by its name, which ends in its number."""
    return f"https://10.0.0.{4 + int(name.rpartition('-')[2])}:2380"


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the process runs after it."""


class NodeShell(LocalNodeShell):
    """Runs commands on the node in a folder, and may be killed before one of them, or in the middle of one."""

    def __init__(self, root, name, world):
        super().__init__()
        self.name = name
        self.root = root
        self.world = world
        self.lines = []
        self.die_before = None
        self.broken_for = ()

    def _argv(self, argv):
        self.lines.append(self.describe(argv))
        if self.die_before is not None and len(self.lines) > self.die_before:
            self.world.dead = True
        if self.world.dead:
            raise Killed  # with all that it does on other nodes
        # Whoever holds the lock tidies up behind itself, and that is no command of a restore.
        holds_the_lock = any("flock --exclusive" in word for word in argv)
        words = [self._moved(word) for word in argv]
        if holds_the_lock:
            return words
        path = f"PATH={self.root}/stand-ins:{os.environ['PATH']}"
        if words[:2] == ["sh", "-c"]:
            return ["sh", "-c", f"{path}; {words[2]}", *words[3:]]
        return ["env", path, *words]

    def _moved(self, word):
        """Put the node's paths under the folder, but not those that sed writes into a manifest."""
        parts = re.split(r"(-e '[^']*')", word)
        return "".join(part if part.startswith("-e '") else _PLACES.sub(rf"{self.root}\g<0>", part) for part in parts)

    @contextmanager
    def lock(self, path, *, wait_seconds=0, regained=None):
        """Really locked, but every command goes its own way, so that it can be killed."""
        self.regained = regained
        with super().lock(path, wait_seconds=wait_seconds):
            yield self

    def _run(self, argv, *, stdin, seconds):
        if len(self.lines) in self.broken_for:
            self.lines.append(self.describe(argv))
            raise ProgramError(f"{self.name}: the connection to the node broke")
        try:
            return super()._run(argv, stdin=stdin, seconds=seconds).replace(str(self.root), "")
        except ProgramError as error:
            if error.exit_code in (-9, 137):
                self.world.dead = True
                raise Killed from error
            raise


class Node:
    """One node; by default the only one of its cluster, with etcd, API server and controllers.

    Args:
        root: Its folder.
        name: Its own, which ends in its number.
        cluster: The names of the nodes with a member of etcd.
        world: What all nodes of a test share.
        pods: Its static pods.
        unit: The files by which systemd starts its etcd (`unit_files`), if that is none of the pods.
    """

    def __init__(self, root, name="node-1", *, cluster=("node-1",), world=None, pods=PODS, unit=None):
        self.root = root
        self.name = name
        self.pods = pods
        self.has_etcd = "etcd" in pods or unit is not None
        self.world = world or SimpleNamespace(dead=False)
        self.manifests = root / "etc/kubernetes/manifests"
        self.data = root / "var/lib/etcd"
        for folder in (root / "run", root / "mnt"):
            folder.mkdir(parents=True)
        if self.has_etcd:
            (self.data / "member").mkdir(parents=True)
            (self.data / "member/db").write_text("old")
        for path, text in (unit or {}).items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        if pods:
            self._make_kubernetes(cluster)
        members = [{"name": each, "peerURLs": [peer_url(each)]} for each in cluster]
        (root / "members").write_text(json.dumps({"members": members}))
        (root / "nodes").write_text(" ".join(str(root.parent / each if len(cluster) > 1 else root) for each in cluster))
        (root / "size").write_text(str(len(cluster)))
        (root / "version").write_text('{"etcdserver":"3.6.8","etcdcluster":"3.6.0"}')
        (root / "range").write_text("{}")
        (root / "readyz").write_text("200")
        self.shell = NodeShell(root, name, self.world)
        self._stand_in()
        self.snapshot = root / "snapshot.db"
        self.snapshot.write_text("restored")

    def _make_kubernetes(self, cluster):
        kubernetes = self.root / "etc/kubernetes"
        for folder in (self.manifests, kubernetes / "pki/etcd"):
            folder.mkdir(parents=True)
        for pod in self.pods:
            (self.manifests / f"{pod}.yaml").write_text(self._manifest(pod, cluster))
        for file in ("pki/ca.crt", "pki/etcd/ca.crt", "pki/etcd/healthcheck-client.crt"):
            (kubernetes / file).write_text(CA)
        (kubernetes / "pki/etcd/healthcheck-client.key").write_text("a secret\n")
        if "kube-apiserver" in self.pods:
            (kubernetes / "admin.conf").write_text("a secret\n")

    def _manifest(self, pod, cluster):
        if pod == "etcd":
            joined = cluster[
                : cluster.index(self.name) + 1
            ]  # as kubeadm writes it: the members that there were by then
            initial = ",".join(f"{each}={peer_url(each)}" for each in joined)
            text = ETCD.replace("node-1=https://10.0.0.5:2380", initial).replace("--name=node-1", f"--name={self.name}")
            return text.replace("urls=https://10.0.0.5:2380", f"urls={peer_url(self.name)}")
        if pod == "kube-apiserver":
            if self.has_etcd:
                return API
            servers = ",".join(peer_url(each).replace("2380", "2379") for each in cluster)
            address = f"10.0.1.{self.name.rpartition('-')[2]}"
            quoted = f"'--etcd-servers={servers}', --advertise-address={address}"
            return API.replace("--etcd-servers=https://127.0.0.1:2379", quoted)
        return f"kind: {pod}\n"

    def _stand_in(self):
        folder = self.root / "stand-ins"
        folder.mkdir()
        scripts = {name: text.replace("{root}", str(self.root)) for name, text in _STANDINS.items()}
        scripts["hostname"] = f"echo {self.name}"
        # Nothing here outlives a power cut, but what is not there cannot be synced here either.
        scripts["sync"] = 'for each; do test -e "$each" || exit 1; done'
        for name, text in scripts.items():
            self._write_program(name, (_SHOW if "show " in text else "") + textwrap.dedent(text).strip())

    def _write_program(self, name, text):
        path = self.root / "stand-ins" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def _counted(self, name):
        """Kills the shell that called it at the chosen call, before doing anything."""
        return textwrap.dedent(f"""
            read -r count < {self.root}/count; count=$((count + 1)); echo $count > {self.root}/count
            read -r fatal < {self.root}/fatal
            if test "$count" = "$fatal"; then
              read -r parent < /proc/$PPID/comm; test "$parent" = sh && kill -9 $PPID; kill -9 $$
            fi
            exec /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin {name} "$@"
        """).strip()

    def die_at_call(self, number):
        """Kill what runs at this call of the programs that change something, counted from now on."""
        (self.root / "count").write_text("0\n")
        (self.root / "fatal").write_text(f"{number}\n")
        for name in COUNTED:
            self._write_program(name, self._counted(name))

    def calls(self):
        return int((self.root / "count").read_text())

    def survive(self):
        if (self.root / "fatal").exists():
            (self.root / "fatal").write_text("0\n")
        self.world.dead = False
        self.shell.die_before = None
        self.shell.broken_for = ()

    def live(self):
        """What a person would see of the cluster: which pods run (or etcd's unit), and on which data."""
        running = sorted(path.stem for path in self.manifests.glob("*.yaml"))
        if (self.root / "unit-active").exists():
            running = sorted(["etcd", *running])
        if not self.has_etcd:
            return running, None
        manifest = self.manifests / "etcd.yaml"
        moved = manifest.exists() and "/mnt/new" in manifest.read_text()
        return running, ((self.root / "mnt/new" if moved else self.data) / "member/db").read_text()

    def reboot(self):
        """Let the host start again: systemd starts what is enabled, unless a condition keeps it from that."""
        subprocess.run([self.root / "stand-ins/systemctl", "start", "etcd.service"], check=True)

    def leftovers(self):
        places = (
            "etc/kubernetes/clusterguard",
            "var/lib/etcd/.clusterguard",
            "mnt/new/.clusterguard",
            "etc/systemd/system/etcd.service.d",
        )
        found = [path for place in places for path in (self.root / place).rglob("*")]
        return sorted(str(path.relative_to(self.root)) for path in found if "kept" not in path.parts)


class Cluster:
    """Nodes that have one state between two restores.

    Args:
        nodes: They, of one world.
    """

    def __init__(self, nodes):
        self.nodes = nodes

    def plane(self, nodes=None, **options):
        shells = [node.shell for node in nodes or self.nodes]
        return KubeadmControlPlane(shells, **{"api": Api, "timeouts": PATIENT, "run": "run1"} | options)

    def restore(self, plane, until="clean_up"):
        with plane.exclusive():
            plane.recover()
            plane.check(needed_bytes=10)
            plane.prepare(self.nodes[0].snapshot, bump_revision=1000)
            try:
                for step in STEPS[: STEPS.index(until) + 1]:
                    getattr(plane, step)()
            except ClusterGuardError:
                if STEPS.index(until) < STEPS.index("commit") or not self.is_proven():
                    plane.roll_back()
                raise

    def is_proven(self):
        journals = [node.root / "etc/kubernetes/clusterguard/journal.json" for node in self.nodes]
        return any(path.exists() and json.loads(path.read_text())["phase"] == "proven" for path in journals)

    def recover(self):
        for node in self.nodes:
            node.survive()
        plane = self.plane()
        with plane.exclusive():
            return plane.recover()

    def states(self):
        return {node.live()[1] for node in self.nodes if node.has_etcd}

    def running(self):
        return {tuple(node.live()[0]) for node in self.nodes}

    def leftovers(self):
        return [path for node in self.nodes for path in node.leftovers()]


class Api:
    """The part of KubeClient that a control plane asks."""

    def __init__(self, *, ca=CA, nodes=()):
        self.ca = ca
        self.nodes = nodes

    def resource(self, kind):
        return kind

    def get(self, kind, name, namespace=None, **_):
        if (kind, name) != ("ConfigMap", "kube-root-ca.crt"):
            raise ResourceNotFoundError(name)
        return {"data": {"ca.crt": self.ca}}

    def list(self, kind, namespace=None, **_):
        return iter(self.nodes if kind == "Node" else ())

    def request(self, *_, **__):
        return SimpleNamespace(json=lambda: {"items": []})
