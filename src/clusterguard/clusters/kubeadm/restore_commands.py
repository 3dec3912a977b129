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

from clusterguard.clusters.kubeadm.commands import (
    ASIDE,
    CONTROLLERS,
    JOURNAL,
    POLL,
    STAGING_DIR,
    Command,
    in_shell,
    until,
)
from clusterguard.clusters.kubeadm.static_pods import restart_kubelet

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from clusterguard.clusters.kubeadm.commands import Stages, Timeouts
    from clusterguard.clusters.kubeadm.manifests import ApiServerManifest
    from clusterguard.clusters.kubeadm.member_commands import MemberCommands
    from clusterguard.clusters.kubeadm.static_pods import StaticPods

__all__ = ["DATA_IS_BACK", "Phase", "RestoreCommands"]

DATA_IS_BACK = 3
"""How many stages of a rollback bring the old data back; all after them only start what is there."""

_PROVEN = f"{STAGING_DIR}/proven.json"
_ADMIN = "/etc/kubernetes/admin.conf"
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
class RestoreCommands:
    """The commands of each step on one node, from what was seen there; each step is made of stages (`Stages`).

    Attributes:
        member: What is done to its etcd, or None where it has none.
        api: The API server's manifest, or None where it has none.
        pods: Which of the static pods have a manifest.
        kubelet: Whether a kubelet runs there.
        static: Stops and starts static pods.
        nodes: What the journals call the nodes that take part (`Roles.identity`).
        gone: The names of members that are dead for good.
        run: What the names of this run end in.
        timeouts: How long things may take.
    """

    member: MemberCommands | None
    api: ApiServerManifest | None
    pods: tuple[str, ...]
    kubelet: bool
    static: StaticPods
    nodes: tuple[str, ...]
    gone: tuple[str, ...]
    run: str
    timeouts: Timeouts

    @property
    def _clients(self) -> tuple[str, ...]:
        """The API server and what speaks to it."""
        return tuple(pod for pod in self.pods if pod != "etcd")

    @property
    def _controllers(self) -> tuple[str, ...]:
        return tuple(pod for pod in self.pods if pod in CONTROLLERS)

    @property
    def _api_server(self) -> tuple[str, ...]:
        return ("kube-apiserver",) if self.api else ()

    def _of_member(self, step: Callable[[MemberCommands], tuple[Command, ...]]) -> tuple[Command, ...]:
        return step(self.member) if self.member else ()

    def prepare(self, snapshot: Path, *, bump_revision: int) -> Stages:
        """Build the new data directory beside the live one, while that serves; the journal is written first."""
        journal = Command(why="whoever comes next knows what to clean up", argv=self._write({JOURNAL: Phase.PREPARING}))
        return ((journal,), self._of_member(lambda member: member.build(snapshot, bump_revision=bump_revision)))

    def stop(self) -> Stages:
        """Stop the API server and what speaks to it, then etcd; without etcd an API server lingers."""
        journal = Command(
            why="from here on a second run knows what to undo",
            argv=self._write({_PROVEN: Phase.PROVEN, JOURNAL: Phase.SWITCHING}),
        )
        return ((journal,), self._stop_clients(), self._of_member(lambda member: member.stop()))

    def _stop_clients(self) -> tuple[Command, ...]:
        return self.static.stop(self._clients, brief="kube-apiserver")

    def swap_in(self) -> Stages:
        """Put the new data directory in place by renaming; the old member is kept."""
        return (self._of_member(lambda member: member.swap_in()),)

    def start_etcd(self) -> Stages:
        """Start etcd on the restored data and wait until it serves."""
        # A kubelet that remembers the lost state would write it into the restored one: a pod that it ended while no
        # API server was there comes back as Failed, and stays so. A changed manifest, another pod of the same name to
        # it, it would let wait.
        forget = self._restart_kubelet("the kubelet must tell the restored state nothing of the lost one")
        return ((*self._of_member(lambda member: member.start()), *forget), self._wait_for_etcd())

    def start_api(self) -> Stages:
        """Start the API server and wait until it is ready."""
        return (self.static.put_back(self._api_server), self._wait_for_api())

    def commit(self) -> Stages:
        """Write down that the restored state stays; safe to repeat."""
        script = (
            f"if test -e {_PROVEN}; then mv -fT {_PROVEN} {JOURNAL}; fi; "
            f"{{ ! test -e {JOURNAL} || grep -q '{_said(Phase.PROVEN)}' {JOURNAL}; }} && "
            f"{{ ! test -d {STAGING_DIR} || sync {STAGING_DIR}; }}"
        )
        why = "the restored state is proven: from here on it is finished, never undone"
        return ((in_shell(why, script),),)

    def forget_leaders(self) -> tuple[Command, ...]:
        """Remove the leader leases that the snapshot brought back; on one node, before the controllers start."""
        return self._kubectl(
            "the restored leader leases name holders that were stopped",
            *("--namespace", "kube-system", "delete", "lease", "--ignore-not-found", "--wait=false", *CONTROLLERS),
        )

    def forget_dead(self, gone: Sequence[str]) -> tuple[Command, ...]:
        """Remove from the API the nodes that are dead for good, by their names, and their leases; on one node."""
        if not gone:
            return ()
        words = ("--ignore-not-found", "--wait=false", *gone)
        return (
            *self._kubectl("nodes that are dead for good", "delete", "node", *words),
            *self._kubectl("their leases", "--namespace", "kube-node-lease", "delete", "lease", *words),
        )

    def start_controllers(self) -> Stages:
        """Start the controllers and let the kubelet look at everything again."""
        return ((*self.static.put_back(self._controllers), *self._restart_kubelet()),)

    def finish(self) -> Stages:
        """Do what a proven restore left to do, however far it came; safe to repeat."""
        # First what needs no API server: a control plane that cannot serve must not keep the next restore from a start
        # with every manifest in place. The restored leader leases are left to run out.
        started = (*self._of_member(lambda member: member.keep_running()), *self.static.put_back(self._clients))
        return (
            *self.commit(),
            (*started, *self._keep(), *self._restart_kubelet()),
            self._wait_for_etcd(),
            self._wait_for_api(),
            *self.clean_up(),
        )

    def clean_up(self) -> Stages:
        """Keep the old state under names that mean done, and remove what the restore needed; safe to repeat."""
        return (self._keep(), *self.discard())

    def discard(self) -> Stages:
        """Remove what the restore needed, the journal last; safe to repeat."""
        waste = f"rm -rf {self.member.waste} && " if self.member else ""
        folders = f"{ASIDE} {self.member.work}" if self.member else ASIDE
        rest = f"{waste}{{ rmdir {folders} 2>/dev/null || true; }}"
        # While there is a journal, whoever comes next cleans up what is left.
        last = f"if test -d {STAGING_DIR}; then rm -f {_PROVEN} {JOURNAL} && sync {STAGING_DIR}; fi"
        return ((in_shell("what the restore needed", rest),), (in_shell("nothing is left to do", last),))

    def roll_back(self) -> Stages:
        """Bring back the manifests and the data as they were; safe to repeat from anywhere."""
        controllers = self.static.put_back(CONTROLLERS) if self._controllers else ()
        return (
            self._stop_clients(),
            self._of_member(lambda member: member.stop()),
            self._of_member(lambda member: member.old_data_back()),
            # One that died since the stop, or that was killed with the node, would start nothing of what is put back.
            (*self._of_member(lambda member: member.start_again()), *self._start_kubelet()),
            self._wait_for_etcd(),
            self.static.put_back(self._api_server),
            self._wait_for_api(),
            (*controllers, *self._restart_kubelet()),
            *self.discard(),
        )

    def manifests_back(self) -> tuple[Command, ...]:
        """Start everything again that was stopped, whatever comes up: for a rollback to a state that did not serve."""
        return (
            *self._of_member(lambda member: member.keep_running()),
            *self.static.put_back(self.pods),
            *self._restart_kubelet(),
        )

    def _start_kubelet(self) -> tuple[Command, ...]:
        return (Command(why="the kubelet runs", argv=("systemctl", "start", "kubelet")),) if self.kubelet else ()

    def _keep(self) -> tuple[Command, ...]:
        return self._of_member(lambda member: member.keep())

    def _restart_kubelet(self, *why: str) -> tuple[Command, ...]:
        return (restart_kubelet(*why),) if self.kubelet else ()

    def _write(self, journals: Mapping[str, Phase]) -> tuple[str, ...]:
        # Format 1 knew no phases, format 2 no other nodes, format 3 none without etcd: whoever reads only that must not
        # decide for a part of them.
        old, new = (self.member.etcd.host_dir, self.member.target) if self.member else ("", "")
        record = {
            "format": 3 if self.member and self.api else 4,
            "run": self.run,
            "data_dir": old,
            "target": new,
            "members": list(self.nodes),
            "gone": list(self.gone),
            "pods": list(self.pods),
        }
        texts = {path: json.dumps(record | {"phase": phase}) for path, phase in journals.items()}
        return ("sh", "-c", _WRITE, "journal", STAGING_DIR, *(word for pair in texts.items() for word in pair))

    def _wait_for_etcd(self) -> tuple[Command, ...]:
        return self._of_member(lambda member: member.wait())

    def _wait_for_api(self) -> tuple[Command, ...]:
        if self.api is None:
            return ()
        # The certificate is for the name "kubernetes" on every control plane, for loopback on few.
        url, pki = f"https://kubernetes:{self.api.port}", self.api.pki
        identity = (
            f"--cacert {pki}/ca.crt --cert {pki}/apiserver-kubelet-client.crt "
            f"--key {pki}/apiserver-kubelet-client.key --resolve {urlsplit(url).netloc}:127.0.0.1"
        )
        ask = f"curl --fail --silent --output /dev/null --max-time 5 {identity}"
        loop = f"until {ask} {url}/readyz; do sleep {POLL}; done"
        return (until(loop, "the API server is ready", seconds=self.timeouts.api),)

    def _kubectl(self, why: str, *words: str) -> tuple[Command, ...]:
        if self.api is None:
            return ()
        server = ("kubectl", "--kubeconfig", _ADMIN, "--server", f"https://127.0.0.1:{self.api.port}")
        return (Command(why=why, argv=(*server, "--tls-server-name", "kubernetes", *words)),)


def _said(phase: Phase) -> str:
    return f'"phase": "{phase}"'
