"""What is in a volume that Velero's mover would drop without a word: looked for in a container that mounts it.

File-system backups and moved snapshots leave out FIFOs, sockets and devices, make several files of one with several
names, and fill holes; the backup is Completed. Source of the facts: Velero 1.18.3, run.
"""

from __future__ import annotations

import stat
from collections import Counter
from typing import TYPE_CHECKING, Final

from clusterguard.errors import ClusterError, WaitTimeoutError
from clusterguard.velero.findings import OutcomeFinding, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from clusterguard.clusters.kube import Json, KubeClient
    from clusterguard.clusters.kube_exec import Container
    from clusterguard.velero.claims import ClaimedVolume

__all__ = ["not_kept"]

_MOST_OUTPUT: Final = 64 << 20
_HOLE: Final = 1 << 20  # what a file takes may be less than its size by a little, without any hole
# A line for each: its type and mode in hexadecimal digits, names, size, blocks, size of one. No names, which may hold
# anything.
_FIND: Final = 'find "$1" -xdev ! -type d ! -type l -exec stat -c "%f %h %s %b %B" {} + && echo end'
_SPECIAL: Final = {
    stat.S_IFIFO: "FIFO",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}


def not_kept(
    api: KubeClient, claims: Sequence[ClaimedVolume], *, seconds: float
) -> tuple[list[OutcomeFinding], list[str]]:
    """Return what is in volumes that a mover does not keep, and the claims that could not be looked into.

    Args:
        api: The cluster.
        claims: Those whose files are copied; block devices are copied whole.
        seconds: How long it may take to look into one.
    """
    findings, unseen = [], []
    for claim in claims:
        if claim.block or not claim.volume:
            continue
        try:
            found = _look_into(api, claim, seconds=seconds)
        except (ClusterError, WaitTimeoutError, ValueError) as error:
            found = None
            unseen.append(f"{claim}: {error}")
        if found:
            what = ", ".join(f"{number:,} {kind}(s)" for kind, number in sorted(found.items()))
            detail = f"{claim}: its data is copied without what Velero's mover does not keep: {what}"
            findings.append(OutcomeFinding(rule=Rule.NOT_KEPT, detail=detail))
    return findings, unseen


def _look_into(api: KubeClient, claim: ClaimedVolume, *, seconds: float) -> Counter[str]:
    """Return how many of each kind there are.

    Raises:
        ValueError: No container that runs has it, or it has not got the tools.
    """
    from clusterguard.clusters.kube_exec import run_in

    where = next(_mounts(api, claim), None)
    if where is None:
        raise ValueError("no Pod that runs mounts it")
    container, path = where
    done = run_in(api, container, ["sh", "-c", _FIND, "sh", path], timeout_seconds=seconds, most_output=_MOST_OUTPUT)
    if done.exit_code or not done.stdout.endswith(b"end\n"):
        raise ValueError(f"{container} cannot look into it: {done.last_words()}")
    return Counter(kind for line in done.stdout.splitlines()[:-1] for kind in _kinds(line))


def _kinds(line: bytes) -> Iterator[str]:
    mode, links, size, blocks, of = line.split()
    kind = stat.S_IFMT(int(mode, 16))
    if kind in _SPECIAL:
        yield _SPECIAL[kind]
    elif int(links) > 1:
        yield "hard link"
    if kind == stat.S_IFREG and int(size) - int(blocks) * int(of) >= _HOLE:
        yield "sparse file"


def _mounts(api: KubeClient, claim: ClaimedVolume) -> Iterator[tuple[Container, str]]:
    """Yield running containers that mount a claim, and where."""
    from clusterguard.clusters.kube_exec import Container

    for name in claim.pods:
        pod = api.get(api.resource("Pod", api_version="v1"), name, claim.namespace)
        volumes = {
            each["name"]
            for each in pod["spec"].get("volumes") or ()
            if (each.get("persistentVolumeClaim") or {}).get("claimName") == claim.name
        }
        running = _running(pod)
        for container in pod["spec"]["containers"]:
            for mount in container.get("volumeMounts") or ():
                if mount["name"] in volumes and container["name"] in running:
                    yield Container(namespace=claim.namespace, pod=name, name=container["name"]), mount["mountPath"]


def _running(pod: Json) -> set[str]:
    states = (pod.get("status") or {}).get("containerStatuses") or ()
    return {each["name"] for each in states if "running" in (each.get("state") or {})}
