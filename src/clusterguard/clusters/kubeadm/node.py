"""One control-plane node of kubeadm: what is there, and how the commands of a restore are run on it."""

from __future__ import annotations

import base64
import json
import platform
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.kubeadm.access import ETCD_PKI
from clusterguard.clusters.kubeadm.manifests import ApiServerManifest, EtcdManifest
from clusterguard.clusters.kubeadm.restore_commands import (
    JOURNAL,
    LOCK,
    MANIFESTS,
    PODS,
    STAGING_DIR,
    Command,
    Phase,
    RestoreCommands,
    Timeouts,
)
from clusterguard.clusters.kubeadm.runtimes import RUNTIMES, choose_runtime
from clusterguard.clusters.kubeadm.survey import Seen, complaints, fits, minor, survey_script
from clusterguard.errors import (
    ClusterError,
    ClusterGuardError,
    ProgramError,
    RestoreError,
    WaitTimeoutError,
)
from clusterguard.model.support import ETCDUTL_BUMPS_REVISIONS, parse_version
from clusterguard.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from threading import Event

    from clusterguard.clusters.base import EtcdLayout
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["KubeadmNode", "Surveyed", "is_control_plane"]

_TIMED_OUT = 124  # exit code of timeout(1)
_LOG_LINES = 8
_LOCK_SECONDS = 30.0  # a killed run's last command on the node ends first; then the lock is free
_MASTER_LEASES = "/registry/masterleases/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """What a node said of itself: its manifests, and answers to the questions of `survey_script`."""

    etcd: EtcdManifest
    api: ApiServerManifest
    seen: Seen


class KubeadmNode:
    """One control-plane node that kubeadm made: what is there, and the commands of a restore on it.

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
        with outside.lock(LOCK, wait_seconds=_LOCK_SECONDS, regained=self._require_ours) as locked:
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
        self._seen = self._etcd_says = None
        self.ours = ()

    # ---- seeing --------------------------------------------------------------------------------------------

    def survey(self) -> None:
        """Look at the node, so that what is asked later is known."""
        self.look()

    def look(self) -> Surveyed:
        """Look at the node, once; touches nothing."""
        if self._seen is None:
            etcd, api = self._manifests()
            self._seen = Surveyed(etcd=etcd, api=api, seen=self._survey(etcd, api))
        return self._seen

    def _manifests(self) -> tuple[EtcdManifest, ApiServerManifest]:
        etcd, api = (f"{self._shell.name}:{MANIFESTS}/{pod}.yaml" for pod in ("etcd", "kube-apiserver"))
        return (
            EtcdManifest.parse(self._manifest("etcd"), where=etcd),
            ApiServerManifest.parse(self._manifest("kube-apiserver"), where=api),
        )

    def _survey(self, etcd: EtcdManifest, api: ApiServerManifest) -> Seen:
        script = survey_script(
            data_dir=etcd.host_dir,
            target=self._data_dir or etcd.host_dir,
            ask_etcd=f"curl --fail --silent --max-time 5 {etcd.curl_identity} {etcd.client_url}",
            etcd_pki=etcd.pki,
            api_pki=api.pki,
        )
        began = time.time()
        seen = Seen.parse(self._shell.run(["sh", "-c", script]))
        return replace(seen, asked=(began, time.time()))

    def _manifest(self, pod: str) -> str:
        """Return the original manifest, wherever a restore may have left it."""
        script = f"cat {STAGING_DIR}/manifests/{pod}.yaml 2>/dev/null || cat {MANIFESTS}/{pod}.yaml"
        try:
            return self._shell.run(["sh", "-c", script])
        except ProgramError as error:
            if "No such file" not in error.output:
                raise
            raise self._no_manifest(pod) from error

    def _no_manifest(self, pod: str) -> ClusterError:
        return ClusterError(
            f"{self._shell.name} has no {MANIFESTS}/{pod}.yaml{self._external_etcd(pod)}",
            code="no-static-pod",
            fields={"node": self._shell.name, "pod": pod},
            hint="name the control-plane node that runs etcd as a static pod; an external etcd is restored where it "
            "runs, and a managed control plane (EKS, GKE, AKS) is backed up with Velero",
        )

    def _external_etcd(self, pod: str) -> str:
        if pod != "etcd":
            return ""
        where = f"{MANIFESTS}/kube-apiserver.yaml"
        try:
            servers = ApiServerManifest.parse(self._shell.run(["cat", where]), where=where).etcd_servers
        except ClusterGuardError:
            return ", and no API server either: it is not a control-plane node as kubeadm makes them"
        return f": its API server uses an external etcd ({', '.join(servers)})"

    def journal(self) -> dict[str, Any] | None:
        """Return what a restore has written down here, or None where there is none."""
        text = self._shell.run(["sh", "-c", f"cat {JOURNAL} 2>/dev/null || true"])
        if not text.strip():
            return None
        where = f"{self._shell.name}:{JOURNAL}"
        try:
            journal: dict[str, Any] = {"phase": Phase.SWITCHING} | json.loads(text)  # format 1 knew no other phase
            known = journal["format"] in (1, 2, 3)
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

    def commands(self, layout: EtcdLayout) -> RestoreCommands:
        """Return the commands of a restore of this node as that member, or raise a ClusterError."""
        node = self.look()
        restore = RestoreCommands(
            etcd=node.etcd,
            layout=layout,
            api=node.api,
            pods=tuple(pod for pod in PODS if pod in node.seen.all("pod")),
            runtime=choose_runtime(node.seen.all("program")) or RUNTIMES[-1],
            etcdutl=("etcdutl",),
            own_etcdutl=None,
            target=self._data_dir or node.etcd.host_dir,
            run=self._run_id,
            timeouts=self._timeouts,
        )
        words, own = self._find_etcdutl(node, restore)
        return replace(restore, etcdutl=words, own_etcdutl=own)

    def commands_of(self, journal: Mapping[str, Any]) -> RestoreCommands:
        """Return the commands that undo or finish the restore that a journal tells of."""
        etcd, api = self._manifests()
        programs = self._shell.run(
            ["sh", "-c", "for each in crictl ctr pgrep; do command -v $each >/dev/null && echo $each; done; true"]
        ).split()
        # As the interrupted run was: its names, its target and which manifests there were, not what we would choose.
        return RestoreCommands(
            etcd=etcd,
            layout=etcd.layout,
            api=api,
            pods=tuple(journal.get("pods", PODS)),
            runtime=choose_runtime(programs) or RUNTIMES[-1],
            etcdutl=(),
            own_etcdutl=None,
            target=str(journal.get("target", self._data_dir or etcd.host_dir)),
            run=str(journal.get("run", self._run_id)),
            timeouts=self._timeouts,
        )

    def etcd_version(self) -> str:
        """Return what etcd says of itself, or if it does not answer its image, or that one's tag; ``""`` if unknown."""
        node = self.look()
        if self._etcd_says is None:
            self._etcd_says = node.seen.one("etcd") or self._version_in_image(node) or _tag(node.etcd.image)
        return self._etcd_says

    def kubernetes_version(self) -> str:
        """Return the version that the API server's image is tagged with, or ``""``."""
        return _tag(self.look().api.image)

    def complaints(self, *, needed_bytes: int) -> list[ClusterError]:
        """Return what on this node stands in the way of a restore; touches nothing."""
        node = self.look()
        target = self._data_dir or node.etcd.host_dir
        return complaints(node.seen, data_dir=node.etcd.host_dir, target=target, needed_bytes=needed_bytes)

    def etcd_pki(self) -> str:
        """Return the folder of etcd's certificates: kubeadm's own where no manifest names another."""
        try:
            return self._manifests()[0].pki
        except ClusterError:
            return ETCD_PKI

    def authority(self) -> str:
        """Return the certificate of the authority of its API server, in PEM."""
        return self._shell.run(["cat", f"{self.look().api.pki}/ca.crt"])

    def etcd_authority(self) -> str:
        """Return the certificate of the authority of its etcd's clients, in PEM."""
        return self._shell.run(["cat", self._manifests()[0].ca])

    def api_server_leases(self) -> list[str]:
        """Return the keys under which API servers say in etcd that they live; a ClusterGuardError, if it is not asked.

        Raises:
            ValueError: etcd answered with something else.
            KeyError: Likewise.
        """
        etcd = self.look().etcd
        first, last = (base64.b64encode(text.encode()).decode() for text in (_MASTER_LEASES, _MASTER_LEASES[:-1] + "0"))
        query = json.dumps({"key": first, "range_end": last, "keys_only": True})
        url = f"{etcd.client_url}/v3/kv/range"
        ask = f"curl --fail --silent --show-error --max-time 10 {etcd.curl_identity} --data '{query}' {url}"
        answer = json.loads(self._shell.run(["sh", "-c", ask]))
        return [base64.b64decode(entry["key"]).decode() for entry in answer.get("kvs", ())]

    def _find_etcdutl(self, node: Surveyed, restore: RestoreCommands) -> tuple[tuple[str, ...], Path | None]:
        """Find an etcdutl that builds data for this etcd: on the node, in etcd's image, or ours."""
        live, there = self.etcd_version(), node.seen.one("etcdutl")
        if there and fits(there, live, same_minor=True):
            return ("etcdutl",), None
        inside = ""
        if "ctr" in node.seen.all("program"):
            words = self._in_etcds_image(node, restore)
            inside = self._version_of(words)
            if inside and fits(inside, live):
                return words, None
        if self._own_etcdutl is not None and sys.platform == "linux" and platform.machine() == node.seen.one("arch"):
            own = self._own_etcdutl()
            if fits(_told_version(run([own, "version"], timeout_seconds=20).stdout, "etcdutl version"), live):
                return (f"{STAGING_DIR}/etcdutl-{self._run_id}",), own
        raise ClusterError(
            f"{self._shell.name}: no etcdutl for etcd {live or 'of unknown version'}: {there or 'none'} on the node, "
            f"{inside or 'none'} in etcd's image, and none of this machine fits",
            hint=f"put etcdutl {minor(live) or 'of the minor version of etcd'}, "
            f"{'.'.join(map(str, ETCDUTL_BUMPS_REVISIONS))} or newer, on the node's PATH",
        )

    def _in_etcds_image(self, node: Surveyed, restore: RestoreCommands) -> tuple[str, ...]:
        place = restore.target
        return (
            "ctr",
            *("-n", "k8s.io", "run", "--rm", "--mount", f"type=bind,src={place},dst={place},options=rbind:rw"),
            node.etcd.image,
            f"clusterguard-{self._run_id}",
            "etcdutl",
        )

    def _version_of(self, etcdutl: Sequence[str]) -> str:
        # The place to restore into need not be there yet.
        words = [
            word if not word.startswith("type=bind") else "type=bind,src=/tmp,dst=/tmp,options=rbind:ro"
            for word in etcdutl
        ]
        try:
            answer = self._shell.run([*words, "version"])
        except ProgramError:
            return ""
        return _told_version(answer, "etcdutl version")

    def _version_in_image(self, node: Surveyed) -> str:
        """Return what the image of an etcd that does not answer says of itself, or ``""`` if it cannot be asked."""
        if "ctr" not in node.seen.all("program"):
            return ""
        name = f"clusterguard-{self._run_id}"
        try:
            answer = self._shell.run(["ctr", "-n", "k8s.io", "run", "--rm", node.etcd.image, name, "etcd", "--version"])
        except ProgramError:
            return ""
        return _told_version(answer, "etcd Version")

    def check_new_manifest(self, restore: RestoreCommands) -> None:
        """Raise a ClusterError unless the manifest for another data directory differs in nothing but that."""
        text = self._shell.run(["cat", restore.new_manifest])
        moved = EtcdManifest.parse(text, where=f"{self._shell.name}:{restore.new_manifest}")
        inside = restore.target if restore.etcd.data_dir == restore.etcd.host_dir else restore.etcd.data_dir
        if moved != replace(restore.etcd, host_dir=restore.target, data_dir=inside):
            raise ClusterError(
                f"{self._shell.name}: the manifest could not be rewritten for {restore.target}",
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

    def _last_words(self, pod: str) -> str:
        """Return the end of a static pod's newest log, which the kubelet keeps at the same place for every runtime."""
        script = f"ls -t /var/log/pods/kube-system_{pod}-*/{pod}/*.log | head -n 1 | xargs tail -n {_LOG_LINES}"
        try:
            return self._shell.run(["sh", "-c", script]).strip() or "nothing in its log"
        except ProgramError as error:
            return f"its log cannot be read ({error.message})"


def is_control_plane(shell: NodeShell) -> bool:
    """Tell whether a node has a control plane's manifests, also while a restore has moved them aside."""
    places = " || ".join(
        f"test -e {place}"
        for place in (
            f"{MANIFESTS}/kube-apiserver.yaml",
            f"{MANIFESTS}/etcd.yaml",
            JOURNAL,
            f"{STAGING_DIR}/manifests/etcd.yaml",
        )
    )
    return shell.run(["sh", "-c", f"if {places}; then echo yes; fi"]).strip() == "yes"


def _tag(image: str) -> str:
    """Return the version that an image's tag tells, such as 3.6.8 of ``registry.k8s.io/etcd:3.6.8-0``, or ``""``."""
    found = parse_version(image.rpartition("/")[2].partition("@")[0].partition(":")[2])
    return ".".join(map(str, found)) if found else ""


def _told_version(answer: str, after: str) -> str:
    return next((line.rpartition(" ")[2] for line in answer.splitlines() if line.startswith(after)), "")
