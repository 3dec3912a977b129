"""Restore etcd on the control-plane nodes of kubeadm, as one: all of them go on together, or all of them go back."""

from __future__ import annotations

import secrets
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from threading import Event
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.base import RunbookLine, RunbookStep
from clusterguard.clusters.kubeadm.access import KUBEADM_IDENTITY, etcd_access
from clusterguard.clusters.kubeadm.api_view import ApiView, foreign_keys
from clusterguard.clusters.kubeadm.at_once import answers, ends_all, failures, worst
from clusterguard.clusters.kubeadm.commands import Command, Timeouts
from clusterguard.clusters.kubeadm.membership import (
    judge_api_servers,
    judge_clocks,
    judge_gone,
    judge_members,
    judge_versions,
)
from clusterguard.clusters.kubeadm.node import KubeadmNode
from clusterguard.clusters.kubeadm.replacement import KubeadmMember, ReplaceCommands
from clusterguard.clusters.kubeadm.restore_commands import DATA_IS_BACK, Phase, RestoreCommands
from clusterguard.clusters.kubeadm.roles import is_control_plane
from clusterguard.clusters.kubeadm.static_pods import restart_kubelet
from clusterguard.errors import ClusterError, ClusterGuardError, ConfigError, RestoreError
from clusterguard.model.support import require_restorable, require_supported

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from clusterguard.clusters.base import EtcdAccess, EtcdLayout
    from clusterguard.clusters.kube import KubeClient
    from clusterguard.clusters.kubeadm.commands import Stages
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["KubeadmControlPlane"]

_AS_ADVERTISED: Mapping[str, str] = MappingProxyType({})


class KubeadmControlPlane:
    """The `ControlPlane` of a cluster that kubeadm made, with etcd on its control-plane nodes or on hosts of its own.

    A step runs on all nodes at once, stage by stage: none begins a stage before all ended the one before it, so etcd
    is not touched anywhere while an API server still runs somewhere. Each node has a journal of its own, and they are
    read together: a restore that is proven on any node was proven on all, and is finished; any other is undone on all.
    The restored members have a cluster ID of their own, which no earlier state shares: even where the line to a node
    was lost, a member with the old data never joins those with the new.

    Args:
        nodes: How to reach the nodes with API servers, and those with etcd.
        api: The client of the cluster's API server.
        workers: The other nodes, whose kubelets must look at everything again after a restore; None: some of
            ``nodes`` are such, namely those without etcd and API server.
        gone: Names of members that are dead for good: the restored cluster begins without them.
        data_dir: Restore into this directory of each node instead of the live one.
        etcdutl: Gives etcdutl on this machine, to be copied to a node that has none.
        timeouts: How long things may take.
        run: What the names of this run's files end in.
        on_command: Called with each command before it runs, from the thread that works on its node.
    """

    def __init__(
        self,
        nodes: Sequence[NodeShell],
        *,
        api: Callable[[], KubeClient],
        workers: Sequence[NodeShell] | None = (),
        gone: Sequence[str] = (),
        data_dir: str | None = None,
        etcdutl: Callable[[], Path] | None = None,
        timeouts: Timeouts | None = None,
        run: str | None = None,
        on_command: Callable[[Command], object] = lambda _: None,
    ) -> None:
        if not nodes:
            raise ConfigError("a control plane has at least one node")
        names = [shell.name for shell in nodes]
        if len(set(names)) < len(names):
            raise ConfigError(f"a node is named twice: {', '.join(names)}", hint="name each node once")
        if data_dir is not None and (not data_dir.startswith("/") or set(data_dir) & set("'\"|&\\$ \n*")):
            raise ConfigError(f"{data_dir!r} is not an absolute path without spaces and shell characters")
        self._shells = tuple(nodes)
        self._worker_shells = workers
        self._api = api
        self._gone = tuple(gone)
        self._options: dict[str, Any] = {
            "data_dir": data_dir.rstrip("/") if data_dir else None,
            "etcdutl": etcdutl,
            "timeouts": timeouts or Timeouts(),
            "run": run or secrets.token_hex(4),
            "on_command": on_command,
        }
        self._halt = Event()
        self._known: tuple[KubeadmNode, ...] = ()
        self._restore: dict[KubeadmNode, RestoreCommands] = {}
        self._view = ApiView(api)
        self._idle_workers: list[str] = []
        self._restarted: set[str] = set()

    def layout(self) -> EtcdLayout:
        """Return how the first member is started, and what members a restored cluster begins with."""
        self._everywhere(KubeadmNode.survey)
        layouts = [node.member.layout for node in self._members]
        return replace(layouts[0], cluster=_cluster_of(layouts))

    def etcd_access(self, *, keep: ExitStack, endpoints: tuple[str, ...] = ()) -> EtcdAccess:
        """Return how to reach etcd with the certificates of the first node, which are kept until ``keep`` is closed.

        Those of a node with etcd come first; without any, an API server's own.

        Args:
            keep: Forgets the certificates when it is closed.
            endpoints: Client URLs of the members, by default those that they advertise.
        """
        seen: list[KubeadmNode] = []

        def see(shell: NodeShell) -> None:
            node = KubeadmNode(shell, halt=self._halt, **self._options)
            if len(self._shells) == 1 or is_control_plane(shell):
                node.roles()
                seen.append(node)

        # Members can be asked while another node is away; whether all of them are there, a restore checks.
        failed = failures(self._shells, see)
        if not seen:
            if endpoints and len(self._shells) == 1:  # nothing has to be told there but who we are
                return etcd_access(self._shells[0], keep=keep, endpoints=endpoints, identity=KUBEADM_IDENTITY)
            raise worst(failed.values()) if failed else ClusterError("none of the nodes has a control plane")
        seen.sort(key=lambda node: [shell.name for shell in self._shells].index(node.name))
        members = [node.etcd for node in seen if node.etcd]
        servers = [node.api for node in seen if node.api]
        urls = tuple(each.advertised_url for each in members) or servers[0].etcd_servers
        identity = members[0].identity if members else servers[0].etcd_identity
        first = next((node for node in seen if node.etcd), seen[0])
        return etcd_access(first.shell, keep=keep, endpoints=endpoints or urls, identity=identity)

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep other restores of these nodes out; the locks are the nodes', and are released however we end."""
        with ExitStack() as locks:
            # In one order, whoever names them in which: two restores must not wait for each other.
            for node in sorted(self._nodes, key=lambda node: node.name):
                locks.enter_context(node.exclusive())
            self._restore = {}
            yield

    # ---- what an interruption left -------------------------------------------------------------------------

    def recover(self) -> str | None:
        """Undo a restore that was interrupted, or finish it once it was proven; return what was done, or None."""
        try:
            journals = self._journals()
            replacing = [node for node, journal in journals.items() if journal and journal["phase"] == Phase.REPLACING]
            if any(journals.values()):
                self._require_no_worker_gone(journals)
                given_up = [self._give_up_replacing(node, journals.pop(node)) for node in replacing]
                return "\n".join((*given_up, *([self._recover(journals)] if any(journals.values()) else [])))
            if left_over := [node for node in self._nodes if node.is_left_over()]:
                self._restore = {node: node.commands_of({}) for node in left_over}
                self._perform(RestoreCommands.clean_up)
        finally:
            self._forget()
        return None

    def _give_up_replacing(self, node: KubeadmNode, journal: Mapping[str, Any] | None) -> str:
        commands = ReplaceCommands.of(node, journal)
        nothing = node.shell.run(commands.has_nothing().argv).strip() == "yes"
        for stage in commands.give_up():
            node.perform(stage)
        again = f"clusterguard etcd replace-member {node.member.name} does it anew"
        told = f"the replacement of the member of {node.name} was interrupted and is given up: {again}"
        return f"{told}; until then it has no data, and its etcd does not start" if nothing else told

    @contextmanager
    def member_places(
        self, *, client_urls: Mapping[str, str] = _AS_ADVERTISED
    ) -> Iterator[Mapping[str, KubeadmMember]]:
        """Keep restores and other replacements out, and give the members of the nodes, by their names.

        Args:
            client_urls: Where this machine reaches them, by the names of their nodes, by default as they advertise.

        Raises:
            ClusterError: A restore was interrupted on one of them (``restore-interrupted``), or etcd is none that
                a kubelet starts (``unit-not-replaceable``), or the API is that of another cluster (``other-cluster``).
        """
        with self.exclusive():
            for error in self._view.other_cluster(self._nodes):
                raise error
            members = self._members
            places = [
                KubeadmMember(
                    node,
                    others=[each for each in members if each is not node],
                    client_url=client_urls.get(node.name, ""),
                )
                for node in members
            ]
            yield {place.name: place for place in places}

    def _journals(self) -> dict[KubeadmNode, dict[str, Any] | None]:
        journals: dict[KubeadmNode, dict[str, Any] | None] = dict.fromkeys(self._nodes)

        def read(node: KubeadmNode) -> None:
            journals[node] = node.journal()

        self._everywhere(read)
        return journals

    def _recover(self, journals: Mapping[KubeadmNode, Mapping[str, Any] | None]) -> str:
        written = {node: journal for node, journal in journals.items() if journal is not None}
        run = self._one_run(written)
        phases = {Phase(journal["phase"]) for journal in written.values()}
        # From the first change on every node had a journal, so one without is done: committed, or brought back. Only
        # while nothing was changed yet may one not have begun.
        begun = written if phases != {Phase.PREPARING} else {node: {"run": run} for node in journals} | written
        self._restore = {node: node.commands_of(journal) for node, journal in begun.items()}
        for node, journal in journals.items():
            node.ours = (run,) if journal else (run, None)
        if Phase.PROVEN in phases:
            self._expect_no_journal()
            self._perform(RestoreCommands.finish, log_of="etcd")
            self._require_no_worker_gone(journals)
            for node in [node for node in self._restore if node.api][:1]:
                node.perform(self._restore[node].forget_dead(self._gone))
            self._restart_workers()
            done = "a proven restore that was interrupted was finished: the restored state stays"
        elif Phase.SWITCHING in phases:
            self.roll_back()
            done = "an interrupted restore was rolled back: the state before it is live again"
        else:
            self.discard()
            return "what an interrupted restore had built was removed; nothing else had been touched"
        return "\n".join((done, *self._idle_workers))

    def _one_run(self, journals: Mapping[KubeadmNode, Mapping[str, Any]]) -> str:
        runs = {str(journal.get("run", self._options["run"])) for journal in journals.values()}
        if len(runs) > 1:
            told = ", ".join(f"{journal.get('run')} on {node.name}" for node, journal in journals.items())
            raise ClusterError(
                f"different restores were interrupted on these nodes: {told}",
                code="journals-differ",
                fields={"runs": told},
                hint="recover each with the nodes that it was asked for",
            )
        # Half of them would be one state, and the other half the other.
        names = {node.roles().identity for node in self._nodes}
        wanted = {name for journal in journals.values() for name in journal.get("members", ())}
        lacking = sorted(wanted - names - set(self._gone)) if len(wanted) > 1 else []
        if lacking:
            raise ClusterError(
                f"a restore was interrupted that other members took part in: {', '.join(lacking)}",
                code="members-missing",
                fields={"members": ", ".join(lacking)},
                hint="name the shells of all nodes that it was asked for; one that is dead for good: --gone NAME",
            )
        return runs.pop()

    # ---- the steps -----------------------------------------------------------------------------------------

    def check(self, *, needed_bytes: int, etcd_version: str = "", storage_version: str | None = None) -> None:
        """Look at everything a restore needs on every node; touches nothing.

        Raises:
            UnsupportedVersionError: etcd or Kubernetes is of a version that is not supported.
            ClusterError: Something is missing; the message names all of it.
        """
        self._everywhere(KubeadmNode.survey)
        for node in self._members:
            live = node.etcd_version()
            require_supported("etcd", live, where=node.name)
            require_restorable(etcd_version, storage_version, live=live, where=node.name)
        for node in self._nodes:
            require_supported("Kubernetes", node.kubernetes_version(), where=node.name)
        # All of it at once: whoever has to repair a broken control plane should not come back for each reason.
        found = {node.name: node.complaints(needed_bytes=needed_bytes) for node in self._nodes}
        found[self._nodes[0].name] += [*self._view.other_cluster(self._nodes), *self._wrong_nodes()]
        if problems := [each for each in found.values() if each]:
            told = "\n".join(
                f"{name}: {'; '.join(each.message for each in list_)}" for name, list_ in found.items() if list_
            )
            every = [each for list_ in problems for each in list_]
            fields = {name: value for each in every for name, value in each.fields.items()}
            raise ClusterError(
                told,
                code="node-unfit",
                fields=fields | {"problems": [each.code for each in every]},
                hint=every[0].hint,
            )
        self._compose()

    def prepare(self, snapshot: Path, *, bump_revision: int) -> str:
        """Copy the snapshot to every node and build the new data directories beside the live ones."""
        restore = self._commands()
        stages = {node: each.prepare(snapshot, bump_revision=bump_revision) for node, each in restore.items()}
        # The first command writes the journal, so until it is done there may be none.
        self._expect_no_journal()
        self._everywhere(lambda node: node.perform(stages[node][0]))
        for node, each in restore.items():
            node.ours = (each.run,)
        self._everywhere(lambda node: node.perform([each for stage in stages[node][1:] for each in stage]))
        for node, each in restore.items():
            if each.member and each.member.relocates:
                node.check_new_manifest(each.member)
        first = self._members[0]
        return next(first.line(each) for stage in stages[first] for each in stage if "snapshot" in each.argv)

    def discard(self) -> None:
        """Remove what `prepare` built, whole or not."""
        self._commands()
        self._expect_no_journal()
        self._perform(RestoreCommands.discard)
        self._forget()

    def stop(self) -> None:
        """Move the static pod manifests aside and see their containers gone: all API servers first, then all etcd."""
        self._perform(RestoreCommands.stop)

    def swap_in(self) -> None:
        """Rename the old members aside and the new ones into their places."""
        self._perform(RestoreCommands.swap_in)

    def start_etcd(self) -> None:
        """Put etcd's manifests back and wait until every member serves."""
        self._perform(RestoreCommands.start_etcd, log_of="etcd")

    def start_api(self) -> None:
        """Put the API servers' manifests back and wait until each is ready."""
        self._perform(RestoreCommands.start_api, log_of="kube-apiserver")

    def commit(self) -> None:
        """Let the journals say that the restored state stays; safe to repeat."""
        self._perform_or_tell(RestoreCommands.commit)

    def start_controllers(self) -> None:
        """Start the controllers without waiting out the restored leader leases, then restart all kubelets."""
        first = self._first_api_server
        restore = self._commands()[first]
        first.perform((*restore.forget_leaders(), *restore.forget_dead(self._gone)))
        self._perform(RestoreCommands.start_controllers)
        self._restart_workers()

    def clean_up(self) -> None:
        """Keep the old members aside, remove what the restore needed, and the journals last; safe to repeat."""
        self._commands()
        self._expect_no_journal()
        if len(self._nodes) > 1:
            # A node without a journal beside one whose journal says "switching" would be taken for not begun.
            self._perform_or_tell(RestoreCommands.commit)
        self._perform_or_tell(RestoreCommands.clean_up)

    @property
    def previous(self) -> str:
        """Where the old members are after `clean_up`."""
        places: dict[str, list[str]] = {}
        for node, restore in self._commands().items():
            if restore.member:
                places.setdefault(restore.member.previous, []).append(node.name)
        return "; ".join(f"{place} on {', '.join(names)}" for place, names in places.items())

    def roll_back(self) -> None:
        """Bring back the manifests and the data as they were, and wait until the API servers are ready.

        A node that fails is left out of the rest while the others are a quorum without it: they serve, and it keeps
        its journal.

        Raises:
            ClusterGuardError: Not every node could be brought back; what is left, the next `recover` does.
        """
        stages = {node: restore.roll_back() for node, restore in self._commands().items()}
        failed: dict[KubeadmNode, BaseException] = {}
        went_back: list[KubeadmNode] = []  # they have the old data, and do not serve
        for number in range(len(next(iter(stages.values())))):
            working = [node for node in stages if node not in failed]

            def act(node: KubeadmNode, number: int = number) -> None:
                node.perform(stages[node][number], log_of="etcd")

            failed |= (here := self._tried(working, act))
            if number >= DATA_IS_BACK:
                went_back += here
            if any(map(ends_all, failed.values())):
                raise worst(failed.values())
            if failed and self._is_too_much(failed):
                self._start_what_went_back([*went_back, *(set(working) - set(here))] if number >= DATA_IS_BACK else [])
                raise worst(failed.values())
        self._start_what_went_back(went_back)
        self._restart_workers()
        self._forget()
        if failed:
            names = ", ".join(node.name for node in failed)
            raise ClusterError(
                f"the old state serves again, but not on {names}: {worst(failed.values())}",
                code="rollback-incomplete",
                fields={"nodes": names},
                hint="once it can be reached: clusterguard etcd recover",
            )

    def _start_what_went_back(self, nodes: Sequence[KubeadmNode]) -> None:
        """Leave nothing aside where only serving is missing: what was broken before a restore is so after it, too.

        Whoever restores it next finds these nodes as they were. What fails now, `check` complains of before that.
        """
        for error in self._tried(nodes, lambda node: node.perform(self._restore[node].manifests_back())).values():
            if ends_all(error):
                raise error

    def _is_too_much(self, failed: Collection[KubeadmNode]) -> bool:
        """Tell whether the cluster cannot serve without these nodes."""
        members, servers = self._members, [node for node in self._nodes if node.api]
        lost = [node for node in members if node in failed]
        return len(lost) * 2 >= len(members) or all(node in failed for node in servers)

    def warnings(self) -> tuple[str, ...]:
        """Return what somebody should look at after a restore."""
        from clusterguard.clusters.node_view import settled_orphaned_pods

        told = [
            *self._view.dead_api_servers(self._nodes),
            *settled_orphaned_pods(self._api()),
            *self._idle_workers,
            *self._view.other_nodes(self._reached),
            *foreign_keys(self._nodes),
        ]
        member = self._commands()[self._members[0]].member
        if member and member.relocates:
            told.append(
                f"etcd's data is in {member.target} now: set etcd.local.dataDir in ConfigMap "
                "kube-system/kubeadm-config, or the next kubeadm upgrade looks for it in the old place"
            )
        told += [f"{name} is no member any more; to have it back: {self._way_back}" for name in self._gone]
        return tuple(told)

    @property
    def _way_back(self) -> str:
        """How a dead member joins again."""
        if not any(node.api for node in self._members):
            return "etcdctl member add, then start etcd there without data and with --initial-cluster-state=existing"
        return (
            "kubeadm reset there, then what `kubeadm token create --print-join-command` prints, with --control-plane "
            "and the key of `kubeadm init phase upload-certs --upload-certs`"
        )

    @property
    def _reached(self) -> set[str]:
        """What the API may call the nodes whose kubelets were restarted."""
        names = {node.etcd.name for node in self._nodes if node.etcd} | {shell.name for shell in self._workers}
        return names | {node.look().seen.one("hostname").lower() for node in self._nodes} | self._restarted

    # ---- the plan ------------------------------------------------------------------------------------------

    def runbook(self, snapshot: Path, *, bump_revision: int) -> tuple[RunbookStep, ...]:
        """Return every command of a restore, in order; nothing is touched."""
        first = self._first_api_server
        restore = self._commands()[first]
        lost = self._lines_of(first, (*restore.forget_leaders(), *restore.forget_dead(self._gone)))
        steps = {
            "build the new data directory": self._lines(lambda r: r.prepare(snapshot, bump_revision=bump_revision)),
            "stop the control plane": self._lines(RestoreCommands.stop),
            "swap the data directory": self._lines(RestoreCommands.swap_in),
            "start etcd": self._lines(RestoreCommands.start_etcd),
            "start the API server": self._lines(RestoreCommands.start_api),
            "commit": self._lines(RestoreCommands.commit),
            "start the controllers": (*lost, *self._lines(RestoreCommands.start_controllers), *self._worker_lines()),
            "keep the old state aside": self._lines(RestoreCommands.clean_up),
        }
        return tuple(RunbookStep(name=name, lines=lines) for name, lines in steps.items())

    def notes(self) -> tuple[str, ...]:
        """Return what whoever restores should know before."""
        return tuple(foreign_keys(self._nodes))

    def rollback_lines(self) -> tuple[RunbookLine, ...]:
        """Return the commands that undo a restore at any point before its `commit`."""
        return (*self._lines(RestoreCommands.roll_back), *self._worker_lines())

    def into(self, data_dir: str) -> KubeadmControlPlane:
        """Return the same control plane, to be restored into another (absolute) directory of each node."""
        options = self._options | {"data_dir": data_dir}
        return KubeadmControlPlane(self._shells, api=self._api, workers=self._worker_shells, gone=self._gone, **options)

    def without(self, gone: Sequence[str]) -> KubeadmControlPlane:
        """Return the same control plane, to be restored without nodes that are dead for good, by their names."""
        return KubeadmControlPlane(self._shells, api=self._api, workers=self._worker_shells, gone=gone, **self._options)

    def _lines(self, step: Callable[[RestoreCommands], Stages]) -> tuple[RunbookLine, ...]:
        stages = {node: step(restore) for node, restore in self._commands().items()}
        count = max(map(len, stages.values()))
        return tuple(line for n in range(count) for node in stages for line in self._lines_of(node, stages[node][n]))

    def _worker_lines(self) -> tuple[RunbookLine, ...]:
        command = restart_kubelet()
        return tuple(
            RunbookLine(why=f"{shell.name}: {command.why}", line=shell.describe(command.argv))
            for shell in self._workers
        )

    def _lines_of(self, node: KubeadmNode, commands: Sequence[Command]) -> tuple[RunbookLine, ...]:
        where = f"{node.name}: " if len(self._nodes) > 1 else ""
        return tuple(RunbookLine(why=where + each.why, line=node.line(each)) for each in commands)

    # ---- the nodes -----------------------------------------------------------------------------------------

    @property
    def _nodes(self) -> tuple[KubeadmNode, ...]:
        if not self._known:
            shells = self._shells
            if self._worker_shells is None and len(shells) > 1:
                roles = answers(shells, is_control_plane)
                shells = tuple(shell for shell in self._shells if roles[shell]) or self._shells[:1]
            self._known = tuple(KubeadmNode(shell, halt=self._halt, **self._options) for shell in shells)
        return self._known

    @property
    def _members(self) -> tuple[KubeadmNode, ...]:
        """The nodes with a member of etcd."""
        if members := tuple(node for node in self._nodes if node.etcd):
            return members
        servers = sorted({server for node in self._nodes if node.api for server in node.api.etcd_servers})
        names = ", ".join(node.name for node in self._nodes)
        raise ClusterError(
            f"{names} has an API server and no etcd: that is elsewhere ({', '.join(servers)})",
            code="no-static-pod",
            fields={"node": names, "pod": "etcd"},
            hint="name the hosts of etcd as well; where they cannot be reached, as in managed control planes, use "
            "Velero",
        )

    @property
    def _first_api_server(self) -> KubeadmNode:
        return next((node for node in self._nodes if node.api), self._nodes[0])

    @property
    def _workers(self) -> tuple[NodeShell, ...]:
        if self._worker_shells is not None:
            return tuple(self._worker_shells)
        names = {node.name for node in self._nodes}
        return tuple(shell for shell in self._shells if shell.name not in names)

    def _everywhere(self, act: Callable[[KubeadmNode], object]) -> None:
        """Do something on every node at once; return when it is done on all, or raise what went wrong."""
        if failed := self._tried(self._nodes, act):
            raise worst(failed.values())

    def _tried(
        self, nodes: Sequence[KubeadmNode], act: Callable[[KubeadmNode], object]
    ) -> dict[KubeadmNode, BaseException]:
        self._halt.clear()  # what undoes an interrupted step must run
        return failures(nodes, act, halt=self._halt)

    def _perform(self, step: Callable[[RestoreCommands], Stages], *, log_of: str = "") -> None:
        stages = {node: step(restore) for node, restore in self._commands().items()}
        for number in range(max(map(len, stages.values()), default=0)):

            def act(node: KubeadmNode, number: int = number) -> None:
                if node in stages:
                    node.perform(stages[node][number], log_of=log_of)

            self._everywhere(act)

    def _perform_or_tell(self, step: Callable[[RestoreCommands], Stages]) -> None:
        """Perform a step, or say which lines do it by hand."""
        try:
            self._perform(step)
        except RestoreError:
            raise
        except ClusterGuardError as error:
            lines = "\n".join(each.line for each in self._lines(step))
            raise ClusterError(error.message, hint=lines) from error

    def _commands(self) -> dict[KubeadmNode, RestoreCommands]:
        if not self._restore:
            self._compose()
        return self._restore

    def _compose(self) -> None:
        self._everywhere(KubeadmNode.survey)
        layouts = {node: node.member.layout for node in self._members}
        cluster = _cluster_of(layouts.values())
        # A token of its own gives the restored cluster an ID that no earlier state of it had.
        token = f"clusterguard-{self._options['run']}"
        told = {node: replace(each, cluster=cluster, token=token) for node, each in layouts.items()}
        names = [node.roles().identity for node in self._nodes]
        self._restore = {node: node.commands(told.get(node), nodes=names, gone=self._gone) for node in self._nodes}

    def _expect_no_journal(self) -> None:
        for node, restore in self._restore.items():
            node.ours = (restore.run, None)

    def _forget(self) -> None:
        self._restore = {}
        for node in self._nodes:
            node.forget()

    def _restart_workers(self) -> None:
        """Restart the kubelets of the workers; one that cannot be reached is told, for the restore does not need it."""
        self._idle_workers = []
        command = restart_kubelet()

        def restart(shell: NodeShell) -> None:
            shell.run(command.argv)
            # A kubelet calls its node so, whatever name we reach it by.
            self._restarted.add(shell.run(["hostname"]).strip().lower())

        for shell, error in failures(self._workers, restart).items():
            if ends_all(error):
                raise error
            self._idle_workers.append(
                f"the kubelet of {shell.name} was not restarted ({error}): {' '.join(command.argv)}"
            )

    # ---- judging -------------------------------------------------------------------------------------------

    def _wrong_nodes(self) -> Iterator[ClusterError]:
        seen = {node.name: node.look() for node in self._nodes}
        yield from judge_members(seen, gone=self._gone, nodes_of_api=self._view.nodes())
        yield from judge_api_servers(seen, leases=self._view.leases(self._nodes))
        yield from judge_versions({node.name: node.etcd_version() for node in self._members})
        yield from judge_clocks(seen)

    def _require_no_worker_gone(self, journals: Mapping[KubeadmNode, Mapping[str, Any] | None]) -> None:
        # That these are members, the restore saw in etcd's list, whatever else the API may call them.
        told = [name for each in journals.values() if each for key in ("members", "gone") for name in each.get(key, ())]
        doubted = [name for name in self._gone if name not in told]
        for error in judge_gone(doubted, nodes_of_api=self._view.nodes(again=True)) if doubted else ():
            raise error


def _cluster_of(layouts: Collection[EtcdLayout]) -> tuple[tuple[str, str], ...]:
    return tuple((each.name, each.peer_url) for each in layouts) if len(layouts) > 1 else ()
