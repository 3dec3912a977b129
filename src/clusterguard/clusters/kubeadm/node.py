"""One control-plane node of kubeadm: what is there, and how the commands of a restore are run on it."""

from __future__ import annotations

import base64
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.kubeadm.commands import JOURNAL, LOCK, MANIFESTS, PODS, STAGING_DIR, Command, Timeouts
from clusterguard.clusters.kubeadm.etcd_units import UNIT, EtcdUnit
from clusterguard.clusters.kubeadm.etcdutl import find_etcdutl, version_in_image
from clusterguard.clusters.kubeadm.manifests import EtcdManifest
from clusterguard.clusters.kubeadm.member_commands import MemberCommands
from clusterguard.clusters.kubeadm.restore_commands import Phase, RestoreCommands
from clusterguard.clusters.kubeadm.roles import Roles, roles_of
from clusterguard.clusters.kubeadm.runtimes import RUNTIMES, choose_runtime
from clusterguard.clusters.kubeadm.static_pods import StaticPods
from clusterguard.clusters.kubeadm.survey import Seen, complaints, survey_script
from clusterguard.errors import ClusterError, ProgramError, RestoreError, WaitTimeoutError
from clusterguard.model.support import parse_version

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from threading import Event

    from clusterguard.clusters.base import EtcdLayout
    from clusterguard.clusters.kubeadm.etcd_setup import EtcdSetup
    from clusterguard.clusters.kubeadm.manifests import ApiServerManifest
    from clusterguard.clusters.kubeadm.runtimes import Runtime
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["KubeadmNode", "Surveyed"]

_TIMED_OUT = 124  # exit code of timeout(1)
_LOG_LINES = 8
_COMPACTED = "compact_rev_key"  # API servers agree by it on who compacts; it has no prefix


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """What a node said of itself: what it runs of a control plane, and answers to the questions of `survey_script`."""

    roles: Roles
    seen: Seen

    @property
    def etcd(self) -> EtcdSetup | None:
        """How its member is started."""
        return self.roles.etcd

    @property
    def api(self) -> ApiServerManifest | None:
        """Its API server's manifest."""
        return self.roles.api


class KubeadmNode:
    """One node of a control plane, with etcd, an API server or both: what is there, and a restore's commands on it.

    Everything happens by commands on that node, all of them from `restore_commands`: what is executed is what a
    plan prints.

    Args:
        shell: How to reach the node.
        data_dir: Restore into this directory of the node instead of the live one.
        etcdutl: Gives etcdutl on this machine, to be copied to a node that has none.
        timeouts: How long things may take.
        run: What the names of this run's files end in.
        halt: Where it is set, no further command begins.
        on_command: Called with each command before it runs.
    """

    def __init__(
        self,
        shell: NodeShell,
        *,
        data_dir: str | None,
        etcdutl: Callable[[], Path] | None,
        timeouts: Timeouts,
        run: str,
        halt: Event,
        on_command: Callable[[Command], object],
    ) -> None:
        self._shell = shell
        self._data_dir = data_dir
        self._own_etcdutl = etcdutl
        self._timeouts = timeouts
        self._run_id = run
        self._halt = halt
        self._on_command = on_command
        self._roles: Roles | None = None
        self._seen: Surveyed | None = None
        self._etcd_says: str | None = None
        # Whose journal may lie on the node while we are at work (None: none at all), or () while that does not matter.
        self.ours: tuple[str | None, ...] = ()

    @property
    def name(self) -> str:
        """How messages call it."""
        return self._shell.name

    @property
    def shell(self) -> NodeShell:
        """How it is reached."""
        return self._shell

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other restores of this node out; the lock is the node's, and is released however we end."""
        outside = self._shell
        # The lock ends with the connection. After a new one somebody else may have worked here, so the journal is
        # looked at first.
        with outside.lock(LOCK, wait_seconds=self._timeouts.lock, regained=self._require_ours) as locked:
            self._shell = locked
            self.forget()  # what was seen without the lock may be another run's work, half done
            try:
                yield
            finally:
                self._shell = outside

    def is_left_over(self) -> bool:
        """Tell whether a restore left something without a journal: before there were phases it was removed first."""
        return bool(self._shell.run(["sh", "-c", f"ls -d {STAGING_DIR}/manifests 2>/dev/null || true"]).strip())

    def forget(self) -> None:
        """Look again at everything when it is asked for next."""
        self._roles = self._seen = self._etcd_says = None
        self.ours = ()

    # ---- seeing --------------------------------------------------------------------------------------------

    def survey(self) -> None:
        """Look at the node, so that what is asked later is known."""
        self.look()

    def look(self) -> Surveyed:
        """Look at the node, once; touches nothing."""
        if self._seen is None:
            self._seen = Surveyed(roles=self.roles(), seen=self._survey(self.roles()))
        return self._seen

    def roles(self) -> Roles:
        """Return what it runs of a control plane.

        Raises:
            ClusterError: It runs nothing of it, or what starts that cannot be read.
        """
        if self._roles is None:
            self._roles = roles_of(self._shell)
        if not self._roles:
            raise ClusterError(
                f"{self._shell.name} runs no etcd, neither as {MANIFESTS}/etcd.yaml nor as {UNIT}, and no API server",
                code="no-static-pod",
                fields={"node": self._shell.name, "pod": "etcd"},
                hint="name a node with the control plane that kubeadm made; a managed one (EKS, GKE, AKS) is backed up "
                "with Velero",
            )
        return self._roles

    @property
    def etcd(self) -> EtcdSetup | None:
        """How its member is started, or None where it has none."""
        return self.roles().etcd

    @property
    def member(self) -> EtcdSetup:
        """How its member is started; it must have one."""
        if (etcd := self.etcd) is None:
            raise TypeError(f"{self.name} has no etcd")
        return etcd

    @property
    def api(self) -> ApiServerManifest | None:
        """Its API server's manifest, or None where it has none."""
        return self.roles().api

    @property
    def _target(self) -> str:
        return self._data_dir or (self.etcd.host_dir if self.etcd else "")

    def _survey(self, roles: Roles) -> Seen:
        began = time.time()
        seen = Seen.parse(self._shell.run(["sh", "-c", survey_script(roles, target=self._target)]))
        return replace(seen, asked=(began, time.time()))

    def journal(self) -> dict[str, Any] | None:
        """Return what a restore has written down here, or None where there is none."""
        text = self._shell.run(["sh", "-c", f"cat {JOURNAL} 2>/dev/null || true"])
        if not text.strip():
            return None
        where = f"{self._shell.name}:{JOURNAL}"
        try:
            journal: dict[str, Any] = {"phase": Phase.SWITCHING} | json.loads(text)  # format 1 knew no other phase
            known = journal["format"] in (1, 2, 3, 4)
            Phase(journal["phase"])
        except (ValueError, KeyError, TypeError) as error:
            raise ClusterError(
                f"{where} cannot be read: {text[:200]!r}", code="journal-unreadable", fields={"journal": text[:200]}
            ) from error
        if not known:
            raise ClusterError(
                f"{where} has format {journal['format']}, which this version does not know",
                code="journal-format",
                fields={"format": journal["format"]},
                hint="run the version of clusterguard that began that restore",
            )
        return journal

    def _require_ours(self) -> None:
        """Step aside if another run had the lock while our connection to the node was broken."""
        if not self.ours:
            return
        journal = self.journal()
        if (journal["run"] if journal else None) not in self.ours:
            raise RestoreError(
                f"another run has changed {self._shell.name} since the connection to it broke, so this one steps aside",
                rolled_back=False,
                code="restore-taken-over",
                hint="see what serves now, and restore again if it is not what it should be",
            )

    # ---- deciding ------------------------------------------------------------------------------------------

    def commands(self, layout: EtcdLayout | None, *, nodes: Sequence[str], gone: Sequence[str] = ()) -> RestoreCommands:
        """Return the commands of a restore of this node, or raise a ClusterError.

        Args:
            layout: What its etcd is restored as, or None where it has none.
            nodes: What the journals call the nodes that take part.
            gone: The names of members that are dead for good.
        """
        seen = self.look().seen
        runtime = choose_runtime(seen.all("program")) or RUNTIMES[-1]
        pods = tuple(pod for pod in PODS if pod in seen.all("pod"))
        etcdutl: tuple[tuple[str, ...], Path | None] = ((), None)
        if layout is not None:
            etcdutl = find_etcdutl(
                self._shell,
                self.member,
                seen,
                live=self.etcd_version(),
                target=self._target,
                run_id=self._run_id,
                own=self._own_etcdutl,
            )
        return self._composed(layout, etcdutl, target=self._target, runtime=runtime, pods=pods, nodes=nodes, gone=gone)

    def commands_of(self, journal: Mapping[str, Any]) -> RestoreCommands:
        """Return the commands that undo or finish the restore that a journal tells of."""
        programs = self._shell.run(
            ["sh", "-c", "for each in crictl ctr pgrep; do command -v $each >/dev/null && echo $each; done; true"]
        ).split()
        # As the interrupted run was: its names, its target and which manifests there were, not what we would choose.
        return self._composed(
            self.etcd.layout if self.etcd else None,
            ((), None),
            target=str(journal.get("target", self._target)),
            runtime=choose_runtime(programs) or RUNTIMES[-1],
            pods=journal.get("pods", PODS if self.api else ()),
            run_id=str(journal.get("run", self._run_id)),
        )

    def _composed(
        self,
        layout: EtcdLayout | None,
        etcdutl: tuple[tuple[str, ...], Path | None],
        *,
        target: str,
        runtime: Runtime,
        pods: Sequence[str],
        nodes: Sequence[str] = (),
        gone: Sequence[str] = (),
        run_id: str = "",
    ) -> RestoreCommands:
        roles, run = self.roles(), run_id or self._run_id
        static = StaticPods(
            runtime=runtime, timeouts=self._timeouts, data_dir=roles.etcd.data_dir if roles.etcd else ""
        )
        member = None
        if roles.etcd and layout:
            words, own = etcdutl
            member = MemberCommands(
                etcd=roles.etcd,
                layout=layout,
                etcdutl=words,
                own_etcdutl=own,
                target=target,
                static=static,
                run=run,
                timeouts=self._timeouts,
            )
        return RestoreCommands(
            member=member,
            api=roles.api,
            pods=tuple(pods),
            kubelet=roles.kubelet,
            static=static,
            nodes=tuple(nodes),
            gone=tuple(gone),
            run=run,
            timeouts=self._timeouts,
        )

    def etcd_version(self) -> str:
        """Return what etcd says of itself, or if it does not answer its program or image; ``""`` if unknown."""
        node = self.look()
        if self._etcd_says is None:
            in_image = ""
            if not node.seen.one("etcd") and "ctr" in node.seen.all("program"):
                in_image = version_in_image(self._shell, self.member.image, run_id=self._run_id)
            told = node.seen.one("etcd") or node.seen.one("etcd_program") or in_image
            self._etcd_says = told or _tag(self.member.image)
        return self._etcd_says

    def kubernetes_version(self) -> str:
        """Return the version that the API server's image is tagged with, or ``""``."""
        return _tag(self.api.image) if self.api else ""

    def complaints(self, *, needed_bytes: int) -> list[ClusterError]:
        """Return what on this node stands in the way of a restore; touches nothing."""
        node = self.look()
        return complaints(node.seen, node.roles, target=self._target, needed_bytes=needed_bytes)

    def authority(self) -> str:
        """Return the certificate of the authority of its API server, in PEM; ``""`` where it has none."""
        return self._shell.run(["cat", f"{self.api.pki}/ca.crt"]) if self.api else ""

    def etcd_authority(self) -> str:
        """Return the certificate of the authority of its etcd's clients, in PEM; ``""`` where it speaks plain HTTP."""
        ca = self.member.identity.ca
        return self._shell.run(["cat", ca]) if ca else ""

    def range(self, first: str, last: str, **how: bool) -> Mapping[str, Any]:
        """Return what its etcd answers about the keys from one on to another, which is not among them.

        Raises:
            ClusterGuardError: It could not be asked.
            ValueError: It answered with something else.
        """
        start, end = (base64.b64encode(text.encode()).decode() for text in (first, last))
        query = json.dumps({"key": start, "range_end": end} | how)
        etcd = self.member
        url = f"{etcd.client_url}/v3/kv/range"
        ask = f"curl --fail --silent --show-error --max-time 10 {etcd.identity.curl} --data '{query}' {url}"
        answer = json.loads(self._shell.run(["sh", "-c", ask]))
        if not isinstance(answer, dict):
            raise ValueError(f"it answered {answer!r}")  # noqa: TRY004 - as for other answers that are none
        return answer

    def api_server_leases(self, prefix: str) -> list[str]:
        """Return the keys under which API servers say in etcd that they live, below the prefix of all of theirs.

        Raises:
            ClusterGuardError: It could not be asked.
            ValueError: etcd answered with something else.
            KeyError: Likewise.
        """
        leases = f"{prefix}/masterleases"
        answer = self.range(f"{leases}/", f"{leases}0", keys_only=True)
        return [base64.b64decode(entry["key"]).decode() for entry in answer.get("kvs", ())]

    def foreign_keys(self, prefix: str) -> int:
        """Return how many keys its etcd holds that are not those of Kubernetes, which are below the prefix.

        Raises:
            ClusterGuardError: It could not be asked.
            ValueError: etcd answered with something else.
        """
        # Around the prefix, not all of them less those below it: there something is written between two questions.
        asked = (("\0", f"{prefix}/"), (f"{prefix}0", "\0"), (_COMPACTED, f"{_COMPACTED}\0"))
        before, after, ours = (int(self.range(first, last, count_only=True).get("count", 0)) for first, last in asked)
        return before + after - ours

    def check_new_manifest(self, member: MemberCommands) -> None:
        """Raise a ClusterError unless the manifest for another data directory differs in nothing but that."""
        text = self._shell.run(["cat", member.new_manifest])
        moved = EtcdManifest.parse(text, where=f"{self._shell.name}:{member.new_manifest}")
        inside = member.target if member.etcd.data_dir == member.etcd.host_dir else member.etcd.data_dir
        if moved != replace(member.etcd, host_dir=member.target, data_dir=inside):
            raise ClusterError(
                f"{self._shell.name}: the manifest could not be rewritten for {member.target}",
                hint=f"look at {MANIFESTS}/etcd.yaml: is its data directory written in an unusual way?",
            )

    # ---- doing ---------------------------------------------------------------------------------------------

    def perform(self, commands: Sequence[Command], *, log_of: str = "") -> None:
        """Run commands, in order; a WaitTimeoutError has the end of the log of ``log_of``, a static pod."""
        for command in commands:
            if self._halt.is_set():
                raise ClusterError(f"{self._shell.name}: interrupted before: {command.why}", code="interrupted")
            self._on_command(command)
            if command.source is not None:
                self._shell.put(command.source, command.target, mode=command.mode)
                continue
            try:
                self._shell.run(command.argv, timeout_seconds=command.seconds)
            except ProgramError as error:
                if error.exit_code != _TIMED_OUT:
                    raise
                raise WaitTimeoutError(
                    f"{self._shell.name}: {command.why}",
                    seconds=float(command.argv[1]),
                    last_seen=self._last_words(log_of) if log_of else "still not so",
                ) from error

    def line(self, command: Command) -> str:
        """Return a command as a person would type it at this machine."""
        if command.source is not None:
            return self._shell.describe_put(command.source, command.target, mode=command.mode)
        return self._shell.describe(command.argv)

    def _last_words(self, program: str) -> str:
        """Return the end of a program's newest log: of a static pod its kubelet keeps it, of a unit systemd."""
        script = f"ls -t /var/log/pods/kube-system_{program}-*/{program}/*.log | head -n 1 | xargs tail -n {_LOG_LINES}"
        if program == "etcd" and isinstance(self.etcd, EtcdUnit):
            script = f"journalctl --unit={UNIT} --lines={_LOG_LINES} --no-pager --output=cat"
        try:
            return self._shell.run(["sh", "-c", script]).strip() or "nothing in its log"
        except ProgramError as error:
            return f"its log cannot be read ({error.message})"


def _tag(image: str) -> str:
    """Return the version that an image's tag tells, such as 3.6.8 of ``registry.k8s.io/etcd:3.6.8-0``, or ``""``."""
    found = parse_version(image.rpartition("/")[2].partition("@")[0].partition(":")[2])
    return ".".join(map(str, found)) if found else ""
