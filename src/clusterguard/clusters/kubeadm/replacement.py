"""Replace the member of one node by an empty one: its commands, and how they are run there.

The node's journal says so (`Phase.REPLACING`), and beside what a restore keeps there lie

    DATA/.clusterguard/
        broken/                 what the member had, while the new one is not proven
        replaced/               the same once it is
    /etc/kubernetes/clusterguard/
        manifests/              etcd's manifest as it was, and the API server's, which goes by its own member alone
        etcd.yaml.before        the former, once the new member is proven

A restore that comes in between gives the node back what it had, as broken as that was.
"""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from clusterguard.clusters.base import RunbookLine, RunbookStep
from clusterguard.clusters.kubeadm.commands import ASIDE, JOURNAL, MANIFESTS, STAGING_DIR, Command
from clusterguard.clusters.kubeadm.etcd_setup import host_of
from clusterguard.clusters.kubeadm.manifests import EtcdManifest, joining, never_beginning
from clusterguard.clusters.kubeadm.restore_commands import Phase, RestoreCommands
from clusterguard.clusters.kubeadm.static_pods import restart_kubelet
from clusterguard.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from clusterguard.clusters.kubeadm.commands import Stages
    from clusterguard.clusters.kubeadm.member_commands import MemberCommands
    from clusterguard.clusters.kubeadm.node import KubeadmNode

__all__ = ["KubeadmMember", "ReplaceCommands"]

_API = "kube-apiserver"
# The slowest disk and line that a member is filled over.
_SLOWEST_BYTES_PER_SECOND = 10 * 1024 * 1024


class ReplaceCommands(RestoreCommands):
    """The commands that replace a node's member, each step in stages as those of a restore."""

    __slots__ = ()

    @classmethod
    def of(cls, node: KubeadmNode, journal: Mapping[str, Any] | None) -> ReplaceCommands:
        """Return those of a node, as an interrupted run began them if there is a journal.

        Raises:
            ClusterError: It has no etcd that a kubelet starts (``unit-not-replaceable``).
        """
        if not isinstance(node.etcd, EtcdManifest):
            raise ClusterError(
                f"etcd on {node.name} is no static pod, so its member is not replaced by clusterguard",
                code="unit-not-replaceable",
                fields={"node": node.name},
                hint="etcdctl member remove, stop it and move its data aside, etcdctl member add, then start it with "
                "--initial-cluster-state=existing",
            )
        found = node.commands_of(journal or {})
        return cls(**{each.name: getattr(found, each.name) for each in fields(found)})

    @property
    def etcd(self) -> MemberCommands:
        """Its member's commands."""
        if self.member is None:
            raise TypeError("there is no member to replace")
        return self.member

    @property
    def _data(self) -> str:
        return self.etcd.etcd.host_dir

    @property
    def _work(self) -> str:
        return self.etcd.work

    @property
    def _broken(self) -> str:
        return f"{self._work}/broken"

    @property
    def joining_manifest(self) -> str:
        """The manifest by which it joins."""
        return self.etcd.new_manifest

    @property
    def replaced(self) -> str:
        """Where the old data is once the new member is proven."""
        return f"{self._work}/replaced"

    def set_aside(self) -> Stages:
        """Stop the API server and etcd, and rename the data; that of a replacement that did not end goes."""
        live, part = f"{self._data}/member", f"{self._broken}.part"
        # A rename at the end: where `broken` is, all that was there before is in it.
        aside = (
            f"set -e; mkdir -p -m 700 {self._data} {self._work}; if test -e {self._broken}; then rm -rf {live}; "
            f"else mkdir -p -m 700 {part}; if test -e {live}; then mv -T {live} {part}/member; fi; "
            f"mv -T {part} {self._broken}; fi; sync {self._work} {self._data}"
        )
        journal = Command(
            why="whoever comes next knows that a member is being replaced",
            argv=self._write({JOURNAL: Phase.REPLACING}),
        )
        stop_api = self.static.stop(self._api_server, brief=_API)
        data = Command(why="what the member had is kept", argv=("sh", "-c", aside))
        return ((journal,), stop_api, (*self.etcd.stop(), data))

    def start_empty(self, members: Mapping[str, str]) -> Stages:
        """Start etcd without data, as one that joins members (peer URLs by name), and wait until it serves."""
        new = self.joining_manifest
        write = f"{_joined(members)} {ASIDE}/etcd.yaml > {new} && sync {new}"
        # Never with the manifest that it had: kubeadm's first node would begin another cluster with it.
        start = f"mv -T {self.joining_manifest} {MANIFESTS}/etcd.yaml && sync {MANIFESTS}"
        return (
            (Command(why="a manifest by which it joins the members that there are", argv=("sh", "-c", write)),),
            (
                Command(why="the kubelet starts etcd", argv=("sh", "-c", start)),
                restart_kubelet("a kubelet waits ever longer for a container that did not start"),
            ),
            self.etcd.wait(),
        )

    def show_joining(self, members: Mapping[str, str]) -> Command:
        """Return the command that prints the manifest by which it would join; nothing is written."""
        script = (
            f"for place in {ASIDE} {MANIFESTS}; do if test -e $place/etcd.yaml; then "
            f"{_joined(members)} $place/etcd.yaml; exit; fi; done; false"
        )
        return Command(why="can a manifest be written by which it joins?", argv=("sh", "-c", script))

    def finish(self) -> Stages:
        """Start the API server, keep the old data under the name that means done, and remove the journal last."""
        return (
            self.static.put_back(self._api_server),
            self._wait_for_api(),
            (Command(why="the old data and manifest, under names that mean done", argv=("sh", "-c", self._done())),),
            *self.discard(),
        )

    def give_up(self) -> Stages:
        """Let the node have again what it had, or keep a new member that was started already; waits for neither."""
        live, saved, new = f"{self._data}/member", f"{ASIDE}/etcd.yaml", self.joining_manifest
        edits = " ".join(f"-e '{expression}'" for expression in never_beginning())
        back = (
            f"set -e; if test -e {MANIFESTS}/etcd.yaml; then {self._done()}; "
            f"else for each in {self._broken} {self._broken}.part; do "
            f"if test -e $each/member; then rm -rf {live}; mv -T $each/member {live}; fi; done; "
            # Nothing can be given back. Started as it was, it might begin a cluster of its own, for an API server.
            f"if test -e {saved} && ! test -e {live}; then sed {edits} {saved} > {new}; sync {new}; "
            f"mv -fT {new} {saved}; fi; fi; "
            f"for each in {self._broken} {self._broken}.part; do if test -e $each; then rmdir $each; fi; done; "
            f"if test -d {self._work}; then sync {self._work}; fi"
        )
        return (
            (Command(why="what the member had", argv=("sh", "-c", back)),),
            (*self.static.put_back(("etcd", *self._api_server)), restart_kubelet("it starts what was put back")),
            *self.discard(),
        )

    def _done(self) -> str:
        broken, replaced, saved = self._broken, self.replaced, f"{ASIDE}/etcd.yaml"
        return (
            f"if test -e {broken}; then rm -rf {replaced} && mv -T {broken} {replaced} && sync {self._work}; fi && "
            f"if test -e {saved}; then mv -fT {saved} {STAGING_DIR}/etcd.yaml.before; fi"
        )

    def has_nothing(self) -> Command:
        """Return the command that says ``yes`` if there is nothing that could be given back."""
        places = (f"{MANIFESTS}/etcd.yaml", *(f"{each}/member" for each in (self._data, self._broken)))
        lacking = " && ".join(f"! test -e {each}" for each in (*places, f"{self._broken}.part/member"))
        return Command(why="is there data?", argv=("sh", "-c", f"if {lacking}; then echo yes; fi"))

    def asks(self) -> Command:
        """Return the command that says ``yes`` if etcd serves."""
        return Command(why="does it serve?", argv=("sh", "-c", f"if {self.etcd.is_ready}; then echo yes; fi"))


class KubeadmMember:
    """The `MemberPlace` of a node that kubeadm made.

    Args:
        node: It.
        others: The other nodes with members.
        client_url: Where this machine reaches the member, by default as it advertises.
    """

    def __init__(self, node: KubeadmNode, *, others: Sequence[KubeadmNode] = (), client_url: str = "") -> None:
        self._node = node
        journal = node.journal()
        if journal is not None and journal["phase"] != Phase.REPLACING:
            raise ClusterError(
                f"a restore was interrupted on {node.name}",
                code="restore-interrupted",
                fields={"node": node.name},
                hint="clusterguard etcd recover, with all nodes named",
            )
        self.begun = journal is not None
        self._commands = ReplaceCommands.of(node, journal)
        self._others = tuple(others)
        self.name = node.member.name
        self.peer_url = node.member.peer_url
        self.client_url = client_url or node.member.advertised_url
        node.ours = (self._commands.run, None)

    def serves(self) -> bool:
        """Return whether its etcd says so on the node itself."""
        return self._node.shell.run(self._commands.asks().argv).strip() == "yes"

    def check(self, *, needed_bytes: int) -> None:
        """Check what the commands need; all that is missing is told at once.

        Raises:
            ClusterError: Something is (``node-unfit``).
        """
        self._wait_for(needed_bytes)
        found = self._node.complaints(needed_bytes=needed_bytes)
        found = [each for each in found if each.code != "rollback-incomplete"]  # what is aside is ours
        if self._others and self._node.etcd_authority() not in {each.etcd_authority() for each in self._others}:
            found.append(
                ClusterError(
                    "its etcd trusts another authority than that of the other nodes",
                    code="other-cluster",
                    hint="name a node of that very cluster",
                )
            )
        host, pki = host_of(self.peer_url), self._node.member.identity.ca.rpartition("/")[0]
        if not self._node.look().seen.covers(f"{pki}/peer.crt", host):
            # It would be added, and never be let in: as after a node got another address.
            found.append(
                ClusterError(
                    f"its etcd is reached by others at {host}, and its certificate for them is not for that",
                    code="certificate-address",
                    hint="give it the old address again, or a new certificate: kubeadm init phase certs etcd-peer",
                )
            )
        members = {self.name: self.peer_url}
        try:
            self._require_joining(self._node.shell.run(self._commands.show_joining(members).argv), members)
        except ClusterError as error:
            # Seen later, it would be removed by then.
            found.append(error)
        if found:
            raise ClusterError(
                f"{self._node.name}: {'; '.join(each.message for each in found)}",
                code="node-unfit",
                fields={"problems": [each.code for each in found]},
                hint=found[0].hint,
            )

    def _wait_for(self, needed_bytes: int) -> None:
        """Wait longer until it serves where the others have much to send it."""
        member = self._commands.etcd
        times = member.timeouts
        times = replace(times, etcd=times.etcd + needed_bytes // _SLOWEST_BYTES_PER_SECOND)
        self._commands = replace(self._commands, member=replace(member, timeouts=times))

    def set_aside(self) -> None:
        """Stop its etcd and its API server, and rename its data."""
        self._perform(self._commands.set_aside())

    def start_empty(self, members: Mapping[str, str]) -> None:
        """Start it without data, as one that joins members, and wait until it serves."""
        written, *rest = self._commands.start_empty(members)
        self._perform((written,))
        self._require_joining(self._node.shell.run(["cat", self._commands.joining_manifest]), members)
        self._perform(tuple(rest))

    def _require_joining(self, text: str, members: Mapping[str, str]) -> None:
        where = f"{self._node.name}:{self._commands.joining_manifest}"
        found, etcd = EtcdManifest.parse(text, where=where), self._node.etcd
        if not isinstance(etcd, EtcdManifest) or found != replace(
            etcd, initial_cluster=tuple(members.items()), joins=True
        ):
            raise ClusterError(
                f"{self._node.name}: the manifest could not be rewritten for a member that joins",
                code="manifest-not-rewritable",
                hint="write --initial-cluster in etcd.yaml as kubeadm does: a line of its own, without quotes",
            )

    def finish(self) -> str:
        """Start its API server, and give the old data the name that means done; return where it is."""
        self._perform(self._commands.finish())
        return f"{self._commands.replaced} on {self._node.name}"

    def runbook(
        self, *, remove: Sequence[str], disarm: Sequence[str], members: Mapping[str, str], asked: KubeadmMember
    ) -> tuple[RunbookStep, ...]:
        """Return every command of its replacement, in order; nothing is touched.

        Args:
            remove: IDs of what is to be removed from the members, hexadecimal.
            disarm: Alarms that nothing else would end then, such as ``CORRUPT on 1f``.
            members: Those that it joins, itself among them: peer URLs by name.
            asked: A member that serves, on whose node the others are told.
        """
        tell = f"curl --fail --silent --show-error {asked._node.member.identity.curl}"
        api = f"{asked._node.member.client_url}/v3"
        url = f"{api}/cluster/member"
        removal = [_told("it leaves the members", tell, f"{url}/remove", ID=str(int(each, 16))) for each in remove]
        for kind, _, id_ in (each.partition(" on ") for each in disarm):
            removal.append(_told("its alarm ends, which keeps all others from serving", tell,
                                 f"{api}/maintenance/alarm", action="DEACTIVATE", memberID=str(int(id_, 16)),
                                 alarm=kind))  # fmt: skip
        addition = _told("the others take it in, once they have missed it for 5 s", tell, f"{url}/add",
                         peerURLs=[self.peer_url])  # fmt: skip
        commands = self._commands
        return (
            RunbookStep(name="stop the member, and keep its data aside", lines=self._lines(commands.set_aside())),
            RunbookStep(name="remove the member", lines=asked._lines((tuple(removal),))),
            RunbookStep(name="add it anew", lines=asked._lines(((addition,),))),
            RunbookStep(name="start it empty", lines=self._lines(commands.start_empty(members))),
            RunbookStep(name="start what depends on it", lines=self._lines(commands.finish())),
        )

    def _lines(self, stages: Stages) -> tuple[RunbookLine, ...]:
        name, line = self._node.name, self._node.line
        return tuple(RunbookLine(why=f"{name}: {each.why}", line=line(each)) for stage in stages for each in stage)

    def _perform(self, stages: Stages) -> None:
        for stage in stages:
            self._node.perform(stage, log_of="etcd")


def _joined(members: Mapping[str, str]) -> str:
    edits = " ".join(f"-e '{expression}'" for expression in joining(members))
    return f"sed {edits}"


def _told(why: str, tell: str, url: str, **body: object) -> Command:
    return Command(why=why, argv=("sh", "-c", f"{tell} --data '{json.dumps(body)}' {url}"))
