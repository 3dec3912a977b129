"""Every command of a restore, in order, each with the reason: what is executed is what is printed. No I/O.

On the node a restore keeps two folders, and what lies in them tells how far it came:

    /etc/kubernetes/clusterguard/
        journal.json            written first, removed last; its phase says what an interruption means (`Phase`)
        proven.json             the journal of the last phase, written ahead: to commit is a rename, which needs no room
        manifests/              static pod manifests that were moved aside
        etcd.yaml               the manifest for a new data directory
    DATA/.clusterguard/         in the data directory, so that every move is a rename
        snapshot-RUN.db         the copy of the snapshot
        prepared-RUN/           built from it
        before/                 the member of before the swap (or the file "none": there was no member)
        kept/                   the member of before the last proven restore

Names carry the run, because a killed run may leave a program that still writes on the node.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from clusterguard.clusters.kubeadm.manifests import relocation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from clusterguard.clusters.base import EtcdLayout
    from clusterguard.clusters.kubeadm.manifests import ApiServerManifest, EtcdManifest
    from clusterguard.clusters.kubeadm.runtimes import Runtime

__all__ = [
    "CONTROLLERS",
    "DATA_IS_BACK",
    "JOURNAL",
    "LOCK",
    "MANIFESTS",
    "PODS",
    "STAGING_DIR",
    "Command",
    "Phase",
    "RestoreCommands",
    "Stages",
    "Timeouts",
    "restart_kubelet",
]

MANIFESTS = "/etc/kubernetes/manifests"
STAGING_DIR = "/etc/kubernetes/clusterguard"
JOURNAL = f"{STAGING_DIR}/journal.json"
LOCK = "/run/clusterguard-restore.lock"
CONTROLLERS = ("kube-controller-manager", "kube-scheduler")
PODS = ("etcd", "kube-apiserver", *CONTROLLERS)
DATA_IS_BACK = 3
"""How many stages of a rollback bring the old data back; all after them only start what is there."""
_SAVED = f"{STAGING_DIR}/manifests"
_PROVEN = f"{STAGING_DIR}/proven.json"
_ADMIN = "/etc/kubernetes/admin.conf"
_POLL = "0.1"
_FORGET = "the kubelet forgets what that state does not know, and looks at every pod again"
# Written beside, synced, renamed, and the folder synced at last: a power cut leaves the old journal or the new one.
# $1 folder, then pairs of a file and its content.
_WRITE = (
    'umask 077; mkdir -p "$1" && sync "$1/.." || exit; folder=$1; shift; while test $# -gt 0; do '
    'printf "%s\\n" "$2" > "$1.part" && sync "$1.part" && mv -fT "$1.part" "$1" || exit; shift 2; done; sync "$folder"'
)


class Phase(StrEnum):
    """How far a restore came, as its journal on the node says; whoever comes next acts on it."""

    PREPARING = "preparing"
    """The new data directory is being built: only that has to go."""
    SWITCHING = "switching"
    """The cluster is between two states: the old one is brought back."""
    PROVEN = "proven"
    """The restored state serves and stays: what is missing is finished, and nothing is undone."""
    REPLACING = "replacing"
    """No restore: this node's member is being replaced by an empty one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """How long things may take, in seconds.

    Attributes:
        build: etcdutl, on a large snapshot and a slow disk.
        api_grace: The API server keeps no state of its own: it gets this to answer its last requests, not the
            kubelet's 30 s, which it uses up whenever somebody watches.
        gone: Until the containers of stopped static pods are gone.
        stubborn: After so long they are killed: longer than the 30 s of grace that a kubelet gives.
        etcd: Until etcd serves.
        api: Until the API server is ready.
    """

    build: int = 1800
    api_grace: int = 3
    gone: int = 90
    stubborn: int = 40
    etcd: int = 120
    api: int = 180


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One command on the node and why it is run, or a file of this machine that is copied there (``source``)."""

    why: str
    argv: tuple[str, ...] = ()
    source: Path | None = None
    target: str = ""
    mode: int = 0o600
    seconds: float = 60


Stages = tuple[tuple[Command, ...], ...]
"""Commands of one step on one node. Where there are several nodes, none begins a stage before all ended the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreCommands:
    """The commands of each step on one node, from what was seen there; each step is made of stages (`Stages`).

    Attributes:
        etcd: The member's manifest.
        layout: What etcdutl must be told: all members of the restored cluster, and a token of its own.
        api: The API server's manifest.
        pods: Which of the static pods have a manifest.
        runtime: How containers are asked for.
        etcdutl: The words that run it on the node.
        own_etcdutl: The program of this machine that is copied there first, or None.
        target: The data directory to restore into.
        run: What the names of this run end in.
        timeouts: How long things may take.
    """

    etcd: EtcdManifest
    layout: EtcdLayout
    api: ApiServerManifest
    pods: tuple[str, ...]
    runtime: Runtime
    etcdutl: tuple[str, ...]
    own_etcdutl: Path | None
    target: str
    run: str
    timeouts: Timeouts

    @property
    def relocates(self) -> bool:
        """Whether the member moves to another directory."""
        return self.target != self.etcd.host_dir

    @property
    def work(self) -> str:
        """The folder in the data directory that everything is built in."""
        return work_folder(self.target)

    @property
    def prepared(self) -> str:
        """The new data directory while it is built."""
        return f"{self.work}/prepared-{self.run}"

    @property
    def new_manifest(self) -> str:
        """The manifest for another data directory."""
        return f"{STAGING_DIR}/etcd.yaml"

    @property
    def previous(self) -> str:
        """Where the old data is after a proven restore."""
        return f"{self.etcd.host_dir}/member" if self.relocates else f"{self.work}/kept/member"

    def prepare(self, snapshot: Path, *, bump_revision: int) -> Stages:
        """Build the new data directory beside the live one, while that serves; the journal is written first."""
        copy = f"{self.work}/snapshot-{self.run}.db"
        restore = (
            *self.etcdutl,
            *self.layout.restore_words(copy, data_dir=self.prepared, bump_revision=bump_revision),
        )
        journal = Command(why="whoever comes next knows what to clean up", argv=self._write({JOURNAL: Phase.PREPARING}))
        commands = [
            Command(why="folders of the restore", argv=("mkdir", "-p", "-m", "700", _SAVED, self.target, self.work)),
            Command(why="the snapshot", source=snapshot, target=copy),
            Command(
                why="build the new data directory; watchers must never see the revision go back",
                argv=restore,
                seconds=self.timeouts.build,
            ),
            Command(
                why="it belongs to whom the old one belongs to",
                argv=("chown", "-R", f"--reference={self.etcd.host_dir}", self.prepared),
            ),
            Command(why="the copy has served its purpose", argv=("rm", "-f", copy)),
        ]
        if self.own_etcdutl is not None:
            program = Command(
                why="etcdutl of etcd's minor version: the node has none",
                source=self.own_etcdutl,
                target=self.etcdutl[0],
                mode=0o700,
            )
            commands.insert(1, program)
        if self.relocates:
            edits = " ".join(f"-e '{expression}'" for expression in relocation(self.etcd, self.target))
            script = f"sed {edits} {MANIFESTS}/etcd.yaml > {self.new_manifest} && sync {self.new_manifest}"
            commands.append(_script("the manifest for the new data directory", script))
        return ((journal,), tuple(commands))

    def stop(self) -> Stages:
        """Stop the API server and what speaks to it, then etcd; without etcd an API server lingers."""
        clients = tuple(pod for pod in self.pods if pod != "etcd")
        journal = Command(
            why="from here on a second run knows what to undo",
            argv=self._write({_PROVEN: Phase.PROVEN, JOURNAL: Phase.SWITCHING}),
        )
        return ((journal,), self._stop_pods(clients, brief="kube-apiserver"), self._stop_pods(("etcd",)))

    def swap_in(self) -> Stages:
        """Put the new data directory in place by renaming; the old member is kept."""
        live, before = f"{self.etcd.host_dir}/member", f"{self.work}/before"
        move_in = f"mv -T {self.prepared}/member {self.target}/member && rm -rf {self.prepared} && sync {self.target}"
        commands = [_script("the restored member goes live", move_in)]
        if not self.relocates:
            # `none` says that there was no member: a missing before/member alone would look like a swap not done.
            aside = (
                f"mkdir -p -m 700 {before} && if test -e {live}; then mv -T {live} {before}/member; "
                f"else touch {before}/none; fi && sync {before} {self.target}"
            )
            commands.insert(0, _script("the old member is kept", aside))
        return (tuple(commands),)

    def start_etcd(self) -> Stages:
        """Start etcd on the restored data and wait until it serves."""
        manifest = self.new_manifest if self.relocates else f"{_SAVED}/etcd.yaml"
        # A kubelet that remembers the lost state would write it into the restored one: a pod that it ended while no
        # API server was there comes back as Failed, and stays so. A changed manifest, another pod of the same name to
        # it, it would let wait.
        forget = restart_kubelet("the kubelet must tell the restored state nothing of the lost one")
        start = Command(why="the kubelet starts etcd", argv=("mv", "-T", manifest, f"{MANIFESTS}/etcd.yaml"))
        return ((start, forget), (self._wait_for_etcd(),))

    def start_api(self) -> Stages:
        """Start the API server and wait until it is ready."""
        return ((self._put_back(("kube-apiserver",)),), (self._wait_for_api(),))

    def commit(self) -> Stages:
        """Write down that the restored state stays; safe to repeat."""
        script = (
            f"if test -e {_PROVEN}; then mv -fT {_PROVEN} {JOURNAL}; fi; "
            f"{{ ! test -e {JOURNAL} || grep -q '{_said(Phase.PROVEN)}' {JOURNAL}; }} && "
            f"{{ ! test -d {STAGING_DIR} || sync {STAGING_DIR}; }}"
        )
        why = "the restored state is proven: from here on it is finished, never undone"
        return ((_script(why, script),),)

    def forget_leaders(self) -> tuple[Command, ...]:
        """Remove the leader leases that the snapshot brought back; on one node, before the controllers start."""
        return (
            self._kubectl(
                "the restored leader leases name holders that were stopped",
                *("--namespace", "kube-system", "delete", "lease", "--ignore-not-found", "--wait=false", *CONTROLLERS),
            ),
        )

    def forget_dead(self, gone: Sequence[str]) -> tuple[Command, ...]:
        """Remove from the API the nodes that are dead for good, by their names, and their leases; on one node."""
        if not gone:
            return ()
        words = ("--ignore-not-found", "--wait=false", *gone)
        return (
            self._kubectl("nodes that are dead for good", "delete", "node", *words),
            self._kubectl("their leases", "--namespace", "kube-node-lease", "delete", "lease", *words),
        )

    def start_controllers(self) -> Stages:
        """Start the controllers and let the kubelet look at everything again."""
        there = tuple(pod for pod in self.pods if pod in CONTROLLERS)
        start = (self._put_back(there),) if there else ()
        return ((*start, restart_kubelet()),)

    def finish(self) -> Stages:
        """Do what a proven restore left to do, however far it came; safe to repeat."""
        # First what needs no API server: a control plane that cannot serve must not keep the next restore from a start
        # with every manifest in place. The restored leader leases are left to run out.
        return (
            *self.commit(),
            (self._put_back([pod for pod in self.pods if pod != "etcd"]), self._keep(), restart_kubelet()),
            (self._wait_for_etcd(),),
            (self._wait_for_api(),),
            *self.clean_up(),
        )

    def clean_up(self) -> Stages:
        """Keep the old state under names that mean done, and remove what the restore needed; safe to repeat."""
        return ((self._keep(),), *self.discard())

    def discard(self) -> Stages:
        """Remove what the restore needed, the journal last; safe to repeat."""
        rest = (
            f"rm -rf {self.work}/prepared-* {self.work}/snapshot-*.db* {STAGING_DIR}/etcdutl-* {self.new_manifest} && "
            f"{{ rmdir {_SAVED} {self.work} 2>/dev/null || true; }}"
        )
        # While there is a journal, whoever comes next cleans up what is left.
        last = f"if test -d {STAGING_DIR}; then rm -f {_PROVEN} {JOURNAL} && sync {STAGING_DIR}; fi"
        return ((_script("what the restore needed", rest),), (_script("nothing is left to do", last),))

    def _keep(self) -> Command:
        before, kept = f"{self.work}/before", f"{self.work}/kept"
        # Synced before the journal goes: without one, what is called "before" would be taken for the next restore's.
        keep = f"if test -e {before}; then rm -rf {kept} && mv -T {before} {kept} && sync {self.work}; fi"
        # A manifest still aside now is that of the old data directory, after a move to a new one.
        old = f"if test -e {_SAVED}/etcd.yaml; then mv -T {_SAVED}/etcd.yaml {STAGING_DIR}/etcd.yaml.before; fi"
        script = f"{keep} && {old}"
        return _script("the old member and manifest, under names that mean done", script)

    def roll_back(self) -> Stages:
        """Bring back the manifests and the data as they were; safe to repeat from anywhere."""
        clients = tuple(pod for pod in self.pods if pod != "etcd")
        controllers = (self._put_back(CONTROLLERS),) if set(CONTROLLERS) & set(self.pods) else ()
        return (
            self._stop_pods(clients, brief="kube-apiserver"),
            self._stop_pods(("etcd",)),
            (_script("the old data", self._old_data_back()),),
            # One that died since the stop, or that was killed with the node, would start nothing of what is put back.
            (self._put_back(("etcd",)), Command(why="the kubelet runs", argv=("systemctl", "start", "kubelet"))),
            (self._wait_for_etcd(),),
            (self._put_back(("kube-apiserver",)),),
            (self._wait_for_api(),),
            (*controllers, restart_kubelet()),
            *self.discard(),
        )

    def manifests_back(self) -> tuple[Command, ...]:
        """Start everything again that was stopped, whatever comes up: for a rollback to a state that did not serve."""
        return (self._put_back(self.pods), restart_kubelet())

    def _old_data_back(self) -> str:
        live, before, failed = f"{self.target}/member", f"{self.work}/before", f"{self.work}/failed"
        if self.relocates:
            return f"rm -rf {live} {self.work}"
        # Each line undoes one rename, and only where that rename was done: before/member and before/none are the
        # witnesses, and the last thing that goes.
        return (
            f"set -e; rm -rf {failed}; mkdir -p -m 700 {failed}; "
            f"if test -e {before}/member; then if test -e {live}; then mv -T {live} {failed}/member; fi; "
            f"mv -T {before}/member {live}; "
            f"elif test -e {before}/none; then if test -e {live}; then mv -T {live} {failed}/member; fi; "
            f"rm {before}/none; fi; sync {self.target}; rm -rf {before} {failed}"
        )

    def _write(self, journals: Mapping[str, Phase]) -> tuple[str, ...]:
        # Format 1 knew no phases, format 2 no other nodes: whoever reads only that must not decide for a part of them.
        record = {"format": 3, "run": self.run, "data_dir": self.etcd.host_dir, "target": self.target}
        record |= {"members": [name for name, _ in self.layout.cluster] or [self.layout.name]}
        texts = {
            path: json.dumps(record | {"phase": phase, "pods": list(self.pods)}) for path, phase in journals.items()
        }
        return ("sh", "-c", _WRITE, "journal", STAGING_DIR, *(word for pair in texts.items() for word in pair))

    def _stop_pods(self, pods: Sequence[str], *, brief: str = "") -> tuple[Command, ...]:
        """Move manifests aside and see the containers gone; the one named ``brief`` does not get the full grace."""
        # A manifest that stands aside already is the original: what is live then is ours and goes.
        move = (
            f"mkdir -p -m 700 {_SAVED}; for pod in {' '.join(pods)}; do "
            f"if test -e {_SAVED}/$pod.yaml; then rm -f {MANIFESTS}/$pod.yaml; "
            f"elif test -e {MANIFESTS}/$pod.yaml; then mv -T {MANIFESTS}/$pod.yaml {_SAVED}/$pod.yaml; fi; done; "
            f"sync {_SAVED} {MANIFESTS}"
        )
        named = ", ".join(pods)
        commands = [_script(f"the kubelet stops {named}", move)]
        if brief in pods:
            listing = self.runtime.running((brief,), data_dir=self.etcd.data_dir)
            grace = (
                f"{listing}; end=$(($(date +%s) + {self.timeouts.api_grace})); "
                f'while test $(date +%s) -lt $end && ids=$(running) && test -n "$ids"; do sleep {_POLL}; done; '
                f"for id in $(running); do {self.runtime.kill}; done; true"
            )
            why = f"{brief} keeps no state: it gets {self.timeouts.api_grace} s, then it is killed"
            commands.append(_script(why, grace))
        listing = self.runtime.running(pods, data_dir=self.etcd.data_dir)
        # A kubelet that was restarted since the API server went away ends nothing before it hears from it again.
        # By the clock: where the machine is busy, each look alone takes longer than the pause between two.
        gone = (
            f"{listing}; end=$(($(date +%s) + {self.timeouts.stubborn})); "
            f'while ids=$(running) || exit 1; test -n "$ids"; do sleep {_POLL}; '
            f"if test $(date +%s) -ge $end; then for id in $ids; do {self.runtime.kill}; done; fi; done"
        )
        return (*commands, _until(gone, f"see their containers gone: {named}", seconds=self.timeouts.gone))

    def _put_back(self, pods: Sequence[str]) -> Command:
        move = (
            f"if test -d {_SAVED}; then for pod in {' '.join(pods)}; do if test -e {_SAVED}/$pod.yaml; then "
            f"mv -T {_SAVED}/$pod.yaml {MANIFESTS}/$pod.yaml; fi; done; sync {MANIFESTS} {_SAVED}; fi"
        )
        return _script(f"the kubelet starts {', '.join(pods)}", move)

    def _wait_for_etcd(self) -> Command:
        loop = f"until {self._etcd_is_ready()}; do sleep {_POLL}; done 2>/dev/null"
        return _until(loop, "etcd serves", seconds=self.timeouts.etcd)

    def _etcd_is_ready(self) -> str:
        ask = f"curl --silent --output /dev/null --write-out %{{http_code}} --max-time 2 {self.etcd.curl_identity}"
        # /readyz exists since etcd 3.5.11. Older ones are asked for a read, as it does itself, and not for /health:
        # that complains of an alarm in the snapshot, which is reported later.
        return (
            f"case $({ask} {self.etcd.client_url}/readyz) in 200) ;; "
            f'404) test $({ask} --data \'{{"key":"AA=="}}\' {self.etcd.client_url}/v3/kv/range) = 200 ;; '
            "*) false ;; esac"
        )

    def _wait_for_api(self) -> Command:
        ask = f"curl --fail --silent --output /dev/null --max-time 5 {self._api_identity}"
        loop = f"until {ask} {self._api_url}/readyz; do sleep {_POLL}; done"
        return _until(loop, "the API server is ready", seconds=self.timeouts.api)

    def _kubectl(self, why: str, *words: str) -> Command:
        server = ("kubectl", "--kubeconfig", _ADMIN, "--server", f"https://127.0.0.1:{self.api.port}")
        return Command(why=why, argv=(*server, "--tls-server-name", "kubernetes", *words))

    @property
    def _api_identity(self) -> str:
        # The certificate is for the name "kubernetes" on every control plane, for loopback on few.
        return (
            f"--cacert {self.api.pki}/ca.crt --cert {self.api.pki}/apiserver-kubelet-client.crt "
            f"--key {self.api.pki}/apiserver-kubelet-client.key --resolve {urlsplit(self._api_url).netloc}:127.0.0.1"
        )

    @property
    def _api_url(self) -> str:
        return f"https://kubernetes:{self.api.port}"


def _said(phase: Phase) -> str:
    return f'"phase": "{phase}"'


def work_folder(data_dir: str) -> str:
    """Return the folder that a restore works in, on the file system of the data."""
    return f"{data_dir}/.clusterguard"


def restart_kubelet(why: str = _FORGET) -> Command:
    """Return the command that lets a node's kubelet look at everything again, as workers must after a restore, too."""
    return Command(why=why, argv=("systemctl", "restart", "kubelet"))


def _script(why: str, script: str) -> Command:
    return Command(why=why, argv=("sh", "-c", script))


def _until(loop: str, why: str, *, seconds: int) -> Command:
    return Command(why=why, argv=("timeout", str(seconds), "sh", "-c", loop), seconds=seconds + 30)
