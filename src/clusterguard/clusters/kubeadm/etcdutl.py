"""Find an etcdutl that builds data for the etcd of a node: on the node, in etcd's image, or this machine's own."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from clusterguard.clusters.kubeadm.commands import STAGING_DIR
from clusterguard.clusters.kubeadm.survey import fits, minor
from clusterguard.errors import ClusterError, ProgramError
from clusterguard.model.support import ETCDUTL_BUMPS_REVISIONS
from clusterguard.process import run

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from clusterguard.clusters.kubeadm.etcd_setup import EtcdSetup
    from clusterguard.clusters.kubeadm.survey import Seen
    from clusterguard.clusters.node_shell import NodeShell

__all__ = ["find_etcdutl", "version_in_image"]


def find_etcdutl(
    shell: NodeShell,
    etcd: EtcdSetup,
    seen: Seen,
    *,
    live: str,
    target: str,
    run_id: str,
    own: Callable[[], Path] | None,
) -> tuple[tuple[str, ...], Path | None]:
    """Return the words that run it on the node, and the program of this machine that is copied there first, if any.

    Args:
        shell: The node.
        etcd: How its member is started.
        seen: What the node answered.
        live: etcd's version, or ``""`` if unknown.
        target: The data directory to restore into.
        run_id: What the names of this run end in.
        own: Gives etcdutl on this machine.

    Raises:
        ClusterError: There is none that fits.
    """
    there = seen.one("etcdutl")
    if there and fits(there, live, same_minor=True):
        return (seen.one("etcdutl_path"),), None
    inside = ""
    if etcd.image and "ctr" in seen.all("program"):
        words = _in_image(etcd.image, place=target, run_id=run_id)
        inside = _version_of(shell, words)
        if inside and fits(inside, live):
            return words, None
    if own is not None and sys.platform == "linux" and platform.machine() == seen.one("arch"):
        program = own()
        if fits(_told_version(run([program, "version"], timeout_seconds=20).stdout, "etcdutl version"), live):
            return (f"{STAGING_DIR}/etcdutl-{run_id}",), program
    raise ClusterError(
        f"{shell.name}: no etcdutl for etcd {live or 'of unknown version'}: {there or 'none'} on the node, "
        f"{inside or 'none'} in etcd's image, and none of this machine fits",
        code="etcdutl-missing",
        fields={"node": shell.name, "etcd": live},
        hint=f"put etcdutl {minor(live) or 'of the minor version of etcd'}, "
        f"{'.'.join(map(str, ETCDUTL_BUMPS_REVISIONS))} or newer, on the node's PATH",
    )


def version_in_image(shell: NodeShell, image: str, *, run_id: str) -> str:
    """Return what the image of an etcd that does not answer says of itself, or ``""`` if it cannot be asked."""
    if not image:
        return ""
    try:
        answer = shell.run(["ctr", "-n", "k8s.io", "run", "--rm", image, f"clusterguard-{run_id}", "etcd", "--version"])
    except ProgramError:
        return ""
    return _told_version(answer, "etcd Version")


def _in_image(image: str, *, place: str, run_id: str) -> tuple[str, ...]:
    return (
        "ctr",
        *("-n", "k8s.io", "run", "--rm", "--mount", f"type=bind,src={place},dst={place},options=rbind:rw"),
        image,
        f"clusterguard-{run_id}",
        "etcdutl",
    )


def _version_of(shell: NodeShell, etcdutl: Sequence[str]) -> str:
    # The place to restore into need not be there yet.
    words = [
        word if not word.startswith("type=bind") else "type=bind,src=/tmp,dst=/tmp,options=rbind:ro" for word in etcdutl
    ]
    try:
        answer = shell.run([*words, "version"])
    except ProgramError:
        return ""
    return _told_version(answer, "etcdutl version")


def _told_version(answer: str, after: str) -> str:
    return next((line.rpartition(" ")[2] for line in answer.splitlines() if line.startswith(after)), "")
