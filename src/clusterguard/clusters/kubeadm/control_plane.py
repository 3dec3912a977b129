"""Restore etcd on a kubeadm control plane: stop its static pods, swap its data, keep a rollback until proven."""

from __future__ import annotations

import base64
import binascii
import json
import platform
import secrets
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.base import RunbookLine, RunbookStep
from clusterguard.clusters.kubeadm.manifests import SEVERAL_MEMBERS_HINT, ApiServerManifest, EtcdManifest
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
    ClusterUnreachableError,
    ConfigError,
    ProgramError,
    RestoreError,
    WaitTimeoutError,
)
from clusterguard.model.support import ETCDUTL_BUMPS_REVISIONS, parse_version, require_restorable, require_supported
from clusterguard.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from clusterguard.clusters.base import EtcdLayout
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["KubeadmControlPlane"]

_API_SECONDS = 15
_TIMED_OUT = 124  # exit code of timeout(1)
_LOG_LINES = 8
_LOCK_SECONDS = 30.0  # a killed run's last command on the node ends first; then the lock is free
_MASTER_LEASES = "/registry/masterleases/"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Node:
    etcd: EtcdManifest
    api: ApiServerManifest
    seen: Seen


class KubeadmControlPlane:
    """The `ControlPlane` of a cluster that kubeadm made, with one control-plane node.

    Everything happens by commands on that node, all of them from `restore_commands`: what is executed is what a
    plan prints.

    Args:
        shell: How to reach the node.
        api: The client of its API server.
        data_dir: Restore into this directory of the node instead of the live one.
        etcdutl: Gives etcdutl on this machine, to be copied to a node that has none.
        timeouts: How long things may take.
        run: What the names of this run's files end in.
        on_command: Called with each command before it runs.
    """

    def __init__(
        self,
        *,
        shell: NodeShell,
        api: Callable[[], KubeClient],
        data_dir: str | None = None,
        etcdutl: Callable[[], Path] | None = None,
        timeouts: Timeouts | None = None,
        run: str | None = None,
        on_command: Callable[[Command], object] = lambda _: None,
    ) -> None:
        if data_dir is not None and (not data_dir.startswith("/") or set(data_dir) & set("'\"|&\\$ \n*")):
            raise ConfigError(f"{data_dir!r} is not an absolute path without spaces and shell characters")
        self._shell = shell
        self._api = api
        self._data_dir = data_dir.rstrip("/") if data_dir else None
        self._own_etcdutl = etcdutl
        self._timeouts = timeouts or Timeouts()
        self._run_id = run or secrets.token_hex(4)
        self._on_command = on_command
        self._node: _Node | None = None
        self._restore: RestoreCommands | None = None
        self._etcd_says: str | None = None
        # Whose journal may lie on the node while we are at work (None: none at all), or () while that does not matter.
        self._ours: tuple[str | None, ...] = ()

    def layout(self) -> EtcdLayout:
        """Return how the member is started."""
        return self._look().etcd.layout

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other restores of this node out; the lock is the node's, and is released however we end."""
        outside = self._shell
        # The lock ends with the connection. After a new one somebody else may have worked here, so the journal is
        # looked at first.
        with outside.lock(LOCK, wait_seconds=_LOCK_SECONDS, regained=self._require_ours) as locked:
            self._shell = locked
            self._forget()  # what was seen without the lock may be another run's work, half done
            try:
                yield
            finally:
                self._shell = outside

    def recover(self) -> str | None:
        """Undo a restore that was interrupted, or finish it once it was proven; return what was done, or None."""
        try:
            journal = self._journal()
            if journal is not None:
                return self._recover(journal)
            self._sweep()
        finally:
            self._forget()
        return None

    def _recover(self, journal: dict[str, Any]) -> str:
        self._restore = self._recovery(journal)
        self._ours = (self._restore.run,)
        match Phase(journal["phase"]):
            case Phase.PREPARING:
                self.discard()
                return "what an interrupted restore had built was removed; nothing else had been touched"
            case Phase.SWITCHING:
                self.roll_back()
                return "an interrupted restore was rolled back: the state before it is live again"
            case Phase.PROVEN:
                # The last command removes the journal: if the connection breaks after it, none is as good as ours.
                self._ours = (self._restore.run, None)
                self._perform(self._restore.finish(), log_of="etcd")
                return "a proven restore that was interrupted was finished: the restored state stays"

    def _sweep(self) -> None:
        """Clean up after a restore that wrote no journal, or, before there were phases, had removed it already."""
        if self._shell.run(["sh", "-c", f"ls -d {STAGING_DIR}/manifests 2>/dev/null || true"]).strip():
            self._perform(self._recovery({}).clean_up())

    def check(self, *, needed_bytes: int, etcd_version: str = "", storage_version: str | None = None) -> None:
        """Look at everything a restore needs on the node; touches nothing.

        Raises:
            UnsupportedVersionError: etcd or Kubernetes is of a version that is not supported.
            ClusterError: Something is missing; the message names all of it.
        """
        node = self._look()
        require_supported("etcd", self._etcd_version(node), where=self._shell.name)
        require_restorable(etcd_version, storage_version, live=self._etcd_version(node), where=self._shell.name)
        require_supported("Kubernetes", _tag(node.api.image), where=self._shell.name)
        # All of it at once: whoever has to repair a broken control plane should not come back for each reason.
        target = self._target(node)
        found = complaints(node.seen, data_dir=node.etcd.host_dir, target=target, needed_bytes=needed_bytes)
        found += [*_other_members(node.seen), *self._other_cluster()]
        if found:
            told = "; ".join(each.message for each in found)
            fields = {name: value for each in found for name, value in each.fields.items()}
            raise ClusterError(
                f"{self._shell.name}: {told}",
                code="node-unfit",
                fields=fields | {"problems": [each.code for each in found]},
                hint=found[0].hint,
            )
        self._restore = self._compose(node)

    def prepare(self, snapshot: Path, *, bump_revision: int) -> str:
        """Copy the snapshot to the node and build the new data directory beside the live one."""
        restore = self._restore_commands()
        commands = restore.prepare(snapshot, bump_revision=bump_revision)
        # The first command writes the journal, so until it is done there may be none.
        self._ours = (restore.run, None)
        self._perform(commands[:1])
        self._ours = (restore.run,)
        self._perform(commands[1:])
        if restore.relocates:
            self._check_new_manifest(restore)
        return next(self._shell.describe(each.argv) for each in commands if "snapshot" in each.argv)

    def discard(self) -> None:
        """Remove what `prepare` built, whole or not."""
        restore = self._restore_commands()
        self._ours = (restore.run, None)
        self._perform(restore.discard())
        self._forget()

    def stop(self) -> None:
        """Move the static pod manifests aside and see their containers gone."""
        self._perform(self._restore_commands().stop())

    def swap_in(self) -> None:
        """Rename the old member aside and the new one into its place."""
        self._perform(self._restore_commands().swap_in())

    def start_etcd(self) -> None:
        """Put etcd's manifest back and wait until etcd serves."""
        self._perform(self._restore_commands().start_etcd(), log_of="etcd")

    def start_api(self) -> None:
        """Put the API server's manifest back and wait until it is ready."""
        self._perform(self._restore_commands().start_api(), log_of="kube-apiserver")

    def commit(self) -> None:
        """Let the journal say that the restored state stays; safe to repeat."""
        self._perform_or_tell(self._restore_commands().commit())

    def start_controllers(self) -> None:
        """Start the controllers without waiting out the restored leader leases, then restart the kubelet."""
        self._perform(self._restore_commands().start_controllers())

    def clean_up(self) -> None:
        """Keep the old member aside, remove what the restore needed, and the journal last; safe to repeat."""
        restore = self._restore_commands()
        self._ours = (restore.run, None)
        self._perform_or_tell(restore.clean_up())

    @property
    def previous(self) -> str:
        """Where the old member is after `clean_up`."""
        return f"{self._restore_commands().previous} on {self._shell.name}"

    def roll_back(self) -> None:
        """Bring back the manifests and the data as they were, and wait until the API server is ready."""
        self._perform(self._restore_commands().roll_back(), log_of="etcd")
        self._forget()

    def warnings(self) -> tuple[str, ...]:
        """Return what somebody should look at after a restore."""
        from clusterguard.clusters.node_view import settled_orphaned_pods

        restore = self._restore_commands()
        told = [*self._dead_api_servers(restore), *settled_orphaned_pods(self._api())]
        if restore.relocates:
            told.append(
                f"etcd's data is in {restore.target} now: set etcd.local.dataDir in ConfigMap "
                "kube-system/kubeadm-config, or the next kubeadm upgrade looks for it in the old place"
            )
        return tuple(told)

    def runbook(self, snapshot: Path, *, bump_revision: int) -> tuple[RunbookStep, ...]:
        """Return every command of a restore, in order; nothing is touched."""
        restore = self._restore_commands()
        steps = {
            "build the new data directory": restore.prepare(snapshot, bump_revision=bump_revision),
            "stop the control plane": restore.stop(),
            "swap the data directory": restore.swap_in(),
            "start etcd": restore.start_etcd(),
            "start the API server": restore.start_api(),
            "commit": restore.commit(),
            "start the controllers": restore.start_controllers(),
            "keep the old state aside": restore.clean_up(),
        }
        return tuple(RunbookStep(name=name, lines=self._lines(commands)) for name, commands in steps.items())

    def rollback_lines(self) -> tuple[RunbookLine, ...]:
        """Return the commands that undo a restore at any point before its `commit`."""
        return self._lines(self._restore_commands().roll_back())

    def into(self, data_dir: str) -> KubeadmControlPlane:
        """Return the same control plane, to be restored into another (absolute) directory of the node."""
        return KubeadmControlPlane(
            shell=self._shell,
            api=self._api,
            data_dir=data_dir,
            etcdutl=self._own_etcdutl,
            timeouts=self._timeouts,
            run=self._run_id,
            on_command=self._on_command,
        )

    @property
    def client_url(self) -> str:
        """Client URL of etcd as other machines reach it."""
        return self._look().etcd.advertised_url

    def _lines(self, commands: Sequence[Command]) -> tuple[RunbookLine, ...]:
        return tuple(RunbookLine(why=each.why, line=self._line(each)) for each in commands)

    def _line(self, command: Command) -> str:
        if command.source is not None:
            return self._shell.describe_put(command.source, command.target, mode=command.mode)
        return self._shell.describe(command.argv)

    # ---- seeing --------------------------------------------------------------------------------------------

    def _look(self) -> _Node:
        if self._node is None:
            etcd = EtcdManifest.parse(self._manifest("etcd"), where=f"{self._shell.name}:{MANIFESTS}/etcd.yaml")
            api = ApiServerManifest.parse(
                self._manifest("kube-apiserver"), where=f"{self._shell.name}:{MANIFESTS}/kube-apiserver.yaml"
            )
            self._node = _Node(etcd=etcd, api=api, seen=self._survey(etcd))
        return self._node

    def _survey(self, etcd: EtcdManifest) -> Seen:
        script = survey_script(
            data_dir=etcd.host_dir,
            target=self._data_dir or etcd.host_dir,
            ask_etcd=f"curl --fail --silent --max-time 5 {etcd.curl_identity} {etcd.client_url}",
            pki=etcd.pki,
        )
        return Seen.parse(self._shell.run(["sh", "-c", script]))

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

    def _journal(self) -> dict[str, Any] | None:
        text = self._shell.run(["sh", "-c", f"cat {JOURNAL} 2>/dev/null || true"])
        if not text.strip():
            return None
        where = f"{self._shell.name}:{JOURNAL}"
        try:
            journal: dict[str, Any] = {"phase": Phase.SWITCHING} | json.loads(text)  # format 1 knew no other phase
            known = journal["format"] in (1, 2)
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
        if not self._ours:
            return
        journal = self._journal()
        if (journal["run"] if journal else None) not in self._ours:
            raise RestoreError(
                f"another run has changed {self._shell.name} since the connection to it broke, so this one steps aside",
                rolled_back=False,
                code="restore-taken-over",
                hint="see what serves now, and restore again if it is not what it should be",
            )

    def _other_cluster(self) -> list[ClusterError]:
        """Return a complaint if the node and the API that we speak to belong to different clusters."""
        ours = self._shell.run(["cat", "/etc/kubernetes/pki/ca.crt"])
        api = self._api()
        try:
            resource = api.resource("ConfigMap")
            # An API server that has lost its etcd keeps the question for a minute, and the restore with it.
            published = api.get(resource, "kube-root-ca.crt", "kube-system", timeout_seconds=_API_SECONDS)
        except ClusterUnreachableError:
            return []  # a lost cluster is why people restore
        theirs = str((published.get("data") or {}).get("ca.crt", ""))
        # Contained, not equal: while authorities are exchanged the bundle has both.
        if "".join(ours.split()) in "".join(theirs.split()):
            return []
        return [
            ClusterError(
                "it is not a node of the cluster in the kubeconfig: their certificate authorities differ",
                code="other-cluster",
                hint="name the control-plane node of that very cluster",
            )
        ]

    # ---- deciding ------------------------------------------------------------------------------------------

    def _target(self, node: _Node) -> str:
        return self._data_dir or node.etcd.host_dir

    def _restore_commands(self) -> RestoreCommands:
        if self._restore is None:
            self._restore = self._compose(self._look())
        return self._restore

    def _compose(self, node: _Node) -> RestoreCommands:
        runtime = choose_runtime(node.seen.all("program"))
        restore = RestoreCommands(
            etcd=node.etcd,
            api_port=node.api.port,
            pods=tuple(pod for pod in PODS if pod in node.seen.all("pod")),
            runtime=runtime or RUNTIMES[-1],
            etcdutl=("etcdutl",),
            own_etcdutl=None,
            target=self._target(node),
            run=self._run_id,
            timeouts=self._timeouts,
        )
        words, own = self._find_etcdutl(node, restore)
        return replace(restore, etcdutl=words, own_etcdutl=own)

    def _recovery(self, journal: dict[str, Any]) -> RestoreCommands:
        etcd = EtcdManifest.parse(self._manifest("etcd"), where=f"{self._shell.name}: etcd.yaml")
        api = ApiServerManifest.parse(
            self._manifest("kube-apiserver"), where=f"{self._shell.name}: kube-apiserver.yaml"
        )
        programs = self._shell.run(
            ["sh", "-c", "for each in crictl ctr pgrep; do command -v $each >/dev/null && echo $each; done; true"]
        ).split()
        # As the interrupted run was: its names, its target and which manifests there were, not what we would choose.
        return RestoreCommands(
            etcd=etcd,
            api_port=api.port,
            pods=tuple(journal.get("pods", PODS)),
            runtime=choose_runtime(programs) or RUNTIMES[-1],
            etcdutl=(),
            own_etcdutl=None,
            target=str(journal.get("target", self._data_dir or etcd.host_dir)),
            run=str(journal.get("run", self._run_id)),
            timeouts=self._timeouts,
        )

    def _find_etcdutl(self, node: _Node, restore: RestoreCommands) -> tuple[tuple[str, ...], Path | None]:
        """Find an etcdutl that builds data for this etcd: on the node, in etcd's image, or ours."""
        live, there = self._etcd_version(node), node.seen.one("etcdutl")
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

    def _in_etcds_image(self, node: _Node, restore: RestoreCommands) -> tuple[str, ...]:
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

    def _etcd_version(self, node: _Node) -> str:
        """Return what etcd says of itself, or if it does not answer its image, or that one's tag."""
        if self._etcd_says is None:
            self._etcd_says = node.seen.one("etcd") or self._version_in_image(node) or _tag(node.etcd.image)
        return self._etcd_says

    def _version_in_image(self, node: _Node) -> str:
        """Return what the image of an etcd that does not answer says of itself, or ``""`` if it cannot be asked."""
        if "ctr" not in node.seen.all("program"):
            return ""
        name = f"clusterguard-{self._run_id}"
        try:
            answer = self._shell.run(["ctr", "-n", "k8s.io", "run", "--rm", node.etcd.image, name, "etcd", "--version"])
        except ProgramError:
            return ""
        return _told_version(answer, "etcd Version")

    def _check_new_manifest(self, restore: RestoreCommands) -> None:
        text = self._shell.run(["cat", restore.new_manifest])
        moved = EtcdManifest.parse(text, where=f"{self._shell.name}:{restore.new_manifest}")
        inside = restore.target if restore.etcd.data_dir == restore.etcd.host_dir else restore.etcd.data_dir
        if moved != replace(restore.etcd, host_dir=restore.target, data_dir=inside):
            raise ClusterError(
                f"{self._shell.name}: the manifest could not be rewritten for {restore.target}",
                hint=f"look at {MANIFESTS}/etcd.yaml: is its data directory written in an unusual way?",
            )

    # ---- doing ---------------------------------------------------------------------------------------------

    def _perform(self, commands: Sequence[Command], *, log_of: str = "") -> None:
        for command in commands:
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

    def _perform_or_tell(self, commands: Sequence[Command]) -> None:
        """Perform commands, or say which lines do it by hand."""
        try:
            self._perform(commands)
        except RestoreError:
            raise
        except ClusterGuardError as error:
            lines = "\n".join(self._line(command) for command in commands)
            raise ClusterError(error.message, hint=lines) from error

    def _last_words(self, pod: str) -> str:
        """Return the end of a static pod's newest log, which the kubelet keeps at the same place for every runtime."""
        script = f"ls -t /var/log/pods/kube-system_{pod}-*/{pod}/*.log | head -n 1 | xargs tail -n {_LOG_LINES}"
        try:
            return self._shell.run(["sh", "-c", script]).strip() or "nothing in its log"
        except ProgramError as error:
            return f"its log cannot be read ({error.message})"

    def _forget(self) -> None:
        self._node = self._restore = self._etcd_says = None
        self._ours = ()

    # ---- looking afterwards --------------------------------------------------------------------------------

    def _dead_api_servers(self, restore: RestoreCommands) -> list[str]:
        """One control plane has one API server: any other lease keeps an address of nobody in Service kubernetes."""
        first, last = (base64.b64encode(text.encode()).decode() for text in (_MASTER_LEASES, _MASTER_LEASES[:-1] + "0"))
        query = json.dumps({"key": first, "range_end": last, "keys_only": True})
        url = f"{restore.etcd.client_url}/v3/kv/range"
        ask = f"curl --fail --silent --show-error --max-time 10 {restore.etcd.curl_identity} --data '{query}' {url}"
        try:
            answer = json.loads(self._shell.run(["sh", "-c", ask]))
            keys = [base64.b64decode(entry["key"]).decode() for entry in answer.get("kvs", ())]
        except (ClusterGuardError, ValueError, KeyError, binascii.Error) as error:
            return [f"the leases of API servers could not be asked for: {error}"]
        if len(keys) <= 1:
            return []
        told = f"{len(keys)} API servers hold a lease in etcd, and this control plane has one"
        what = f"Service kubernetes leads to dead addresses as well until theirs run out: {', '.join(keys)}"
        return [f"{told}: {what}"]


def _tag(image: str) -> str:
    """Return the version that an image's tag tells, such as 3.6.8 of ``registry.k8s.io/etcd:3.6.8-0``, or ``""``."""
    found = parse_version(image.rpartition("/")[2].partition("@")[0].partition(":")[2])
    return ".".join(map(str, found)) if found else ""


def _told_version(answer: str, after: str) -> str:
    return next((line.rpartition(" ")[2] for line in answer.splitlines() if line.startswith(after)), "")


def _other_members(seen: Seen) -> list[ClusterError]:
    """Return a complaint if etcd, asked itself, has more members than its manifest tells."""
    try:
        members = json.loads(seen.one("members") or "{}").get("members", ())
    except ValueError:
        return []
    if len(members) <= 1:
        return []
    names = ", ".join(sorted(str(member.get("name") or "(not started)") for member in members))
    return [
        ClusterError(
            f"etcd has {len(members)} members ({names}), and only one can be restored from here",
            code="several-members",
            fields={"members": names},
            hint=SEVERAL_MEMBERS_HINT,
        )
    ]
