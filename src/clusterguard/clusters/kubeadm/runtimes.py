"""How a node is asked which containers of static pods run: crictl, else containerd's ctr, else the processes.

Each defines a shell function ``running`` that prints one id a line and fails when it could not ask: silence of a
runtime that does not answer must never pass for "gone".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

__all__ = ["RUNTIMES", "Runtime", "choose_runtime"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """One way to see containers: shell code that defines ``running``, and code that ends ``$id`` at once."""

    program: str
    listing: Callable[[Sequence[str], str], str]
    kill: str

    def running(self, pods: Sequence[str], *, data_dir: str) -> str:
        """Return shell code that defines ``running``, which lists the running containers of static pods."""
        return f"running() {{ {self.listing(pods, data_dir)}; }}"


def _by_crictl(pods: Sequence[str], _: str) -> str:
    names = "|".join(pods)
    return f'crictl ps --quiet --state Running --label io.kubernetes.pod.namespace=kube-system --name "^({names})$"'


def _by_ctr(pods: Sequence[str], _: str) -> str:
    namespace, name = r"labels.\"io.kubernetes.pod.namespace\"", r"labels.\"io.kubernetes.container.name\""
    filters = " ".join(f"{namespace}==kube-system,{name}=={pod}" for pod in pods)
    return (
        f"known=$(ctr -n k8s.io containers ls -q {filters} 2>/dev/null) && "
        "tasks=$(ctr -n k8s.io tasks ls 2>/dev/null) || return 1; "
        'for id in $known; do echo "$tasks" | grep "^$id .*RUNNING" | cut -d " " -f 1; done'
    )


def _by_process(pods: Sequence[str], data_dir: str) -> str:
    # An application may run an etcd of its own: only the one on this data directory is meant.
    patterns = [rf"etcd .*--data-dir={data_dir}( |$)" if pod == "etcd" else rf"{pod} " for pod in pods]
    return f'pgrep -f "^([^ ]*/)?({"|".join(patterns)})" || test $? = 1'


RUNTIMES = (
    Runtime(program="crictl", listing=_by_crictl, kill="crictl stop --timeout 0 $id"),
    Runtime(program="ctr", listing=_by_ctr, kill="ctr -n k8s.io tasks kill --signal SIGKILL $id"),
    Runtime(program="pgrep", listing=_by_process, kill="kill -9 $id"),
)


def choose_runtime(programs: Collection[str]) -> Runtime | None:
    """Return the first way that a node with these programs offers, or None."""
    return next((runtime for runtime in RUNTIMES if runtime.program in programs), None)
