"""What a restore does to the etcd member of one node, whether a kubelet or systemd starts it. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.clusters.kubeadm.commands import ASIDE, MANIFESTS, POLL, STAGING_DIR, Command, in_shell, until
from clusterguard.clusters.kubeadm.etcd_units import EtcdUnit, start_unit, stop_unit
from clusterguard.clusters.kubeadm.manifests import EtcdManifest, relocation

if TYPE_CHECKING:
    from pathlib import Path

    from clusterguard.clusters.base import EtcdLayout
    from clusterguard.clusters.kubeadm.commands import Timeouts
    from clusterguard.clusters.kubeadm.etcd_setup import EtcdSetup
    from clusterguard.clusters.kubeadm.static_pods import StaticPods

__all__ = ["MemberCommands"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberCommands:
    """The parts of a restore that concern etcd and its data.

    Attributes:
        etcd: How the member is started.
        layout: What etcdutl must be told: all members of the restored cluster, and a token of its own.
        etcdutl: The words that run it on the node.
        own_etcdutl: The program of this machine that is copied there first, or None.
        target: The data directory to restore into.
        static: Stops and starts static pods.
        run: What the names of this run end in.
        timeouts: How long things may take.
    """

    etcd: EtcdSetup
    layout: EtcdLayout
    etcdutl: tuple[str, ...]
    own_etcdutl: Path | None
    target: str
    static: StaticPods
    run: str
    timeouts: Timeouts

    @property
    def relocates(self) -> bool:
        """Whether the member moves to another directory."""
        return self.target != self.etcd.host_dir

    @property
    def work(self) -> str:
        """The folder in the data directory that everything is built in."""
        return f"{self.target}/.clusterguard"

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

    @property
    def waste(self) -> str:
        """What nobody needs once a restore is over, as words of a shell."""
        return f"{self.work}/prepared-* {self.work}/snapshot-*.db* {STAGING_DIR}/etcdutl-* {self.new_manifest}"

    def build(self, snapshot: Path, *, bump_revision: int) -> tuple[Command, ...]:
        """Build the new data directory beside the live one, while that serves."""
        copy = f"{self.work}/snapshot-{self.run}.db"
        restore = (
            *self.etcdutl,
            *self.layout.restore_words(copy, data_dir=self.prepared, bump_revision=bump_revision),
        )
        commands = [
            Command(why="folders of the restore", argv=("mkdir", "-p", "-m", "700", ASIDE, self.target, self.work)),
            Command(why="the snapshot", source=snapshot, target=copy),
            Command(
                why="build the new data directory; watchers must never see the revision go back",
                argv=restore,
                seconds=self.timeouts.build,
            ),
            self._owned(),
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
        if self.relocates and isinstance(self.etcd, EtcdManifest):
            edits = " ".join(f"-e '{expression}'" for expression in relocation(self.etcd, self.target))
            script = f"sed {edits} {MANIFESTS}/etcd.yaml > {self.new_manifest} && sync {self.new_manifest}"
            commands.append(in_shell("the manifest for the new data directory", script))
        return tuple(commands)

    def _owned(self) -> Command:
        user = self.etcd.user if isinstance(self.etcd, EtcdUnit) else ""
        if user:
            # A data directory that was lost was made again just now, by root.
            script = f"chown {user}: {self.target} && chown -R {user}: {self.prepared}"
            return in_shell("it belongs to whom etcd runs as", script)
        return Command(
            why="it belongs to whom the old one belongs to",
            argv=("chown", "-R", f"--reference={self.etcd.host_dir}", self.prepared),
        )

    def stop(self) -> tuple[Command, ...]:
        """Stop etcd and see it gone."""
        patience = self.timeouts.member_grace if len(self.layout.cluster) > 1 else 0
        if isinstance(self.etcd, EtcdUnit):
            return stop_unit(self.timeouts, patience=patience)
        return self.static.stop(("etcd",), patience=patience)

    def swap_in(self) -> tuple[Command, ...]:
        """Put the new data directory in place by renaming; the old member is kept."""
        live, before = f"{self.etcd.host_dir}/member", f"{self.work}/before"
        move_in = f"mv -T {self.prepared}/member {self.target}/member && rm -rf {self.prepared} && sync {self.target}"
        commands = [in_shell("the restored member goes live", move_in)]
        if not self.relocates:
            # `none` says that there was no member: a missing before/member alone would look like a swap not done.
            aside = (
                f"mkdir -p -m 700 {before} && if test -e {live}; then mv -T {live} {before}/member; "
                f"else touch {before}/none; fi && sync {before} {self.target}"
            )
            commands.insert(0, in_shell("the old member is kept", aside))
        return tuple(commands)

    def start(self) -> tuple[Command, ...]:
        """Start etcd on the restored data."""
        if isinstance(self.etcd, EtcdUnit):
            return start_unit()
        manifest = self.new_manifest if self.relocates else f"{ASIDE}/etcd.yaml"
        return (Command(why="the kubelet starts etcd", argv=("mv", "-T", manifest, f"{MANIFESTS}/etcd.yaml")),)

    def start_again(self) -> tuple[Command, ...]:
        """Start etcd as it was started before the restore; safe to repeat."""
        return start_unit() if isinstance(self.etcd, EtcdUnit) else self.static.put_back(("etcd",))

    def keep_running(self) -> tuple[Command, ...]:
        """Start a unit that its host may not have started since; a static pod runs by its manifest. Safe to repeat."""
        return start_unit() if isinstance(self.etcd, EtcdUnit) else ()

    def wait(self) -> tuple[Command, ...]:
        """Wait until etcd serves."""
        loop = f"until {self.is_ready}; do sleep {POLL}; done 2>/dev/null"
        return (until(loop, "etcd serves", seconds=self.timeouts.etcd),)

    @property
    def is_ready(self) -> str:
        """The condition of a shell that holds once etcd serves."""
        ask = f"curl --silent --output /dev/null --write-out %{{http_code}} --max-time 2 {self.etcd.identity.curl}"
        # /readyz exists since etcd 3.5.11. Older ones are asked for a read, as it does itself, and not for /health:
        # that complains of an alarm in the snapshot, which is reported or disarmed later, as /readyz would of CORRUPT.
        return (
            f"case $({ask} '{self.etcd.client_url}/readyz?exclude=data_corruption') in 200) ;; "
            f'404) test $({ask} --data \'{{"key":"AA=="}}\' {self.etcd.client_url}/v3/kv/range) = 200 ;; '
            "*) false ;; esac"
        )

    def keep(self) -> tuple[Command, ...]:
        """Put the old member and manifest under names that mean done; safe to repeat."""
        before, kept = f"{self.work}/before", f"{self.work}/kept"
        # Synced before the journal goes: without one, what is called "before" would be taken for the next restore's.
        keep = f"if test -e {before}; then rm -rf {kept} && mv -T {before} {kept} && sync {self.work}; fi"
        # A manifest still aside now is that of the old data directory, after a move to a new one.
        old = f"if test -e {ASIDE}/etcd.yaml; then mv -T {ASIDE}/etcd.yaml {STAGING_DIR}/etcd.yaml.before; fi"
        return (in_shell("the old member and manifest, under names that mean done", f"{keep} && {old}"),)

    def old_data_back(self) -> tuple[Command, ...]:
        """Undo what `swap_in` did, however far it came; safe to repeat."""
        live, before, failed = f"{self.target}/member", f"{self.work}/before", f"{self.work}/failed"
        if self.relocates:
            return (in_shell("the old data", f"rm -rf {live} {self.work}"),)
        # Each line undoes one rename, and only where that rename was done: before/member and before/none are the
        # witnesses, and the last thing that goes.
        script = (
            f"set -e; rm -rf {failed}; mkdir -p -m 700 {failed}; "
            f"if test -e {before}/member; then if test -e {live}; then mv -T {live} {failed}/member; fi; "
            f"mv -T {before}/member {live}; "
            f"elif test -e {before}/none; then if test -e {live}; then mv -T {live} {failed}/member; fi; "
            f"rm {before}/none; fi; sync {self.target}; rm -rf {before} {failed}"
        )
        return (in_shell("the old data", script),)
