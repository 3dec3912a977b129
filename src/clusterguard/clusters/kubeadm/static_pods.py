"""Stop and start static pods: a kubelet runs those whose manifests are in its folder. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.clusters.kubeadm.commands import ASIDE, MANIFESTS, POLL, Command, in_shell, until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from clusterguard.clusters.kubeadm.commands import Timeouts
    from clusterguard.clusters.kubeadm.runtimes import Runtime

__all__ = ["StaticPods", "restart_kubelet"]

_FORGET = "the kubelet forgets what that state does not know, and looks at every pod again"


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticPods:
    """Moves manifests of one node aside and back.

    Attributes:
        runtime: How containers are asked for.
        timeouts: How long things may take.
        data_dir: etcd's, as its command line names it: an application may run an etcd of its own.
    """

    runtime: Runtime
    timeouts: Timeouts
    data_dir: str

    def stop(self, pods: Sequence[str], *, brief: str = "", patience: int = 0) -> tuple[Command, ...]:
        """Move manifests aside and see the containers gone.

        Args:
            pods: The names of the static pods.
            brief: One that does not get the full grace, but ``api_grace``.
            patience: Seconds after which any that is left is killed, by default ``stubborn``.
        """
        if not pods:
            return ()
        # A manifest that stands aside already is the original: what is live then is ours and goes.
        move = (
            f"mkdir -p -m 700 {ASIDE}; for pod in {' '.join(pods)}; do "
            f"if test -e {ASIDE}/$pod.yaml; then rm -f {MANIFESTS}/$pod.yaml; "
            f"elif test -e {MANIFESTS}/$pod.yaml; then mv -T {MANIFESTS}/$pod.yaml {ASIDE}/$pod.yaml; fi; done; "
            f"sync {ASIDE} {MANIFESTS}"
        )
        named = ", ".join(pods)
        commands = [in_shell(f"the kubelet stops {named}", move)]
        if brief in pods:
            listing = self.runtime.running((brief,), data_dir=self.data_dir)
            grace = (
                f"{listing}; end=$(($(date +%s) + {self.timeouts.api_grace})); "
                f'while test $(date +%s) -lt $end && ids=$(running) && test -n "$ids"; do sleep {POLL}; done; '
                f"for id in $(running); do {self.runtime.kill}; done; true"
            )
            why = f"{brief} keeps no state: it gets {self.timeouts.api_grace} s, then it is killed"
            commands.append(in_shell(why, grace))
        listing = self.runtime.running(pods, data_dir=self.data_dir)
        # A kubelet that was restarted since the API server went away ends nothing before it hears from it again.
        # By the clock: where the machine is busy, each look alone takes longer than the pause between two.
        gone = (
            f"{listing}; end=$(($(date +%s) + {patience or self.timeouts.stubborn})); "
            f'while ids=$(running) || exit 1; test -n "$ids"; do sleep {POLL}; '
            f"if test $(date +%s) -ge $end; then for id in $ids; do {self.runtime.kill}; done; fi; done"
        )
        return (*commands, until(gone, f"see their containers gone: {named}", seconds=self.timeouts.gone))

    def put_back(self, pods: Sequence[str]) -> tuple[Command, ...]:
        """Put manifests back that were moved aside; safe to repeat."""
        if not pods:
            return ()
        move = (
            f"if test -d {ASIDE}; then for pod in {' '.join(pods)}; do if test -e {ASIDE}/$pod.yaml; then "
            f"mv -T {ASIDE}/$pod.yaml {MANIFESTS}/$pod.yaml; fi; done; sync {MANIFESTS} {ASIDE}; fi"
        )
        return (in_shell(f"the kubelet starts {', '.join(pods)}", move),)


def restart_kubelet(why: str = _FORGET) -> Command:
    """Return the command that lets a node's kubelet look at everything again, as workers must after a restore, too."""
    return Command(why=why, argv=("systemctl", "restart", "kubelet"))
