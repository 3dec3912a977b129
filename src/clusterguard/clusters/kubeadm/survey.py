"""Look at a node in one round trip, touching nothing, and judge what was seen."""

from __future__ import annotations

import shlex
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from clusterguard.clusters.kubeadm.restore_commands import MANIFESTS, PODS, STAGING_DIR
from clusterguard.errors import ClusterError
from clusterguard.model.support import ETCDUTL_BUMPS_REVISIONS, parse_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PROGRAMS", "Seen", "complaints", "fits", "minor", "survey_script"]

PROGRAMS = (
    *("awk", "base64", "chown", "curl", "df", "flock", "grep", "kubectl"),
    *("sed", "stat", "sync", "systemctl", "timeout"),
)
_ASKED_FOR = (*PROGRAMS, "crictl", "ctr", "pgrep", "etcdutl")
# etcdutl writes the database and a small WAL beside the copy of the snapshot; the rest is rounding.
_MARGIN_BYTES = 128 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """The answers, by question."""

    answers: Mapping[str, Sequence[str]]

    @classmethod
    def parse(cls, text: str) -> Seen:
        """Read what the survey script printed."""
        answers: defaultdict[str, list[str]] = defaultdict(list)
        for line in text.splitlines():
            key, given, value = line.partition("=")
            # A question that the node cannot answer leaves nothing behind its =, which is as good as a no.
            if given and value:
                answers[key].append(value)
        return cls(dict(answers))

    def all(self, key: str) -> Sequence[str]:
        """Return every answer to a question."""
        return self.answers.get(key, ())

    def one(self, key: str) -> str:
        """Return the answer to a question, or ``""``."""
        return next(iter(self.all(key)), "")


def survey_script(*, data_dir: str, target: str, ask_etcd: str, pki: str) -> str:
    """Return the shell code that answers every question about a node at once."""
    data, new, programs = shlex.quote(data_dir), shlex.quote(target), " ".join(_ASKED_FOR)
    return "\n".join(
        (
            "exec 2>/dev/null",
            "echo uid=$(id -u)",
            "echo arch=$(uname -m)",
            f'for each in {programs}; do command -v $each >/dev/null && echo "program=$each"; done',
            f'for each in {" ".join(PODS)}; do test -e {MANIFESTS}/$each.yaml && echo "pod=$each"; done',
            f'for each in {MANIFESTS} /etc/kubernetes; do test -w $each && echo "writable=$each"; done',
            # A lost data directory is created again; a read-only one is not.
            f'test -w {data} && echo "writable={data_dir}"; test -e {data} || echo "writable={data_dir}"',
            f'test -e {pki}/healthcheck-client.key && echo "identity={pki}"',
            'test -e /etc/kubernetes/admin.conf && echo "admin=yes"',
            f"echo manifests_device=$(stat -c %d {MANIFESTS})",
            f"echo aside_device=$(stat -c %d {STAGING_DIR} || stat -c %d /etc/kubernetes)",
            f"echo data_device=$(stat -c %d {data})",
            f"echo member_device=$(stat -c %d {data}/member)",
            f'test -e {new}/member && echo "member={target}"',
            f'place={new}; while ! test -e "$place"; do place=$(dirname "$place"); done',
            'test -w "$place" && echo "target_writable=$place"',
            'echo free=$(df --output=avail -B1 "$place" | tail -n 1)',
            "echo etcdutl=$(etcdutl version | sed -n 's/^etcdutl version: //p')",
            f'echo etcd=$({ask_etcd}/version | sed -n \'s/.*"etcdserver":"\\([^"]*\\)".*/\\1/p\')',
            f"echo members=$({ask_etcd}/v3/cluster/member/list --data '{{}}')",
            "true",
        )
    )


_READ_ONLY = "a read-only file system? mount it writable"


def complaints(seen: Seen, *, data_dir: str, target: str, needed_bytes: int) -> list[ClusterError]:
    """Return what stands in the way of a restore; nothing was touched so far."""
    found = [*_means(seen), *_places(seen, data_dir=data_dir, target=target)]
    return [ClusterError(message, code=code, hint=hint) for code, message, hint in found] + _space(
        seen, target=target, needed_bytes=needed_bytes
    )


def _means(seen: Seen) -> Iterator[tuple[str, str, str]]:
    if seen.one("uid") != "0":
        yield "not-root", f"commands run there as user {seen.one('uid')}, not as root", "log in as root, or use sudo"
    missing = sorted(set(PROGRAMS) - set(seen.all("program")))
    if missing:
        yield "program-missing", f"the node has no {', '.join(missing)}", "install them there"
    if not {"crictl", "ctr", "pgrep"} & set(seen.all("program")):
        yield (
            "program-missing",
            "the node has none of crictl, ctr and pgrep, so it cannot be seen when containers have ended",
            "install crictl",
        )
    if not seen.one("identity"):
        yield (
            "no-health-certificate",
            "etcd's health check certificate is not where kubeadm puts it",
            "kubeadm certs renew all, there",
        )
    if not seen.one("admin"):
        yield (
            "no-admin-kubeconfig",
            "the administrator's kubeconfig is not where kubeadm puts it",
            "kubeadm init phase kubeconfig admin, there",
        )


def _places(seen: Seen, *, data_dir: str, target: str) -> Iterator[tuple[str, str, str]]:
    sealed = [place for place in (MANIFESTS, "/etc/kubernetes", data_dir) if place not in seen.all("writable")]
    if sealed:
        yield "not-writable", f"not writable, or not there: {', '.join(sealed)}", _READ_ONLY
    elif not seen.one("target_writable"):
        yield "not-writable", f"{target} cannot be written", _READ_ONLY
    if seen.one("manifests_device") != seen.one("aside_device"):
        yield (
            "own-file-system",
            f"{MANIFESTS} is a file system of its own, so manifests cannot be moved aside in one step",
            "unmount it",
        )
    if seen.one("member_device") and seen.one("member_device") != seen.one("data_device"):
        yield "own-file-system", f"{data_dir}/member is a file system of its own", "restore elsewhere: --data-dir"
    if target != data_dir and seen.one("member"):
        yield "target-taken", f"{target} holds an etcd member already", "name an empty or new directory"


def minor(version: str) -> str:
    """Return ``3.6`` of ``3.6.8``; ``""`` where that is not a version."""
    parts = version.removeprefix("v").split(".")
    return ".".join(parts[:2]) if len(parts) > 1 and all(part.isdigit() for part in parts[:2]) else ""


def fits(etcdutl: str, etcd: str, *, same_minor: bool = False) -> bool:
    """Return whether an etcdutl builds data for an etcd (``""`` if unknown): it raises revisions, and is not older."""
    program, server = parse_version(etcdutl), parse_version(etcd)
    if program is None or program < ETCDUTL_BUMPS_REVISIONS:
        return False
    if server is None:
        return True
    return program[:2] == server[:2] or (program[:2] > server[:2] and not same_minor)


def _space(seen: Seen, *, target: str, needed_bytes: int) -> list[ClusterError]:
    free = seen.one("free")
    if not free.isdigit():
        return [ClusterError(f"how much is free in {target} could not be asked")]
    # The copy of the snapshot and the database that is built from it lie there at the same time.
    wanted = 2 * needed_bytes + _MARGIN_BYTES
    if int(free) >= wanted:
        return []
    return [
        ClusterError(
            f"the copy of the snapshot and the restored database need {wanted:,} bytes in {target}, "
            f"and {int(free):,} are free",
            code="no-room",
            fields={"needed": wanted, "free": int(free)},
            hint="make room there, or restore into another file system (--data-dir)",
        )
    ]
